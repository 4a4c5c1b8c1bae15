"""What the dashboard in a browser is driven by, and a log folder to show."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
from browser import start_browser, wait_until
from selenium.webdriver.common.by import By

from bc_core import Comparison, compare
from bc_tensorboard import summary

SIZE, CLASSES = 600, 30
# What a page could take for something else than text.
HOSTILE = [
    "<img src=x onerror=document.body.innerHTML=1>",
    "\"'&amp;",
    "🐱 käfer",
    "</script><b>bold</b>",
    "x" * 10_000,
]
NAMES = [*HOSTILE, *(f"class {i}" for i in range(len(HOSTILE), CLASSES))]
TEXTS = [f"photo {i} {HOSTILE[i % len(HOSTILE)]}" for i in range(SIZE)]
PREFIX = "/some/where"


def made(seed: int, **options) -> Comparison:
    """An update of one and the same h1."""
    random = np.random.default_rng(0)
    target = random.integers(0, CLASSES, SIZE)
    h1 = np.where(random.random(SIZE) < 0.15, random.integers(0, CLASSES, SIZE), target)
    random = np.random.default_rng(seed)
    h2 = np.where(random.random(SIZE) < 0.12, random.integers(0, CLASSES, SIZE), target)
    return compare(target, h1, h2, num_classes=CLASSES, class_names=NAMES, metadata=TEXTS, **options)


PLAIN = {step: made(10 + step, step=step, lambda_c=0.0) for step in (1, 2, 5)}
OTHER = {step: made(20 + step, step=step, lambda_c=4.0) for step in (2, 5)}
IMITATION = made(30, step=5, lambda_c=16.0)


def write_logs(logdir: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (SIZE, 8, 8), dtype=np.uint8)
    for comparison in PLAIN.values():
        summary.comparison(logdir / "plain", comparison, dataset="val", dissonance="new error", images=pixels)
    for comparison in OTHER.values():
        summary.comparison(logdir / "other", comparison, dataset="val", dissonance="new error")
    summary.comparison(logdir / "imitation", IMITATION, dataset="val", dissonance="strict imitation")
    summary.comparison(logdir / "imitation", IMITATION, dataset=HOSTILE[0], dissonance="strict imitation")
    perfect = compare([0, 1, 2], [0, 1, 2], [0, 1, 2])
    summary.comparison(logdir / "perfect", perfect, step=0, dataset="train")


class Page:
    """The tab of TensorBoard, or the part of it in the frame of the plugin."""

    def __init__(self, address: str, dark: bool = False, width: int = 1280) -> None:
        self.address = address
        self.driver = start_browser(width, 1000, dark)

    def open(self, **state) -> None:
        keys = "".join(f"&p.backward_compatibility.{name}={quote(str(value))}" for name, value in state.items())
        self.driver.switch_to.default_content()
        self.driver.get("about:blank")
        self.driver.get(f"{self.address}#backward_compatibility{keys}")
        self.enter()

    def enter(self) -> None:
        wait_until(self._in_frame, 60, "the dashboard in its frame")
        self.settle()

    def _in_frame(self) -> bool:
        self.driver.switch_to.default_content()
        for frame in self.driver.find_elements(By.CSS_SELECTOR, "iframe"):
            self.driver.switch_to.frame(frame)
            if self.js("return document.documentElement.dataset.bcReady") == "true":
                return True
            self.driver.switch_to.default_content()
        return False

    def settle(self) -> None:
        wait_until(
            lambda: self.js(
                "const app = document.querySelector('.bc-app');"
                "return app && app.dataset.bcBusy !== 'true' && !document.querySelector('[aria-busy=true]')"
            ),
            what="the dashboard at rest",
        )

    def js(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str):
        return wait_until(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), what=selector)[0]

    def all(self, selector: str):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        element = self.find(selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()
        self.settle()

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def shown(self) -> int:
        """How many error instances pass the conditions."""
        return number(self.text("[data-testid=instances-count] strong"))

    def chips(self) -> list[str]:
        return [" ".join(chip.text.replace("×", "").split()) for chip in self.all(".bc-chip")]

    def rows(self) -> list[dict[str, str]]:
        """Instances on this page of the table, by the name of the column."""
        return self.js(
            "const table = document.querySelector('[data-testid=instances] table');"
            "const plain = heading => heading.innerText.replace(/[↕▲▼]/, '').trim();"
            "const names = [...table.querySelectorAll('thead th')].map(plain);"
            "return [...table.querySelectorAll('tbody tr')]"
            ".map(row => Object.fromEntries([...row.cells].map((cell, i) =>"
            " [names[i], cell.innerText.replace(/^[✓✗]\\s*(right|wrong):\\s*/, '').trim().slice(0, 40)])))"
        )

    def column(self, name: str) -> str:
        """Selector of a column's heading in the table of instances."""
        names = self.js(
            "return [...document.querySelectorAll('[data-testid=instances] thead th')].map(each => each.innerText)"
        )
        return f"[data-testid=instances] thead th:nth-of-type({[n.startswith(name) for n in names].index(True) + 1})"

    def score(self, name: str) -> str:
        return self.text(f"[data-score={name}] .bc-score-count")

    def hash(self) -> str:
        return self.js("return parent.location.hash")


def number(text: str) -> int:
    return int(re.sub(r"[^\d]", "", text))

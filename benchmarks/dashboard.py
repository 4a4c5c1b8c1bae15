"""How the dashboard holds up with large data: time to log, server memory, first view, filters, hundreds of runs.

    python benchmarks/dashboard.py [--instances 1000000] [--runs 300]

Needs the development environment and Chromium with its driver. Prints one table; nothing is compared with a limit.
Times in the browser are taken in the page, from the call that changes the view to the frame that shows it. Memory is
that of TensorBoard's processes with the data less that of TensorBoard on an empty folder: where TensorFlow is
installed, TensorBoard imports it, which alone takes several hundred megabytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "tensorboard"))
from browser import start_browser, wait_until
from tensorboard_process import tensorboard

from bc_core import Comparison, compare
from bc_tensorboard import summary

CLASSES = 1000
REPEATS = 7


def comparison(size: int, seed: int, classes: int = CLASSES) -> Comparison:
    """One update on `size` instances, of which about a tenth are wrong."""
    random = np.random.default_rng(seed)
    target = random.integers(0, classes, size)
    h1, h2 = (np.where(random.random(size) < 0.06, random.integers(0, classes, size), target) for _ in range(2))
    return compare(target, h1, h2, num_classes=classes, class_names=[f"class {i}" for i in range(classes)])


def seconds(function: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def memory() -> float:
    """Megabytes that TensorBoard's processes hold: those that this one has started."""
    children = psutil.Process().children(recursive=True)
    ours = [p for p in children if "tensorboard" in " ".join(p.cmdline()) or "server" in p.name()]
    return sum(process.memory_info().rss for process in ours) / 2**20


def get(address: str) -> bytes:
    """Body of a response."""
    with urllib.request.urlopen(address, timeout=120) as response:
        content: bytes = response.read()
    return content


class Dashboard:
    """The tab in a browser."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.driver = start_browser(1280, 1000)

    def open(self, state: str) -> float:
        """Open a view; returns the seconds from the table's arrival to the frame that shows it."""
        self.driver.get(f"{self.address}#backward_compatibility{state}")
        wait_until(self._ready, 120, "the dashboard")
        script = (
            "const at = performance.getEntriesByType('resource').filter(e => e.name.includes('/table?')).at(-1);"
            "return window.bcSeen - at.responseEnd"
        )
        # Set by a watcher that was too late to see the first frame itself: an upper bound.
        self.driver.execute_script("window.bcSeen = performance.now()")
        return float(self.driver.execute_script(script)) / 1000

    def _ready(self) -> bool:
        self.driver.switch_to.default_content()
        for frame in self.driver.find_elements("css selector", "iframe"):
            self.driver.switch_to.frame(frame)
            ready = (
                "const app = document.querySelector('.bc-app');"
                "return document.documentElement.dataset.bcReady === 'true' && app.dataset.bcBusy !== 'true'"
                " && !!document.querySelector('[data-testid=instances-count]')"
            )
            if self.driver.execute_script(ready):
                return True
            self.driver.switch_to.default_content()
        return False

    def changed(self, action: str, undo: str) -> float:
        """Milliseconds until an action shows: the first change of the instances, and a frame after it."""
        script = (
            "const done = arguments[arguments.length - 1]; const start = performance.now();"
            "const seen = new MutationObserver(() => { seen.disconnect();"
            " requestAnimationFrame(() => setTimeout(() => done(performance.now() - start))) });"
            "seen.observe(document.querySelector('[data-testid=instances]'),"
            " {subtree: true, childList: true, characterData: true});"
            f"{action}"
        )
        took = float(self.driver.execute_async_script(script))
        if undo:
            self.redraw(undo)
            time.sleep(0.3)
        return took

    def redraw(self, action: str) -> float:
        """Milliseconds from an action to the second frame after it, by when its result is drawn."""
        script = (
            "const done = arguments[arguments.length - 1]; const start = performance.now();"
            f"{action};"
            "const drawn = () => setTimeout(() => done(performance.now() - start));"
            "requestAnimationFrame(() => requestAnimationFrame(drawn))"
        )
        return float(self.driver.execute_async_script(script))


def pick(label: str, value: str) -> str:
    """Choose in a list or a field of the instances' conditions."""
    return (
        "const field = [...document.querySelectorAll('[data-testid=instances] label')]"
        f".find(label => label.textContent.startsWith('{label}')).querySelector('select, input');"
        f"field.value = '{value}';"
        "for (const name of ['input', 'change']) field.dispatchEvent(new Event(name, {bubbles: true}))"
    )


# Each with what undoes it, so that every repetition starts from the same view.
ACTIONS = {
    "a region": (pick("Region", "regress"), pick("Region", "")),
    "a prediction of h2": (pick("h2 says", "class 7"), pick("h2 says", "")),
    "a text, with the pause for typing": (pick("Text", "123"), pick("Text", "")),
    "sort by prediction": ("document.querySelectorAll('[data-testid=instances] thead th button')[1].click()", ""),
    "a class": ("document.querySelector('[data-testid=classes] tbody th button').click()",) * 2,
    "a cell of the matrix": ("document.querySelector('[data-testid=matrix] td button').click()",) * 2,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=300)
    options = parser.parse_args()
    table = Table("what", "measured")
    with tempfile.TemporaryDirectory() as folder:
        logdir, many, empty = (Path(folder) / name for name in ("large", "many", "empty"))
        empty.mkdir()
        large = [comparison(options.instances, seed) for seed in range(3)]
        times = [
            seconds(lambda each=each, step=step: summary.comparison(logdir / "update", each, step))  # type: ignore[misc]
            for step, each in enumerate(large)
        ]
        errors = len(large[0].instances)
        table.add_row(
            f"log a comparison of {options.instances:,} instances, {errors:,} errors, {CLASSES:,} classes",
            f"{statistics.median(times):.2f} s",
        )
        for run in range(options.runs):
            for step in range(5):
                summary.comparison(many / f"run-{run:03d}", comparison(2000, 10 * run + step, 10), step)
        with tensorboard(empty):
            base = memory()
        with tensorboard(logdir, "--reload_interval=2") as address:
            dashboard = Dashboard(address)
            first = dashboard.open("&p.backward_compatibility.run=update")
            table.add_row("first view, after its table has arrived (an upper bound)", f"{first:.2f} s")
            for name, (action, undo) in ACTIONS.items():
                drawn = [dashboard.changed(action, undo) for _ in range(REPEATS)]
                table.add_row(f"{name}, until drawn", f"{statistics.median(drawn):.0f} ms (most {max(drawn):.0f})")
            table.add_row("server memory beyond an empty TensorBoard", f"{memory() - base:.0f} MB (it: {base:.0f} MB)")
            dashboard.driver.quit()
        with tensorboard(many, "--reload_interval=2") as address:
            index = f"{address}data/plugin/backward_compatibility/index"
            wait_until(lambda: len(json.loads(get(index))["series"]) == options.runs, 120, "all runs")
            asked = [seconds(lambda: get(index)) for _ in range(5)]
            table.add_row(f"index of {options.runs} runs", f"{statistics.median(asked):.2f} s")
            dashboard = Dashboard(address)
            table.add_row(f"first view among {options.runs} runs", f"{dashboard.open(''):.2f} s")
            hover = [
                dashboard.redraw(
                    "document.querySelector('[data-point]').dispatchEvent(new PointerEvent('pointerenter'))"
                )
                for _ in range(REPEATS)
            ]
            table.add_row(f"hover in a sweep of {options.runs} points", f"{statistics.median(hover):.0f} ms")
            dashboard.driver.quit()
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()

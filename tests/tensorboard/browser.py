"""A real browser for tests of pages: headless Chromium with an empty profile."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def require_browser() -> None:
    """Leave a test out where there is no browser; in CI that is a failure."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        reason = "no browser: install Chromium and its driver (Debian: chromium, chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def start_browser(width: int = 1280, height: int = 900, dark: bool = False) -> webdriver.Chrome:
    """Start it; the caller quits it. What it asks for and what it logs is kept, see `requests` and `console`."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    profile = tempfile.mkdtemp(prefix="browser-")
    atexit.register(shutil.rmtree, profile, ignore_errors=True)
    for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    if dark:
        features = [{"name": "prefers-color-scheme", "value": "dark"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    return driver


def wait_until(condition: Callable[[], Any], seconds: float = 120, what: str = "") -> Any:
    """Ask again until the answer is true, and return it."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.05)


def retype(field: WebElement, text: str) -> None:
    """Replace what stands in a field, as somebody does at the keys.

    WebElement.clear() tells a page of no input, so a page that draws the field anew puts the old text back.
    """
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(text)


def requests(driver: webdriver.Chrome) -> list[str]:
    """Addresses that were asked for since this was last called."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def console(driver: webdriver.Chrome) -> list[str]:
    """What was logged as an error since this was last called."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def opened(driver: webdriver.Chrome, path: Path) -> str:
    """Open a file, forget what was asked for and logged before, and return its address."""
    requests(driver)
    console(driver)
    driver.get(path.as_uri())
    return path.as_uri()


_AXE = Path(__file__).parents[2] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_CHECK = """
const done = arguments[arguments.length - 1];
const told = ({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 200)}`);
const context = arguments[1] === null ? document : { include: [arguments[1]] };
axe.run(context, { runOnly: { type: "tag", values: arguments[0] }, resultTypes: ["violations"] }).then(
  ({ violations }) => done(violations.flatMap(told)), (error) => done([String(error)]));
"""


def violations(driver: webdriver.Chrome, within: str | None = None) -> list[str]:
    """What axe-core finds wrong with the accessibility of what is shown; the test is left out where it is not there.

    Args:
        driver: The browser.
        within: Selector of the part that is ours, where it is not the whole page.
    """
    if not _AXE.exists():
        reason = "axe-core is not there: npm ci in frontend"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    driver.set_script_timeout(120)
    driver.execute_script(_AXE.read_text("utf-8"))
    return driver.execute_async_script(_CHECK, _RULES, within)


@contextmanager
def themed(driver: webdriver.Chrome, theme: str) -> Iterator[None]:
    """A system that prefers light or dark."""
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    )
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def violations_in_both_themes(driver: webdriver.Chrome, within: str | None = None) -> list[str]:
    """What axe-core finds wrong where the system is light, and where it is dark; with all details open."""
    open_all = (
        "const root = document.querySelector('#cell > div')?.shadowRoot ?? document;"
        "root.querySelectorAll('details').forEach((each) => { each.open = true; });"
        "return root.querySelector('.bc-app').dataset.theme"
    )
    found = []
    for theme in ("light", "dark"):
        with themed(driver, theme):
            wait_until(lambda theme=theme: driver.execute_script(open_all) == theme, what=f"the {theme} view")
            found += [f"{theme}: {each}" for each in violations(driver, within)]
    return found

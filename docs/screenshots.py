"""Take the pictures of docs/dashboard.md and the README anew, from the logs that `make demo` leaves.

    python docs/screenshots.py [--demo runs/demo]

Needs the development environment and Chromium with its driver.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "tensorboard"))
from browser import start_browser, wait_until
from selenium.webdriver.common.by import By
from tensorboard_process import tensorboard

IMAGES = Path(__file__).parent / "images"
WIDTH = 1280


class Picture(NamedTuple):
    """What is looked at: one panel, or the page down to a height."""

    name: str
    state: dict[str, str]
    panel: str | None = None
    height: int = 1000


UPDATE = {"run": "plain-cold-0", "dataset": "test", "region": "regress"}
PICTURES = (
    Picture("dashboard", UPDATE, height=1110),
    Picture("dashboard-instances", {**UPDATE, "target": "7"}, "instances"),
    Picture(
        "dashboard-sweep",
        {"run": "strict-imitation-cold-1", "dataset": "test", "promise": "nfr <= 2%", "sweepX": "nfr,btc"},
        "sweep",
    ),
    Picture("dashboard-curves", {"run": "new-error-cold-1", "dataset": "val", "other": "plain-cold-0"}, "curves"),
    Picture(
        "dashboard-two-updates", {"run": "plain-cold-0", "dataset": "test", "other": "new-error-cold-16"}, "scores"
    ),
)


def take(address: str, picture: Picture, dark: bool) -> None:
    """Open the view, move the panel below the toolbar, and save what is seen."""
    keys = "".join(f"&p.backward_compatibility.{name}={quote(value)}" for name, value in picture.state.items())
    driver = start_browser(WIDTH, picture.height)
    try:
        driver.get(f"{address}{'?darkMode=true' if dark else ''}#backward_compatibility{keys}")

        def ready() -> bool:
            driver.switch_to.default_content()
            for frame in driver.find_elements(By.CSS_SELECTOR, "iframe"):
                driver.switch_to.frame(frame)
                if driver.execute_script("return document.documentElement.dataset.bcReady") == "true":
                    return True
                driver.switch_to.default_content()
            return False

        wait_until(ready, 60, "the dashboard")
        file = str(IMAGES / f"{picture.name}{'-dark' if dark else ''}.png")
        if picture.panel is not None:
            panel = driver.find_element(By.CSS_SELECTOR, f"[data-testid={picture.panel}]")
            driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", panel)
            time.sleep(2)  # images
            panel.screenshot(file)
        else:
            time.sleep(2)
            driver.switch_to.default_content()
            driver.save_screenshot(file)
    finally:
        driver.quit()


def main() -> None:
    """Take all of them, light and dark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "demo", help="what `make demo` left")
    options = parser.parse_args()
    logdir = options.demo / "tensorboard"
    if not logdir.is_dir():
        sys.exit(f"{logdir} is not there; run `make demo` first, or give --demo")
    with tensorboard(logdir) as address:
        for picture in PICTURES:
            for dark in (False, True):
                take(address, picture, dark)


if __name__ == "__main__":
    main()

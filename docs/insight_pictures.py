"""Take the pictures of docs/dashboard.md that need probabilities and metadata, of made-up models.

    python docs/insight_pictures.py

Needs the development environment and Chromium with its driver.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

import numpy as np

from bc_core import Comparison, compare

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "tensorboard"))
from browser import start_browser, wait_until

from bc_tensorboard import to_html

IMAGES = Path(__file__).parent / "images"
SIZE = 6000
READY = (
    "return document.documentElement.dataset.bcReady === 'true'"
    " && document.querySelector('.bc-app').dataset.bcBusy !== 'true'"
)


def answers() -> Comparison:
    """Two models of spam, of which the second is worse for old readers in one country."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, SIZE)
    countries = rng.choice(["Germany", "France", "Italy", "Spain", "Poland"], SIZE, p=[0.35, 0.25, 0.2, 0.1, 0.1])
    ages = rng.integers(16, 95, SIZE)
    broken = 2.2 * ((countries == "Italy") & (ages > 70)) * (2 * target - 1)
    p1, p2 = (
        1 / (1 + np.exp(-(rng.normal(size=SIZE) * noise + gain * (target - middle) - hurt)))
        for noise, gain, middle, hurt in ((1.2, 2.2, 0.5, 0.0), (1.1, 2.8, 0.62, broken))
    )
    metadata = {"country": countries.tolist(), "age": ages, "device": rng.choice(["phone", "tablet"], SIZE).tolist()}
    labels = [(each >= 0.5).astype(int) for each in (p1, p2)]
    return compare(target, *labels, h1_scores=p1, h2_scores=p2, class_names=["ham", "spam"], metadata=metadata)


def main() -> None:
    """One panel a picture, light and dark."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        to_html(answers(), page)
        for dark in (False, True):
            driver = start_browser(1280, 1000, dark)
            driver.get(page.as_uri())
            wait_until(lambda driver=driver: driver.execute_script(READY), 60)
            for name in ("confidence", "slices", "thresholds"):
                panel = driver.find_element("css selector", f"[data-testid={name}]")
                box = "const box = arguments[0].getBoundingClientRect();"
                place = f"{box} return [box.x + scrollX, box.y + scrollY, box.width, box.height]"
                x, y, width, height = driver.execute_script(place, panel)
                clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
                taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
                (IMAGES / f"dashboard-{name}{'-dark' if dark else ''}.png").write_bytes(base64.b64decode(taken["data"]))
            driver.quit()


if __name__ == "__main__":
    main()

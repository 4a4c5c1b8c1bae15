"""The dashboard of log folders that are damaged, and of the one that the demo leaves."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import pytest
from browser import console, require_browser, wait_until
from dashboard_page import (
    OTHER,
    PLAIN,
    Page,
    write_logs,
)
from selenium.webdriver.common.action_chains import ActionChains
from tensorboard_process import tensorboard
from warm_programs import run_program

from bc_core import Comparison
from bc_tensorboard import summary
from bc_tensorboard.writing._event_file import EventFile

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def opened(logdir, *flags, **state):
    with tensorboard(logdir, "--reload_interval=1", *flags) as where:
        page = Page(where)
        try:
            page.open(**state)
            yield page
        finally:
            page.driver.quit()


def test_damaged_logs_leave_the_rest_to_be_seen(tmp_path):
    require_browser()
    write_logs(tmp_path)
    # Cut off in its last table.
    (cut,) = (tmp_path / "other").glob("events*")
    cut.write_bytes(cut.read_bytes()[:-100])
    # A format of the future.
    future = summary.comparison_pb(PLAIN[5], dataset="val")
    for value in future.value:
        content = value.metadata.plugin_data.content.replace(b'"version": 1', b'"version": 99')
        value.metadata.plugin_data.content = content
    EventFile(tmp_path / "future").add_summary(future, 5)
    broken = summary.comparison_pb(PLAIN[5], dataset="val")
    broken.value[1].tensor.string_val[0] = b"BCMP\x01\x00\x00\x00garbage"
    EventFile(tmp_path / "broken").add_summary(broken, 5)
    with opened(tmp_path, "--load_fast=false", run="plain", dataset="val") as page:
        assert page.shown() == len(PLAIN[5].instances)
        assert "future" in page.js("return document.querySelector('[data-testid=warnings]').textContent")
        page.open(run="broken", dataset="val")
        # The counts are there, and what is wrong with the table is said where it would be.
        assert page.score("nfr").startswith(f"{PLAIN[5].overlap.h1_only_right} of")
        assert "cut off" in page.js("return document.body.innerText") or "damaged" in page.js(
            "return document.body.innerText"
        )
        page.open(run="other", dataset="val")
        assert page.score("nfr").startswith(f"{OTHER[2].overlap.h1_only_right} of")


def test_a_run_at_work_says_so_is_followed_and_gives_way_to_a_pinned_one(tmp_path):
    require_browser()
    for step in (1, 2):
        summary.comparison(tmp_path / "live", PLAIN[step], dataset="val")
    ended = EventFile(tmp_path / "ended")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 1.7e9)
        for step in (1, 2):
            summary.comparison(ended, PLAIN[step], dataset="val")
    with opened(tmp_path, run="ended", dataset="val") as page:
        assert not page.all(".bc-running")
        page.open(run="live", dataset="val")
        assert page.text(".bc-running").startswith("running")
        summary.comparison(tmp_path / "live", PLAIN[5], dataset="val")
        wait_until(lambda: "3 of 3" in page.text("[data-testid=toolbar] .bc-steps"), what="the step that came")
        assert page.score("nfr").startswith(f"{PLAIN[5].overlap.h1_only_right} of")

        for run, wanted in ((None, "live"), ("ended", "ended")):
            page.open(**({} if run is None else {"run": run}))
            assert page.find(".bc-picker input").get_attribute("value") == wanted
        page.click(".bc-pin")
        page.open()
        assert page.find(".bc-picker input").get_attribute("value") == "ended"


class Newcomer:
    """Who clicks with a pointer on what is on the screen, or is brought there by the wheel; clicks are counted."""

    def __init__(self, page: Page) -> None:
        self.page, self.clicks = page, 0

    def arrive(self) -> None:
        """Open the tab, of which nothing is known."""
        self.page.open()
        self.clicks = 0

    def click(self, selector: str) -> None:
        target = self.page.find(selector)
        self.page.js("arguments[0].scrollIntoView({block: 'center'})", target)
        ActionChains(self.page.driver).move_to_element(target).click().perform()
        self.page.settle()
        self.clicks += 1

    def pick(self, field: int, run: str) -> None:
        """Choose in the list of the first field, Run, or the second, Compare with."""
        self.click(f".bc-picker:nth-of-type({field}) input")
        self.click(f".bc-picker-row:has([title='{run}'])")


def ask_what_newcomers_ask(page: Page, saved: dict[str, Comparison]) -> None:
    """Which images broke, in which class, does the last method break less, which keeps a promise: three clicks."""
    name, latest = "new-error-warm-4", "recommended-warm-1"
    broken = saved[name].negative_flips()
    someone = Newcomer(page)
    someone.arrive()
    someone.pick(1, name)
    # In which class is told by the first row of the matrix, without another click.
    counts = np.bincount(broken.target, minlength=10)
    worst = page.text("[data-testid=matrix] tbody th")
    assert counts[int(worst)] == counts.max()
    someone.click("[data-testid=venn] .bc-venn-region[aria-label^='Only h2 wrong'] text")
    assert {int(row["Instance"]) for row in page.rows()} == set(broken.ids.tolist())
    on_screen = "const r = arguments[0].getBoundingClientRect(); return r.top >= 0 && r.bottom <= innerHeight"
    wait_until(lambda: page.js(on_screen, page.find(".bc-instances-table tbody img")), what="a picture on the screen")
    assert someone.clicks == 3

    someone.arrive()
    assert page.find(".bc-picker input").get_attribute("value") == latest, "the run that was written to last"
    someone.pick(2, name)
    fewer = len(saved[latest].negative_flips()) - len(broken)
    wanted = "as many" if fewer == 0 else f"{abs(fewer)} {'fewer' if fewer > 0 else 'more'}"
    assert f"Run B breaks {wanted}" in page.text("[data-testid=compared]")
    assert someone.clicks == 2

    someone.arrive()
    someone.click(".bc-promise input")
    page.driver.switch_to.active_element.send_keys("nfr <= 1%")
    wait_until(lambda: "nfr <= 1% for certain" in page.text(".bc-promise [role=status]"), what="the one to take")
    assert someone.clicks == 1


def test_the_demo_s_log_folder(tmp_path):
    """What `make demo` leaves, in its quick form: every panel, and the numbers of the saved comparisons."""
    require_browser()
    done = run_program(ROOT / "examples" / "mnist_update.py", "--quick", "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "report.html").stat().st_size < 500_000
    name = "new-error-cold-4"
    saved = Comparison.load(tmp_path / "demo" / "comparisons" / f"{name}.json")
    with opened(tmp_path / "demo" / "tensorboard", run=name, dataset="test") as page:
        assert (
            page.score("btc")
            == f"{saved.overlap.both_right} of {saved.overlap.both_right + saved.overlap.h1_only_right}"
        )
        assert page.shown() == len(saved.instances)
        page.open(run=name, dataset="val")
        for panel in ("toolbar", "chips", "scores", "venn", "matrix", "classes", "curves", "instances", "sweep"):
            assert page.find(f"[data-testid={panel}]").is_displayed(), panel
        assert page.text("[data-testid=toolbar] .bc-tool-label .bc-note") == "3 of 3"
        page.js("document.querySelector('[data-testid=instances]').scrollIntoView()")
        wait_until(lambda: page.all("[data-testid=instances] img"), what="images")
        assert console(page.driver) == []
        folder = tmp_path / "demo" / "comparisons"
        ask_what_newcomers_ask(page, {path.stem: Comparison.load(path) for path in folder.glob("*.json")})

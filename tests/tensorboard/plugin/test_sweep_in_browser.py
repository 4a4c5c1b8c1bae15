"""A sweep that is started, followed and stopped in the page of a notebook, in a real browser."""

from __future__ import annotations

import pytest
from browser import console
from gated_sweep import Analyses
from notebook_page import Notebook

pytestmark = pytest.mark.slow

CELLS = ("cell", "again")


@pytest.fixture
def analysis(tmp_path):
    with Analyses(tmp_path) as made:
        yield made


class Page:
    """Two outputs that show one widget."""

    def __init__(self, driver, shown, path):
        self.driver, self.shown = driver, shown
        self.notebook = Notebook(driver, shown.view, path, CELLS)

    def of_each(self, expression):
        """The value of an expression of `root`, in each of the outputs."""
        script = (
            f"const of = (root) => {expression};"
            "return arguments[0].map((id) => of(document.querySelector(`#${id} > div`)?.shadowRoot))"
        )
        return self.driver.execute_script(script, CELLS)

    def texts(self, selector):
        return self.of_each(f"root && [...root.querySelectorAll('{selector}')].map((each) => each.innerText)")

    def buttons(self):
        """Labels of the buttons that are offered."""
        return self.texts(":is([data-testid=actions], [data-testid=progress]) .bc-button")

    def click(self, times=1):
        """Click the button in the first output."""
        self.driver.execute_script(
            "const root = document.querySelector('#cell > div').shadowRoot;"
            "const button = root.querySelector(':is([data-testid=actions], [data-testid=progress]) .bc-button');"
            "for (let i = 0; i < arguments[0]; i++) button.click()",
            times,
        )

    def wait_for(self, *labels):
        self.notebook.wait_until(lambda: self.buttons() == [list(labels)] * 2, what=f"the buttons {labels}")

    def wait_for_text(self, selector, text):
        def both():
            return all(any(text in one for one in found or ()) for found in self.texts(selector))

        self.notebook.wait_until(both, what=text)


def test_a_click_starts_the_sweep_and_both_outputs_follow_it_to_its_end(driver, analysis, tmp_path):
    shown = analysis()
    page = Page(driver, shown, tmp_path / "notebook.html")
    page.wait_for("Start the sweep")
    assert all("2 epochs each" in text for [text] in page.texts(".bc-nothing"))

    # Until the kernel has time the page says what it waits for, and a second click is none.
    page.click(times=2)
    waiting, other = page.texts("[data-testid=doing]")
    assert "Waiting for the kernel" in waiting[0]
    assert other == []
    assert driver.execute_script("return sent.filter(({ type }) => type === 'action').length") == 1
    assert not shown.is_running

    page.wait_for("Stop")
    assert shown.is_running
    page.wait_for_text("[data-testid=progress]", "A sweep is running: 0% done")
    page.wait_for_text("[role=status]", "Waiting for the first point")

    analysis.let_finish(shown.sweep._asked[:1])
    page.wait_for_text("[data-testid=progress]", "33% done")
    # The first point breaks 9 of the 50 that h1 gets right.
    page.wait_for_text("[data-score=nfr] .bc-score-count", "9 of 60")

    with analysis.held_at_the_stop(shown.sweep):
        page.click()
        page.wait_for_text("[data-testid=doing]", "Stopping the sweep; what is finished stays")
    page.wait_for("Go on")
    assert not shown.is_running
    assert all("2 of its 3 points are not finished." in text for [text] in page.texts("[data-testid=actions]"))

    analysis.let_finish(shown.sweep._asked)
    page.click()
    # Two losses at two lambdas each.
    points = "root.querySelector('.bc-scatter')?.querySelectorAll('.bc-point').length"
    page.notebook.wait_until(lambda: page.of_each(points) == [4, 4], what="all points")
    page.notebook.wait_until(lambda: page.texts("[data-testid=progress]") == [[], []], what="the end of the sweep")
    assert len(shown.sweep.points) == 3
    page.wait_for()
    assert page.texts("[role=alert]") == [[], []]
    assert driver.execute_script("return errors") == []
    assert console(driver) == []


def test_why_a_sweep_does_not_start_is_said_in_the_page(driver, analysis, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "<b>letter.txt").touch()
    shown = analysis()
    page = Page(driver, shown, tmp_path / "notebook.html")
    page.wait_for("Start the sweep")
    page.click()
    page.wait_for_text("[role=alert]", "“Start the sweep” did not work.")
    page.wait_for_text("[role=alert]", "holds no sweep, but <b>letter.txt. Give a new or empty folder.")
    # It may be tried again.
    page.wait_for("Start the sweep")


def test_who_can_only_look_has_no_button(driver, analysis, tmp_path):
    shown = analysis(h1=None)
    page = Page(driver, shown, tmp_path / "notebook.html")
    page.wait_for_text(".bc-nothing h2", "No comparison yet")
    assert page.buttons() == [[], []]

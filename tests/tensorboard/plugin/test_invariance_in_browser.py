"""The invariance view in a real browser: what is drawn is what was counted, in the file and in TensorBoard."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest
from browser import console, themed, violations_in_both_themes, wait_until
from invariance_updates import measured, predicted, served
from notebook_page import ROOT, Notebook
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from werkzeug.serving import make_server

from bc_core import compare
from bc_core.invariance import TransformSet
from bc_tensorboard import ComparisonView, summary, to_html

pytestmark = pytest.mark.slow

HOSTILE = "</script><img src=x onerror=alert(1)>"
CARD = "[data-testid=invariance]"


def all_of(driver, selector):
    return driver.find_elements("css selector", f"{CARD} {selector}")


def ready(driver):
    script = (
        "const app = document.querySelector('.bc-app');"
        f"return app && app.dataset.bcBusy !== 'true' && !!document.querySelector('{CARD} .bc-score-value')"
    )
    wait_until(lambda: driver.execute_script(script), what="the invariance view")


def opened(driver, path, state=""):
    console(driver)
    driver.get("about:blank")
    driver.get(path.as_uri() + state)
    ready(driver)


def totals(driver):
    return [found.text for found in all_of(driver, ".bc-score-value")]


def wanted_totals(update):
    rates = (update.consistency_h1, update.consistency_h2, update.negative_flip_rate)
    return [f"{100 * rate:.1f}%" for rate in rates]


def pixels(driver, row):
    script = "const c = arguments[0]; return [...c.getContext('2d').getImageData(0, 0, c.width, 1).data]"
    return np.array(driver.execute_script(script, row)).reshape(-1, 4)


def first_row(driver):
    return pixels(driver, all_of(driver, ".bc-heat .bc-heat-row")[0])


def test_the_file_shows_totals_curves_layers_and_features(driver, tmp_path):
    update = measured(["conv", HOSTILE])
    compared = compare([0, 1, 1], [0, 1, 0], [0, 0, 1], name="update", step=2)
    opened(driver, to_html(compared, tmp_path / "a.html", invariance=update))
    assert totals(driver) == wanted_totals(update)
    assert "bands and bars are 95% intervals over samples" in driver.find_element("css selector", CARD).text
    # Four panels, and the one by depth.
    assert len(all_of(driver, "svg.bc-curves-surface")) == 5

    # The key takes one to the second transformation; the table has the same numbers.
    all_of(driver, "svg.bc-curves-surface")[0].send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    row = update.table()[1]
    told = wait_until(lambda: [tip.text for tip in all_of(driver, ".bc-tooltip")])[0]
    assert f"{100 * row['accuracy_h2']:.1f}%" in told
    assert row["transform"] in told
    for summary_line in all_of(driver, "summary"):
        summary_line.click()
    cells = [cell.text for cell in all_of(driver, "[aria-label='Scores by transformation'] tbody tr:nth-child(2) td")]
    names = ("accuracy_h1", "accuracy_h2", "btc", "consistency_h1", "consistency_h2", "nfr", "negative_flip_rate")
    assert cells == [f"{100 * row[name]:.1f}%" for name in names]
    layers = [line.text for line in all_of(driver, "[aria-label='NV by layer'] tbody th")]
    assert layers == ["conv", HOSTILE]
    difference = update.depth_table()[0]["difference"]
    shown = all_of(driver, "[aria-label='NV by layer'] tbody tr:first-child td:nth-child(4)")[0].text
    assert float(shown.replace("−", "-")) == pytest.approx(difference, abs=0.005)

    rows = all_of(driver, ".bc-heat .bc-heat-row")
    assert len(rows) == 2 * 3
    drawn = pixels(driver, rows[0])
    assert len(drawn) == 6
    # Sorted, so the dead one is last, and grey.
    assert np.ptp(drawn[-1, :3]) < 20
    assert np.ptp(drawn[:-1, :3], axis=1).min() > 20
    assert console(driver) == []
    assert driver.find_elements("css selector", "img[src=x]") == []


def test_a_dark_system_gets_dark_cells(driver, tmp_path):
    opened(driver, to_html(None, tmp_path / "a.html", invariance=measured()))
    light = first_row(driver)
    with themed(driver, "dark"):
        wait_until(lambda: not np.array_equal(light, first_row(driver)), what="dark cells")


def test_kinds_of_transformations_are_chosen_and_those_without_a_size_stand_by_name(driver, tmp_path):
    both = TransformSet.rotations(range(0, 90, 5)) | TransformSet.scales([0.5, 2])
    given = {"names": predicted(transforms=TransformSet.d4(), labels=False), "sizes": predicted(transforms=both)}
    opened(driver, to_html(None, tmp_path / "a.html", invariance=given))
    assert totals(driver) == wanted_totals(given["names"])
    names = [name.text for name in all_of(driver, ".bc-strips tbody th")]
    assert names == list(TransformSet.d4().names)
    Select(driver.find_element("css selector", "[data-testid=toolbar] select")).select_by_visible_text("sizes")
    wait_until(lambda: totals(driver) == wanted_totals(given["sizes"]))
    turn, scale = all_of(driver, ".bc-toggle button")
    assert (turn.text, scale.text) == ("rotate", "scale")
    scale.click()
    texts = [text.text for text in all_of(driver, ".bc-curve-panels div:first-child .bc-axes text")]
    assert {"0.5", "1", "2", "Scale factor"} <= set(texts)
    assert "run=sizes" in wait_until(lambda: "run=" in driver.current_url and driver.current_url)


@contextlib.contextmanager
def serving(logdir):
    """The plugin behind a real server, without the rest of TensorBoard; yields the address of its page."""
    server = make_server("127.0.0.1", 0, served(logdir).application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/data/plugin_entry.html?name=backward_compatibility"
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()


def test_the_plugin_shows_it_for_the_run_and_the_step_that_have_it(driver, tmp_path):
    updates = {step: measured(seed=step) for step in (1, 4)}
    compared = compare([0, 1, 1], [0, 1, 0], [0, 0, 1])
    for step in (1, 4, 5):
        summary.comparison(tmp_path / "update", compared, step=step)
    for step, update in updates.items():
        summary.invariance(tmp_path / "update", update, step)
    summary.comparison(tmp_path / "bare", compared, step=0)
    console(driver)
    with serving(tmp_path) as address:
        driver.get(f"{address}#backward_compatibility&p.backward_compatibility.run=update")
        ready(driver)
        assert totals(driver) == wanted_totals(updates[4])
        for _ in range(2):
            driver.find_element("css selector", "[aria-label='Previous step']").click()
        wait_until(lambda: totals(driver) == wanted_totals(updates[1]), what="the first step")

        # A run without it says where it is.
        driver.find_element("css selector", "[data-testid=toolbar] input").send_keys("bare", Keys.ENTER)
        button = wait_until(lambda: all_of(driver, ".bc-elsewhere button"))[0]
        assert button.text == "update on test, step 4"
        button.click()
        wait_until(lambda: totals(driver) == wanted_totals(updates[4]), what="the update that was picked")
        assert [line for line in console(driver) if "favicon" not in line] == []
        driver.get("about:blank")


def test_the_view_of_a_notebook_gets_it_from_the_kernel(driver, tmp_path):
    first, second = measured(), measured(seed=1)
    view = ComparisonView(invariance={"a": {1: first}})
    notebook = Notebook(driver, view, tmp_path / "notebook.html")
    values = f"{ROOT} return [...root.querySelectorAll('{CARD} .bc-score-value')].map((each) => each.innerText)"

    def shows(update):
        notebook.wait_until(lambda: driver.execute_script(values) == wanted_totals(update), what="the totals")

    shows(first)
    assert driver.execute_script(f"{ROOT} return root.querySelectorAll('{CARD} .bc-heat-row').length") > 4
    # The next step is followed, and what was measured anew is asked for anew.
    view.add(invariance={"a": {2: second}})
    shows(second)
    view.add(invariance={"a": {2: first}})
    shows(first)
    # Beside a comparison it is where the comparison is.
    view.replace(())
    view.add(compare([0, 1, 1], [0, 1, 0], [0, 0, 1], name="update", step=2), invariance=second)
    shows(second)
    assert violations_in_both_themes(driver, "#cell") == []
    assert driver.execute_script("return errors") == []


def compared(name, **options):
    return compare([0, 1, 1], [0, 1, 0], [0, 0, 1], name=name, **options)


def beside(driver):
    return [found.text for found in all_of(driver, ".bc-score-other")]


def dashed(driver, chart):
    """How many lines of a chart are of the second run."""
    script = "return arguments[0].querySelectorAll('.bc-curve.bc-other path[d^=M]').length"
    return driver.execute_script(script, all_of(driver, "svg.bc-curves-surface")[chart])


def test_a_second_run_stands_beside_the_first(driver, tmp_path):
    first, second = measured(), measured(seed=1)
    runs = [compared(name) for name in ("a", "b", "bare")]
    path = to_html(runs, tmp_path / "a.html", invariance={"a": first, "b": second})
    # Straight to its address: a reload right after a change of the address may come before it.
    opened(driver, path, "#run=a&other=b")
    wait_until(lambda: len(beside(driver)) == 3, what="the totals of run B")
    assert totals(driver) == wanted_totals(first)
    assert [text.split()[1] for text in beside(driver)] == wanted_totals(second)

    # Accuracy, BTC, consistency, flips: everything of B, as its h1 was measured on other samples; then NV.
    assert [dashed(driver, chart) for chart in range(5)] == [2, 1, 2, 2, 1]
    legends = [legend.text for legend in all_of(driver, ".bc-key")]
    assert legends[0].split() == ["a", "b"]
    assert "h2 of b" in legends[1]
    # Differences of both, each with its mark.
    diamonds = "return arguments[0].querySelectorAll('.bc-difference path').length"
    assert driver.execute_script(diamonds, all_of(driver, "svg.bc-curves-surface")[4]) == 2

    all_of(driver, "svg.bc-curves-surface")[0].send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    rows = wait_until(lambda: [row.text for row in all_of(driver, ".bc-tooltip tbody tr")])
    shares = [f"{100 * update.table()[1]['accuracy_h2']:.1f}%" for update in (first, second)]
    assert rows[1] == f"Accuracy of h2 {shares[0]} {shares[1]}"
    assert console(driver) == []
    assert violations_in_both_themes(driver) == []

    # A run without it says so, and the first stays.
    driver.get(f"{path.as_uri()}#run=a&other=bare")
    note = wait_until(lambda: all_of(driver, "[data-testid=no-second]"))[0]
    assert note.text == "Of run B, “bare”, invariance was not measured on “test”: only run A is shown here."
    assert beside(driver) == []
    assert totals(driver) == wanted_totals(first)


def test_the_same_h1_is_drawn_once(driver, tmp_path):
    update = measured()
    path = to_html(None, tmp_path / "a.html", invariance={"a": update, "b": update})
    opened(driver, path)
    select = wait_until(lambda: driver.find_elements("css selector", "[data-testid=toolbar] select"))[2]
    Select(select).select_by_visible_text("b")
    wait_until(lambda: len(beside(driver)) == 3, what="the totals of run B")
    assert [dashed(driver, chart) for chart in range(5)] == [1, 1, 1, 2, 1]
    assert "other=b" in wait_until(lambda: "other=" in driver.current_url and driver.current_url)


def test_a_second_run_with_other_layers_or_transformations_is_drawn_apart(driver, tmp_path):
    names = predicted(transforms=TransformSet.d4(), labels=False)
    given = {"a": measured(["conv", "fc"]), "deeper": measured(["conv", "conv2", "fc"]), "names": names}
    path = to_html(None, tmp_path / "a.html", invariance=given)
    opened(driver, path)
    driver.get(f"{path.as_uri()}#run=a&dataset=test&other=deeper")
    wait_until(lambda: len(beside(driver)) == 3, what="the totals of run B")
    assert "By layer, run B deeper" in [title.text for title in all_of(driver, "h3")]
    assert len(all_of(driver, "svg.bc-curves-surface")) == 4 + 2
    assert [dashed(driver, chart) for chart in (4, 5)] == [0, 0]

    driver.get(f"{path.as_uri()}#run=a&dataset=test&other=names")
    text = "Run B, “names”, was not measured under these transformations."
    wait_until(lambda: text in [note.text for note in all_of(driver, ".bc-note")])
    assert "Of run B, “names”, only predictions were compared." in [note.text for note in all_of(driver, ".bc-note")]

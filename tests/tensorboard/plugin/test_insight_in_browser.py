"""Slices, sureness, other thresholds and whose flips: what the page says, against a plain count of the same data."""

import numpy as np
import pytest
from browser import console, opened, violations_in_both_themes, wait_until
from notebook_page import ROOT, Notebook
from selenium.webdriver.common.by import By
from tensorboard_process import tensorboard

from bc_core import compare
from bc_tensorboard import ComparisonView, summary, to_html

pytestmark = pytest.mark.slow

HOSTILE = "</script><img src=x onerror=alert(1)>,=\\"
SIZE = 800


def data(seed):
    """Two binary models whose update breaks most where the country is hostile."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    target = fixed.integers(0, 2, SIZE)
    country = fixed.choice([HOSTILE, "de", "fr"], SIZE)
    h1 = np.round(np.clip(0.3 * fixed.random(SIZE) + 0.7 * target, 0, 1) * 0.8 + 0.2 * fixed.random(SIZE), 2)
    h2 = np.round(0.5 * rng.random(SIZE) + 0.5 * target, 2)
    broken = (country == HOSTILE) & (rng.random(SIZE) < 0.4)
    h2[broken] = 1 - h2[broken]
    return target, h1, h2, country


def update(seed=1, **options):
    target, h1, h2, country = data(seed)
    labels = [(scores >= 0.5).astype(int) for scores in (h1, h2)]
    metadata = {"country": country.tolist(), "age": np.arange(SIZE) % 50}
    return compare(
        target, *labels, h1_scores=h1, h2_scores=h2, metadata=metadata, class_names=["ham", "spam"], **options
    )


def js(driver, script, *arguments):
    return driver.execute_script(f"{ROOT} {script}", *arguments)


def shown(driver):
    """How many instances the table lists; None while there is no table."""
    text = js(driver, "return root.querySelector('[data-testid=instances-count] strong')?.innerText")
    return None if text is None else int(text.replace(",", ""))


def click(driver, selector):
    js(driver, "root.querySelector(arguments[0]).dispatchEvent(new MouseEvent('click', {bubbles: true}))", selector)


def check_slices(driver, comparison, wait):
    """The worst slice leads, with its counts, and lists what broke in it."""
    target, h1, h2, country = data(1)
    wait(lambda: shown(driver) == len(comparison.instances))
    found = js(
        driver,
        "return [...root.querySelectorAll('[data-testid=slices] table:last-of-type tbody tr')].map("
        "(row) => [...row.querySelectorAll('th, td')].map((cell) => cell.innerText.trim()))",
    )
    inside = country == HOSTILE
    flips = int(((h1 >= 0.5) == target)[inside & ((h2 >= 0.5) != target)].sum())
    assert found[0][:2] == [f"country {HOSTILE}", f"{flips} of {int(inside.sum())}"]
    click(driver, "[data-testid=slices] table:last-of-type tbody button")
    wait(lambda: shown(driver) == flips)
    chips = js(driver, "return root.querySelector('[data-testid=chips]').innerText")
    assert HOSTILE in chips


def check_thresholds(driver, wait):
    """A slider moves every score to what a plain count at that threshold gives."""
    target, h1, h2, _ = data(1)
    move = (
        "const slider = root.querySelector('[data-testid=thresholds] input');"
        "slider.value = arguments[0]; slider.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    js(driver, move, 62)
    right = ((h1 >= 0.5) == target), ((h2 >= 0.62) == target)
    expected = {
        "nfr": (right[0] & ~right[1]).mean(),
        "accuracy_h2": right[1].mean(),
        "btc": (right[0] & right[1]).sum() / right[0].sum(),
    }
    for name, share in expected.items():
        cell = f"return root.querySelector('[data-testid=thresholds] [data-score={name}] b').innerText"
        # Halves of the last digit are rounded up there, and to an even digit here.
        wait(lambda cell=cell, share=share: abs(float(js(driver, cell).rstrip("%")) - 100 * share) < 0.0051)


def check_sureness(driver, comparison, wait):
    """A square of the picture lists as many as it holds, the surest new mistakes first."""
    table = comparison.negative_flips()
    click(driver, ".bc-chips .bc-link")
    wait(lambda: shown(driver) == len(comparison.instances))
    first = js(driver, "return root.querySelector('.bc-instances-id').innerText")
    surest = table.h2_confidence == table.h2_confidence.max()
    assert int(first) in table.ids[surest]
    label = js(driver, "return root.querySelector('.bc-sure-cell').getAttribute('aria-label')")
    click(driver, ".bc-sure-cell")
    wait(lambda: shown(driver) == int(label.split(": ")[1].split()[0].replace(",", "")))
    drawn = js(driver, "return root.querySelectorAll('.bc-sure-point').length")
    assert drawn == len(comparison.instances)


def test_the_file_answers_where_how_sure_and_what_if(driver, tmp_path):
    comparison = update(name="update")
    opened(driver, to_html(comparison, tmp_path / "update.html"))
    check_slices(driver, comparison, wait_until)
    wait_until(lambda: "slices=" in driver.current_url)
    link = driver.current_url
    count = shown(driver)
    driver.get("about:blank")
    driver.get(link)
    wait_until(lambda: shown(driver) == count, what="the slice that the link names")
    check_thresholds(driver, wait_until)
    check_sureness(driver, comparison, wait_until)
    assert console(driver) == []


def test_a_notebook_and_tensorboard_answer_the_same(driver, tmp_path):
    comparison = update(name="update", step=1)
    notebook = Notebook(driver, ComparisonView(comparison), tmp_path / "notebook.html")
    check_slices(driver, comparison, notebook.wait_until)
    check_thresholds(driver, notebook.wait_until)
    assert driver.execute_script("return errors") == []
    assert violations_in_both_themes(driver, "#cell") == []

    summary.comparison(tmp_path / "logs" / "update", comparison)
    with tensorboard(tmp_path / "logs") as address:
        driver.get(f"{address}#backward_compatibility")

        def in_frame():
            driver.switch_to.default_content()
            for frame in driver.find_elements(By.CSS_SELECTOR, "iframe"):
                driver.switch_to.frame(frame)
                if shown(driver) is not None:
                    return True
                driver.switch_to.default_content()
            return False

        wait_until(in_frame, 60, "the dashboard in its frame")
        check_slices(driver, comparison, wait_until)
        check_thresholds(driver, wait_until)
        driver.switch_to.default_content()


def test_matrix_and_classes_show_whose_flips_they_are(driver, tmp_path):
    a, b = update(1, name="a"), update(2, name="b")
    target, h1, first, _ = data(1)
    _, _, second, _ = data(2)
    h1_right = (h1 >= 0.5) == target
    broken = [(scores >= 0.5) != target for scores in (first, second)]
    only_b = h1_right & ~broken[0] & broken[1]
    path = to_html([a, b], tmp_path / "two.html")
    opened(driver, path)
    driver.get("about:blank")
    driver.get(f"{path.as_uri()}#run=a&other=b")
    wait_until(lambda: js(driver, "return !!root.querySelector('.bc-flips-whose')"), what="whose flips")
    js(driver, "root.querySelectorAll('.bc-flips-whose button')[3].click()")
    wait_until(lambda: shown(driver) == only_b.sum())
    # The cell of spam that B alone calls ham.
    cell = ".bc-flips-cell button[aria-label*='true class spam, run B says ham']"
    wait_until(lambda: js(driver, "return !!root.querySelector(arguments[0])", cell))
    click(driver, cell)
    wait_until(lambda: shown(driver) == (only_b & (target == 1)).sum())
    click(driver, ".bc-chips .bc-link")
    button = ".bc-bars-alone button[aria-label^='spam'][aria-label*='run A alone']"
    only_a = h1_right & broken[0] & ~broken[1] & (target == 1)
    wait_until(lambda: js(driver, "return root.querySelector(arguments[0])?.innerText", button) == str(only_a.sum()))
    click(driver, button)
    wait_until(lambda: shown(driver) == only_a.sum())
    assert console(driver) == []


def test_axe_finds_nothing_wrong_with_these_panels(driver, tmp_path):
    path = to_html([update(1, name="a"), update(2, name="b")], tmp_path / "two.html")
    opened(driver, path)
    driver.get("about:blank")
    driver.get(f"{path.as_uri()}#run=a&other=b&sure2=0.5,1")
    wait_until(lambda: js(driver, "return !!root.querySelector('.bc-flips-whose')"), what="whose flips")
    assert violations_in_both_themes(driver) == []

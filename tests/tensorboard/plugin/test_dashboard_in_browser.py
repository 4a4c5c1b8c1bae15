"""The dashboard as its users meet it: a real TensorBoard, a real browser, and what bc_core says of the same data."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from browser import console, requests, require_browser, violations, wait_until
from dashboard_page import (
    HOSTILE,
    IMITATION,
    NAMES,
    OTHER,
    PLAIN,
    PREFIX,
    SIZE,
    TEXTS,
    Page,
    number,
    write_logs,
)
from scipy.integrate import quad
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from tensorboard_process import tensorboard

from bc_core import SCORES, paired_difference_interval

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    write_logs(folder)
    return folder


@pytest.fixture(scope="module")
def address(logs):
    require_browser()
    with tensorboard(logs, f"--path_prefix={PREFIX}", "--reload_interval=1") as where:
        yield where


@pytest.fixture(scope="module")
def page(address):
    page = Page(address)
    yield page
    page.driver.quit()


def lens(r1: float, r2: float, distance: float) -> float:
    """Area that two circles share, by integrating the height of the lower of the two arcs."""

    def height(x: float) -> float:
        return 2 * math.sqrt(max(0.0, min(r1 * r1 - x * x, r2 * r2 - (x - distance) ** 2)))

    return quad(height, max(-r1, distance - r2), min(r1, distance + r2), limit=200)[0]


def test_every_panel_shows_what_was_logged(page):
    page.open(run="plain", dataset="val")
    comparison = PLAIN[5]
    overlap, table = comparison.overlap, comparison.instances
    for name, score in SCORES.items():
        above = int((overlap.counts.sum(0) * score.numerator).sum())
        below = int((overlap.counts.sum(0) * score.denominator).sum())
        assert page.score(name) == f"{above} of {below}"
        low, high = overlap.interval(name)
        interval = page.text(f"[data-score={name}] .bc-score-interval")
        assert [float(part) for part in re.findall(r"[\d.]+", interval)] == pytest.approx(
            [100 * low, 100 * high], abs=0.06
        )

    circles = page.js(
        "return [...document.querySelectorAll('[data-testid=venn] .bc-venn-ring')]"
        ".map(circle => ['r', 'cx'].map(name => Number(circle.getAttribute(name))))"
    )
    (r1, x1), (r2, x2) = circles
    unit = math.pi * r1 * r1 / (overlap.both_wrong + overlap.h2_only_right)
    assert math.pi * r2 * r2 / unit == pytest.approx(overlap.both_wrong + overlap.h1_only_right, rel=0.01)
    assert lens(r1, r2, x2 - x1) / unit == pytest.approx(overlap.both_wrong, rel=0.01)
    legend = [number(cell.text) for cell in page.all("[data-testid=venn] .bc-venn-legend tbody tr td:nth-of-type(1)")]
    assert legend[:4] == [overlap.h2_only_right, overlap.both_wrong, overlap.h1_only_right, overlap.both_right]

    flips = comparison.negative_flips()
    assert f"({len(flips)})" in page.text("[data-testid=matrix] .bc-note")
    sums = [number(cell.text) for cell in page.all("[data-testid=matrix] tbody td.bc-flips-sum")]
    assert sum(sums) == len(flips)

    labels = page.js(
        "return [...document.querySelectorAll('[data-testid=classes] tbody th')].map(cell => cell.innerText.trim())"
    )
    worst = [flipped.label for flipped in comparison.worst_classes(30)]
    assert len(labels) == 15
    assert [label[:8] for label in labels[: len(worst)]] == [name[:8] for name in worst[:15]]

    assert page.shown() == len(table)
    rows = page.rows()
    assert len(rows) == 25
    by_id = {str(row["id"]): row for row in table}
    for row in rows:
        wanted = by_id[row["Instance"]]
        assert row["Text"] == TEXTS[wanted["id"]][:40]
        for name, key in (("Ground truth", "target"), ("h1 says", "h1_pred"), ("h2 says", "h2_pred")):
            assert row[name] == NAMES[wanted[key]][:40]
    pictures = "return [...document.querySelectorAll('[data-testid=instances] img')].map(image => image.naturalWidth)"
    page.js("document.querySelector('[data-testid=instances]').scrollIntoView()")
    wait_until(lambda: page.js(pictures) and set(page.js(pictures)[:5]) == {8}, what="images of 8 pixels")

    # Five series; where h1 makes no error, BEC given h1 wrong is not defined.
    assert len(page.all("[data-testid=sweep] [data-point]")) == 2 * 5 - 1
    assert len(page.all("[data-testid=curves] .bc-curve")) > 3
    # User's words stay words.
    assert page.all("img[onerror]") == []
    assert "bold" not in page.js(
        "return [...document.querySelectorAll('b, script')].map(each => each.innerText).join()"
    )


def test_selections_are_linked_shown_as_chips_and_kept_in_the_address(page, address):
    page.open(run="plain", dataset="val")
    comparison = PLAIN[5]
    flips = comparison.negative_flips()
    region = page.find("[data-testid=venn] .bc-venn-legend tbody tr:nth-of-type(3) button")
    region.click()
    page.settle()
    assert page.shown() == len(flips)
    assert page.chips() == ["Region: Only h2 wrong"]

    cell = page.find("[data-testid=matrix] td button")
    count, truth, says = re.match(r"(\d+) × true class (.*), h2 says (.*): ", cell.get_attribute("aria-label")).groups()
    page.click("[data-testid=matrix] td button")
    pairs = [(NAMES[row["target"]], NAMES[row["h2_pred"]]) for row in flips]
    wanted = sum(pair[0].startswith(truth[:9]) and pair[1].startswith(says[:9]) for pair in pairs)
    assert page.shown() == int(count) == wanted
    assert len(page.chips()) == 3

    # The address follows after a moment, so that a slider does not fill the browser's history.
    link = wait_until(lambda: "h2=" in page.hash() and page.hash(), what="the address")
    other = Page(address)
    try:
        other.driver.get(f"{address}{link}")
        other.enter()
        assert (other.chips(), other.shown(), other.rows()) == (page.chips(), page.shown(), page.rows())
    finally:
        other.driver.quit()

    page.click(".bc-chip:first-of-type")
    assert len(page.chips()) == 2
    wait_until(lambda: "region=" not in page.hash(), what="the address without the region")
    page.click("[data-testid=chips] .bc-link")
    assert page.chips() == []
    assert page.shown() == len(comparison.instances)
    wait_until(lambda: "target=" not in page.hash(), what="the address without conditions")
    page.driver.switch_to.default_content()
    page.driver.back()
    page.enter()
    wait_until(lambda: len(page.chips()) == 2, what="the conditions of before")


def test_a_class_a_prediction_and_a_text_narrow_the_instances_down(page):
    page.open(run="plain", dataset="val")
    table = PLAIN[5].instances
    page.click("[data-testid=classes] tbody tr:nth-of-type(2) th button")
    (chip,) = page.chips()
    worst = PLAIN[5].worst_classes(2)[1].index
    assert chip.startswith("True class")
    assert page.shown() == (table.target == worst).sum()

    page.open(run="plain", dataset="val", h2="7", text="KÄFER")
    wanted = [row for row in table if row["h2_pred"] == 7 and "käfer" in row["metadata"]]
    assert page.shown() == len(wanted)
    field = page.find("[data-testid=instances] input[type=search]")
    field.send_keys(" nothing has this")
    wait_until(lambda: page.shown() == 0, what="no instance left")
    assert "h2 says" in page.text("[data-testid=chips]")


def test_instances_are_sorted_and_paged(page):
    page.open(run="plain", dataset="val")
    table = PLAIN[5].instances

    flips = set(PLAIN[5].negative_flips().ids.tolist())
    first = [int(row["Instance"]) for row in page.rows()][: len(flips)]
    assert set(first) <= flips, "negative flips come first"
    heading = page.column("Instance")
    for order, wanted in (("ascending", sorted(table.ids)), ("descending", sorted(table.ids)[::-1])):
        page.click(f"{heading} button")
        assert page.find(heading).get_attribute("aria-sort") == order
        assert [int(row["Instance"]) for row in page.rows()] == wanted[:25]
    heading = page.column("Ground truth")
    page.click(f"{heading} button")
    labels = {NAMES[i][:40] for i in np.unique(table.target)}
    numbered = sorted((name for name in labels if name.startswith("class ")), key=lambda name: int(name[6:]))
    shown, seen = [], set()
    while True:
        shown += [row["Ground truth"] for row in page.rows()]
        seen |= {row["Instance"] for row in page.rows()}
        onwards = page.all("[data-testid=instances] .bc-pager-turn[aria-label^='Next']")
        if not onwards or not onwards[0].is_enabled():
            break
        page.click("[data-testid=instances] .bc-pager-turn[aria-label^='Next']")
    assert len(seen) == len(table)
    # Numbers in names are read as numbers: class 9 comes before class 10.
    assert list(dict.fromkeys(name for name in shown if name in numbered)) == numbered
    assert len(dict.fromkeys(shown)) == len(labels)


def test_the_step_slider_moves_the_venn_and_follows_the_curves(page):
    page.open(run="plain", dataset="val")
    assert page.score("nfr").startswith(f"{PLAIN[5].overlap.h1_only_right} of")
    slider = page.find("[data-testid=toolbar] input[type=range]")
    slider.send_keys(Keys.HOME)
    page.settle()
    assert page.score("nfr").startswith(f"{PLAIN[1].overlap.h1_only_right} of")
    wait_until(lambda: page.shown() == len(PLAIN[1].instances), what="the instances of step 1")
    page.click("[data-testid=toolbar] button[aria-label='Next step']")
    assert page.shown() == len(PLAIN[2].instances)
    wait_until(lambda: "step=2" in page.hash(), what="the address of step 2")


def test_the_sweep_filters_points_and_a_click_selects_one(page):
    page.open(run="plain", dataset="val")
    note = "[data-testid=sweep] .bc-controls .bc-note"
    assert page.text(note).startswith("5 of 5 points")
    strict = next(box for box in page.all("[data-testid=sweep] .bc-check") if "strict" in box.text)
    strict.click()
    page.settle()
    # Imitation is on two data sets.
    assert page.text(note).startswith("3 of 5 points")
    points = page.all("[data-testid=sweep] [data-point]")
    assert len(points) == 2 * 3 - 1
    other = next(point for point in points if "other" in point.get_attribute("aria-label"))
    page.js("arguments[0].scrollIntoView({block: 'center'})", other)
    other.click()
    page.settle()
    wait_until(lambda: "run=other" in page.hash(), what="the address of the other run")
    assert page.score("nfr").startswith(f"{OTHER[5].overlap.h1_only_right} of")
    assert "other" in Select(page.find("[data-testid=sweep] .bc-field-wide select")).first_selected_option.text
    drawn = page.js("return document.querySelector('[data-testid=sweep] .bc-scatters').textContent")
    assert f"h1 on val: {OTHER[5].overlap.accuracy_h1:.1%}" in drawn


def choose(page, label, text):
    (field,) = (each for each in page.all("[data-testid=sweep] .bc-field") if each.text.split("\n")[0] == label)
    Select(field.find_element(By.CSS_SELECTOR, "select")).select_by_visible_text(text)
    page.settle()


def marks(page, chart):
    """Points of one of the sweep's charts: by the name of the run, class of colour and outline of mark, and place."""
    found = page.js(
        "return [...document.querySelectorAll('[data-testid=sweep] .bc-scatter')[arguments[0]]"
        ".querySelectorAll('[data-point]')].map(each => [each.getAttribute('aria-label').split(':')[0],"
        " [each.getAttribute('class'), each.querySelector('.bc-point-mark').getAttribute('d')],"
        " each.getAttribute('transform').match(/[\\d.]+/g).map(Number)])",
        chart,
    )
    return {name: (look, place) for name, look, place in found}


def test_the_user_s_own_metric_is_an_axis_and_settings_are_colour_and_shape(page):
    page.open(run="plain", dataset="val")
    assert "0.625" in page.text("[data-testid=scores]")
    choose(page, "First chart across", "Performance of h2 (your metric)")
    shown = marks(page, 0)
    assert set(shown) == {"plain", "other"}, "those that have it"
    assert shown["plain"][1][0] < shown["other"][1][0]
    choose(page, "Second chart across", "NFR")
    choose(page, "Colour", "start")
    choose(page, "Shape", "seed")
    key = page.text("[data-testid=sweep] .bc-filters:has(.bc-note)")
    assert all(text in key for text in ("Colour: start", "cold", "warm", "Shape: seed", "not stated"))
    looks = [marks(page, 1)[run][0] for run in ("plain", "other", "imitation")]
    for part in range(2):
        assert len({look[part] for look in looks}) == 3
    wait_until(lambda: "colourBy=" in page.hash() and "sweepX=performance" in page.hash(), what="the address")


def test_a_link_leads_to_its_panel(page):
    page.open(run="plain", dataset="val", panel="classes")
    top = "return document.querySelector('[data-testid=classes]').getBoundingClientRect().top"
    wait_until(lambda: 0 <= page.js(top) < 300, what="the classes at the top")
    wait_until(lambda: "panel=" not in page.hash(), what="an address that does not lead back at each change")
    page.js("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    # A click by the driver would bring the button to the middle first.
    page.js("document.querySelector('.bc-copy button').click()")
    assert "panel=classes" in wait_until(lambda: page.js("return window.copied"), what="the copied link")


def test_two_updates_against_one_h1_with_the_paired_interval(page):
    page.open(run="plain", dataset="val", other="other")
    first, second = (set(each[5].negative_flips().ids.tolist()) for each in (PLAIN, OTHER))
    both, only_first, only_second = len(first & second), len(first - second), len(second - first)
    low, high = paired_difference_interval(both, only_first, only_second, SIZE - len(first | second))
    text = page.text("[data-testid=compared]").replace("−", "-")
    assert f"A only: {only_first}\nboth: {both}\nB only: {only_second}" in text
    found = re.search(
        r"percentage points \(95% interval of the paired difference: ([-+]?[\d.]+) to ([-+]?[\d.]+)\)", text
    )
    assert [float(part) for part in found.groups()] == pytest.approx([-100 * high, -100 * low], abs=0.006)
    difference = only_first - only_second
    wanted = "as many" if difference == 0 else f"{abs(difference)} {'fewer' if difference > 0 else 'more'}"
    assert wanted in text


def test_everything_can_be_reached_and_worked_by_keyboard(page):
    page.open(run="plain", dataset="val")
    region = page.find("[data-testid=venn] svg [role=button]")
    page.js("arguments[0].focus()", region)
    region.send_keys(Keys.ENTER)
    page.settle()
    assert len(page.chips()) == 1
    region = page.find("[data-testid=venn] svg [aria-pressed=true]")
    region.send_keys(Keys.SPACE)
    page.settle()
    assert page.chips() == []
    wanted, reached = {"toolbar", "venn", "matrix", "classes", "instances", "curves", "sweep"}, set()
    page.js("document.activeElement.blur(); document.body.tabIndex = -1; document.body.focus()")
    for _ in range(250):
        if wanted <= reached:
            break
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        panel = page.js("return document.activeElement.closest('[data-testid]')?.dataset.testid")
        reached.add(panel)
    assert wanted <= reached
    unnamed = page.js(
        "return [...document.querySelectorAll('button, select, input, [role=button]')].filter(each => "
        "!(each.getAttribute('aria-label') || each.title || each.innerText?.trim() || each.labels?.length"
        " || each.textContent.trim())).map(each => each.outerHTML)"
    )
    assert unnamed == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_wrong_with_its_accessibility(address, dark):
    page = Page(f"{address}?darkMode=true" if dark else address, dark)
    instance = str(PLAIN[5].negative_flips().ids[0])
    try:
        for state in ({"region": "regress"}, {"listed": "pictures", "other": "other"}, {"instance": instance}):
            page.open(run="plain", dataset="val", **state)
            page.js("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
            assert violations(page.driver) == []
        lang_and_title = page.js("return [document.documentElement.lang, document.title]")
        assert lang_and_title == ["en", "Backward compatibility"]
    finally:
        page.driver.quit()


def test_the_first_key_leads_past_the_panels(page):
    page.open(run="plain", dataset="val")
    page.js("document.activeElement.blur(); document.body.tabIndex = -1; document.body.focus()")
    for _ in range(2):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
    skip = page.driver.switch_to.active_element
    assert skip.text == "Skip to the error instances"
    skip.send_keys(Keys.ENTER)
    assert page.js("return document.activeElement.dataset.testid") == "instances"


def test_an_instance_is_looked_at_closely_in_tensorboard(page):
    page.open(run="plain", dataset="val", listed="pictures")
    instance = int(PLAIN[5].negative_flips().ids[0])
    page.open(run="plain", dataset="val", listed="pictures", instance=instance)
    wait_until(lambda: page.all("[data-testid=opened] img"), what="the picture")
    text = page.text("[data-testid=opened]")
    assert TEXTS[instance][:100] in text
    tables = {step: each.instances for step, each in PLAIN.items()}
    wrong = [step for step, each in tables.items() if instance in each.ids[each.h2_pred != each.target]]
    wait_until(lambda: "so far" not in page.text("[data-testid=story]"), what="the story")
    strip = [each.text for each in page.all("[data-testid=opened] .bc-strip button")]
    assert strip == ["✗" if step in wrong else "✓" for step in PLAIN]
    broken = [
        name
        for name, each in (("plain", PLAIN[5]), ("other", OTHER[5]), ("imitation", IMITATION))
        if instance in each.negative_flips().ids
    ]
    wait_until(lambda: f"{len(broken)} of 3 break it" in page.text("[data-testid=opened]"), what="every run")


def test_it_is_dark_where_tensorboard_is(address):
    page = Page(f"{address}?darkMode=true")
    try:
        page.open(run="plain", dataset="val")
        theme = "const app = document.querySelector('.bc-app'); return [app.dataset.theme, getComputedStyle(app).color]"
        name, colour = page.js(theme)
        assert name == "dark"
        assert min(map(int, re.findall(r"\d+", colour)[:3])) > 180
        page.driver.switch_to.default_content()
        page.js("document.body.classList.remove('dark-mode')")
        page.enter()
        wait_until(lambda: page.js(theme)[0] == "light", what="light again")
    finally:
        page.driver.quit()


def test_no_error_in_the_console_and_no_request_to_another_origin(address):
    page = Page(address)
    try:
        page.open(run="plain", dataset="val", other="other", region="regress")
        page.click("[data-testid=classes] tbody tr:nth-of-type(1) th button")
        page.click("[data-testid=toolbar] button[aria-label='Previous step']")
        origin = re.match(r"http://[^/]+", address)[0]
        asked = requests(page.driver)
        ours = [url for url in asked if "backward_compatibility" in url.partition("#")[0]]
        assert ours
        assert all(url.startswith(f"{origin}{PREFIX}/data/plugin") for url in ours)
        # chrome: is the browser's own first page.
        assert [url for url in asked if not url.startswith((origin, "data:", "blob:", "about:", "chrome:"))] == []
        # TensorBoard's own fonts are not found under a path prefix.
        assert [line for line in console(page.driver) if "font-roboto" not in line] == []
    finally:
        page.driver.quit()


def test_a_run_that_is_gone_and_a_comparison_without_errors_are_said_in_place(page):
    page.open(run="was here", dataset="val")
    assert "was here" in page.text("[data-testid=missing]")
    page.open(run="perfect", dataset="train")
    assert "Neither model makes an error" in page.text("[data-testid=venn]")
    assert page.score("nfr") == "0 of 3"
    assert "nothing to count" in page.text("[data-score=nfi]")
    page.open(run="imitation", dataset=HOSTILE[0])
    assert page.shown() == len(IMITATION.instances)

"""The HTML file and the notebook's view in a real browser, as a reader opens them from disk."""

import csv
import io
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import console, opened, requests, retype, themed, violations, violations_in_both_themes, wait_until
from notebook_page import ROOT, Notebook
from PIL import Image
from selenium.webdriver.common.by import By

from bc_core import assert_compatible, compare
from bc_tensorboard import ComparisonView, to_html

pytestmark = pytest.mark.slow

HOSTILE = "</script><img src=x onerror=alert(1)>\"'\N{CAT FACE}<!--"


def comparison_of(seed, **options):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 5, 400)
    h1, h2 = (np.where(rng.random(400) < 0.75, target, rng.integers(0, 5, 400)) for _ in range(2))
    return compare(target, h1, h2, num_classes=5, **options)


def legend(driver):
    """Counts of the Venn's legend by title; in one go, as the view may draw anew at any time."""
    rows = driver.execute_script(
        f"{ROOT} return [...root.querySelectorAll('.bc-venn-legend tbody tr')].map("
        "  (row) => [...row.querySelectorAll('th, td')].slice(0, 2).map((cell) => cell.innerText))"
    )
    return {title.split("\n")[0]: int("".join(filter(str.isdigit, number))) for title, number in rows}


def shown(driver):
    """How many instances the table says it shows; None while there is no table."""
    return driver.execute_script(f"{ROOT} return root.querySelector('[data-testid=instances-count] strong')?.innerText")


def wait_for_dashboard(driver):
    wait_until(lambda: legend(driver) and shown(driver), what="the Venn and the table of instances")


def check_counts_and_filter(driver, comparison):
    wait_for_dashboard(driver)
    overlap = comparison.overlap
    found = legend(driver)
    assert found["Only h2 wrong"] == overlap.h1_only_right
    assert found["Only h1 wrong"] == overlap.h2_only_right
    assert found["Both wrong"] == len(comparison.common_errors())
    wait_until(lambda: shown(driver) == str(len(comparison.instances)))

    [region] = driver.find_elements(By.CSS_SELECTOR, ".bc-venn-region[aria-label^='Only h2 wrong']")
    region.find_element(By.CSS_SELECTOR, ".bc-venn-hit").click()
    wait_until(lambda: shown(driver) == str(overlap.h1_only_right), what="the table of negative flips")


def check_quiet(driver, address, logged=None):
    assert [url for url in requests(driver) if not url.startswith((address, "data:", "blob:"))] == []
    assert (console(driver) if logged is None else logged) == []


def test_the_file_opens_from_disk_shows_the_counts_and_filters_by_a_click(driver, tmp_path):
    comparison = comparison_of(0, name="update", step=3, class_names=[HOSTILE, "b", "c", "d", "e"])
    pixels = np.random.default_rng(0).integers(0, 255, (400, 16, 16), dtype=np.uint8)
    path = comparison.to_html(tmp_path / "update.html", images=pixels, metadata=lambda i: f"{HOSTILE} {i}")
    address = opened(driver, path)
    check_counts_and_filter(driver, comparison)
    flips = {str(instance) for instance in comparison.negative_flips().ids.tolist()}
    rows = driver.find_elements(By.CSS_SELECTOR, ".bc-instances-table tbody tr")
    assert all(any(cell in flips for cell in row.text.split()) for row in rows)
    assert f"{HOSTILE} " in driver.find_element(By.CSS_SELECTOR, ".bc-instances-table tbody").text
    driver.execute_script("document.querySelector('.bc-instances-table').scrollIntoView()")
    wait_until(
        lambda: driver.execute_script(
            "const images = [...document.querySelectorAll('.bc-thumbnail img')];"
            "return images.length > 0 && images.every((image) => image.naturalWidth === 16)"
        ),
        what="thumbnails",
    )
    check_quiet(driver, address)

    # The link alone brings the filter back.
    link = driver.current_url
    assert "region=regress" in link
    driver.get("about:blank")
    driver.get(link)
    wait_for_dashboard(driver)
    wait_until(lambda: shown(driver) == str(len(flips)))


def test_negative_flips_come_first_and_a_click_on_them_leads_to_the_table(driver, tmp_path):
    comparison = comparison_of(0, name="update", step=3)
    flips = [str(instance) for instance in comparison.negative_flips().ids.tolist()]
    opened(driver, to_html(comparison, tmp_path / "update.html"))
    wait_for_dashboard(driver)
    first = driver.execute_script(
        f"{ROOT} return [...root.querySelectorAll('.bc-instances-id')].map((cell) => cell.innerText)"
    )
    assert set(first[: len(flips)]) <= set(flips)
    driver.execute_script("window.scrollTo(0, 0)")
    driver.find_element(By.CSS_SELECTOR, ".bc-venn-region[aria-label^='Only h2 wrong'] .bc-venn-hit").click()
    wait_until(lambda: shown(driver) == str(len(flips)), what="the table of negative flips")
    table = "document.querySelector('.bc-instances-table tbody tr').getBoundingClientRect()"
    wait_until(
        lambda: driver.execute_script(f"return {table}.top >= 0 && {table}.bottom <= window.innerHeight"),
        what="the first row of the table on the screen",
    )


def test_a_picture_that_a_limit_left_out_says_so_in_its_row(driver, tmp_path):
    comparison = comparison_of(0, name="update", step=3)
    with pytest.warns(UserWarning, match="left out"):
        path = to_html(comparison, tmp_path / "update.html", images=lambda i: np.zeros((4, 4)), max_images=2)
    opened(driver, path)
    wait_for_dashboard(driver)
    cells = driver.execute_script(
        f"{ROOT} return [...root.querySelectorAll('.bc-instances-image')].map((cell) => cell.innerText)"
    )
    assert cells.count("left out by max_images") == len(cells) - 2 > 0


def test_it_opens_on_the_pinned_run(driver, tmp_path):
    runs = {name: comparison_of(i, step=i) for i, name in enumerate("abc")}
    path = to_html(runs, tmp_path / "pinned.html")
    chosen = lambda: driver.execute_script(f"{ROOT} return root.querySelector('.bc-picker input')?.value")  # noqa: E731

    def reopened(hash_=""):
        driver.get("about:blank")
        driver.get(path.as_uri() + hash_)
        wait_for_dashboard(driver)
        return chosen()

    newest = reopened()
    assert newest != "b"
    assert reopened("#run=b") == "b"
    pin = driver.find_element(By.CSS_SELECTOR, ".bc-pin")
    pin.click()
    assert pin.get_attribute("aria-pressed") == "true"
    wait_until(lambda: "pin=b" in driver.current_url, what="a link that keeps the pin")
    assert reopened() == "b"
    assert reopened("#pin=c") == "c", "what a link says goes before what the browser keeps"
    assert reopened("#run=b") == "b"
    driver.find_element(By.CSS_SELECTOR, ".bc-pin").click()
    assert reopened() == newest
    best = max(runs, key=lambda name: runs[name].overlap.accuracy_h2)
    assert reopened("#promise=nfr%20<=%2050%25") == best, "the most accurate that keeps it"

    # Each of them is an update of another h1.
    assert reopened("#run=b") == "b"
    driver.find_element(By.XPATH, "//label[contains(., 'that of the chosen run only')]").click()
    wait_until(lambda: "sameH1=1" in driver.current_url, what="a link that keeps the filter")
    assert "1 of 3 points" in driver.find_element(By.CSS_SELECTOR, "[data-testid=sweep]").text
    assert (
        driver.find_elements(By.CSS_SELECTOR, ".bc-picker input")[1].get_attribute("placeholder") == "No other run fits"
    )


# Each letter before the page has shown the last; "nfr <= 0" is a promise already.
TYPE_AT_ONCE = """
const [field, text, done] = arguments;
const type = (letters) => {
  if (letters === "") return setTimeout(done, 500);
  field.value += letters[0];
  field.dispatchEvent(new InputEvent("input", { bubbles: true }));
  setTimeout(() => type(letters.slice(1)), 1);
};
type(text);
"""


def test_the_update_to_take_is_the_most_accurate_that_keeps_the_promise(driver, tmp_path):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 5, 2000)
    h1 = np.where(rng.random(2000) < 0.9, target, (target + 1) % 5)
    runs = {}
    for lambda_c, broken, repaired in ((0, 0.03, 0.6), (1, 0.015, 0.4), (4, 0.004, 0.35), (16, 0.002, 0.1)):
        is_right = np.where(h1 == target, rng.random(2000) >= broken, rng.random(2000) < repaired)
        h2 = np.where(is_right, target, (target + 2) % 5)
        runs[f"run {lambda_c}"] = compare(target, h1, h2, num_classes=5, lambda_c=float(lambda_c), step=1)
    kept = [run for run in runs.values() if run.overlap.gate("nfr", 0.01) == "pass"]
    best = max(kept, key=lambda run: run.overlap.accuracy_h2)
    assert 0 < len(kept) < len(runs)
    opened(driver, to_html(runs, tmp_path / "sweep.html"))
    wait_for_dashboard(driver)
    field = driver.find_element(By.CSS_SELECTOR, ".bc-promise input")
    said = lambda: driver.find_element(By.CSS_SELECTOR, ".bc-promise [role=status]").text  # noqa: E731
    driver.execute_async_script(TYPE_AT_ONCE, field, "nfr <= 0.025%")
    wait_until(lambda: "0.025%25" in driver.current_url, what="all that was typed")
    assert field.get_attribute("value") == "nfr <= 0.025%"
    retype(field, "nfr < 1%")
    wait_until(lambda: "Write nfr <= 1%" in said())
    retype(field, "nfr <= 1%")
    wait_until(lambda: f"\N{GREEK SMALL LETTER LAMDA} {best.lambda_c:g}" in said(), what="the recommendation")
    bound = best.overlap.interval("nfr", 0.95, "upper", "clopper_pearson")[1]
    assert f"bound {bound:.2%}" in said()
    faded = driver.find_elements(By.CSS_SELECTOR, ".bc-scatter:first-of-type .bc-point-broken")
    failing = [run for run in runs.values() if run.overlap.gate("nfr", 0.01) == "fail"]
    assert len(faded) == 2 * len(failing) > 0, "in both charts"
    wait_until(lambda: "promise=" in driver.current_url, what="a link that keeps the promise")
    retype(field, "nfr <= 0.001%")
    wait_until(lambda: "No update keeps" in said() and "Nearest" in said())


SAVED = """
const done = arguments[arguments.length - 1];
const saved = [];
const made = URL.createObjectURL;
URL.createObjectURL = (blob) => { saved.push(blob); return made(blob); };
HTMLAnchorElement.prototype.click = function () { saved.push(this.download); };
document.querySelector(arguments[0]).click();
setTimeout(async () => {
  URL.createObjectURL = made;
  const [blob, name] = saved;
  const bytes = new Uint8Array(await blob.arrayBuffer());
  done([name, [...bytes].map((byte) => String.fromCharCode(byte)).join("")]);
}, 1500);
"""


def test_what_is_listed_and_drawn_can_be_taken_away(driver, tmp_path):
    comparison = comparison_of(0, name="update", step=3, class_names=["=HYPERLINK()", "b, c", 'd "e"', "f", "g\x01"])
    opened(driver, to_html(comparison, tmp_path / "update.html", metadata=lambda i: f"text {i}"))
    wait_for_dashboard(driver)
    driver.find_element(By.CSS_SELECTOR, ".bc-venn-region[aria-label^='Only h2 wrong'] .bc-venn-hit").click()
    flips = comparison.negative_flips()
    wait_until(lambda: shown(driver) == str(len(flips)), what="the table of negative flips")
    driver.set_script_timeout(20)
    name, content = driver.execute_async_script(SAVED, ".bc-take [title^='Save']")
    assert name == "update-test-instances.csv"
    rows = list(csv.reader(io.StringIO(content.encode("latin-1").decode(), newline="")))
    names = ["'=HYPERLINK()", "b, c", 'd "e"', "f", "g\x01"]
    assert rows[0] == ["id", "target", "h1", "h2", "region", "text"]
    wanted = []
    for row in flips:
        classes = [names[row[key]] for key in ("target", "h1_pred", "h2_pred")]
        wanted.append([str(row["id"]), *classes, "Only h2 wrong", f"text {row['id']}"])
    assert sorted(rows[1:]) == sorted(wanted)
    name, content = driver.execute_async_script(SAVED, "[data-testid=venn] .bc-card-save [title*=SVG]")
    assert name == "Errors-of-h1-and-h2.svg"
    picture = ElementTree.fromstring(content.encode("latin-1"))
    assert str(len(flips)) in "".join(picture.itertext())
    assert not picture.findall(".//{*}script")
    name, content = driver.execute_async_script(SAVED, "[data-testid=venn] .bc-card-save [title*=PNG]")
    pixels = np.asarray(Image.open(io.BytesIO(content.encode("latin-1"))).convert("RGB"))
    (tmp_path / "venn.png").write_bytes(content.encode("latin-1"))
    assert pixels.shape[1] == 2 * int(picture.get("width"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 5, "colours of the style sheet, not black shapes"
    # What is drawn by tables is a picture too, with every name and number, and nothing that is there to be pressed.
    drawn = [*names[1:4], "g\N{REPLACEMENT CHARACTER}"]
    for panel, wanted in (("matrix", [str(len(flips)), *drawn]), ("classes", [*drawn, "100%"])):
        _, content = driver.execute_async_script(SAVED, f"[data-testid={panel}] .bc-card-save [title*=SVG]")
        words = " ".join(ElementTree.fromstring(content.encode("latin-1")).itertext())
        assert [each for each in wanted if each not in words] == []
        assert "Sort by" not in words


def test_the_flips_of_either_of_two_updates_are_listed_by_a_click(driver, tmp_path):
    rng = np.random.default_rng(3)
    target = rng.integers(0, 5, 400)
    h1, a, b = (np.where(rng.random(400) < share, target, (target + 1) % 5) for share in (0.85, 0.8, 0.75))
    flips = {name: set(np.flatnonzero((h1 == target) & (h2 != target)).tolist()) for name, h2 in (("a", a), ("b", b))}
    runs = {"first": compare(target, h1, a, num_classes=5), "second": compare(target, h1, b, num_classes=5)}
    path = to_html(runs, tmp_path / "two.html", images=lambda i: np.zeros((4, 4)), max_images=400)
    opened(driver, path)
    wait_for_dashboard(driver)
    driver.execute_script("location.hash = 'run=first&other=second'")
    wait_until(lambda: driver.find_elements(By.CSS_SELECTOR, "[data-testid=compared] button"), what="the comparison")
    wanted = {"A only": flips["a"] - flips["b"], "both": flips["a"] & flips["b"], "B only": flips["b"] - flips["a"]}
    rows = f"{ROOT} return [...root.querySelectorAll('.bc-instances-table tbody tr')].map((row) => row.innerText)"
    for title, ids in wanted.items():
        buttons = driver.find_elements(By.CSS_SELECTOR, "[data-testid=compared] button")
        (button,) = (each for each in buttons if each.text.startswith(title))
        assert button.text == f"{title}: {len(ids)}"
        driver.execute_script("arguments[0].click()", button)
        wait_until(lambda ids=ids: shown(driver) == str(len(ids)), what=f"the flips of {title}")
        for row in driver.execute_script(rows):
            cells = [cell.replace("\n", "") for cell in row.split("\t")]
            instance = int(cells[1])
            assert instance in ids
            answers = [h1[instance], a[instance], b[instance]]
            said = [f"{'right' if answer == target[instance] else 'wrong'}:{answer}" for answer in answers]
            assert [cell[1:] for cell in cells[2:5]] == said
        images = driver.find_elements(By.CSS_SELECTOR, ".bc-instances-table .bc-enlarge")
        assert len(images) == min(25, len(ids)), "run B's pictures too"


def history_of(step, long_text=""):
    """An update that errs on instance 7 at steps 1 and 3, and on 8 at all of them; h1 errs on 9 alone."""
    target = np.arange(40) % 4
    h1, h2 = target.copy(), target.copy()
    h1[9] = 3
    h2[8] = 2
    h2[7] = 0 if step != 2 else target[7]
    options = {"num_classes": 4, "class_names": ["a", "b", "c", HOSTILE], "name": "update"}
    return compare(target, h1, h2, step=step, lambda_c=1.0, metadata=lambda i: f"{HOSTILE} {i} {long_text}", **options)


def opened_instance(driver):
    return driver.execute_script(
        f"{ROOT} const dialog = root.querySelector('[data-testid=opened]');"
        "return dialog && { text: dialog.innerText, story: dialog.querySelector('[data-testid=story]')?.innerText,"
        " strip: [...dialog.querySelectorAll('.bc-strip button')].map((each) => each.innerText).join(''),"
        " width: dialog.querySelector('img')?.naturalWidth ?? null }"
    )


def test_instances_as_pictures_and_one_of_them_over_steps_and_runs(driver, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 150, 150), dtype=np.uint8)
    long_text = "word " * 100 + "the very end"
    runs = [history_of(step, long_text) for step in (1, 2, 3)]
    other = compare(np.arange(40) % 4, np.arange(40) % 4, np.arange(40) % 4, num_classes=4, name="other", step=3)
    path = to_html([*runs, other], tmp_path / "a.html", images=noise)
    address = opened(driver, path)
    driver.get(f"{address}#run=update&dataset=test")
    wait_for_dashboard(driver)
    driver.find_element(By.XPATH, "//button[text()='pictures']").click()
    pairs = (
        f"{ROOT} return [...root.querySelectorAll('.bc-pair h3')].map((each) => each.innerText.replace(/\\s+/g, ' '))"
    )
    wait_until(lambda: driver.execute_script(pairs), what="the pictures")
    found = [" ".join(text.split()) for text in driver.execute_script(pairs)]
    assert [text[0] for text in found] == ["a", HOSTILE[0], "b"]
    assert found[0].endswith("c 1 negative flip")
    assert found[2].endswith("b 1 repaired")
    driver.find_element(By.CSS_SELECTOR, "[aria-label^='Open instance 7:']").click()
    wait_until(lambda: (opened_instance(driver) or {}).get("width") == 150, what="the picture in full")
    wait_until(lambda: "the very end" in opened_instance(driver)["text"], what="the whole text")
    shown_now = opened_instance(driver)
    assert shown_now["strip"] == "✗✓✗"
    assert shown_now["story"].startswith("Forgotten at step 3: h2 was right at step 2")
    assert "150 × 150 pixels" in shown_now["text"]
    assert "1 of 2 break it" in shown_now["text"]
    assert violations(driver) == []

    # A step of the strip leads there, where the instance is no error; the address alone brings all of it back.
    driver.find_element(By.CSS_SELECTOR, ".bc-strip li:nth-of-type(2) button").click()
    wait_until(lambda: "Neither model errs on it at this step" in opened_instance(driver)["text"])
    wait_until(lambda: "step=2" in driver.current_url and "instance=7" in driver.current_url)
    link = driver.current_url
    driver.get("about:blank")
    driver.get(link)
    wait_until(lambda: (opened_instance(driver) or {}).get("story", "").startswith("Forgotten at step 3"))
    check_quiet(driver, address)
    driver.execute_script("document.querySelector('[data-testid=opened]').close()")
    wait_until(lambda: "instance=" not in driver.current_url, what="the address without the instance")


def test_a_word_at_the_end_of_a_long_text_is_found(driver, tmp_path):
    run = history_of(1, "word " * 100 + "needle")
    opened(driver, run.to_html(tmp_path / "a.html"))
    wait_for_dashboard(driver)
    field = driver.find_element(By.CSS_SELECTOR, "[data-testid=instances] input[type=search]")
    field.send_keys("9 word word")
    wait_until(lambda: shown(driver) == "1")
    retype(field, "NEEDLE")
    wait_until(lambda: shown(driver) == str(len(run.instances)), what="those found in the rest of the texts")
    field.send_keys(" nothing has this")
    wait_until(lambda: shown(driver) == "0")


def test_names_without_a_space_widen_neither_page_nor_table(driver, tmp_path):
    def page(length):
        def name(text):
            return (text + "x" * 300)[:length]

        rng = np.random.default_rng(0)
        target, h1, h2 = rng.integers(0, 12, (3, 200))
        runs = {
            name(f"run{i}"): {
                name("val"): compare(
                    target,
                    h1,
                    (h2 + i) % 12,
                    num_classes=12,
                    ids=[name(f"{each:05}") for each in range(200)],
                    class_names=[name(f"class{each:02}") for each in range(12)],
                    metadata=[name("text")] * 200,
                )
            }
            for i in range(3)
        }
        dissonance = dict.fromkeys(runs, name("loss"))
        opened(driver, to_html(runs, tmp_path / f"{length}.html", dissonance=dissonance))
        wait_for_dashboard(driver)
        return driver.execute_script(
            "document.querySelectorAll('details').forEach((each) => { each.open = true; });"
            "return [document.documentElement.scrollWidth - innerWidth,"
            " document.querySelector('.bc-instances-table').scrollWidth]"
        )

    metrics = {"height": 900, "deviceScaleFactor": 1, "mobile": False}
    try:
        for width in (390, 1280):
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, **metrics})
            (_, short), (beyond, long) = page(8), page(200)
            assert beyond == 0
            assert long <= 1.15 * short
            assert violations(driver) == []
    finally:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 1280, **metrics})


def test_what_a_gate_came_to_is_accessible_and_widens_nothing(driver, tmp_path):
    update = compare(*np.random.default_rng(0).integers(0, 3, (3, 300)), class_names=["a", "b" * 200, HOSTILE])
    report = assert_compatible(update, promise=["nfr <= 99%", "btc >= 10%"])
    reports = {"x" * 200: report, "other": "y" * 200}
    opened(driver, to_html(update, tmp_path / "gate.html", reports=reports))
    wait_for_dashboard(driver)
    assert violations_in_both_themes(driver) == []
    metrics = {"height": 900, "deviceScaleFactor": 1, "mobile": False}
    try:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, **metrics})
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
    finally:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 1280, **metrics})


def test_hostile_names_run_nothing(driver, tmp_path):
    runs = {f"{HOSTILE} {i}": {HOSTILE: comparison_of(i)} for i in range(2)}
    address = opened(driver, to_html(runs, tmp_path / "a.html", title=HOSTILE, dissonance=HOSTILE))
    wait_for_dashboard(driver)
    assert driver.title == HOSTILE
    assert driver.find_elements(By.CSS_SELECTOR, "img[src=x]") == []
    check_quiet(driver, address)


def test_the_file_is_dark_where_the_system_is(driver, tmp_path):
    opened(driver, to_html(comparison_of(0), tmp_path / "a.html"))
    wait_for_dashboard(driver)

    paper = "return getComputedStyle(document.querySelector('.bc-app')).backgroundColor"
    # It follows a system that changes while the page is open.
    for theme, colour in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 24, 29)")):
        with themed(driver, theme):
            wait_until(lambda colour=colour: driver.execute_script(paper) == colour, what=f"the {theme} page")


def test_the_policy_of_the_file_refuses_other_scripts(driver, tmp_path):
    opened(driver, to_html(comparison_of(0), tmp_path / "a.html"))
    wait_for_dashboard(driver)
    driver.execute_script(
        "const script = document.createElement('script'); script.textContent = 'window.ran = true';"
        "document.body.append(script)"
    )
    assert driver.execute_script("return window.ran === undefined")
    assert any("Content Security Policy" in message for message in console(driver))


def test_the_view_of_a_notebook_asks_the_kernel_and_follows_it(driver, tmp_path):
    first, second = comparison_of(0, name="update", step=1), comparison_of(1, name="update", step=2)

    def image(instance):
        if instance % 2:
            raise OSError("the disk is gone")
        return np.zeros((12, 12))

    view = ComparisonView(first, images=image, metadata=lambda i: f"{HOSTILE} {i}")
    notebook = Notebook(driver, view, tmp_path / "notebook.html")
    notebook.wait_until(lambda: legend(driver) and shown(driver), what="the Venn and the table of instances")
    assert legend(driver)["Only h2 wrong"] == first.overlap.h1_only_right
    # JupyterLab floats every term of a list and gives it a fifth of the width.
    assert driver.execute_script(f"{ROOT} return getComputedStyle(root.querySelector('.bc-score dt')).float") == "none"
    driver.execute_script(f"{ROOT} root.querySelector('.bc-instances').scrollIntoView()")
    notebook.wait_until(
        lambda: driver.execute_script(f"{ROOT} return !!root.querySelector('.bc-thumbnail img')"), what="images"
    )
    texts = f"{ROOT} return root.querySelector('.bc-instances').innerText"
    notebook.wait_until(lambda: HOSTILE in driver.execute_script(texts), what="texts")

    view.state = "region=regress"
    notebook.wait_until(lambda: shown(driver) == str(first.overlap.h1_only_right), what="the state set in Python")

    view.add(second)
    view.state = ""
    notebook.wait_until(
        lambda: legend(driver).get("Only h2 wrong") == second.overlap.h1_only_right, what="the step that was added"
    )
    check_quiet(driver, notebook.address, logged=driver.execute_script("return errors"))

"""The self-contained HTML file: what a parser finds in it, against the comparisons that went in."""

import base64
import hashlib
import html.parser
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bc_core import compare
from bc_tensorboard import read_original_sweep, to_html
from bc_tensorboard.plugin._packs import TEXTS_TOGETHER
from bc_tensorboard.writing._format import FULL, LEFT_OUT, REDUCED, decode
from bc_tensorboard.writing._media import EXCERPT

ORIGINALS = Path(__file__).parents[2] / "data" / "original_sweep"
HOSTILE = {
    "end of script": "</script><script>alert(1)</script>",
    "comment": "<!--<script>",
    "quotes": "\"'` &amp; \\ \u2028 \r\n\t",
    "emoji": "\N{CAT FACE}\u202e right to left \u0627",
    "half a pair": "broken \ud83d pair",
    "control": "bell \x07",
    "long": "x" * 10_000,
}


class Parsed(html.parser.HTMLParser):
    """Elements with their attributes and text, as a parser of HTML sees them."""

    def __init__(self, page):
        super().__init__()
        self.elements = []
        self.open = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])
        self.open = True

    def handle_endtag(self, tag):
        self.open = False

    def handle_data(self, data):
        if self.open:
            self.elements[-1][2] += data

    def all(self, tag, **attributes):
        return [each for each in self.elements if each[0] == tag and attributes.items() <= each[1].items()]


def opened(path):
    return Parsed(Path(path).read_text("utf-8"))


def media_of(data, key):
    return data["packs"][data["media"][key]]


def data_of(page):
    [[_, attributes, text]] = page.all("script", id="bc-data")
    assert attributes["type"] == "application/json"
    return json.loads(text)


def decoded(blob):
    return decode(base64.b64decode(blob, validate=True))


def random_comparison(size=60, seed=0, **options):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 4, size)
    h1, h2 = (np.where(rng.random(size) < 0.6, target, rng.integers(0, 4, size)) for _ in range(2))
    return compare(target, h1, h2, num_classes=4, **options)


def runs_of(data):
    return {
        (series["run"], series["dataset"]): [row[0] for row in series["steps"]] for series in data["index"]["series"]
    }


def test_the_file_holds_the_comparison(tmp_path):
    comparison = random_comparison(name="update", step=7, lambda_c=0.5, metadata=lambda i: f"row {i}")
    data = data_of(opened(comparison.to_html(tmp_path / "a.html", dataset="val", dissonance="new error")))
    overlap = comparison.overlap
    cells = [int(overlap.counts[:, i, j].sum()) for i in (0, 1) for j in (0, 1)]
    [series] = data["index"]["series"]
    assert series == {
        "run": "update",
        "dataset": "val",
        "dissonance": "new error",
        "num_classes": 4,
        "has_media": True,
        "steps": [[7, None, 0.5, *cells]],
    }
    assert sum(cells) == 60
    header, columns = decoded(data["tables"]["update\0val\x007"])
    table = comparison.instances
    assert (header["kind"], header["step"], header["dissonance"]) == ("comparison", 7, "new error")
    assert columns["ids"].tolist() == table.ids.tolist()
    assert columns["target"].tolist() == table.target.tolist()
    assert columns["h1"].tolist() == table.h1_pred.tolist()
    assert columns["h2"].tolist() == table.h2_pred.tolist()
    assert columns["counts"].reshape(4, 2, 2).tolist() == overlap.counts.tolist()
    media = media_of(data, "update\0val")
    _, texts = decoded(media["blob"])
    assert dict(zip(texts["ids"].tolist(), texts["text"], strict=True)) == {i: f"row {i}" for i in table.ids.tolist()}
    assert media["images"] == {}


def test_nothing_is_loaded_from_elsewhere_and_only_our_script_runs(tmp_path):
    page = opened(random_comparison(name="u").to_html(tmp_path / "a.html"))
    for tag, attributes, _ in page.elements:
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes), tag
        assert attributes.get("href", "data:").startswith("data:")
    [[_, meta, _]] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    policy = dict(part.strip().split(" ", 1) for part in meta["content"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    scripts = [each for each in page.all("script") if "type" not in each[1]]
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0][2].encode()).digest()).decode()
    assert policy["script-src"] == f"'sha256-{digest}'"
    # The policy must come before what it is about.
    tags = [each[0] for each in page.elements]
    assert [each[1] for each in page.elements].index(meta) < min(tags.index("script"), tags.index("style"))


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_stay_text(tmp_path, name):
    comparison = compare(
        [0, 1, 1],
        [0, 1, 0],
        [0, 0, 1],
        ids=["a", name, "c"],
        class_names=[name, "dog"],
        metadata=[name] * 3,
        name=name,
    )
    page = opened(to_html(comparison, tmp_path / "a.html", title=name, dataset=name, dissonance=name))
    plain = opened(to_html(compare([0, 1, 1], [0, 1, 0], [0, 0, 1], name="u"), tmp_path / "b.html"))
    assert [each[0] for each in page.elements] == [each[0] for each in plain.elements]
    data = data_of(page)
    written = name.encode("utf-8", "replace").decode()
    [series] = data["index"]["series"]
    assert (series["run"], series["dataset"], series["dissonance"]) == (written,) * 3
    header, columns = decoded(data["tables"]["\0".join([written, written, "0"])])
    assert header["class_names"] == [name, "dog"]
    assert columns["ids"] == [written, "c"]
    media = media_of(data, "\0".join([written, written]))
    assert decoded(media["blob"])[1]["text"] == [written[:EXCERPT]] * 2
    assert [decoded(part)[1]["text"] for part in media["texts"]] == [[written] * 2] * (len(written) > EXCERPT)
    # A parser of HTML makes one line end of two.
    title = re.sub("\r\n?", "\n", written)
    assert page.all("title")[0][2].strip() == (title if len(title) <= 200 else f"{title[:199]}…").strip()


def test_a_separator_in_a_name_does_not_mix_names_up(tmp_path):
    comparison = compare([0, 1], [0, 1], [0, 0])
    data = data_of(opened(to_html({"a\0b": comparison}, tmp_path / "a.html")))
    assert list(data["tables"]) == ["a�b\0test\x000"]


def test_without_javascript_the_scores_are_read_in_words(tmp_path):
    comparison = random_comparison(name="<update>")
    page = opened(comparison.to_html(tmp_path / "a.html"))
    [[_, _, words]] = [each for each in page.elements if each[0] == "pre"]
    assert comparison.describe() in words


def test_comparisons_of_one_name_are_one_run_over_steps(tmp_path):
    history = [random_comparison(seed=step, step=step, name="update") for step in (20, 10, 30)]
    data = data_of(opened(to_html(history, tmp_path / "a.html")))
    assert runs_of(data) == {("update", "test"): [10, 20, 30]}
    for comparison in history:
        _, columns = decoded(data["tables"][f"update\0test\0{comparison.step}"])
        assert columns["ids"].tolist() == comparison.instances.ids.tolist()


def test_what_has_no_name_is_numbered_and_what_has_steps_is_one_run(tmp_path):
    first, second = random_comparison(), random_comparison(seed=1)
    assert list(runs_of(data_of(opened(to_html([first, second], tmp_path / "a.html"))))) == [
        ("comparison 1", "test"),
        ("comparison 2", "test"),
    ]
    steps = [random_comparison(step=1), random_comparison(step=2)]
    assert runs_of(data_of(opened(to_html(steps, tmp_path / "a.html")))) == {("comparison", "test"): [1, 2]}


def test_the_points_of_a_sweep_are_runs_of_their_own(tmp_path):
    sweep = [random_comparison(seed=i, lambda_c=weight, step=500) for i, weight in enumerate((0.0, 0.25, 1 / 3))]
    options = {"dissonance": {"strict": "strict imitation"}, "settings": {"strict": {"seed": 3}}}
    data = data_of(opened(to_html({"new": sweep, "strict": sweep}, tmp_path / "a.html", **options)))
    assert {run: steps for (run, _), steps in runs_of(data).items()} == {
        f"{style}, lambda_c {weight}": [500]
        for style in ("new", "strict")
        for weight in ("0", "0.25", "0.3333333333333333")
    }
    assert [series["steps"][0][2] for series in data["index"]["series"]] == [0, 0.25, 1 / 3] * 2
    assert [series["dissonance"] for series in data["index"]["series"]] == [None] * 3 + ["strict imitation"] * 3
    assert [series.get("settings") for series in data["index"]["series"]] == [None] * 3 + [{"seed": 3.0}] * 3


def test_a_run_may_have_several_data_sets(tmp_path):
    train, test = random_comparison(), random_comparison(seed=1)
    pixels = {"train": np.zeros((60, 4, 4)), "test": np.ones((60, 4, 4))}
    data = data_of(opened(to_html({"u": {"train": train, "test": test}}, tmp_path / "a.html", images=pixels)))
    assert list(runs_of(data)) == [("u", "train"), ("u", "test")]
    for dataset, comparison, brightness in (("train", train, 0), ("test", test, 255)):
        images = media_of(data, f"u\0{dataset}")["images"]
        assert set(map(int, images)) == set(comparison.instances.ids.tolist())
        content = base64.b64decode(next(iter(images.values())).split(",")[1])
        assert np.asarray(Image.open(io.BytesIO(content))).min() == brightness


def test_a_sweep_of_the_original_opens(tmp_path):
    evaluations = read_original_sweep(ORIGINALS / "four_batches")
    data = data_of(opened(to_html(evaluations, tmp_path / "a.html")))
    assert len(data["tables"]) == len(evaluations) == 12
    expected = {
        (e.dataset, e.dissonance, e.lambda_c, e.comparison.overlap.h1_only_right, e.comparison.dataset_size)
        for e in evaluations
    }
    found = {
        (series["dataset"], series["dissonance"], row[2], row[5], sum(row[3:]))
        for series in data["index"]["series"]
        for row in series["steps"]
    }
    assert found == expected
    header, _ = decoded(next(iter(data["tables"].values())))
    assert tuple(header["uncertain_classes"]) == evaluations[0].uncertain_classes


def test_sweeps_of_the_original_get_the_names_that_the_caller_gives(tmp_path):
    sweeps = {name: read_original_sweep(ORIGINALS / name) for name in ("four_batches", "one_batch")}
    data = data_of(opened(to_html({"old": sweeps["four_batches"], "new": sweeps["one_batch"]}, tmp_path / "a.html")))
    assert {(run, dataset) for run, dataset in runs_of(data)} == {
        (f"{name}, {e.dissonance}, lambda_c {e.lambda_c:g}", e.dataset)
        for name, sweep in zip(("old", "new"), sweeps.values(), strict=True)
        for e in sweep
    }
    assert len(data["tables"]) == 24


def test_images_are_bounded_and_negative_flips_come_first(tmp_path):
    comparison = random_comparison(name="u")
    flips = set(comparison.negative_flips().ids.tolist())
    asked = []

    def image(instance):
        asked.append(instance)
        return np.full((200, 100), 0.5)

    with pytest.warns(UserWarning, match=f"{len(comparison.instances) - 5} images are left out"):
        path = to_html(comparison, tmp_path / "a.html", images=image, max_images=5, image_size=32)
    media = media_of(data_of(opened(path)), "u\0test")
    assert len(flips) > 5
    assert set(map(int, media["images"])) == set(asked) <= flips
    _, columns = decoded(media["blob"])
    assert dict(zip(columns["ids"].tolist(), columns["has_image"].tolist(), strict=True)) == {
        instance: FULL if instance in asked else LEFT_OUT for instance in comparison.instances.ids.tolist()
    }
    for url in media["images"].values():
        kind, content = url.split(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == (16, 32)


def test_larger_pictures_are_in_the_file_as_far_as_it_may_hold_them(tmp_path):
    comparison = random_comparison(name="u")
    flips = comparison.negative_flips().ids.tolist()
    noise = np.random.default_rng(0).integers(0, 256, (60, 150, 150), dtype=np.uint8)
    # PNG of noise takes a little more than its pixels.
    path = to_html(comparison, tmp_path / "a.html", images=noise, max_full_bytes=3 * 25_000)
    media = media_of(data_of(opened(path)), "u\0test")
    assert len(media["full"]) == 3
    assert set(map(int, media["full"])) <= set(flips)
    for instance, url in media["full"].items():
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))
        assert (pixels == noise[int(instance)]).all()
    _, columns = decoded(media["blob"])
    found = dict(zip(columns["ids"].tolist(), columns["has_image"].tolist(), strict=True))
    assert found == {each: FULL if str(each) in media["full"] else REDUCED for each in found}
    for options in ({"full_size": 0}, {"full_size": -1}, {"max_full_bytes": True}):
        if options == {"full_size": 0}:
            path = to_html(comparison, tmp_path / "b.html", images=noise, **options)
            assert media_of(data_of(opened(path)), "u\0test")["full"] == {}
        else:
            with pytest.raises(ValueError, match=next(iter(options))):
                to_html(comparison, tmp_path / "b.html", images=noise, **options)


def test_long_texts_are_apart_and_come_some_at_a_time(tmp_path):
    texts = [f"{i} {'word ' * (100 if i % 2 else 1)}end {i}" for i in range(600)]
    comparison = random_comparison(size=600, name="u", metadata=texts)
    media = media_of(data_of(opened(to_html(comparison, tmp_path / "a.html"))), "u\0test")
    _, columns = decoded(media["blob"])
    ids = columns["ids"].tolist()
    assert columns["text"] == [texts[each][:EXCERPT] for each in ids]
    assert columns["is_longer"].tolist() == [each % 2 for each in ids]
    odd = [each for each in ids if each % 2]
    parts = [decoded(part)[1] for part in media["texts"]]
    assert len(parts) == -(-len(odd) // TEXTS_TOGETHER) > 1
    for at, part in enumerate(parts):
        wanted = odd[at * TEXTS_TOGETHER : (at + 1) * TEXTS_TOGETHER]
        assert (part["ids"].tolist(), part["text"]) == (wanted, [texts[each] for each in wanted])


def test_runs_on_a_data_set_share_images_and_texts(tmp_path):
    few, many = random_comparison(size=8, name="few"), random_comparison(size=80, name="many")
    ids = {*few.instances.ids.tolist(), *many.instances.ids.tolist()}
    asked = []

    def image(instance):
        asked.append(instance)
        return np.zeros((2, 2))

    path = to_html([few, many], tmp_path / "a.html", images=image, metadata=str, max_images=len(ids))
    data = data_of(opened(path))
    assert data["media"] == {"few\0test": 0, "many\0test": 0}
    assert len(data["packs"]) == 1
    assert sorted(asked) == sorted(ids) == sorted(map(int, data["packs"][0]["images"]))


def test_what_differs_between_runs_or_data_sets_is_not_shared(tmp_path):
    truth, wrong = [0] * 4, [1] * 4
    one, other = (compare(truth, wrong, wrong, name=name, metadata=[name] * 4) for name in ("one", "other"))
    path = to_html([one, other], tmp_path / "a.html")
    data = data_of(opened(path))
    assert [decoded(media_of(data, f"{name}\0test")["blob"])[1]["text"][0] for name in ("one", "other")] == [
        "one",
        "other",
    ]
    sources = {"val": lambda i: np.zeros((2, 2)), "test": lambda i: np.ones((2, 2))}
    path = to_html({"u": {"val": one, "test": one}}, tmp_path / "b.html", images=sources)
    data = data_of(opened(path))
    val, test = (media_of(data, f"u\0{dataset}")["images"] for dataset in ("val", "test"))
    assert val.keys() == test.keys()
    assert val["0"] != test["0"]


def test_a_limit_is_shared_out_among_the_data_sets(tmp_path):
    few, many = random_comparison(size=8), random_comparison(size=80)
    with pytest.warns(UserWarning, match="left out"):
        path = to_html(
            {"u": {"few": few, "many": many}}, tmp_path / "a.html", images=lambda i: np.zeros((2, 2)), max_images=30
        )
    data = data_of(opened(path))
    held = {name: len(media_of(data, f"u\0{name}")["images"]) for name in ("few", "many")}
    assert held == {"few": len(few.instances), "many": 30 - len(few.instances)}


def test_an_image_that_cannot_be_made_costs_no_other(tmp_path):
    comparison = random_comparison(name="u")
    broken = comparison.instances.ids[0]

    def image(instance):
        if instance == broken:
            raise KeyError("gone")
        return None if instance == comparison.instances.ids[1] else np.zeros((2, 2))

    with pytest.warns(UserWarning, match="1 images could not be made.*KeyError: 'gone'"):
        path = to_html(comparison, tmp_path / "a.html", images=image)
    images = media_of(data_of(opened(path)), "u\0test")["images"]
    assert set(map(int, images)) == set(comparison.instances.ids[2:].tolist())


def test_integer_ids_beyond_those_of_javascript_keep_their_digits(tmp_path):
    big = 2**53 + 1
    comparison = compare([0, 1], [0, 1], [0, 0], ids=[1, big], metadata={big: "big"}, name="u")
    data = data_of(opened(to_html(comparison, tmp_path / "a.html", images={big: np.zeros((2, 2))})))
    assert decoded(data["tables"]["u\0test\x000"])[1]["ids"] == [str(big)]
    assert decoded(media_of(data, "u\0test")["blob"])[1]["ids"] == [str(big)]
    assert list(media_of(data, "u\0test")["images"]) == [str(big)]


def test_texts_given_beside_take_the_place_of_those_in_the_comparison(tmp_path):
    comparison = compare([0, 1, 1], [0, 0, 0], [0, 0, 1], metadata=["x"] * 3, name="u")
    data = data_of(opened(to_html(comparison, tmp_path / "a.html", metadata={1: "one"})))
    _, columns = decoded(media_of(data, "u\0test")["blob"])
    assert (columns["ids"].tolist(), columns["text"]) == ([1], ["one"])


def test_a_hundred_thousand_errors_take_about_a_megabyte(tmp_path):
    rng = np.random.default_rng(0)
    size = 400_000
    target = rng.integers(0, 100, size)
    h1, h2 = (np.where(rng.random(size) < 0.87, target, rng.integers(0, 100, size)) for _ in range(2))
    comparison = compare(target, h1, h2, num_classes=100)
    assert 90_000 < len(comparison.instances) < 110_000
    assert comparison.to_html(tmp_path / "a.html").stat().st_size < 1_300_000


def test_equal_comparisons_give_equal_files(tmp_path):
    first, second = (random_comparison(name="u").to_html(tmp_path / f"{i}.html").read_bytes() for i in range(2))
    assert first == second


def test_what_is_refused_leaves_the_older_file(tmp_path):
    path = tmp_path / "a.html"
    path.write_text("older")
    comparison = random_comparison(name="u", step=1)
    with pytest.raises(ValueError, match="two of the run 'u' on 'test' have the step 1"):
        to_html([comparison, random_comparison(seed=1, name="u", step=1)], path)
    with pytest.raises(TypeError, match="from the name of a run.*got int"):
        to_html([comparison, 3], path)
    with pytest.raises(TypeError, match="names of runs as keys, got 3"):
        to_html({3: comparison}, path)
    with pytest.raises(ValueError, match="dataset: expected a name"):
        to_html(comparison, path, dataset="")
    with pytest.raises(TypeError, match="images: expected a function"):
        to_html(comparison, path, images=3)
    with pytest.raises(TypeError, match="metadata: expected a function of the id, a mapping"):
        to_html(comparison, path, metadata=3)
    with pytest.raises(ValueError, match="max_images"):
        to_html(comparison, path, max_images=-1)
    with pytest.raises(ValueError, match="2\\*\\*53"):
        to_html(random_comparison(step=2**60), path)
    assert path.read_text() == "older"
    assert os.listdir(tmp_path) == ["a.html"]
    with pytest.raises(ValueError, match="ends in .html"):
        to_html(comparison, tmp_path / "report")


def test_no_comparison_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected at least one, got none"):
        to_html([], tmp_path / "a.html")
    assert list(tmp_path.iterdir()) == []

import gzip
import json
import os
import pickle
import re
import time

import numpy as np
import pytest

from bc_core import Comparison, ErrorInstances, ErrorOverlap, compare

# id:      10 both right, 11 negative flip, 12 positive flip, 13 both wrong, 14 negative flip
TARGET = [0, 0, 1, 1, 1]
H1 = [0, 0, 0, 2, 1]
H2 = [0, 1, 1, 0, 2]
IDS = [10, 11, 12, 13, 14]


@pytest.fixture
def small():
    return compare(
        TARGET, H1, H2, ids=IDS, num_classes=3, metadata=[f"m{i}" for i in IDS], name="night", step=7, lambda_c=0.5
    )


def random_comparison(seed, ids="int", **options):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (3, 80))
    numbers = rng.permutation(80) + 1000 * seed
    return compare(
        *labels, ids=numbers if ids == "int" else [f"é{n}" for n in numbers.tolist()], num_classes=4, **options
    )


@pytest.mark.parametrize("seed", range(15))
def test_the_table_holds_exactly_the_errors_in_the_order_of_the_data(seed):
    rng = np.random.default_rng(seed)
    target, h1, h2 = rng.integers(0, 4, (3, 50)).tolist()
    ids = [f"id{i}" for i in rng.permutation(50).tolist()]
    comparison = compare(target, h1, h2, ids=ids, metadata=lambda i: f"about {i}", num_classes=4)
    rows = [
        {"id": i, "target": y, "h1_pred": a, "h2_pred": b, "metadata": f"about {i}"}
        for i, y, a, b in zip(ids, target, h1, h2, strict=True)
        if a != y or b != y
    ]
    assert list(comparison.instances) == rows
    for table, wanted in (
        (comparison.negative_flips(), lambda r: r["h1_pred"] == r["target"]),
        (comparison.positive_flips(), lambda r: r["h2_pred"] == r["target"]),
        (comparison.common_errors(), lambda r: r["target"] not in (r["h1_pred"], r["h2_pred"])),
    ):
        assert list(table) == [row for row in rows if wanted(row)]
    assert comparison.overlap == ErrorOverlap.from_predictions(target, h1, h2, num_classes=4)
    assert comparison.dataset_size == 50


def test_the_original_evaluation_keys(small):
    assert small.to_dict() == {
        "models_error_overlap": [[12, 13], [11, 13, 14], [13]],
        "h2_incompatible_instance_ids_by_class": [
            {"class": 0, "incompatibleInstanceIds": [11]},
            {"class": 1, "incompatibleInstanceIds": [14]},
            {"class": 2, "incompatibleInstanceIds": []},
        ],
        "sorted_classes": [0, 1, 2],
        "h1_accuracy_by_class": [
            {"class": 0, "accuracy": 1.0, "error_instance_ids": []},
            {"class": 1, "accuracy": 1 / 3, "error_instance_ids": [12, 13]},
            {"class": 2, "accuracy": None, "error_instance_ids": []},
        ],
        "h2_accuracy_by_class": [
            {"class": 0, "accuracy": 0.5, "error_instance_ids": [11]},
            {"class": 1, "accuracy": 1 / 3, "error_instance_ids": [13, 14]},
            {"class": 2, "accuracy": None, "error_instance_ids": []},
        ],
        "h1_performance": 0.6,
        "h2_performance": 0.4,
        "btc": 1 / 3,
        "bec": 0.5,
        "error_instances": [
            {"instance_id": 11, "metadata": "m11", "h1_prediction": 0, "h2_prediction": 1, "ground_truth": 0},
            {"instance_id": 12, "metadata": "m12", "h1_prediction": 0, "h2_prediction": 1, "ground_truth": 1},
            {"instance_id": 13, "metadata": "m13", "h1_prediction": 2, "h2_prediction": 0, "ground_truth": 1},
            {"instance_id": 14, "metadata": "m14", "h1_prediction": 1, "h2_prediction": 2, "ground_truth": 1},
        ],
        "dataset_size": 5,
        "lambda_c": 0.5,
    }


def test_the_evaluation_is_plain_json_and_names_classes(small):
    assert json.loads(json.dumps(small.to_dict(), allow_nan=False)) == small.to_dict()
    named = compare(["b", "a"], ["b", "b"], ["a", "b"]).to_dict()
    assert named["sorted_classes"] == ["a", "b"]
    assert named["error_instances"][0] == {
        "instance_id": 0, "metadata": "", "h1_prediction": "b", "h2_prediction": "a", "ground_truth": "b",
    }  # fmt: skip
    assert "lambda_c" not in named


def test_two_perfect_models_leave_an_empty_table():
    comparison = compare([0, 1], [0, 1], [0, 1], ids=["a", "b"], metadata=["x", "y"])
    assert len(comparison.instances) == 0
    assert comparison.to_dict()["models_error_overlap"] == [[], [], []]
    assert comparison.worst_classes() == []
    assert "Comparison" in str(comparison)
    assert "<table>" in comparison._repr_html_()


def test_text_labels_become_classes():
    comparison = compare(["dog", "cat"], ["dog", "bird"], ["cat", "cat"])
    assert comparison.class_names == ("bird", "cat", "dog")
    assert comparison.instances.target.tolist() == [2, 1]
    chosen = compare(["dog", "cat"], ["dog", "cat"], ["cat", "cat"], class_names=["dog", "cat", "eel"])
    assert chosen.instances.target.tolist() == [0]
    assert chosen.overlap.num_classes == 3


def test_tensors_and_columns_are_compared(small):
    torch = pytest.importorskip("torch")
    columns = [torch.tensor(column)[:, None] for column in (TARGET, H1, H2, IDS)]
    options = {"num_classes": 3, "name": "night", "step": np.int64(7), "lambda_c": np.float32(0.5)}
    metadata = [f"m{i}" for i in IDS]
    assert compare(*columns[:3], ids=columns[3], metadata=metadata, **options) == small
    tensorflow = pytest.importorskip("tensorflow")
    columns = [tensorflow.constant(column) for column in (TARGET, H1, H2, IDS, metadata)]
    assert compare(*columns[:3], ids=columns[3], metadata=columns[4], **options) == small
    texts = compare(*columns[:3], ids=columns[4], num_classes=3)
    assert texts.instances.ids.tolist() == ["m11", "m12", "m13", "m14"]


def test_metadata_as_sequence_mapping_or_function_are_the_same():
    asked = []

    def about(instance_id):
        asked.append(instance_id)
        return f"m{instance_id}"

    sequence = compare(TARGET, H1, H2, ids=IDS, metadata=[f"m{i}" for i in IDS])
    assert compare(TARGET, H1, H2, ids=IDS, metadata={i: f"m{i}" for i in IDS}) == sequence
    assert compare(TARGET, H1, H2, ids=IDS, metadata=about) == sequence
    assert asked == [11, 12, 13, 14], "asked with the id, for errors only"
    sparse = compare(TARGET, H1, H2, ids=IDS, metadata={12: "twelve"})
    assert sparse.instances.metadata.tolist() == ["", "twelve", "", ""]
    odd = compare(TARGET, H1, H2, metadata=["", None, 3, b"b", np.str_("c")]).instances.metadata.tolist()
    assert odd == ["", "3", "b", "c"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ids": [1, 2, 3, 4, 1]}, ValueError, "ids: the id 1 comes twice"),
        ({"ids": list("abcda")}, ValueError, "ids: the id 'a' comes twice"),
        ({"ids": [1, 2]}, ValueError, r"ids: expected one id per instance \(5\), got 2"),
        ({"ids": [1, 2, 3, 4, "a"]}, TypeError, "ids: .*text mixed with 1"),
        ({"ids": [0.5, 1, 2, 3, 4]}, TypeError, "ids: expected ids that are integers or text, got dtype float64"),
        ({"ids": np.arange(5, dtype=np.uint64) + 2**63}, ValueError, "ids: .*below 2..63.*as text"),
        ({"ids": np.zeros((5, 2), int)}, ValueError, r"ids: expected ids of shape \(N,\), got shape \(5, 2\)"),
        ({"metadata": ["a"]}, ValueError, r"metadata: expected one text per instance \(5\), .*got 1"),
        ({"metadata": "abcde"}, ValueError, "metadata: expected one text per instance"),
        ({"num_classes": 2}, ValueError, "h1_pred: expected classes 0..1, got 2 at position 3"),
        ({"num_classes": 3, "class_names": ["a", "b"]}, ValueError, "num_classes is 3, but there are 2 class names"),
        ({"class_names": ["a", "b", "a"]}, ValueError, "class_names: expected every name once, got 'a' twice"),
        ({"class_names": "abc"}, TypeError, "class_names: expected a sequence of names, got the single text 'abc'"),
        ({"class_names": []}, ValueError, "class_names: expected at least one name"),
        ({"lambda_c": -1}, ValueError, "lambda_c: expected a finite number of at least 0, got -1"),
        ({"lambda_c": float("nan")}, ValueError, "lambda_c"),
        ({"step": 1.5}, TypeError, "float"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        compare(TARGET, H1, H2, **options)


def test_names_outside_the_class_names_are_refused():
    with pytest.raises(ValueError, match=r"h2_pred: got 'fox' at position 1, which is not among .* \(cat, dog\)"):
        compare(["cat", "dog"], ["cat", "cat"], ["cat", "fox"], class_names=["cat", "dog"])


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="target has 1, h1_pred has 2, h2_pred has 1"):
        compare([0], [0, 1], [0])


def test_a_table_that_contradicts_the_counts_is_refused(small):
    with pytest.raises(ValueError, match="do not add up"):
        Comparison(small.overlap + small.overlap, small.instances)
    with pytest.raises(ValueError, match="got 2 names for 3 classes"):
        Comparison(small.overlap, small.instances, ("a", "b"))
    table = small.instances
    with pytest.raises(ValueError, match="columns of one length"):
        ErrorInstances(table.ids[:2], table.target, table.h1_pred, table.h2_pred)
    with pytest.raises(ValueError, match="the id 11 comes twice"):
        Comparison(small.overlap, ErrorInstances([11] * 4, table.target, table.h1_pred, table.h2_pred))


@pytest.mark.parametrize("ids", ["int", "text"])
def test_merged_shards_are_the_whole(ids):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (3, 90))
    names = np.arange(90) if ids == "int" else np.array([f"i{n}" for n in range(90)])
    whole = compare(*labels, ids=names, metadata=lambda i: f"m{i}", num_classes=4, step=3)
    shards = [
        compare(*labels[:, part], ids=names[part], metadata=lambda i: f"m{i}", num_classes=4, step=3)
        for part in (slice(0, 40), slice(40, 41), slice(41, 90))
    ]
    assert sum(shards) == whole
    assert shards[0].merge(shards[1]).merge(shards[2]) == whole


def test_a_shard_without_errors_or_metadata_merges():
    perfect = compare([0, 1], [0, 1], [0, 1])
    rest = compare([0, 1], [0, 0], [0, 1], ids=["a", "b"], metadata=["x", "y"])
    merged = perfect + rest
    assert merged.instances == rest.instances
    assert merged.dataset_size == 4
    bare = compare([0, 1], [0, 0], [0, 1], ids=["c", "d"])
    assert (bare + rest).instances.metadata.tolist() == ["", "y"]


def test_shards_that_do_not_fit_are_refused(small):
    with pytest.raises(ValueError, match=r"the id 11 comes twice; pass ids= that are unique over the whole data set"):
        small + small
    with pytest.raises(ValueError, match="whose step differs: 7 and 8"):
        small + compare([0], [0], [0], num_classes=3, step=8, lambda_c=0.5)
    with pytest.raises(ValueError, match="cannot merge integer ids with text ids"):
        compare([0], [1], [0]) + compare([0], [1], [0], ids=["a"])
    with pytest.raises(ValueError, match="whose class_names differs"):
        compare(["a"], ["b"], ["a"]) + compare(["a"], ["c"], ["a"], ids=["z"])
    with pytest.raises(TypeError):
        small + 1


def test_a_shared_name_survives_a_merge():
    a, b = compare([0], [1], [0], name="x"), compare([0], [1], [0], ids=[5], name="x")
    assert (a + b).name == "x"
    assert (a + compare([0], [1], [0], ids=[5], name="y")).name is None


def test_worst_classes_come_first():
    comparison = compare([0, 1, 1, 2], [0, 1, 1, 0], [1, 0, 0, 2], class_names=["ant", "bee", "cat"])
    assert [(c.label, c.negative_flips, c.total) for c in comparison.worst_classes()] == [("bee", 2, 2), ("ant", 1, 1)]
    assert len(comparison.worst_classes(1)) == 1
    assert comparison.worst_classes(0) == []


def test_a_person_reads_scores_intervals_and_classes(small):
    text = str(small)
    assert "Comparison 'night', step 7, lambda_c 0.5" in text
    assert "BTC" in text
    assert "95% interval" in text
    assert "Classes that lost most\n  0: 1 of 2 instances broke" in text


def test_names_cannot_break_out_of_the_page_or_the_line():
    evil = "<script>\x1b[2J\n"
    comparison = compare([0, 1], [0, 1], [1, 1], class_names=[evil, "b"], name="<img src=x>")
    assert "<script>" not in comparison._repr_html_()
    assert "<img" not in comparison._repr_html_()
    assert "&lt;script&gt;" in comparison._repr_html_()
    assert "\x1b" not in str(comparison)
    assert r"<script>\x1b[2J\n: 1 of 1" in str(comparison)


# Files


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
@pytest.mark.parametrize("ids", ["int", "text"])
def test_a_file_gives_back_the_same_comparison(tmp_path, suffix, ids):
    comparison = random_comparison(
        3, ids, metadata=lambda i: f"{i} <b> ü \ud800", class_names=["a", "b", "ç", "d"], name="n", step=1
    )
    path = comparison.save(tmp_path / "new folder" / f"c{suffix}")
    again = Comparison.load(path)
    assert again == comparison
    assert again.to_dict() == comparison.to_dict()
    assert pickle.loads(pickle.dumps(comparison)) == comparison
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing is left aside"


@pytest.mark.parametrize("ids", [[2**53 + 1, -(2**63), 2**63 - 1], ["", "1", "a\0"], ["\ud800", "é", "e\u0301"]])
def test_ids_survive_exactly(tmp_path, ids):
    comparison = compare([0, 0, 0], [1, 1, 1], [0, 0, 0], ids=ids)
    again = Comparison.load(comparison.save(tmp_path / "c.json"))
    assert again.instances.ids.tolist() == ids
    assert again.positive_flips().ids.tolist() == ids


def test_equal_comparisons_give_equal_files(tmp_path, small):
    assert small.save(tmp_path / "a.json.gz").read_bytes() == small.save(tmp_path / "b.json.gz").read_bytes()


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_a_file_cut_off_anywhere_is_refused_by_name(tmp_path, small, suffix):
    content = small.save(tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    for size in [*range(0, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=rf"cut{suffix}: not a saved comparison"):
            Comparison.load(path)


def test_a_damaged_archive_is_refused(tmp_path, small):
    content = bytearray(small.save(tmp_path / "c.json.gz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "c.json.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.json\.gz: not a saved comparison"):
        Comparison.load(tmp_path / "c.json.gz")


@pytest.mark.parametrize("content", [b"[1, 2]", b'"text"', b'{"btc": 1}', b"\xff\xfe", b"[" * 100_000, b"PK\x03\x04"])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.json: not a saved comparison"):
        Comparison.load(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=2), "written in version 2 of the format, and this release reads version 1"),
        (lambda d: d.pop("version"), "version None"),
        (lambda d: d.pop("overlap"), "the entry 'overlap' is missing"),
        (lambda d: d["instances"].pop("ids"), "the entry 'ids' is missing"),
        (lambda d: d["instances"]["ids"].pop(), "columns of one length"),
        (lambda d: d["overlap"]["counts"][0][1].__setitem__(0, 2), "do not add up"),
        (lambda d: d["instances"]["target"].__setitem__(0, 0.5), "target: expected a column of class numbers"),
        (lambda d: d["instances"]["target"].__setitem__(0, 9), "a target outside 0..2"),
        (lambda d: d["instances"]["h1_pred"].__setitem__(0, -1), "a h1_pred outside 0..2"),
        (lambda d: d["instances"]["metadata"].__setitem__(0, 5), "metadata: expected a text"),
        (lambda d: d["instances"]["ids"].__setitem__(0, 12), "the id 12 comes twice"),
        (lambda d: d["instances"].__setitem__("ids", 5), "ids: expected one entry per instance"),
        (lambda d: d.update(instances=[]), "damaged"),
        (lambda d: d.update(overlap=[]), "the key 'counts'"),
        (lambda d: d.update(class_names=["a"]), "got 1 names for 3 classes"),
        (lambda d: d.update(step="x"), "damaged"),
        (lambda d: d.update(lambda_c=[]), "damaged"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_by_name(tmp_path, small, change, message):
    path = small.save(tmp_path / "c.json")
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message) as caught:
        Comparison.load(path)
    assert str(caught.value).startswith(str(path))


def test_a_compressed_file_is_known_by_its_content(tmp_path, small):
    path = small.save(tmp_path / "c.json")
    (tmp_path / "d.json").write_bytes(gzip.compress(path.read_bytes()))
    assert Comparison.load(tmp_path / "d.json") == small


def test_another_ending_is_refused(tmp_path, small):
    with pytest.raises(ValueError, match=r"expected a name that ends in \.json or \.json\.gz"):
        small.save(tmp_path / "c.pkl")


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failing_write_leaves_the_old_file(tmp_path, small, monkeypatch, failing):
    path = small.save(tmp_path / "c.json")

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="disk full"):
        random_comparison(1).save(path)
    monkeypatch.undo()
    assert Comparison.load(path) == small
    assert [file.name for file in tmp_path.iterdir()] == ["c.json"]


def test_saving_through_a_link_keeps_the_link(tmp_path, small):
    real = tmp_path / "real.json"
    small.save(real)
    link = tmp_path / "link.json"
    link.symlink_to(real)
    other = random_comparison(2)
    other.save(link)
    assert link.is_symlink()
    assert Comparison.load(real) == other


@pytest.mark.parametrize("double", [["c0", "c1"], ["c99998"]])
def test_a_double_name_among_100_000_is_found_at_once(double):
    names = [f"c{i}" for i in range(100_000 - len(double))] + double
    began = time.perf_counter()
    with pytest.raises(ValueError, match=f"every name once, got '{double[0]}' twice"):
        compare([0], [0], [0], class_names=names)
    # It took three minutes when every name was counted.
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("name", 5, "name is 5"),
        ("step", 1.5, "step is 1.5"),
        ("step", True, "step is True"),
        ("lambda_c", "1", "lambda_c is '1'"),
        ("class_names", "abc", "class_names is 'abc'"),
        ("class_names", ["a", 1, "c"], "class_names: expected a list of names, got int, str"),
        ("class_names", {"a": 1}, "class_names is"),
    ],
)
def test_entries_of_another_type_are_refused_by_name(tmp_path, small, entry, value, message):
    path = small.save(tmp_path / "c.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), entry: value}))
    with pytest.raises(ValueError, match=r"c\.json: a damaged comparison, " + re.escape(message)):
        Comparison.load(path)

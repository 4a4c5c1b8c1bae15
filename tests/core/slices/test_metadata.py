"""Columns of metadata: which make slices, what is counted of them, and what a file and two shards keep."""

import json

import numpy as np
import pandas as pd
import pytest

from bc_core import Comparison, compare
from bc_core.slices._metadata import CodedColumn


def example(size=600, seed=0):
    rng = np.random.default_rng(seed)
    target, h1, h2 = rng.integers(0, 3, (3, size))
    h1, h2 = (np.where(rng.random(size) < 0.8, target, pred) for pred in (h1, h2))
    metadata = {
        "country": rng.choice(["de", "fr", "it"], size).tolist(),
        "age": rng.integers(1, 90, size),
        "path": [f"photo {i}.png" for i in range(size)],
    }
    # What breaks most.
    h2 = np.where((np.asarray(metadata["country"]) == "de") & (metadata["age"] > 70), (target + 1) % 3, h2)
    return target, h1, h2, metadata


def counted(target, h1, h2, inside):
    cells = [[0, 0], [0, 0]]
    for i in range(len(target)):
        if inside[i]:
            cells[int(h1[i] == target[i])][int(h2[i] == target[i])] += 1
    return cells


@pytest.mark.parametrize("form", [dict, pd.DataFrame, lambda m: pd.DataFrame(m).to_records(index=False)])
def test_all_instances_are_counted_by_slice(form):
    target, h1, h2, metadata = example()
    c = compare(target, h1, h2, metadata=form(metadata))
    assert [each.column for each in c.slices] == ["country", "age"]
    country = np.asarray(metadata["country"])
    assert c.slices[0].values == ("de", "fr", "it")
    for value, counts in zip(c.slices[0].values, c.slices[0].counts.tolist(), strict=True):
        assert counts == counted(target, h1, h2, country == value)
    for row, code in enumerate(c.instances.slices["country"]):
        assert country[c.instances.ids[row]] == c.slices[0].values[code]
    assert c.slices[1].counts.sum() == len(target)
    assert all(c.slices[1].counts.sum(axis=(1, 2)) > 80)  # ranges of about equal size
    # What is another in each instance describes it.
    assert c.instances.metadata[0] == f"photo {c.instances.ids[0]}.png"


def test_where_more_breaks_is_found():
    target, h1, h2, metadata = example(4000)
    found = compare(target, h1, h2, metadata=metadata).found_slices
    names = [each.name for each in found]
    assert any(name.startswith("country=de, age=7") for name in names)
    best = found[0]
    assert best.low > 0.3
    assert best.name == ", ".join(f"{column}={value}" for column, value in best.conditions)


def test_texts_by_id_stay_texts():
    c = compare([0, 1], [0, 1], [1, 0], ids=["a", "b"], metadata={"a": "first", "b": "second"})
    assert c.instances.metadata.tolist() == ["first", "second"]
    assert c.slices == ()
    # As it always was: what is said of an id may be a list.
    c = compare([0, 1], [0, 1], [1, 0], ids=["a", "b"], metadata={"a": ["x"], "b": ["y"]})
    assert c.instances.metadata.tolist() == ["['x']", "['y']"]
    assert compare([0], [0], [1], metadata=["only"]).instances.metadata.tolist() == ["only"]


def test_files_and_shards_keep_slices(tmp_path):
    target, h1, h2, metadata = example()

    def part(rows, names):
        ids = np.arange(600)[rows]
        columns = {name: np.asarray(metadata[name])[rows] for name in names}
        return compare(target[rows], h1[rows], h2[rows], ids=ids, metadata=columns, num_classes=3)

    whole = part(slice(None), ["country", "age"])
    assert Comparison.load(whole.save(tmp_path / "c.json")) == whole
    both = part(slice(0, 250), ["country", "age"]) + part(slice(250, None), ["country", "age"])
    # Ranges of other numbers are others, so of two shards only the country is known.
    assert [each.column for each in both.slices] == ["country"]
    assert both.slices[0] == whole.slices[0]
    assert both.instances.slices["country"].tolist() == whole.instances.slices["country"].tolist()
    assert (part(slice(0, 9), ["country"]) + part(slice(9, None), ["age"])).slices == ()


def test_values_that_only_one_shard_has():
    one = compare([0, 0], [0, 1], [1, 0], ids=[0, 1], metadata={"c": ["b", "a"]})
    other = compare([0, 0], [0, 0], [1, 0], ids=[2, 3], metadata={"c": ["c", "a"]}, num_classes=2)
    merged = one + other
    assert merged.slices[0].values == ("a", "b", "c")
    assert merged.slices[0].counts.sum(axis=(1, 2)).tolist() == [2, 1, 1]
    assert [merged.slices[0].values[code] for code in merged.instances.slices["c"]] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("values", "names", "codes"),
    [
        ([True, False, None], ("False", "True", "missing"), [1, 0, 2]),
        ([3, None, 1], ("1", "3", "missing"), [1, 2, 0]),
        (np.array([1.5, np.nan, np.inf]), ("1.5", "missing"), [0, 1, 1]),
        (pd.Series(["x", pd.NA, "nan"], dtype="string"), ("missing", "nan", "x"), [2, 0, 1]),
        (pd.Categorical(["x", None, "y"]), ("missing", "x", "y"), [1, 0, 2]),
        (np.array(["2020-01-01", "NaT"], "datetime64[D]"), ("2020-01-01", "missing"), [0, 1]),
        ([1, "a"], ("1", "a"), [0, 1]),
        ([[1], [2]], None, "holds lists"),
        (np.zeros((2, 2)), None, "got shape"),
    ],
)
def test_values_of_all_kinds(values, names, codes):
    if names is None:
        with pytest.raises(ValueError, match=codes):
            CodedColumn("c", values)
        return
    column = CodedColumn("c", values)
    assert column.values == names
    assert column.codes.tolist() == codes


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="each of the 2 instances, in the order of the data, got 3 in the column 'c'"):
        compare([0, 1], [0, 1], [0, 0], metadata={"c": [1, 2, 3]})
    with pytest.raises(ValueError, match="at most 40 columns, got 41"):
        compare([0], [0], [0], metadata={f"c{i}": [1] for i in range(41)})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["slices"][0]["counts"].__setitem__(3, 10**6), "do not add up"),
        (lambda c: c["instances"]["slices"]["country"].__setitem__(0, 7), "outside 0..2"),
        (lambda c: c["instances"]["slices"].pop("country"), "of instances"),
        (lambda c: c["slices"][0]["values"].__setitem__(0, 7), "as text"),
        (lambda c: c["slices"][0].pop("column"), "'column' is missing"),
    ],
)
def test_damage_is_told(tmp_path, change, told):
    target, h1, h2, metadata = example()
    path = compare(target, h1, h2, metadata=metadata).save(tmp_path / "c.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=told):
        Comparison.load(path)

import json

import numpy as np
import pytest

from bc_core import compare
from bc_core.predictions._columns import ColumnNames
from bc_core.predictions._joining import join

SIZE = 400
RNG = np.random.default_rng(0)
Y, H1, H2 = (RNG.integers(0, 3, SIZE) for _ in range(3))
NAMES = np.array(["cat", "dog", "eel"])


def csv(path, columns, order=None):
    rows = list(zip(*columns.values(), strict=True))
    rows = rows if order is None else [rows[place] for place in order]
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def json_lines(path, columns, order=None):
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text("".join(json.dumps(rows[place]) + "\n" for place in (range(len(rows)) if order is None else order)))
    return path


def npz(path, columns, order=None):
    order = np.arange(SIZE) if order is None else order
    np.savez(path, **{name: np.asarray(values)[order] for name, values in columns.items()})
    return path


WRITERS = {"csv": csv, "jsonl": json_lines, "npz": npz}


@pytest.mark.parametrize("new_format", WRITERS)
@pytest.mark.parametrize("old_format", WRITERS)
@pytest.mark.parametrize("named", [False, True])
def test_any_two_formats_in_any_order_give_the_counts_of_the_arrays(tmp_path, old_format, new_format, named):
    y, h1, h2 = ((NAMES[each] if named else each).tolist() for each in (Y, H1, H2))
    ids = [f"im{number}" for number in range(SIZE)]
    order = np.random.default_rng(1).permutation(SIZE)
    old = WRITERS[old_format](tmp_path / f"old.{old_format}", {"id": ids, "pred": h1, "target": y})
    new = WRITERS[new_format](tmp_path / f"new.{new_format}", {"id": ids, "prediction": h2}, order)
    found = join(old, new)
    wanted = compare(y, h1, h2, ids=ids)
    got = compare(
        found.target,
        found.h1_pred,
        found.h2_pred,
        ids=found.ids,
        class_names=found.class_names,
        num_classes=found.num_classes,
    )
    assert got.overlap == wanted.overlap
    assert got.instances == wanted.instances
    assert got.class_names == wanted.class_names


@pytest.mark.parametrize("how", ["list", "columns", "csv list"])
def test_class_scores_stand_for_labels_and_say_how_sure_they_are(tmp_path, how):
    scores = np.random.default_rng(2).random((SIZE, 3)).round(6)
    best, ids = scores.argmax(axis=1), list(range(SIZE))
    old = csv(tmp_path / "old.csv", {"id": ids, "pred": NAMES[H1], "target": NAMES[Y]})
    if how == "columns":
        new = csv(tmp_path / "new.csv", {"id": ids, **{f"score_{NAMES[c]}": scores[:, c] for c in (2, 0, 1)}})
        found = join(old, new)
    elif how == "list":
        new = json_lines(tmp_path / "new.jsonl", {"id": ids, "logits": scores.tolist()})
        found = join(old, new, class_names=NAMES.tolist())
    else:
        texts = [f'"[{a}, {b}, {c}]"' for a, b, c in scores]
        new = csv(tmp_path / "new.csv", {"id": ids, "scores": texts})
        found = join(old, new, class_names=NAMES.tolist())
    assert found.class_names == tuple(NAMES)
    np.testing.assert_array_equal(found.h2_pred, best)
    raised = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.sureness, raised[np.arange(SIZE), best], rtol=1e-9)


def test_probabilities_are_taken_as_they_are_and_labels_beside_scores_win(tmp_path):
    ids = [3, 1, 2]
    old = csv(tmp_path / "old.csv", {"id": ids, "pred": [0, 1, 0], "target": [0, 1, 1]})
    rows = {"id": [1, 2, 3], "pred": [1, 0, 1], "probs": [[0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]}
    found = join(old, json_lines(tmp_path / "new.jsonl", rows))
    assert found.h2_pred.tolist() == [1, 1, 0]
    assert found.sureness.tolist() == [0.3, 0.8, 0.6]


def test_targets_and_metadata_of_a_third_file(tmp_path):
    old = csv(tmp_path / "old.csv", {"id": [1, 2], "pred": [0, 1]})
    new = csv(tmp_path / "new.csv", {"id": [2, 1], "pred": [1, 1]})
    data = csv(tmp_path / "data.csv", {"id": [2, 1], "label": [1, 0], "region": ["eu", "us"], "w": [2.5, 1]})
    found = join(old, new, ColumnNames(slices=("region",), weight="w"), data=data)
    assert found.target.tolist() == [0, 1]
    assert found.columns["region"].texts.tolist() == ["us", "eu"]
    assert found.columns["w"].numbers.tolist() == [1, 2.5]


def test_ids_without_types_are_the_same_as_text(tmp_path):
    old = csv(tmp_path / "old.csv", {"id": ["7", "8"], "pred": [0, 1], "target": [0, 1]})
    new = json_lines(tmp_path / "new.jsonl", {"id": ["8", "7"], "pred": [1, 0]})
    assert join(old, new).ids.tolist() == ["7", "8"]
    leading = csv(tmp_path / "leading.csv", {"id": ["07", "8"], "pred": [0, 1]})
    with pytest.raises(
        ValueError, match=r"1 of .*old.csv not in .*leading.csv: '7'; 1 of .*leading.csv not in .*: '07'"
    ):
        join(old, leading)


def test_rows_can_be_joined_by_their_order(tmp_path):
    old = csv(tmp_path / "old.csv", {"pred": [0, 1], "target": [0, 1]})
    new = csv(tmp_path / "new.csv", {"pred": [1, 1]})
    assert join(old, new, ColumnNames(by_position=True)).h2_pred.tolist() == [1, 1]
    short = csv(tmp_path / "short.csv", {"pred": [1]})
    with pytest.raises(ValueError, match="different numbers of them"):
        join(old, short, ColumnNames(by_position=True))


def test_unmatched_ids_are_left_out_only_where_that_is_allowed(tmp_path):
    old = csv(tmp_path / "old.csv", {"id": [1, 2, 3], "pred": [0, 1, 0], "target": [0, 1, 1]})
    new = csv(tmp_path / "new.csv", {"id": [4, 3, 2, 5], "pred": [1, 1, 1, 0]})
    with pytest.raises(ValueError, match=r"1 of .*old.csv not in .*new.csv: 1; 2 of .*new.csv not in .*old.csv: 4, 5"):
        join(old, new)
    found = join(old, new, allow_unmatched=True)
    assert (found.ids.tolist(), found.h2_pred.tolist()) == ([2, 3], [1, 1])
    assert found.unmatched == {str(old): 1, str(new): 2}
    far = csv(tmp_path / "far.csv", {"id": [8, 9], "pred": [1, 1]})
    with pytest.raises(ValueError, match="no id is in all of"):
        join(old, far, allow_unmatched=True)


OLD = {"id": [1, 2], "pred": [0, 1], "target": [0, 1]}


@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        (
            OLD,
            {"id": [1, 1], "pred": [0, 1]},
            {},
            r"new.csv: 1 id comes more than once: 1; the first at line 2 and line 3",
        ),
        (OLD, {"id": [1, ""], "pred": [0, 1]}, {}, r"new.csv, line 3: column 'id' is empty"),
        (OLD, {"key": [1, 2], "pred": [0, 1]}, {}, r"new.csv: no column of ids .* Name it by --id"),
        (
            OLD,
            {"id": [1, 2], "guess": [0, 1]},
            {},
            r"new.csv: no column of predictions .* Name it by --pred or --scores",
        ),
        (
            OLD,
            {"id": [1, 2], "pred": [0, 1], "y_pred": [0, 1]},
            {},
            r"'pred' and 'y_pred' may both be meant; say which by",
        ),
        (
            OLD,
            {"id": [1, 2], "pred": [0, ""]},
            {},
            r"new.csv, line 3: column 'pred' is empty, and every row needs a label",
        ),
        (OLD, {"id": [1, 2], "pred": [0, "nan"]}, {}, r"line 3: column 'pred' is nan, and labels are whole numbers"),
        (
            OLD,
            {"id": [1, 2], "pred": [0, 0.5]},
            {},
            r"line 3: column 'pred' is 0.5, and labels are whole numbers or text",
        ),
        (
            OLD,
            {"id": [1, 2], "pred": [0, 10**11]},
            {},
            r"line 3: column 'pred' is 1\d+, which would make more than 1\d+ cl",
        ),
        (OLD, {"id": [1, 2], "pred": [0, -1]}, {}, r"new.csv, line 3: column 'pred' is -1, and classes are 0 to 1"),
        (
            OLD,
            {"id": [1, 2], "pred": [0, 1], "target": [0, 0]},
            {},
            r"true labels of 1 instances differ .* such as 2: 1 and 0",
        ),
        (
            {"id": [1, 2], "pred": [0, 1]},
            {"id": [1, 2], "pred": [0, 1]},
            {},
            r"no column of true labels in .* --target",
        ),
        (OLD, {"id": [1, 2], "score_0": [0.1, "x"], "score_1": [1, 2]}, {}, r"line 3: column 'score_0' is 'x'"),
        (OLD, {"id": [1, 2], "score_0": [0.1, "nan"], "score_1": [1, 2]}, {}, r"line 3: column 'score_0' is nan"),
        (
            OLD,
            {"id": [1, 2], "pred": [0, 2]},
            {"class_names": ["a", "b"]},
            r"line 3: column 'pred' is 2, and classes are 0 to 1",
        ),
        (
            {"id": [1, 2], "pred": ["a", "b"], "target": ["a", "b"]},
            {"id": [1, 2], "pred": ["a", "c"]},
            {"class_names": ["a", "b"]},
            r"new.csv, line 3: column 'pred' is 'c', which is none of the classes 'a', 'b'",
        ),
        (
            {"id": [1, 2], "pred": ["a", "b"], "target": ["a", "b"]},
            {"id": [1, 2], "pred": ["a ", "b"]},
            {},
            r"the labels 'a' and 'a ' differ by a space alone; write them alike",
        ),
        (OLD, {"id": [1, 2], "pred": [0, 1]}, {"said": ColumnNames(pred="p")}, r"old.csv: no column 'p' .of --pred."),
        (
            OLD,
            {"id": [1, 2], "pred": [0, 1]},
            {"said": ColumnNames(slices=("zone",))},
            r"no column 'zone' .of --slice.",
        ),
        (OLD, {"id": [1, 2], "pred": [0, 1]}, {"said": ColumnNames(target="t")}, r"no column 't' of true labels"),
    ],
)
def test_what_cannot_be_joined_is_refused_with_its_place(tmp_path, old, new, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        join(csv(tmp_path / "old.csv", old), csv(tmp_path / "new.csv", new), **options)
    assert "\n" not in str(caught.value)


def test_numbers_and_names_are_not_mixed(tmp_path):
    old = csv(tmp_path / "old.csv", {"id": [1, 2], "pred": ["cat", "dog"], "target": ["cat", "dog"]})
    new = json_lines(tmp_path / "new.jsonl", {"id": [1, 2], "pred": [0, 1]})
    with pytest.raises(ValueError, match=r"labels of mixed types: .*new.jsonl has numbers .* or name the classes in"):
        join(old, new)
    assert join(old, new, class_names=["cat", "dog"]).h2_pred.tolist() == [0, 1]
    with pytest.raises(
        ValueError, match=r"ids of mixed types: .*new.jsonl has numbers, and .*text.csv text such as 'x'"
    ):
        join(csv(tmp_path / "text.csv", {"id": ["x", "y"], "pred": [0, 1], "target": [0, 1]}), new)


def test_classes_whose_names_are_numbers_are_names(tmp_path):
    old = csv(tmp_path / "old.csv", {"id": [1, 2], "pred": [1, 3], "target": [1, 3]})
    new = csv(tmp_path / "new.csv", {"id": [1, 2], "pred": [2, 3]})
    found = join(old, new, class_names=["1", "2", "3"])
    assert (found.target.tolist(), found.h2_pred.tolist()) == ([0, 2], [1, 2])
    typed = json_lines(tmp_path / "new.jsonl", {"id": [1, 2], "pred": [1, 2]})
    with pytest.raises(ValueError, match=r"a class that is not number 1 has that name; write its labels as text"):
        join(old, typed, class_names=["1", "2", "3"])


def test_a_prediction_is_never_taken_for_the_truth(tmp_path):
    old = csv(tmp_path / "old.csv", {"id": [1, 2], "pred": [0, 1]})
    new = csv(tmp_path / "new.csv", {"id": [1, 2], "label": [1, 1]})
    with pytest.raises(ValueError, match="no column of true labels"):
        join(old, new, ColumnNames(new_pred="label"))
    data = csv(tmp_path / "data.csv", {"id": [1, 2], "label": [0, 0]})
    found = join(old, new, ColumnNames(new_pred="label"), data=data)
    assert (found.h2_pred.tolist(), found.target.tolist()) == ([1, 1], [0, 0])
    with pytest.raises(ValueError, match=r"'label' is both a prediction and the true label"):
        join(old, new, ColumnNames(new_pred="label", target="label"))
    both = csv(tmp_path / "both.csv", {"id": [1, 2], "v1": [0, 1], "label": [1, 1], "target": [0, 0]})
    assert join(both, both, ColumnNames(pred="v1", new_pred="label")).target.tolist() == [0, 0]


def test_whole_floats_are_class_numbers(tmp_path):
    old = csv(tmp_path / "old.csv", OLD)
    assert join(old, csv(tmp_path / "new.csv", {"id": [1, 2], "pred": ["1.0", "0.0"]})).h2_pred.tolist() == [1, 0]
    np.savez(tmp_path / "new.npz", id=[1, 2], pred=[0, np.nan])
    with pytest.raises(ValueError, match=r"new.npz, row 1: column 'pred' is nan, and labels are whole numbers"):
        join(old, tmp_path / "new.npz")


def test_more_labels_than_scores_are_refused(tmp_path):
    old = csv(tmp_path / "old.csv", {"id": [1, 2], "pred": [1, 2], "target": [1, 2]})  # classes 1 and 2
    new = json_lines(tmp_path / "new.jsonl", {"id": [1, 2], "scores": [[0.1, 0.9], [0.8, 0.2]]})
    with pytest.raises(ValueError, match=r"old.csv, line 3: column 'pred' is 2, and classes are 0 to 1"):
        join(old, new)


def test_other_seeds_are_joined_too(tmp_path):
    old = csv(tmp_path / "old.csv", OLD)
    new, seed = (csv(tmp_path / name, {"id": [2, 1], "pred": [1, 1]}) for name in ("new.csv", "seed.csv"))
    assert [each.tolist() for each in join(old, new, noise=[seed]).other_seeds] == [[1, 1]]

import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from score_definitions import DEFINITIONS

import bc_core
from bc_core import SCORES, score_from_counts
from bc_core.counting._score_texts import counted, formula, score_metrics, sources

FUNCTIONS = {
    "btc": bc_core.trust_compatibility_score,
    "bec_given_h1_wrong": bc_core.error_compatibility_score,
    "bec_given_h2_wrong": lambda *a, **k: bc_core.error_compatibility_score(*a, given="h2_wrong", **k),
    "nfr": bc_core.negative_flip_rate,
    "pfr": bc_core.positive_flip_rate,
    "nfi": bc_core.negative_flip_impact,
}


def brute_force(h1, h2, expected, zero_division=0.0):
    """Every score by counting one instance at a time."""
    pairs = [(a == y, b == y) for a, b, y in zip(h1, h2, expected, strict=True)]

    def ratio(above, below, _):
        divisor = sum(1 for pair in pairs if below(*pair))
        return sum(1 for pair in pairs if above(*pair)) / divisor if divisor else zero_division

    return {name: ratio(*definition) for name, definition in DEFINITIONS.items()}


def counts_of(h1, h2, expected):
    counts = np.zeros((2, 2), dtype=int)
    for a, b, y in zip(h1, h2, expected, strict=True):
        counts[int(a == y), int(b == y)] += 1
    return counts


@pytest.mark.parametrize("seed", range(40))
def test_every_score_equals_counting_one_by_one(seed):
    rng = np.random.default_rng(seed)
    size, classes = rng.integers(1, 40), rng.integers(1, 5)
    h1, h2, expected = rng.integers(0, classes, (3, size)).tolist()
    wanted = brute_force(h1, h2, expected)
    for name, function in FUNCTIONS.items():
        assert function(h1, h2, expected) == wanted[name]
    for name in SCORES:
        assert score_from_counts(name, counts_of(h1, h2, expected)) == wanted[name]


def test_every_score_is_defined_by_masks_of_the_table():
    assert list(SCORES) == list(DEFINITIONS)
    for name, score in SCORES.items():
        assert score.name == name
        assert score.title
        assert score.description.endswith(".")
        assert score.higher_is_better is DEFINITIONS[name][2]
        for i, j in itertools.product((0, 1), repeat=2):
            assert score.numerator[i][j] in (0, 1)
            assert score.numerator[i][j] <= score.denominator[i][j], "a numerator lies within its denominator"


def test_a_score_that_names_a_metric_says_what_its_documentation_needs():
    for metric, scores in score_metrics().items():
        assert len({score.given for score in scores}) == len(scores), metric
        assert all(score.description.count(": ") == 1 for score in scores), metric
        assert sources(scores).endswith("."), metric


def test_formulas_in_words():
    cells = list(itertools.product((0, 1), repeat=2))
    for mask in itertools.product((0, 1), repeat=4):
        chosen = tuple(mask[:2]), tuple(mask[2:])
        words = counted(chosen)
        for h1, h2 in cells:
            said = not words or any(words_hold(part, h1, h2) for part in words.split(" or "))
            assert said == bool(chosen[h1][h2]) or mask == (0, 0, 0, 0)
    assert formula(SCORES["btc"]) == "#(h1 right and h2 right) / #(h1 right)"
    assert formula(SCORES["nfr"]) == "#(h1 right and h2 wrong) / N"
    assert formula(SCORES["bec_given_h2_wrong"]) == "#(both wrong) / #(h2 wrong)"


def words_hold(words, h1, h2):
    is_right = {"right": True, "wrong": False}
    if words.startswith("both"):
        return h1 == h2 == is_right[words.split()[1]]
    return all({"h1": h1, "h2": h2}[part.split()[0]] == is_right[part.split()[1]] for part in words.split(" and "))


def test_the_table_of_the_docs_is_that_of_the_scores():
    root = Path(__file__).parents[3]
    command = [sys.executable, root / "docs" / "score_table.py", "--check"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr


def test_identities_between_the_scores():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 100, (50, 2, 2))
    s = {name: score_from_counts(name, counts) for name in SCORES}
    np.testing.assert_allclose(s["btc"], 1 - s["nfr"] / s["accuracy_h1"])
    np.testing.assert_allclose(s["bec_given_h2_wrong"], 1 - s["nfi"])
    np.testing.assert_allclose(s["accuracy_h2"] - s["accuracy_h1"], s["pfr"] - s["nfr"])


def test_scores_of_many_tables_keep_their_shape():
    result = score_from_counts("btc", np.ones((3, 4, 2, 2)))
    assert result.shape == (3, 4)
    assert (result == 0.5).all()
    assert type(score_from_counts("btc", [[1, 1], [1, 1]])) is float


@pytest.mark.parametrize("zero_division", [0.0, 1.0, float("nan")])
def test_an_empty_denominator_gives_zero_division(zero_division):
    got = bc_core.trust_compatibility_score([1, 1], [0, 0], [0, 0], zero_division=zero_division)
    np.testing.assert_equal(got, zero_division)
    got = bc_core.error_compatibility_score([0, 0], [0, 1], [0, 0], zero_division=zero_division)
    np.testing.assert_equal(got, zero_division)


LABELS = ([0, 1, 2, 2, 1], [0, 2, 2, 1, 1], [0, 1, 2, 1, 0])
WANTED = brute_force(*LABELS)


def as_torch(dtype="int64", **options):
    import torch

    return lambda labels: torch.tensor(labels, dtype=getattr(torch, dtype), **options)


def as_tensorflow(labels):
    return pytest.importorskip("tensorflow").constant(labels)


CONVERSIONS = {
    "list": list,
    "tuple": tuple,
    "column": lambda labels: np.array(labels)[:, None],
    "nested list": lambda labels: [[label] for label in labels],
    "list of numpy": lambda labels: [np.int32(label) for label in labels],
    "whole floats": lambda labels: np.array(labels, dtype=np.float16),
    "objects": lambda labels: np.array(labels, dtype=object),
    "text": lambda labels: [f"class {label}" for label in labels],
    "text array": lambda labels: np.array([f"class {label}" for label in labels]),
    "text objects": lambda labels: np.array([f"class {label}" for label in labels], dtype=object),
    "bytes": lambda labels: np.array([f"class {label}".encode() for label in labels]),
    "wide integers": lambda labels: [label + 2**62 for label in labels],
    "negative": lambda labels: [label - 300 for label in labels],
    "torch": as_torch(),
    "torch int8": as_torch("int8"),
    "torch bfloat16": as_torch("bfloat16"),
    "torch gradient": as_torch("float32", requires_grad=True),
    "torch column": lambda labels: as_torch()(labels)[:, None],
    "list of torch": lambda labels: [as_torch()(label) for label in labels],
    "tensorflow": as_tensorflow,
    "tensorflow text": lambda labels: as_tensorflow([f"class {label}" for label in labels]),
    "list of tensorflow": lambda labels: [as_tensorflow(label) for label in labels],
    **{
        dtype: lambda labels, dtype=dtype: np.array(labels, dtype=dtype)
        for dtype in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
}


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_labels_come_in_any_container(kind):
    labels = [CONVERSIONS[kind](column) for column in LABELS]
    for name, function in FUNCTIONS.items():
        assert function(*labels) == WANTED[name]


def test_labels_of_different_containers_and_widths_compare_by_value():
    h1, h2, expected = LABELS
    got = bc_core.trust_compatibility_score(
        CONVERSIONS["torch int8"](h1), np.array(h2, dtype=np.uint64)[:, None], expected
    )
    assert got == WANTED["btc"]


def test_unsigned_labels_beyond_53_bits_do_not_collide():
    big = 2**62
    got = bc_core.negative_flip_rate(
        np.array([big], dtype=np.uint64), np.array([big + 1], dtype=np.uint64), np.array([big], dtype=np.int64)
    )
    assert got == 1.0


def test_bools_are_labels_and_equal_numbers():
    assert bc_core.trust_compatibility_score([True, False], [True, True], [1, 0]) == 0.5
    assert bc_core.trust_compatibility_score(np.array([True, False]), [1, 1], [True, False]) == 0.5


GOOD = [0, 1]


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (([0, 1, 1], GOOD, GOOD), ValueError, "expected_labels has 2, h1_output_labels has 3, h2_output_labels has 2"),
        (([], [], []), ValueError, "expected at least one label, got none"),
        (([0.0, float("nan")], GOOD, GOOD), ValueError, r"h1_output_labels: .*got nan at position 1; .*NaN"),
        ((GOOD, [np.inf, 0.0], GOOD), ValueError, "h2_output_labels: .*got inf at position 0"),
        (([0.2, 0.8], GOOD, GOOD), ValueError, r"got 0.2 at position 0; .*argmax.*threshold such as 0.5"),
        ((np.eye(2), GOOD, GOOD), ValueError, r"got shape \(2, 2\); .*argmax\(axis=1\)"),
        ((np.zeros((2, 1, 1)), GOOD, GOOD), ValueError, r"got shape \(2, 1, 1\); flatten"),
        ((["a", "b"], GOOD, GOOD), TypeError, "h1_output_labels holds text, h2_output_labels holds numbers"),
        ((["a", 1], GOOD, GOOD), TypeError, r"got text mixed with 1 \(int\)"),
        (([0, None], GOOD, GOOD), TypeError, r"such as None \(NoneType\); drop missing values"),
        (([[0], [1, 2]], GOOD, GOOD), TypeError, "h1_output_labels: .*rows of different lengths"),
        ((3, GOOD, GOOD), TypeError, "h1_output_labels: expected one entry per instance .* got int"),
        (("ab", GOOD, GOOD), TypeError, "got str; pass a sequence"),
        (([1j, 2j], GOOD, GOOD), TypeError, "got dtype complex128"),
        ((np.array(["2020", "2021"], dtype="M8[D]"), GOOD, GOOD), TypeError, "got dtype datetime64"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_advice(function, labels, error, message):
    with pytest.raises(error, match=message):
        function(*labels)


def test_an_unknown_score_or_denominator_is_refused():
    with pytest.raises(ValueError, match="unknown score 'BTC'; known scores: btc, "):
        score_from_counts("BTC", np.ones((2, 2)))
    with pytest.raises(ValueError, match="expected 'h1_wrong' or 'h2_wrong', got 'h1'"):
        bc_core.error_compatibility_score(GOOD, GOOD, GOOD, given="h1")


@pytest.mark.parametrize("counts", [[[1, -1], [0, 0]], [[1, float("nan")], [0, 0]], [["a", "b"], ["c", "d"]]])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="not negative"):
        score_from_counts("btc", counts)


def test_counts_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected shape \(..., 2, 2\) .* got \(4,\)"):
        score_from_counts("btc", [1, 2, 3, 4])


def test_importing_the_package_brings_no_framework_along():
    frameworks = {"torch", "tensorflow", "keras", "pandas"}
    code = f"import sys, bc_core, bc_core._cli; print(*({frameworks} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_the_package_lists_exactly_its_public_names():
    # Rooms are there once something has imported them.
    public = {
        name for name, what in vars(bc_core).items() if not name.startswith("_") and not isinstance(what, ModuleType)
    }
    assert public == set(bc_core.__all__)


TRUTH = [0, 2, 1, 2, 0, 1]
ONE_HOT = np.eye(3)[TRUTH]


@pytest.mark.parametrize(
    "truth",
    [
        ONE_HOT.tolist(),
        ONE_HOT.astype("float32"),
        ONE_HOT.astype(int).tolist(),
        ONE_HOT.astype(bool),
        list(ONE_HOT),
        pytest.importorskip("torch").tensor(ONE_HOT),
        np.eye(4, dtype="int8")[TRUTH],
    ],
    ids=["floats", "float32", "integers", "bools", "list of rows", "tensor", "a class that does not occur"],
)
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_the_truth_may_be_one_hot_rows(function, truth):
    h1, h2 = [0, 2, 2, 2, 1, 1], [0, 1, 1, 2, 1, 0]
    assert function(h1, h2, truth) == function(h1, h2, TRUTH)
    assert function(h1, h2, truth) not in (0.0, 1.0)


@pytest.mark.parametrize("rows", [[[0.9, 0.1], [0.2, 0.8]], [[1, 1], [0, 1]], [[0, 0], [0, 1]], [[2, -1], [0, 1]]])
def test_other_rows_are_no_truth(rows):
    with pytest.raises(ValueError, match=r"expected_labels: .*a single 1 each.*argmax\(axis=1\)"):
        bc_core.trust_compatibility_score(GOOD, GOOD, rows)


def test_one_hot_truth_in_a_comparison():
    h1, h2 = [0, 2, 2, 2, 1, 1], [0, 1, 1, 2, 1, 0]
    found, known = bc_core.compare(ONE_HOT, h1, h2), bc_core.compare(TRUTH, h1, h2)
    assert found.overlap == known.overlap
    assert found.instances.target.tolist() == known.instances.target.tolist()
    assert bc_core.ErrorOverlap.from_predictions(ONE_HOT, h1, h2) == known.overlap

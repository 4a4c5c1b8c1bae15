"""What a caller's own metric may return, and an evaluation as JSON."""

import json
import math
import warnings

import numpy as np
import pytest

from bc_core import Evaluation, compare
from bc_core.comparison._evaluation import performance


class Tensor:
    """A tensor of a framework that numpy knows nothing of: all that it offers is a shape and `numpy`."""

    def __init__(self, values):
        self._values = np.asarray(values)
        self.shape = self._values.shape

    def numpy(self):
        return self._values


@pytest.mark.parametrize(
    "value",
    [
        0.5, np.float64(0.5), np.float32(0.5), np.float16(0.5), np.longdouble(0.5), np.array(0.5),
        np.array(0.5, dtype=np.float16), Tensor(np.float32(0.5)),
    ],
)  # fmt: skip
def test_half_is_half_in_every_type(value):
    found = performance(value, "h2")
    # Not numpy's float64, which is a float too and looks otherwise in a repr.
    assert (type(found), found) == (float, 0.5)


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), Tensor(np.int32(3))])
def test_counts_become_floats(value):
    found = performance(value, "h2")
    assert isinstance(found, float)
    assert found == 3


def test_tensors_of_torch_with_a_gradient_and_in_bfloat16():
    torch = pytest.importorskip("torch")
    assert performance(torch.tensor(0.5, requires_grad=True) * 1.5, "h2") == 0.75
    assert performance(torch.tensor(0.5, dtype=torch.bfloat16), "h2") == 0.5
    assert performance(torch.tensor(3), "h2") == 3


def test_scalars_of_bfloat16_outside_torch():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert performance(ml_dtypes.bfloat16(0.5), "h2") == 0.5
    assert performance(np.array(0.5, ml_dtypes.bfloat16), "h2") == 0.5


@pytest.mark.parametrize(
    "value", [math.nan, np.float32("nan"), np.array(np.nan), Tensor(np.float16("nan"))], ids=lambda v: type(v).__name__
)
def test_nan_stays_nan_and_is_told_once_with_the_model(value):
    with pytest.warns(RuntimeWarning, match="NaN for h1") as told:
        assert math.isnan(performance(value, "h1"))
    assert len(told) == 1


def test_the_warning_points_at_who_called():
    with pytest.warns(RuntimeWarning, match="NaN") as told:
        performance(math.nan, "h1")
    assert told[0].filename == __file__


@pytest.mark.parametrize("value", [math.inf, -math.inf, np.float32("inf")])
def test_infinity_is_kept_without_a_word(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert performance(value, "h1") == value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, r"Received: None \(NoneType\)"),
        ("0.5", r"Received: '0.5' \(str\)"),
        (b"1", r"\(bytes\)"),
        (True, r"Received: True \(bool\)"),
        (np.bool_(True), r"\(bool"),
        (np.array(True), r"\(ndarray\)"),
        (1j, r"\(complex\)"),
        (np.complex64(1), r"\(complex64\)"),
        (np.str_("1"), r"\(str"),
        (np.array("1"), r"\(ndarray\)"),
        (np.datetime64("2020-01-01"), r"\(datetime64\)"),
        ([0.5], r"Received: \[0.5\] \(list\)"),
        ((0.5, 0.25), r"\(tuple\)"),
        ({"accuracy": 0.5}, r"\(dict\)"),
        (np.array([0.5]), r"\(ndarray of shape \(1,\)\)"),
        (np.zeros((2, 3)), r"of shape \(2, 3\)"),
        (Tensor([0.5, 0.25]), r"\(Tensor of shape \(2,\)\)"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_refused_with_what_came_and_the_model(value, says):
    with pytest.raises(TypeError, match=rf"(?s)performance_metric must return one number for h2 .*{says}"):
        performance(value, "h2")


def test_a_long_answer_does_not_fill_the_message():
    with pytest.raises(TypeError) as refused:
        performance("x" * 10_000, "h2")
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_json_has_null_where_a_performance_is_no_finite_number(odd):
    # 5 instances by hand: h1 right on a, b, c; h2 on a, d. Both a, h1 alone b and c, h2 alone d, none e.
    comparison = compare([0, 1, 1, 0, 1], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0], ids=list("abcde"))
    data = Evaluation(comparison, odd, 0.4).to_dict()
    read = json.loads(json.dumps(data, allow_nan=False))
    assert (read["h1_performance"], read["h2_performance"]) == (None, 0.4)
    assert read["btc"] == pytest.approx(1 / 3)
    assert read["bec"] == pytest.approx(1 / 2)
    assert read.keys() == comparison.to_dict().keys() | {"h1_performance", "h2_performance"}


def test_the_performances_are_those_of_the_evaluation_and_not_the_accuracies():
    comparison = compare([0, 1], [0, 1], [0, 0])
    data = Evaluation(comparison, 0.125, 0.25).to_dict()
    assert (data["h1_performance"], data["h2_performance"]) == (0.125, 0.25)


def test_an_evaluation_cannot_be_changed_and_equals_one_of_the_same_content():
    evaluation = Evaluation(compare([0, 1], [0, 1], [0, 0]), 1.0, 0.5)
    with pytest.raises(AttributeError):
        evaluation.h1_performance = 0.0
    assert evaluation == Evaluation(compare([0, 1], [0, 1], [0, 0]), 1.0, 0.5)
    assert evaluation != Evaluation(compare([0, 1], [0, 1], [0, 1]), 1.0, 0.5)

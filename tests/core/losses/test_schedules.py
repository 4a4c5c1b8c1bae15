import numpy as np
import pytest

from bc_core import LinearLambda, check_lambda


@pytest.mark.parametrize("lambda_c", [0, 0.0, 1, 16.0, 1e30, np.float64(0.5)])
def test_any_finite_number_from_0_on_is_a_weight(lambda_c):
    check_lambda(lambda_c)


@pytest.mark.parametrize("lambda_c", [-1, -1e-9, float("inf"), float("nan")])
def test_negative_and_infinite_weights_are_refused(lambda_c):
    with pytest.raises(ValueError, match=r"finite number >= 0.*Received: "):
        check_lambda(lambda_c)


@pytest.mark.parametrize("lambda_c", [True, "1", None, [1.0], 1j])
def test_what_is_no_number_is_refused(lambda_c):
    with pytest.raises(TypeError, match="Received: "):
        check_lambda(lambda_c)


@pytest.mark.parametrize(("start", "end", "epochs", "delay"), [(0, 4, 2, 0), (3, 1, 5, 1.5), (2, 2, 0.5, 0)])
def test_a_ramp_is_the_interpolation_between_its_ends(start, end, epochs, delay):
    schedule = LinearLambda(start, end, epochs, delay)
    at = np.linspace(0, 10, 81)
    wanted = np.interp(at, [delay, delay + epochs], [start, end])
    np.testing.assert_allclose([schedule(epoch) for epoch in at.tolist()], wanted, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"start": -1.0}, {"end": float("nan")}, {"epochs": 0}, {"epochs": float("nan")}, {"delay": -1}]
)
def test_an_impossible_ramp_is_refused(options):
    with pytest.raises(ValueError, match="Received: "):
        LinearLambda(**options)


def test_a_ramp_comes_back_from_its_config():
    schedule = LinearLambda(1.0, 2.0, epochs=3.0, delay=4.0)
    assert schedule.get_config() == {"start": 1.0, "end": 2.0, "epochs": 3.0, "delay": 4.0}
    assert LinearLambda.from_config(schedule.get_config()) == schedule

import numpy as np
import pytest

from bc_core import benjamini_hochberg, holm

# The 15 p-values that Benjamini and Hochberg (1995) work through are of this kind.
P_VALUES = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216, 0.222, 0.251, 0.269, 0.275, 0.34]
# statsmodels 0.15.0: multipletests(P_VALUES, method="holm")[1] and method="fdr_bh"
HOLM = [0.015, 0.112, 0.507, 0.507, 0.507, 0.6, 0.666] + [1.0] * 8
FDR = [0.015, 0.06, 0.126, 0.126, 0.126, 0.15, 0.1585714286] + [0.2946428571] * 7 + [0.34]


@pytest.mark.parametrize(("adjust", "wanted"), [(holm, HOLM), (benjamini_hochberg, FDR)])
def test_adjusted_p_values_equal_those_of_statsmodels(adjust, wanted):
    np.testing.assert_allclose(adjust(P_VALUES), wanted, rtol=1e-9)
    order = np.random.default_rng(0).permutation(len(P_VALUES))
    np.testing.assert_allclose(adjust(np.array(P_VALUES)[order]), np.array(wanted)[order], rtol=1e-9)


def test_holm_holds_the_chance_of_any_false_alarm():
    p_values = np.random.default_rng(1).random((5000, 50))
    alarms = np.mean([(holm(row) <= 0.05).any() for row in p_values])
    assert 0.038 < alarms < 0.06
    assert np.mean((p_values <= 0.05).any(axis=1)) > 0.9  # what it would be without


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_what_is_no_p_value_is_refused(adjust):
    assert adjust([]).tolist() == []
    for wrong in ([1.1], [-0.1], [np.nan], [[0.1]]):
        with pytest.raises(ValueError, match="p_values: expected a list of numbers from 0 to 1"):
            adjust(wrong)

"""What a promise says, and the errors of what it cannot say."""

import pytest

from bc_core import Promise
from bc_core.promise._grammar import Constraint


@pytest.mark.parametrize(
    "text",
    ["nfr <= 0.5%, btc >= 98%", "NFR<=0.005 and BTC>=0.98", ["nfr <= 0.5%", "btc >= 0.98"], "nfr<=5e-3;btc >= 98 %"],
)
def test_several_bounds_are_joined(text):
    promise = Promise.of(text)
    assert list(promise) == [Constraint("nfr", 0.005), Constraint("btc", 0.98)]
    # Read again it is the same promise.
    assert Promise.of(str(promise)) == promise == Promise.of(promise)


@pytest.mark.parametrize("limit", [0.0, 0.003, 0.0512345678, 0.07, 0.0999])
def test_a_small_share_and_its_percentage_are_one_promise(limit):
    assert (
        Promise.of(f"nfr <= {limit}") == Promise.of(f"nfr <= {100 * limit:.10g}%") == Promise.of(f"nfr<={limit:.12e}")
    )
    assert Promise.of(f"btc >= {limit}") == Promise.of(f"btc >= {100 * limit:.10g}%")
    assert Promise.of(str(Promise.of(f"nfr <= {limit}"))) == Promise.of(f"nfr <= {limit}")


@pytest.mark.parametrize(
    ("promise", "error", "message"),
    [
        (0.5, TypeError, "text"),
        (None, TypeError, "text"),
        ([0.5], TypeError, "text"),
        ("", ValueError, "reads like"),
        ([], ValueError, "at least one"),
        ("nfr <= 0.5%,", ValueError, "reads like"),
        ("nfr <= 0.5%, nfr <= 0.4%", ValueError, "one bound on each"),
        ("nfr < 0.5%", ValueError, 'Write "nfr <= 0.5%"'),
        ("btc <= 98%", ValueError, 'Write "btc >= 98%"'),
        ("nrf <= 0.5%", ValueError, "Did you mean nfr"),
        ("accuracy >= 0.9", ValueError, "Did you mean accuracy_h2"),
        ("bec_given_h1_wrong >= 0.9", ValueError, "neither high nor low"),
        ("nfr <= 150%", ValueError, "a share from 0 to 1"),
        ("nfr <= nan", ValueError, "reads like"),
        ("nfr <= 1..5", ValueError, "the limit must be a share from 0 to 1, such as 0.005 or 0.5%"),
        ("nfr <= 5", ValueError, "for percent write 5%"),
        ("nfr <= 0.5", ValueError, 'must have a % sign, "50%" or "0.5%"'),
        ("btc >= 98%, nfi <= .3", ValueError, 'must have a % sign, "30%" or ".3%"'),
        ("nfr <= 1", ValueError, 'must have a % sign, "100%" or "1%"'),
        ("nfr <= 2,5%", ValueError, 'Write numbers with a point, "nfr <= 2.5%"'),
        (["nfr <= 2,5%"], ValueError, 'Write numbers with a point, "nfr <= 2.5%"'),
    ],
)
def test_what_cannot_be_read_is_refused(promise, error, message):
    with pytest.raises(error, match=message):
        Promise.of(promise)


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("nfr <= 0.5, btc >= 0.98", "nfr <= 50%, btc >= 98%"),
        ("nfr <= 1", "nfr <= 100%"),
        ("pfr >= 1e-05", "pfr >= 0.001%"),
    ],
)
def test_a_share_in_a_file_from_before_is_a_share(written, means):
    assert Promise.from_file(written) == Promise.from_file(means) == Promise.of(means)

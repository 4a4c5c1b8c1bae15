import numpy as np
import pytest

from bc_core import Evaluation, assert_compatible, compare


def update(broken, size=2000):
    y = np.arange(size) % 2
    return compare(y, y, np.where(np.arange(size) < broken, 1 - y, y))


def test_it_raises_what_the_command_prints():
    assert assert_compatible(update(2), promise="nfr <= 1%").verdict == "pass"
    with pytest.raises(AssertionError, match=r"(?s)^FAIL: all instances: NFR at most 1% wanted.*Worst classes"):
        assert_compatible(update(200), promise="nfr <= 1%")


def test_what_cannot_be_told_is_allowed_only_where_that_is_said():
    with pytest.raises(AssertionError, match="about .* more instances of it would decide"):
        assert_compatible(update(18), promise="nfr <= 1%")
    assert assert_compatible(update(18), promise="nfr <= 1%", inconclusive=True).verdict == "inconclusive"
    with pytest.raises(AssertionError):
        assert_compatible(update(200), promise="nfr <= 1%", inconclusive=True)


def test_policies_and_files(tmp_path):
    (tmp_path / "compat.toml").write_text('promise = "nfr <= 50%"\n[per_class]\npromise = "nfr <= 1%"\n')
    saved = update(100).save(tmp_path / "saved.json")
    with pytest.raises(AssertionError, match="FAIL: class 0"):
        assert_compatible(saved, policy=tmp_path / "compat.toml")
    old, new, data = (tmp_path / name for name in ("old.csv", "new.csv", "data.csv"))
    for path, column in ((old, "pred"), (new, "pred"), (data, "label")):
        path.write_text(f"id,{column}\n" + "".join(f"{n},{n % 2}\n" for n in range(1000)))
    assert assert_compatible(old, new, data=data, policy=tmp_path / "compat.toml").verdict == "pass"
    assert assert_compatible(old, new, data=data, policy={"non_inferiority": "1%"}).verdict == "pass"


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "the policy asks nothing"), ({"policy": {"promis": "nfr <= 1%"}}, "policy: unknown key 'promis'")],
)
def test_what_asks_nothing_is_no_assertion(options, message):
    with pytest.raises(ValueError, match=message):
        assert_compatible(update(0), **options)


@pytest.mark.parametrize("given", [update(2).overlap, Evaluation(update(2), 1.0, 1.0), None])
def test_what_is_no_comparison_is_named_with_a_remedy(given):
    with pytest.raises(TypeError, match=r"its \.comparison.* got \w+; counts alone are judged by judge"):
        assert_compatible(given, promise="nfr <= 1%")

import numpy as np
import pytest

from bc_core import noise_floor


def test_the_floor_is_the_mean_over_ordered_pairs():
    target = np.zeros(4, int)
    trainings = [[0, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]]
    floor = noise_floor(target, trainings[0], trainings[1:])
    # By hand: flips of 0->1, 0->2, 1->0, 1->2, 2->0, 2->1 among four instances.
    assert floor.rate == pytest.approx((1 + 3 + 1 + 3 + 0 + 0) / 24)
    assert (floor.lowest, floor.highest, floor.seeds, floor.excess) == (0.0, 0.75, 3, None)


def test_the_excess_is_what_the_update_breaks_beyond_another_seed():
    target = np.zeros(6, int)
    h1, seeds, h2 = [0, 0, 0, 0, 0, 1], [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]], [1, 1, 1, 0, 0, 0]
    floor = noise_floor(target, h1, seeds, h2)
    assert floor.excess == pytest.approx(3 / 6 - (1 / 6 + 2 / 6) / 2)
    assert floor.low < floor.excess < floor.high


def test_another_seed_is_no_excess_as_often_as_promised():
    rng, hits, size = np.random.default_rng(0), 0, 1500
    for _ in range(1500):
        hard = np.where(rng.random(size) < 0.8, 0.97, 0.6)
        wrong = (rng.random((5, size)) > hard).astype(int)
        floor = noise_floor(np.zeros(size, int), wrong[0], list(wrong[1:4]), wrong[4])
        hits += floor.low <= 0 <= floor.high
    assert 0.935 < hits / 1500 < 0.97


def test_no_flip_at_all_is_no_certainty():
    floor = noise_floor([0] * 50, [0] * 50, [[0] * 50], [0] * 50)
    assert floor.excess == 0
    assert floor.low < 0 < floor.high


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at least one more training"):
        noise_floor([0], [0], [])
    with pytest.raises(ValueError, match=r"other_seeds\[0\] has 2"):
        noise_floor([0], [0], [[0, 1]])

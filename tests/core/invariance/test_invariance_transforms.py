import math

import numpy as np
import pytest

from bc_core.invariance import Transform, TransformSet, apply_transform, invert_tile, make_tile

RNG = np.random.default_rng(0)


def images(n=2, c=3, h=6, w=6):
    return RNG.normal(size=(n, c, h, w)).astype(np.float32)


def bilinear(image, back):
    """Plain Python: each output pixel from where `back` says, zeros outside."""
    h, w = image.shape
    out = np.zeros_like(image, dtype=np.float64)
    for i in range(h):
        for j in range(w):
            y, x = back(i - (h - 1) / 2, j - (w - 1) / 2)
            y, x = y + (h - 1) / 2, x + (w - 1) / 2
            y0, x0 = math.floor(y + 1e-9), math.floor(x + 1e-9)
            for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
                if 0 <= y0 + a < h and 0 <= x0 + b < w:
                    weight = (1 - abs(y - y0 - a)) * (1 - abs(x - x0 - b))
                    out[i, j] += weight * image[y0 + a, x0 + b]
    return out


def test_c4_are_the_quarter_turns_of_numpy():
    x = images()
    for k, transform in enumerate(TransformSet.c4()):
        np.testing.assert_array_equal(transform(x), np.rot90(x, k, axes=(2, 3)))


def test_d4_is_a_group_of_eight_different_elements():
    x = images(c=1)
    d4 = TransformSet.d4()
    seen = {transform(x).tobytes() for transform in d4}
    assert len(seen) == 8
    for a in d4:
        for b in d4:
            assert b(a(x)).tobytes() in seen
            np.testing.assert_array_equal(b.after(a)(x), b(a(x)))
        np.testing.assert_array_equal(a.inverse(a(x)), x)
        np.testing.assert_array_equal(a(a.inverse(x)), x)


def test_flips_and_rolls_are_those_of_numpy_on_any_shape():
    x = images(h=5, w=8)
    none, up, side, both = TransformSet.flips(horizontal=True, vertical=True)
    np.testing.assert_array_equal(none(x), x)
    np.testing.assert_array_equal(up(x), x[:, :, ::-1])
    np.testing.assert_array_equal(side(x), x[:, :, :, ::-1])
    np.testing.assert_array_equal(both(x), x[:, :, ::-1, ::-1])
    for shift in ((1, 0), (-2, 3), (7, -9)):
        (roll,) = TransformSet.rolls([shift])
        np.testing.assert_array_equal(roll(x), np.roll(x, shift, axis=(2, 3)))
        np.testing.assert_array_equal(roll.inverse(roll(x)), x)


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (6, 9)])
@pytest.mark.parametrize("angle", [10, 45, 137.5, -30, 180])
def test_rotations_are_in_degrees_about_the_centre_and_bilinear(size, angle):
    x = images(1, 1, *size)
    t = math.radians(angle)  # counter-clockwise, with y down
    expected = bilinear(x[0, 0], lambda y, x: (math.cos(t) * y + math.sin(t) * x, -math.sin(t) * y + math.cos(t) * x))
    (rotation,) = TransformSet.rotations([angle])
    np.testing.assert_allclose(rotation(x)[0, 0], expected, atol=1e-5)  # float32


def test_rotations_by_quarters_are_exact_on_squares():
    x = images()
    for transform, k in zip(TransformSet.rotations([0, 90, 180, 270, 360, -90]), (0, 1, 2, 3, 0, 3), strict=True):
        np.testing.assert_array_equal(transform(x), np.rot90(x, k, axes=(2, 3)))


@pytest.mark.parametrize("shift", [(1, 0), (0, -2), (2, 3), (0.5, 0), (-1.25, 2.5)])
def test_translations_fill_with_zeros(shift):
    x = images(1, 1, 6, 7)
    (move,) = TransformSet.translations([shift])
    expected = bilinear(x[0, 0], lambda y, x: (y - shift[0], x - shift[1]))
    np.testing.assert_allclose(move(x)[0, 0], expected, atol=1e-6)
    # Along one axis the sign says where to.
    along = [part for part in shift if part]
    assert move.size == pytest.approx(along[0] if len(along) == 1 else math.hypot(*shift))


def test_whole_translations_copy_pixels():
    x = images(1, 1, 4, 4)
    (move,) = TransformSet.translations([(1, -1)])
    expected = np.zeros_like(x)
    expected[:, :, 1:, :-1] = x[:, :, :-1, 1:]
    np.testing.assert_array_equal(move(x), expected)


@pytest.mark.parametrize("factor", [0.5, 1.3, 2])
def test_scales_are_about_the_centre(factor):
    x = images(1, 1, 7, 7)
    (scale,) = TransformSet.scales([factor])
    np.testing.assert_allclose(scale(x)[0, 0], bilinear(x[0, 0], lambda y, x: (y / factor, x / factor)), atol=1e-5)


def smooth(size):
    """A spot that bends slowly and stays inside, so that resampling it there and back changes little."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size),) * 2, indexing="ij")
    return (np.exp(-15 * ((y - 0.15) ** 2 + (x + 0.1) ** 2)) * (1 + y - 0.5 * x))[None, None].astype(np.float32)


@pytest.mark.parametrize(
    "transform",
    [
        *TransformSet.rotations([33]) * TransformSet.translations([(2, -3)]),
        *TransformSet.translations([(2, -3)]) * TransformSet.rotations([33]),
        *TransformSet.scales([1.2]) * TransformSet.rotations([70]) * TransformSet.translations([(1.5, 2)]),
    ],
    ids=lambda transform: transform.name,
)
def test_the_inverse_of_a_composition_undoes_it(transform):
    x = smooth(81)
    back = transform.inverse(transform(x))
    assert np.abs(transform(x) - x).max() > 0.1
    # Two bilinear interpolations of a map that bends slowly; undone in the wrong order it is off by more than 0.2.
    assert np.abs(back - x).max() < 0.03


def test_a_composition_is_one_resampling_in_the_right_order():
    x = smooth(31)
    turn, move = TransformSet.rotations([90])[0], TransformSet.translations([(0, 4)])[0]
    both = move.after(turn)
    assert len(both.steps) == 1
    np.testing.assert_array_equal(both(x), move(turn(x)))
    assert not np.array_equal(both(x), turn(move(x)))
    assert (TransformSet.rotations([90]) * TransformSet.translations([(0, 4)]))[0].steps == both.steps


def test_cyclic_and_filling_maps_stay_two_steps():
    x = images(1, 1)
    roll, move = TransformSet.rolls([(0, 2)])[0], TransformSet.translations([(1, 0)])[0]
    both = move.after(roll)
    np.testing.assert_array_equal(both(x), move(roll(x)))
    turned = TransformSet.c4()[1].after(roll)
    assert len(turned.steps) == 1
    np.testing.assert_array_equal(turned(x), np.rot90(roll(x), 1, axes=(2, 3)))


@pytest.mark.parametrize("make", [TransformSet.translations, TransformSet.rolls])
def test_shifts_are_fractions_of_a_pooled_map(make):
    pooled = images(1, 2, 7, 7)
    (move,) = make([(4, -8)])
    (expected,) = make([(1, -2)])
    np.testing.assert_array_equal(move(pooled, input_size=(28, 28)), expected(pooled))
    # 2 pixels of 28 are half of one here: the mean of two neighbours, cyclic or with zeros.
    half = make([(2, 0)])[0](pooled, input_size=(28, 28))
    np.testing.assert_allclose(half[:, :, 1:], (pooled[:, :, 1:] + pooled[:, :, :-1]) / 2, rtol=1e-5)


def test_channels_last_is_the_same_images():
    x = images(2, 3, 6, 6)
    for transform in TransformSet.d4() | TransformSet.rotations([20]) | TransformSet.translations([(1, 2.5)]):
        last = transform(np.moveaxis(x, 1, 3), data_format="channels_last")
        np.testing.assert_array_equal(np.moveaxis(last, 3, 1), transform(x))


def test_union_keeps_the_order_and_drops_what_is_there():
    both = TransformSet.rotations([0, 15]) | TransformSet.translations([(0, 0), (0, 2)]) | TransformSet.rotations([15])
    assert both.names == ("identity", "rotate 15", "translate (0, 2)")
    assert both.sizes == (0.0, 15.0, 2.0)
    assert both.identity_index == 0
    assert TransformSet.translations([(0, 2)]).identity_index is None


def test_own_functions_with_and_without_inverse():
    sets = TransformSet.from_functions([("negate", lambda x: -x, lambda x: -x), ("double", lambda x: 2 * x)])
    x = images()
    np.testing.assert_array_equal(sets[1](x), -x)
    flipped = TransformSet.flips()[1].after(sets[1])
    np.testing.assert_array_equal(flipped(x), -x[..., ::-1])
    np.testing.assert_array_equal(flipped.inverse(flipped(x)), x)
    assert not sets.has_inverses
    with pytest.raises(ValueError, match="without an inverse"):
        _ = sets[2].inverse


def test_tiles_are_sample_by_sample_and_turn_back():
    x = images(3, 2, 4, 4)
    turns = TransformSet.c4()
    tile = make_tile(turns, x)
    for i in range(3):
        for j, turn in enumerate(turns):
            np.testing.assert_array_equal(tile[i * 4 + j], turn(x[i : i + 1])[0])
    np.testing.assert_array_equal(invert_tile(turns, tile), np.repeat(x, 4, axis=0))


def test_whole_numbers_are_moved_but_not_mixed():
    x = (100 * images()).astype(np.uint8)
    for transform in TransformSet.d4() | TransformSet.rolls([(1, 2)]):
        moved = transform(x)
        assert moved.dtype == np.uint8
        np.testing.assert_array_equal(moved, transform(x.astype(np.float64)))
    for transforms in (
        TransformSet.rotations([30]),
        TransformSet.scales([0.5]),
        TransformSet.translations([(0, 1)]),
        TransformSet.translations([(0.5, 0)]),
    ):
        for kind in (np.uint8, np.int64, bool):
            with pytest.raises(TypeError, match=f"floating-point.*Received: {np.dtype(kind)}"):
                transforms[0](x.astype(kind))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="square"):
        TransformSet.c4()[1](images(h=4, w=5))
    with pytest.raises(ValueError, match="square"):
        TransformSet.c4()[1].after(TransformSet.rolls([(0, 1)])[0])(images(h=4, w=5))
    with pytest.raises(ValueError, match=r"got shape \(4, 7\)"):
        TransformSet.flips()[1](np.zeros((4, 7)))
    with pytest.raises(ValueError, match="at least one"):
        TransformSet([])
    with pytest.raises(TypeError, match="from_functions"):
        TransformSet([np.negative])
    with pytest.raises(ValueError, match="whole pixels"):
        TransformSet.rolls([(0.5, 0)])
    with pytest.raises(ValueError, match="pairs"):
        TransformSet.translations([3])
    with pytest.raises(ValueError, match="finite"):
        TransformSet.rotations([math.inf])
    with pytest.raises(TypeError, match="numbers"):
        TransformSet.rotations(["a"])
    with pytest.raises(ValueError, match="above 0"):
        TransformSet.scales([0])
    with pytest.raises(TypeError, match="inverse, size"):
        TransformSet.from_functions([("a",)])
    with pytest.raises(ValueError, match="data_format"):
        apply_transform(Transform("identity"), images(), data_format="NCHW")
    with pytest.raises(ValueError, match="keep the shape"):
        make_tile(TransformSet.from_functions({"crop": lambda x: x[..., 1:]}), images())


def test_sizes_of_shifts_along_one_axis_have_a_sign():
    assert TransformSet.translations([(0, 0), (0, -3), (0, 3)]).sizes == (0, -3, 3)
    assert TransformSet.rolls(np.array([[0, 0], [-2, 0], [4, 0]])).sizes == (0, -2, 4)
    assert TransformSet.translations([(0, 0), (-3, 0), (0, -3)]).sizes == (0, 3, 3)


def test_what_does_the_same_is_one_transformation():
    assert (TransformSet.c4() | TransformSet.rotations([90, 45])).names[-2:] == ("rotate 270", "rotate 45")
    for angle in (45, 30, 11.5):
        both = TransformSet.rotations([angle]) * TransformSet.rotations([-angle])
        assert both[0].is_identity
    with pytest.raises(TypeError, match="degrees: expected numbers"):
        TransformSet.rotations("30")


def test_a_function_that_changes_its_input_is_caught():
    def doubled(x):
        x *= 2
        return x

    own = TransformSet.from_functions({"doubled": doubled})
    x = images()
    before = x.copy()
    with pytest.raises(ValueError, match="'doubled' changed its input in place.*work on a copy"):
        make_tile(own, x)
    np.testing.assert_array_equal(x, before)
    assert x.flags.writeable
    tripled = TransformSet.from_functions({"tripled": lambda x: 3 * x})
    np.testing.assert_array_equal(make_tile(tripled, x)[1::2], 3 * x)

"""The pictures of invariance, and the numbers behind them, against plain counting."""

from __future__ import annotations

import dataclasses
import itertools
import sys

import numpy as np
import pytest

from bc_core.invariance import (
    Interval,
    InvarianceResult,
    LayerMeasures,
    PairedInterval,
    TransformSet,
    compare_predictions,
)
from bc_core.invariance._charts import (
    MOST_CELLS,
    curve,
    heat_difference,
    heat_row,
    pooled,
    scale_end,
    transformation_groups,
)
from bc_core.invariance._curves import curves, depth
from bc_core.invariance._heat_maps import heat_map, heat_maps

TURNS = TransformSet.rotations([0, 15, 30])
MIXED = TURNS | TransformSet.translations([(0, 2), (2, 0), (0, 4)]) | TransformSet.scales([0.5, 1, 2])


def layer(name, features, seed=0, dead=0, positions=4):
    rng = np.random.default_rng([seed, features])
    sv = rng.uniform(0.5, 2, (features, positions))
    sv[:dead] = 0
    tv = rng.uniform(0, 1.5, (features, 1)) * sv
    flat = [part.ravel() for part in (tv, tv**2, sv, sv**2, tv**2, sv)]
    return LayerMeasures(name, (features, positions), 0, 100, len(TURNS), *flat)


def result(layers=3, seed=0, dead=1, features=8, kind="invariance"):
    made = [layer(f"block.{number}.conv", features, seed + number, dead) for number in range(layers)]
    return InvarianceResult(made, TURNS.names, TURNS.sizes, kind)


def update(transforms=TURNS, labels=True, n=60):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n)
    h1, h2 = (np.where(rng.random((n, len(transforms))) < 0.3, 0, y[:, None]) for _ in range(2))
    return compare_predictions(h1, h2, y if labels else None, transforms=transforms)


def measured(h1=None, h2=None, intervals=True):
    h1, h2 = h1 or result(), h2 or result(seed=5)
    found = {
        name: PairedInterval(Interval(0.1, 0.9), Interval(0.2, 0.8), Interval(-0.1, 0.1))
        for name in h1.layer_names
        if name in h2
    }
    return dataclasses.replace(update(), h1=h1, h2=h2, intervals=found if intervals else {})


def texts(figure):
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


# Numbers


def test_layers_of_one_network_alone_stand_where_they_are_called():
    def of(*names):
        return InvarianceResult([layer(name, 2) for name in names], TURNS.names, TURNS.sizes)

    found = measured(of("stem", "old", "head"), of("norm", "stem", "added", "wide", "head", "scale"))
    names = [row["layer"] for row in found.depth_table()]
    assert names == ["norm", "stem", "added", "wide", "old", "head", "scale"]


def test_kinds_of_transformations_are_told_apart_and_share_the_identity():
    groups = transformation_groups(MIXED.names, MIXED.sizes, 0)
    assert [(group.kind, group.sizes) for group in groups] == [
        ("rotate", (0.0, 15.0, 30.0)),
        ("translate", (0.0, 2.0, 2.0, 4.0)),
        ("scale", (0.5, 1.0, 2.0)),
    ]
    assert [MIXED.names[number] for number in groups[2].members] == ["scale 0.5", "identity", "scale 2"]


def test_a_symmetry_group_stays_together_by_name():
    d4 = TransformSet.d4()
    [group] = transformation_groups(d4.names, d4.sizes, 0)
    assert group.sizes is None
    assert sorted(group.members) == list(range(8))


def test_own_functions_with_a_size_are_a_kind():
    brighter = TransformSet.from_functions([(f"brightness({size})", abs, None, size) for size in (0.5, 0.1)])
    [group] = transformation_groups(brighter.names, brighter.sizes, 0)
    assert (group.kind, group.sizes, group.axis) == ("brightness", (0.0, 0.1, 0.5), "Size of brightness")


def test_a_row_is_sorted_with_dead_features_last_or_in_order():
    one = layer("a", 6, dead=2)
    values = one.feature_normalized_variance()
    row = heat_row(one, "feature", "std", "sorted")
    assert np.isnan(row).tolist() == [False] * 4 + [True] * 2
    np.testing.assert_array_equal(row[:4], sorted(values[2:]))
    np.testing.assert_array_equal(heat_row(one, "feature", "std", "index"), values)
    assert len(heat_row(one, "unit", "std", "index")) == 24


def test_cells_hold_means_of_neighbours_that_are_alive():
    values = np.arange(1000.0)
    values[:8] = np.nan
    cells = pooled(values)
    assert len(cells) == MOST_CELLS
    assert np.isnan(cells[:2]).all()
    edges = [number * 1000 // MOST_CELLS for number in range(MOST_CELLS + 1)]
    for start, end, cell in list(zip(edges, edges[1:], cells, strict=False))[3:]:
        assert cell == pytest.approx(sum(range(start, end)) / (end - start))


def test_a_difference_by_rank_does_not_see_a_permutation_and_by_index_does():
    h1 = layer("a", 30, dead=0)
    order = np.random.default_rng(1).permutation(30)
    moved = {
        part: getattr(h1, part).reshape(30, -1)[order].ravel()
        for part in ("tv_std", "tv_var", "sv_std", "sv_var", "between", "mean")
    }
    h2 = dataclasses.replace(h1, **moved)
    assert np.abs(heat_difference(h1, h2, "feature", "std", "sorted")).max() < 1e-12
    by_index = heat_difference(h1, h2, "feature", "std", "index")
    values = h1.feature_normalized_variance()
    np.testing.assert_allclose(by_index, values[order] - values)


def test_features_of_other_numbers_are_compared_by_rank_only():
    h1, h2 = layer("a", 10), layer("a", 300)
    assert heat_difference(h1, h2, "feature", "std", "index") is None
    assert len(heat_difference(h1, h2, "feature", "std", "sorted")) == 10
    assert np.isnan(heat_difference(layer("a", 4, dead=4), h2, "feature", "std", "sorted")).all()


def test_one_outlier_does_not_flatten_the_scale():
    assert scale_end([np.array([0.5, np.nan, 1.0])]) == (1.0, False)
    end, beyond = scale_end([np.r_[np.linspace(0, 1, 200), 50.0]])
    assert beyond
    assert end < 1.1
    assert scale_end([np.zeros(3), np.full(2, np.nan)]) == (1.0, False)


def test_a_curve_is_what_counting_gives():
    found = update()
    kept = (found.h1_pred == found.h1_pred[:, [0]]) & (found.h2_pred != found.h2_pred[:, [0]])
    points = curve(found, "negative_flip_rate")
    assert [point.value for point in points] == pytest.approx(kept.mean(axis=0).tolist())
    assert all(point.low <= point.value <= point.high for point in points)
    with pytest.raises(ValueError, match="needs the labels"):
        curve(update(labels=False), "btc")


# Pictures


@pytest.mark.parametrize("dark", [False, True])
def test_a_heat_map_names_layers_and_says_what_grey_is(tmp_path, dark):
    figure = heat_map(result(), tmp_path / "new" / "map.png", dark)
    assert (tmp_path / "new/map.png").read_bytes().startswith(b"\x89PNG")
    assert {"block.0.conv", "block.2.conv", "dead features, which no sample moves"} <= set(texts(figure))
    assert len(figure.axes[0].images) == 3
    assert "dead features, which no sample moves" not in texts(heat_map(result(dead=0), dark=dark))


@pytest.mark.parametrize("layers", [1, 50, 150])
def test_names_of_many_layers_do_not_overlap(layers):
    figure = heat_map(result(layers))
    figure.draw_without_rendering()
    assert max(figure.get_size_inches()) <= 14
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(above.y0 >= below.y1 - 1 for above, below in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0


def test_both_networks_share_a_scale_and_the_difference_is_symmetric():
    h1, h2 = result(), result(4, seed=5)
    figure = heat_maps(h1, h2)
    first, second, difference = figure.axes[:3]
    assert first.images[0].get_clim() == second.images[0].get_clim()
    low, high = difference.images[0].get_clim()
    assert low == -high
    assert len(first.images) == 3
    assert len(second.images) == 4
    assert {"not in h1", "cannot be compared"} <= set(texts(figure))


def test_two_kinds_of_measures_are_not_compared():
    with pytest.raises(ValueError, match="of one kind, got invariance of h1 and same_equivariance of h2"):
        heat_maps(result(), result(kind="same_equivariance"))


@pytest.mark.parametrize(("option", "value"), [("level", "channel"), ("order", "random"), ("statistic", "mad")])
def test_an_unknown_option_is_refused(option, value):
    with pytest.raises(ValueError, match=value):
        heat_map(result(), **{option: value})


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("intervals", [False, True])
def test_depth_has_a_line_of_each_network_and_the_difference(dark, intervals):
    found = measured(intervals=intervals)
    upper, lower = depth(found, dark=dark).axes
    drawn = {line.get_label(): line.get_ydata() for line in upper.lines}
    for name, of in (("h1", found.h1), ("h2", found.h2)):
        np.testing.assert_allclose(drawn[name], [one.summary() for one in of.values()])
    assert [label.get_text() for label in lower.get_xticklabels()] == list(found.h1.layer_names)


def test_other_architectures_are_drawn_over_the_share_of_the_depth():
    other = InvarianceResult([layer(f"stage{n}", 8, n) for n in range(5)], TURNS.names, TURNS.sizes)
    [axes] = depth(measured(h2=other)).axes
    drawn = {line.get_label(): line.get_xdata() for line in axes.lines}
    np.testing.assert_allclose(drawn["h1"], [0, 0.5, 1])
    np.testing.assert_allclose(drawn["h2"], [0, 0.25, 0.5, 0.75, 1])


def test_depth_needs_layers():
    with pytest.raises(ValueError, match="compare_invariance measures the layers"):
        depth(update())


@pytest.mark.parametrize("dark", [False, True])
def test_curves_have_a_panel_for_each_kind_and_score(tmp_path, dark):
    assert len(curves(update(), dark=dark).axes) == 4
    assert len(curves(update(labels=False), dark=dark).axes) == 2
    figure = curves(update(MIXED), tmp_path / "curves.svg", dark)
    assert "<svg" in (tmp_path / "curves.svg").read_text()
    assert len(figure.axes) == 4 * 3
    assert {"Angle in degrees", "Shift in pixels", "Scale factor"} <= set(texts(figure))
    accuracy = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(accuracy["h1"], [row["accuracy_h1"] for row in update(MIXED).table()[:3]])


def test_transformations_without_a_size_stand_by_name():
    found = texts(curves(update(TransformSet.d4())))
    assert {"identity", "flip left-right, rotate 270"} <= set(found)


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (lambda: heat_map(result()), lambda: depth(measured()), lambda: curves(update())):
        with pytest.raises(ImportError, match=r"backward-compat-ml\[sweep\]"):
            draw()


def test_a_notebook_can_show_it():
    assert heat_map(result())._repr_png_().startswith(b"\x89PNG")

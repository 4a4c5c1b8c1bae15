"""What both models said of a data set, as classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bc_core import Comparison, compare
from bc_core._arrays import id_array
from bc_core.comparison._comparison import Metadata
from bc_core.slices._metadata import Columns
from bc_lightning.losses._instance_terms import Labels
from bc_lightning.training.comparisons._sureness import Sureness


class ModelAnswer(NamedTuple):
    """A model's scores for a batch, and what it returned."""

    scores: Tensor
    output: Any


class Found:
    """Labels of all instances, in the order of the loader."""

    def __init__(self) -> None:
        self.labels: list[Tensor] = []
        self.ids: list[Any] | None = None
        self.num_classes = 0
        self.sureness = {"h1": Sureness(), "h2": Sureness()}
        self.threshold = 0.5

    def add(
        self, labels: Labels, h1_output: Tensor | None, h2_output: Tensor, binary: bool, options: Mapping[str, Any]
    ) -> None:
        """Add a batch: what both models say as classes, and how sure their outputs are; None is not known."""
        self.num_classes = max(self.num_classes, labels.num_classes)
        columns = (labels.target, labels.h1, labels.h2)
        self.labels.append(torch.stack([column.reshape(-1) for column in columns]).cpu())
        self.threshold = options["threshold"]
        for model, output, answers in (("h1", h1_output, labels.h1), ("h2", h2_output, labels.h2)):
            scores = labels.target if output is None else output
            self.sureness[model].add(scores, answers, labels.target, binary, options["from_logits"])

    def compared(
        self,
        class_names: Sequence[str] | None = None,
        metadata: Metadata | None = None,
        name: str | None = None,
        lambda_c: float | None = None,
    ) -> Comparison:
        if not self.labels:
            raise ValueError(
                "dataset: expected at least one batch with instances, got none; look at the loader's data set"
            )
        target, h1, h2 = torch.cat(self.labels, dim=1).numpy().astype(np.int64)
        counted = target >= 0  # -1 stands for ignore_index
        strange = (h1 < -1) | (h1 >= self.num_classes)
        if strange.any():
            raise ValueError(
                f"h1 says {h1[strange][0]}, which is no class: expected 0..{self.num_classes - 1}, or -1 where it has "
                "none of h2's classes. Map its labels to h2's classes"
            )
        if not counted.any():
            raise ValueError("target: every instance is left out by its label (ignore_index), so there is no score")
        said = {
            model: sureness.said(target[counted], labels[counted], counted)
            for (model, sureness), labels in zip(self.sureness.items(), (h1, h2), strict=True)
        }
        if (h1[counted] < 0).any():
            said["h1"] = None  # it has no score of a class that it does not know
        # Where h1 has no class of h2's (-1) it is wrong, so any class but the true one will do.
        h1 = np.where(h1 < 0, (target + 1) % self.num_classes, h1)
        ids = None if self.ids is None else id_array(self.ids, "ids")
        if ids is None and not counted.all():
            ids = np.arange(len(target))
        columns = Columns.of(metadata, len(target), self.ids or ())
        told: Any = metadata if columns is None else columns.among(counted)
        return compare(
            target[counted],
            h1[counted],
            h2[counted],
            ids=None if ids is None else ids[counted],
            num_classes=self.num_classes,
            class_names=class_names,
            metadata=told,
            name=name,
            lambda_c=lambda_c,
            h1_scores=said["h1"],
            h2_scores=said["h2"],
            threshold=self.threshold,
        )

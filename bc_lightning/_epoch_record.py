"""What is measured over one epoch of one data loader: counts and mean loss terms, merged over processes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from bc_lightning.functional import LossTerms, overlap_counts
from bc_lightning.functional._scores import score_from_counts

LOGGED_SCORES = ("btc", "bec_given_h1_wrong", "bec_given_h2_wrong", "nfr", "accuracy_h1", "accuracy_h2")


class EpochResult(NamedTuple):
    """What an epoch came to, over all processes: what is logged, and the counts (C, 2, 2) behind it."""

    logged: dict[str, Tensor]
    counts: Tensor


class EpochRecord(Metric):
    """Sums over an epoch; the scores are read from summed counts, never averaged over batches."""

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    counts: Tensor
    sums: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.add_state("counts", torch.zeros(num_classes, 2, 2, dtype=torch.long), dist_reduce_fx="sum")
        # base loss and its weight, dissonance and its weight
        self.add_state("sums", torch.zeros(4, dtype=torch.float32), dist_reduce_fx="sum")

    def update(
        self, h2_labels: Tensor, target: Tensor, h1_labels: Tensor, keep: int | None, base: Tensor, terms: LossTerms
    ) -> None:
        """Add a batch: loss terms over all of it, counts over its first `keep` instances (None: all)."""
        if keep is not None:
            h2_labels, target, h1_labels = h2_labels[:keep], target[:keep], h1_labels[:keep]
        self.counts += overlap_counts(h2_labels, target, h1_labels, self.num_classes)
        weights = (base * terms.base_weight, terms.base_weight, terms.dissonance_sum, terms.dissonance_weight)
        self.sums += torch.stack([weight.float() for weight in weights])

    def compute(self) -> EpochResult:
        """Mean base loss and dissonance, and the scores that a training log needs."""
        total = self.counts.sum(0)
        base, base_weight, dissonance, dissonance_weight = self.sums.unbind()
        logged = {
            "base_loss": base / torch.where(base_weight > 0, base_weight, 1.0),
            "dissonance": dissonance / torch.where(dissonance_weight > 0, dissonance_weight, 1.0),
            **{name: score_from_counts(total, name) for name in LOGGED_SCORES},
        }
        return EpochResult(logged, self.counts.clone())

"""What is measured over one epoch of one data loader: counts and mean loss terms, merged over processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from bc_core import SCORES
from bc_lightning.functional import LossTerms, overlap_counts
from bc_lightning.functional._scores import score_from_counts

# Counting takes a dozen small operations, as many for a thousand labels as for ten: batches wait until it pays, and no
# longer than until their labels take up half a megabyte or so.
_BATCHES_AT_ONCE, _LABELS_AT_ONCE = 64, 16384

# All but what follows from the others: pfr = accuracy_h2 - accuracy_h1 + nfr, nfi = nfr / (1 - accuracy_h2).
_FIRST = ("btc", "bec_given_h1_wrong", "bec_given_h2_wrong", "nfr", "accuracy_h1", "accuracy_h2")
LOGGED_SCORES = (*_FIRST, *(name for name in SCORES if name not in (*_FIRST, "pfr", "nfi")))
LOGGED_NAMES = ("base_loss", "dissonance", *LOGGED_SCORES)


# Where h1 did not know some classes: of these, and of all others.
NEW_CLASSES_NAMES = (
    "accuracy_h2_new_classes",
    *(f"{name}_known_classes" for name in ("accuracy_h1", "accuracy_h2", "nfr")),
)


def of_new_classes(counts: Tensor, new_classes: Sequence[int]) -> dict[str, Tensor]:
    """What is logged too where h1 did not know some classes, whose instances its own scores hold against it."""
    is_new = torch.zeros(len(counts), dtype=torch.bool, device=counts.device)
    for number in new_classes:
        is_new[number] = True
    new, known = (torch.where(chosen[:, None, None], counts, 0).sum(0) for chosen in (is_new, ~is_new))
    values = [score_from_counts(new, "accuracy_h2")]
    values += [score_from_counts(known, name) for name in ("accuracy_h1", "accuracy_h2", "nfr")]
    return dict(zip(NEW_CLASSES_NAMES, values, strict=True))


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
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._labels_waiting = 0

    def add(
        self, h2_labels: Tensor, target: Tensor, h1_labels: Tensor, keep: int | None, base: Tensor, terms: LossTerms
    ) -> None:
        """Add a batch: loss terms over all of it, counts over its first `keep` instances (None: all)."""
        # Stacked, so copied: a loader may fill the same buffer again.
        labels = torch.stack([h2_labels.reshape(-1), target.reshape(-1), h1_labels.reshape(-1)])
        if keep is not None:
            labels = labels[:, : keep * (target.numel() // max(1, len(target)))]
        sums = (base.detach(), terms.base_weight, terms.dissonance_sum, terms.dissonance_weight)
        self._waiting.append((labels, torch.stack([each.float() for each in sums])))
        self._labels_waiting += labels.shape[1]
        if len(self._waiting) >= _BATCHES_AT_ONCE or self._labels_waiting >= _LABELS_AT_ONCE:
            self._count()

    def _count(self) -> None:
        if self._waiting:
            labels, sums = zip(*self._waiting, strict=True)
            self._waiting, self._labels_waiting = [], 0
            self.update(torch.cat(labels, dim=1), torch.stack(sums))

    def result(self) -> EpochResult:
        """What all batches, of all processes, came to."""
        self._count()
        found: EpochResult = self.compute()
        return found

    def update(self, labels: Tensor, sums: Tensor) -> None:
        """Count labels (3, N) of h2, target and h1, and add sums (batches, 4): base, its weight, dissonance, its."""
        h2_labels, target, h1_labels = labels
        self.counts += overlap_counts(h2_labels, target, h1_labels, self.num_classes)
        base, base_weight, dissonance, dissonance_weight = sums.unbind(1)
        # Of a batch whose labels are all ignored there is no mean: torch gives NaN, which no weight of 0 takes out.
        base = torch.where(base_weight > 0, base * base_weight, 0.0)
        self.sums += torch.stack([base, base_weight, dissonance, dissonance_weight]).sum(1)

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

"""Instances without a label, which a training step leaves out, beside a validation step that has none of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset
from user_code import dataset, loader
from users_modules import Forward, penalty, trains_like

X, Y = dataset().tensors


class Ignored(Forward):
    none = -1
    h1 = None

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.loss(x, y)
        return loss if self.h1 is None else loss + penalty(self, self.h1[0], x[y != self.none], y[y != self.none])

    def loss(self, x, y):
        return F.cross_entropy(self(x), y, ignore_index=self.none)

    def validation_step(self, batch, batch_idx):
        # Torch's own -100, which nobody has said and no label is.
        F.cross_entropy(self(batch[0]), batch[1])


class Masked(Ignored):
    def loss(self, x, y):
        return F.cross_entropy(self(x)[y != self.none], y[y != self.none])


@pytest.mark.parametrize("none", [-1, 255, -100])
@pytest.mark.parametrize("kind", [Ignored, Masked])
def test_labels_that_are_left_out_are_so_in_the_penalty(kind, none, h1, tmp_path):
    kind = type("M", (kind,), {"none": none})
    labels = torch.where(torch.arange(len(Y)) % 3 == 0, none, Y)
    options = {} if none == -100 else {"loss_options": {"ignore_index": none}}
    by_hand = type("ByHand", (kind,), {"h1": [h1]})
    trains_like(kind, by_hand, h1, tmp_path, train=loader(TensorDataset(X, labels)), **options)


def test_a_mask_of_other_instances_is_refused(h1, tmp_path):
    labels = torch.where(torch.arange(len(Y)) % 3 == 0, -1, Y)

    class Others(Masked):
        def loss(self, x, y):
            kept = (y != self.none) & (x[:, 0] > 0)
            return F.cross_entropy(self(x)[kept], y[kept])

    with pytest.raises(ValueError, match=r"on \d+ of the 20 instances that h2 answered for"):
        trains_like(
            Others, Others, h1, tmp_path, train=loader(TensorDataset(X, labels)), loss_options={"ignore_index": -1}
        )

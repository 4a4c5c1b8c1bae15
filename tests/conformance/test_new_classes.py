"""Classes that h1 did not know are shown apart: in metrics, and in what a training logs.

What both sides promise: of Keras in a process that names a backend, of Lightning in any other.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from bc_core import ClassMap, compare

KERAS = "KERAS_BACKEND" in os.environ
RANDOM = np.random.default_rng(3)
N, CLASSES, NEW = 200, 4, (1, 3)
Y = RANDOM.integers(0, CLASSES, N)
# h1 says none of the new classes.
H1 = np.where(RANDOM.random(N) < 0.8, np.where(Y % 2, 0, Y), 2 * RANDOM.integers(0, 2, N))
H2 = np.where(RANDOM.random(N) < 0.8, Y, RANDOM.integers(0, CLASSES, N))
APART = compare(Y, H1, H2, num_classes=CLASSES, new_classes=NEW)


def of_metric(name, new_classes=NEW):
    if KERAS:
        import bc_keras

        metric = getattr(bc_keras.metrics, name)(new_classes=new_classes)
        for rows in (slice(0, 70), slice(70, N)):
            h2 = np.eye(CLASSES, dtype="float32")[H2[rows]]
            metric.update_state(bc_keras.attach_h1(H1[rows], h2, Y[rows], num_classes=CLASSES)[1], h2)
        assert type(metric).from_config(metric.get_config()).new_classes == tuple(new_classes)
        return float(metric.result())
    import torch

    import bc_lightning

    metric = getattr(bc_lightning.metrics, name)(task="multiclass", num_classes=CLASSES, new_classes=new_classes)
    for rows in (slice(0, 70), slice(70, N)):
        metric.update(*(torch.tensor(each[rows]) for each in (H2, Y, H1)))
    return float(metric.compute())


@pytest.mark.parametrize(
    ("metric", "score"),
    [
        ("NegativeFlipRate", "nfr"),
        ("BackwardTrustCompatibility", "btc"),
        ("BackwardErrorCompatibility", "bec_given_h1_wrong"),
    ],
)
def test_metrics_leave_them_out(metric, score):
    assert of_metric(metric) == pytest.approx(APART.known.score(score), rel=1e-6)
    assert of_metric(metric, ()) == pytest.approx(APART.overlap.score(score), rel=1e-6)
    if score != "btc":  # whose denominator is what h1 got right
        assert APART.known.score(score) != APART.overlap.score(score)


def test_what_is_no_class_is_refused():
    with pytest.raises(ValueError, match="new_classes"):
        of_metric("NegativeFlipRate", (-1,))


@pytest.mark.skipif(KERAS, reason="in Keras the metrics of compile are logged")
def test_a_training_logs_them_apart():
    import pytorch_lightning as pl
    import torch

    from bc_lightning import BCLightningModule

    class Old(torch.nn.Module):
        """h1, whose classes 0 and 1 are 0 and 2 of h2; x is what both models say."""

        def forward(self, x):
            return 9 * torch.nn.functional.one_hot(x[:, 0].long() // 2, 2).float()

    class New(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(9.0))

        def forward(self, x):
            return self.scale * torch.nn.functional.one_hot(x[:, 1].long(), CLASSES).float()

    data = torch.utils.data.TensorDataset(torch.tensor(np.stack([H1, H2], 1)).float(), torch.tensor(Y))
    module = BCLightningModule(
        New(), h1=Old(), class_map=ClassMap([0, 2], new=NEW), optimizer=lambda p: torch.optim.SGD(p, 0.0)
    )
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", **quiet)
    trainer.fit(module, torch.utils.data.DataLoader(data, 64), torch.utils.data.DataLoader(data, 64))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for stage in ("train", "val"):
        assert logged[f"{stage}_nfr"] == pytest.approx(APART.overlap.nfr)
        assert logged[f"{stage}_accuracy_h2_new_classes"] == pytest.approx(APART.new.accuracy_h2)
        for score in ("accuracy_h1", "accuracy_h2", "nfr"):
            assert logged[f"{stage}_{score}_known_classes"] == pytest.approx(APART.known.score(score))

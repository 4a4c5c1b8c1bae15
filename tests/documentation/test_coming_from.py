"""The rows of "coming from" that say two losses are equal, up to what the row says."""

from __future__ import annotations

import numpy as np
import pytest


def test_the_loop_by_hand_and_the_loss_here_are_one():
    torch = pytest.importorskip("torch")
    import torch.nn.functional as F

    from bc_lightning import CompatibilityLoss

    torch.manual_seed(0)
    z2, z1, y = torch.randn(50, 4), torch.randn(50, 4) * 2, torch.randint(0, 4, (50,))
    ce = F.cross_entropy(z2, y)
    p1, right = z1.softmax(1), z1.argmax(1) == y
    kl = F.kl_div(z2.log_softmax(1), p1, reduction="none").sum(1)
    entropy = -(p1 * p1.log()).sum(1)

    def ours(name, lambda_c=2.0, **options):
        return CompatibilityLoss("cross_entropy", name, lambda_c=lambda_c, **options)(z2, y, z1)

    for found, expected in (
        (ours("imitation"), ce + 2 * (kl + entropy).mean()),
        (ours("strict_imitation"), ce + 2 * ((kl + entropy) * right).mean()),
        (ours("strict_imitation", normalization="support"), ce + 2 * ((kl + entropy) * right).sum() / right.sum()),
        (ours("new_error"), (F.cross_entropy(z2, y, reduction="none") * (1 + 2 * right)).mean()),
        (ours("logit_distance", alpha=1, beta=0), ce + 2 * F.mse_loss(z2, z1) / 2),
        (ours("churn", 0.3), 0.7 * ce + 0.3 * (kl + entropy).mean()),
        (ours("focal_distillation", alpha=1, beta=0, temperature=3.0),
         ce + 2 * 9 * F.kl_div((z2 / 3).log_softmax(1), (z1 / 3).softmax(1), reduction="batchmean")),
    ):  # fmt: skip
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_distiller_and_bc_model_have_one_loss():
    keras = pytest.importorskip("keras")
    from bc_keras import BCModel

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)).astype("float32"), rng.integers(0, 3, 40)
    h1, h2 = (keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(3)]) for _ in range(2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    weight, temperature = 0.3, 3.0
    distiller = keras.distillation.Distiller(
        h1,
        h2,
        keras.distillation.LogitsDistillation(temperature, keras.losses.KLDivergence()),
        student_loss_weight=weight,
    )
    distiller.compile("sgd", loss=loss)
    there = distiller.evaluate(x, y, batch_size=40, verbose=0, return_dict=True)["loss"]
    options = {"alpha": 1.0, "beta": 0.0, "temperature": temperature}
    model = BCModel(h2, h1=h1, dissonance="focal_distillation", loss_options=options, lambda_c=(1 - weight) / weight)
    model.compile("sgd", loss=loss)
    here = model.evaluate(x, y, batch_size=40, verbose=0, return_dict=True)["loss"]
    assert here * weight == pytest.approx(there, rel=1e-5)

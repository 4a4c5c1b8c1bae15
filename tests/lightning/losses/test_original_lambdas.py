"""The table of lambda_c on the migration page, against what BackwardCompatibilityML 1.4.2 itself computed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import bc_lightning as bcloss

PAGE = (Path(__file__).parents[3] / "docs" / "migration.md").read_text(encoding="utf-8")
N, C, LAMBDA = 24, 4, 0.7

# Its values for the models and data below, with lambda_c = 0.7, under torch 2.13: its mean, and reduction="sum".
ORIGINAL = {
    "BCNLLLoss": (4.4130659103393555, 48.274505615234375),
    "BCCrossEntropyLoss": (4.4130659103393555, 48.274505615234375),
    "BCBinaryCrossEntropyLoss": (1.7048108577728271, 20.68386459350586),
    "BCKLDivergenceLoss": (2.5335307121276855, 46.39496994018555),
    "StrictImitationNLLLoss": (6.384836196899414, 50.24627685546875),
    "StrictImitationCrossEntropyLoss": (4.4130659103393555, 48.274505615234375),
    "StrictImitationBinaryCrossEntropyLoss": (10.058060646057129, 29.037113189697266),
    "StrictImitationKLDivergenceLoss": (float("nan"), float("nan")),
}


class Triple(nn.Linear):
    def __init__(self, shift, columns=C):
        super().__init__(6, columns)
        with torch.no_grad():
            self.weight.copy_(torch.cos(torch.arange(columns * 6.0) * shift).reshape(columns, 6))
            self.bias.zero_()

    def forward(self, x):
        scores = super().forward(x)
        return scores, scores.softmax(1), scores.log_softmax(1)


class Sigmoid(Triple):
    def __init__(self, shift):
        super().__init__(shift, 1)

    def forward(self, x):
        return torch.sigmoid(super().forward(x)[0])[:, 0]


def rows():
    section = PAGE.split("## Which lambda_c equals the old one")[1].split("On TensorFlow:")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {line[0].strip("`"): line[-1] for line in lines}


@pytest.mark.parametrize("reduction", [None, "sum"])
@pytest.mark.parametrize("name", ORIGINAL)
def test_the_call_of_the_table_gives_the_value_of_the_original(name, reduction):
    assert list(rows()) == list(ORIGINAL)
    x, y = torch.sin(torch.arange(N * 6.0) * 1.7).reshape(N, 6), torch.arange(N) * 7 % C
    kind = Sigmoid if "Binary" in name else Triple
    if kind is Sigmoid:
        y = (y > 1).float()
    known = ORIGINAL[name][0 if reduction is None else 1]
    code = re.findall(r"`([^`]+)`", rows()[name])
    if not code:
        assert rows()[name] == "none"
        assert known != known
        return
    # "divide the lambda_c of the table by N"
    lambda_c = LAMBDA if reduction is None else LAMBDA / N
    scope = {"h1": kind(1.1), "h2": kind(2.3), "lambda_c": lambda_c, "batch_size": N, "num_classes": C}
    loss = eval(code[0], {"bcloss": bcloss, **scope})
    found = loss(x, y) if reduction is None else loss(x, y, reduction=reduction)
    assert found.item() == pytest.approx(known, rel=1e-5)


def test_num_classes_is_checked_by_every_loss_of_many_classes():
    for name in ORIGINAL:
        if "Binary" in name:
            with pytest.raises(TypeError, match="num_classes"):
                getattr(bcloss, name)(Sigmoid(1.0), Sigmoid(2.0), 0.5, num_classes=2)
            continue
        x, y = torch.zeros(2, 6), torch.tensor([0, 1])
        getattr(bcloss, name)(Triple(1.0), Triple(2.0), 0.5, num_classes=C)(x, y)
        with pytest.raises(ValueError, match="num_classes=5, but h2 scores 4"):
            getattr(bcloss, name)(Triple(1.0), Triple(2.0), 0.5, num_classes=5)(x, y)


def test_the_misspelt_option_is_known_and_another_is_not():
    models = Sigmoid(1.1), Sigmoid(2.3)
    for kind in (bcloss.BCBinaryCrossEntropyLoss, bcloss.StrictImitationBinaryCrossEntropyLoss):
        with pytest.warns(DeprecationWarning, match="discriminant_pivot"):
            assert kind(*models, 0.5, discriminan_pivot=0.3).criterion.options["threshold"] == 0.3
        with pytest.warns(DeprecationWarning, match="discriminant_pivot"):
            assert kind.on_outputs(1.0, discriminan_pivot=0.3).options["threshold"] == 0.3
        with pytest.raises(TypeError, match="no option 'pivot'.*'discriminant_pivot'"):
            kind(*models, 0.5, pivot=0.3)


def test_the_modules_by_kind_hold_the_losses_of_that_kind():
    for module, begins in ((bcloss.new_error, "BC"), (bcloss.strict_imitation, "StrictImitation")):
        assert sorted(module.__all__) == sorted(name for name in ORIGINAL if name.startswith(begins))
        assert all(getattr(module, name) is getattr(bcloss, name) for name in module.__all__)

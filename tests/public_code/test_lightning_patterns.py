"""Every pattern: the changed line trains it, lambda_c = 0 is plain, scores, penalty and checkpoints are right."""

from __future__ import annotations

import functools
import logging
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from lightning_patterns import LIGHTNING_PATTERNS
from public_module import Pattern
from warm_programs import run_program

from bc_lightning import BCLightningModule, CompatibilityCallback, unwrap

for package in ("pytorch_lightning", "lightning.pytorch"):
    logging.getLogger(package).setLevel(logging.ERROR)

# Said once of a module with frozen parts, as some patterns have on purpose; other warnings of bc_lightning stay errors.
pytestmark = pytest.mark.filterwarnings("ignore:.* parameters of .* are frozen:UserWarning")

LAMBDA = 4.0
SCORES = ("btc", "bec_given_h1_wrong", "nfr", "accuracy_h1", "accuracy_h2")

every = pytest.mark.parametrize("pattern", LIGHTNING_PATTERNS, ids=lambda pattern: pattern.module.__name__)
those = {
    how: pytest.mark.parametrize(
        "pattern",
        [pattern for pattern in LIGHTNING_PATTERNS if pattern.error and pattern.how == how],
        ids=lambda pattern: pattern.module.__name__,
    )
    for how in ("option", "refused")
}


def fit(pattern: Pattern, module: Any, *, callback: Any = None, **options: Any) -> Any:
    """Train as the pattern does, on the Trainer of its package."""
    package = L if isinstance(module, L.LightningModule) else pl
    options = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 1,
        **pattern.trainer(),
        **options,
    }
    if callback is not None:
        options["callbacks"] = [*options.get("callbacks", []), callback]
    torch.manual_seed(1)
    with warnings.catch_warnings():
        # Lightning's own advice on workers and log intervals; warnings of bc_lightning stay errors.
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning|torch")
        trainer = package.Trainer(**options)
        train, val = pattern.loaders()
        if val is None:
            trainer.fit(module, datamodule=train)
        else:
            trainer.fit(module, train, val)
    return trainer


def wrapped(pattern: Pattern, lambda_c: float) -> Any:
    return BCLightningModule(
        pattern.made(3), h1=pattern.given(pattern.make_h1().eval()), lambda_c=lambda_c, **pattern.options
    )


def validation_loaders(pattern: Pattern) -> list[Any]:
    train, val = pattern.loaders()
    if val is None:
        train.setup("fit")
        val = train.val_dataloader()
    return val if isinstance(val, list) else [val]


def training_batches(pattern: Pattern) -> list[Any]:
    """The batches of the one step, as a training loop would get them."""
    train, val = pattern.loaders()
    if val is None:
        train.setup("fit")
        train = train.train_dataloader()
    batches = iter(train)
    batches = [next(batches) for _ in range(pattern.batches)]
    # A CombinedLoader gives (batch, batch_idx, dataloader_idx).
    return [batch[0] if isinstance(batch, tuple) and isinstance(batch[0], dict) else batch for batch in batches]


@functools.cache
def one_step(pattern_index: int, lambda_c: float | None) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """The Trainer, the module and what was logged after one optimiser step; None is the plain module."""
    pattern = LIGHTNING_PATTERNS[pattern_index]
    module = pattern.made(3) if lambda_c is None else wrapped(pattern, lambda_c)
    trainer = fit(pattern, module, limit_train_batches=pattern.batches)
    return trainer, module, dict(trainer.callback_metrics)


def step_of(pattern: Pattern, lambda_c: float | None) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    return one_step(LIGHTNING_PATTERNS.index(pattern), lambda_c)


def equal_states(one: Any, other: Any) -> bool:
    one, other = one.state_dict(), other.state_dict()
    return list(one) == list(other) and all(torch.equal(value, other[name]) for name, value in one.items())


# -- (1), (2): it trains, and with lambda_c = 0 it is the plain module ---------------------------------------------


@every
def test_lambda_zero_is_the_plain_module_to_the_bit(pattern):
    plain, zero = pattern.made(3), wrapped(pattern, 0.0)
    expected, trainer = fit(pattern, plain), fit(pattern, zero)
    assert equal_states(plain, unwrap(zero))
    assert not equal_states(plain, pattern.made(3)), "nothing was trained"
    for name, value in expected.callback_metrics.items():
        assert torch.equal(value, trainer.callback_metrics[name]), name


@those["option"]
def test_without_its_option_it_is_refused_with_the_options_name(pattern):
    module, h1 = pattern.as_written(), pattern.make_h1()
    with pytest.raises((TypeError, ValueError, RuntimeError), match=pattern.error):
        fit(pattern, BCLightningModule(module, h1=h1, lambda_c=LAMBDA))


@those["refused"]
def test_it_is_refused_with_its_remedy(pattern):
    torch.manual_seed(7)
    h1 = pattern.h1() if pattern.h1 else pattern.module()
    with pytest.raises((TypeError, ValueError, RuntimeError), match=pattern.error):
        fit(pattern, BCLightningModule(pattern.as_written(), h1=h1, lambda_c=LAMBDA))


# -- (3): the logged scores are those of plain numpy ----------------------------------------------------------------


def predicted(pattern: Pattern, module: Any, loader: Any) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true classes of a plain module, flat, without those that do not count."""
    module.eval()
    preds, target = [], []
    for batch in loader:
        truth = pattern.labels(batch).numpy().reshape(-1)
        with torch.no_grad():
            scores = pattern.scores(module, batch).float().numpy()
        found = scores > 0 if pattern.per_label else np.moveaxis(scores, pattern.class_axis, -1).argmax(-1)
        counted = truth == truth if pattern.ignored is None else truth != pattern.ignored
        preds.append(found.reshape(-1)[counted])
        target.append(truth[counted])
    return np.concatenate(preds), np.concatenate(target)


def scores_by_numpy(h1: np.ndarray, h2: np.ndarray, target: np.ndarray) -> dict[str, float]:
    right1, right2 = h1 == target, h2 == target
    return {
        "btc": (right1 & right2).sum() / max(1, right1.sum()),
        "bec_given_h1_wrong": (~right1 & ~right2).sum() / max(1, (~right1).sum()),
        "nfr": (right1 & ~right2).mean(),
        "accuracy_h1": right1.mean(),
        "accuracy_h2": right2.mean(),
    }


@every
def test_logged_scores_are_those_of_plain_numpy(pattern):
    trainer, module, logged = step_of(pattern, LAMBDA)
    loaders = validation_loaders(pattern)
    if pattern.changed_after:
        (logged,) = trainer.validate(module, loaders, verbose=False)
    for index, loader in enumerate(loaders):
        h2, target = predicted(pattern, module, loader)
        h1 = h1_predicted(pattern, loader)
        expected = scores_by_numpy(h1, h2, target)
        assert 0 < expected["accuracy_h1"] < 1, "an h1 that is never or always right shows nothing"
        suffix = f"/dataloader_idx_{index}" if len(loaders) > 1 else ""
        for name in SCORES:
            assert float(logged[f"val_{name}{suffix}"]) == pytest.approx(expected[name], abs=1e-6), name


def h1_predicted(pattern: Pattern, loader: Any) -> np.ndarray:
    h1 = pattern.make_h1().eval()
    if pattern.h1 is None:
        return predicted(pattern, h1, loader)[0]
    with torch.no_grad():
        return torch.cat([h1(batch[0]) for batch in loader]).argmax(1).numpy()


# -- (4): checkpoints are the plain module's ------------------------------------------------------------------------


def names_in(path: Path) -> set[str]:
    """Every module that unpickling the checkpoint would import."""
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        found, texts = set(), []
        for code, argument, _ in pickletools.genops(archive.read(name)):
            if code.name == "GLOBAL":
                found.add(argument.split()[0])
            elif code.name == "STACK_GLOBAL":
                found.add(texts[-2])
            elif isinstance(argument, str):
                texts.append(argument)
    return found


@every
def test_checkpoint_is_the_plain_modules(pattern, tmp_path):
    for name, lambda_c in (("plain", None), ("ours", LAMBDA)):
        trainer, *_ = step_of(pattern, lambda_c)
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
    assert not [name for name in names_in(tmp_path / "ours.ckpt") if name.split(".")[0].startswith("bc_")]
    plain, ours = (torch.load(tmp_path / f"{name}.ckpt", weights_only=False) for name in ("plain", "ours"))
    assert list(ours["state_dict"]) == list(plain["state_dict"])
    assert ours.get("hyper_parameters", {}).keys() == plain.get("hyper_parameters", {}).keys()
    assert set(ours) - set(plain) <= {"backward_compatibility"}
    restored = pattern.made(99)
    restored.setup("fit")
    restored.load_state_dict(ours["state_dict"], strict=True)
    assert equal_states(restored, step_of(pattern, LAMBDA)[1])


# -- (5): the penalty acts, and is the one written by hand ----------------------------------------------------------


def penalty_by_hand(pattern: Pattern, module: Any, h1: Any, batch: Any) -> torch.Tensor:
    """The new error: the mean over instances of 1[h1 right] times the loss, written out."""
    score_and_target = pattern.trained or (lambda model, got: (pattern.scores(model, got), pattern.labels(got)))
    logits, target = score_and_target(module, batch)
    with torch.no_grad():
        old = h1(batch[0]) if pattern.h1 else score_and_target(h1, batch)[0]
    if pattern.per_label:
        right = (old > 0) == (target > 0.5)
        return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * right).mean()
    logits, old = logits.movedim(pattern.class_axis, 1), old.movedim(pattern.class_axis, 1)
    if target.is_floating_point():
        right = old.argmax(1) == target.argmax(1)
        return (F.cross_entropy(logits, target, reduction="none") * right).mean()
    ignored = -100 if pattern.ignored is None else pattern.ignored
    right = old.argmax(1) == target
    assert right.any(), "h1 is right on nothing, so there is no penalty to see"
    losses = F.cross_entropy(logits, target, reduction="none", ignore_index=ignored)
    return (losses * right).sum() / (target != ignored).sum()


@every
def test_one_step_is_the_plain_step_and_the_penalty_by_hand(pattern):
    (_, plain, _), (_, ours, _) = step_of(pattern, None), step_of(pattern, LAMBDA)
    assert not equal_states(plain, ours), "the penalty trained nothing"
    if not pattern.by_hand:
        return
    module, h1 = pattern.made(3).train(), pattern.make_h1().eval()
    batches = training_batches(pattern)
    torch.stack([penalty_by_hand(pattern, module, h1, batch) for batch in batches]).mean().backward()
    for (name, start), before, after in zip(
        module.named_parameters(), plain.parameters(), ours.parameters(), strict=True
    ):
        if not start.requires_grad:
            continue
        gradient = torch.zeros_like(start) if start.grad is None else start.grad
        moved = -pattern.learning_rate * LAMBDA * gradient
        scale = moved.abs().max().item()
        # The difference of two float32 weights keeps their absolute rounding.
        torch.testing.assert_close(
            after.detach() - before.detach(),
            moved,
            rtol=pattern.tolerance,
            atol=pattern.tolerance * scale + 3e-7,
            msg=name,
        )


@pytest.mark.parametrize("name", ["SharpnessAwareMinimisation", "LimitedMemoryBFGS"])
def test_loops_with_several_passes_are_those_with_the_penalty_in_each(name):
    (pattern,) = [pattern for pattern in LIGHTNING_PATTERNS if pattern.module.__name__ == name]
    h1 = pattern.make_h1().eval()

    class ByHand(pattern.module):
        def training_step(self, batch):
            loss = super().training_step(batch)
            return None if loss is None else loss + LAMBDA * penalty_by_hand(pattern, self, h1, batch)

        def compute_loss(self, batch):
            return super().compute_loss(batch) + LAMBDA * penalty_by_hand(pattern, self, h1, batch)

    torch.manual_seed(3)
    by_hand = ByHand()
    fit(pattern, by_hand, limit_train_batches=1)
    _, ours, _ = step_of(pattern, LAMBDA)
    for one, other in zip(ours.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@every
def test_the_callback_trains_the_same(pattern):
    callback = CompatibilityCallback(pattern.given(pattern.make_h1().eval()), lambda_c=LAMBDA, **pattern.options)
    module = pattern.made(3)
    trainer = fit(pattern, module, callback=callback, limit_train_batches=pattern.batches)
    _, ours, expected = step_of(pattern, LAMBDA)
    assert equal_states(module, ours)
    for name, value in expected.items():
        assert torch.equal(value, trainer.callback_metrics[name]), name


# -- a real second process, which cannot have the package -----------------------------------------------------------


@pytest.mark.slow
def test_checkpoints_load_in_a_process_without_the_package(tmp_path):
    names = ["TimmStyleTrainer", "HydraTemplate", "NetHandedInWithoutForward", "HuggingFaceWithLabels"]
    for pattern in LIGHTNING_PATTERNS:
        if pattern.module.__name__ in names:
            trainer, *_ = step_of(pattern, LAMBDA)
            trainer.save_checkpoint(tmp_path / f"{pattern.module.__name__}.ckpt")
    code = f"""
import sys, inspect
sys.path.insert(0, {str(Path(__file__).parent)!r})
for package in ("bc_core", "bc_lightning", "bc_keras", "bc_tensorboard"):
    sys.modules[package] = None
from lightning_patterns import LIGHTNING_PATTERNS
for pattern in LIGHTNING_PATTERNS:
    if pattern.module.__name__ in {names!r}:
        load = pattern.module.load_from_checkpoint
        known = {{"weights_only": False}} if "weights_only" in inspect.signature(load).parameters else {{}}
        print(len(load({str(tmp_path)!r} + "/" + pattern.module.__name__ + ".ckpt", **known).state_dict()))
"""
    (tmp_path / "program.py").write_text(code)
    result = run_program(tmp_path / "program.py")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) == len(names)

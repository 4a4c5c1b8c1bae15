"""Try on one device what a device may break, in at most eight minutes, and print a table: `make check-gpu`.

    python scripts/check_gpu.py [--device cuda|cpu] [--minutes 8] [--short]

Each check compares with something that does not depend on the device: numpy's counts, the same in float64 on the CPU, a
loop by hand, one process instead of two. A line says pass, FAIL or left out, and why. `--short` leaves out what
compiles or measures, and trains less; the tests run it so on the CPU.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import logging
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CLASSES, FEATURES, BATCH = 5, 16, 32


class LeftOutError(Exception):
    """What is missing for a check."""


class Setting(NamedTuple):
    """Where and how much."""

    device: str
    short: bool
    end: float

    @property
    def accelerator(self) -> str:
        """As Lightning calls it."""
        return "gpu" if self.device == "cuda" else "cpu"

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()


def data(count: int = 640, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around a centre for each class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count)
    centres = np.random.default_rng(9).normal(size=(CLASSES, FEATURES)) * 0.7
    return (centres[y] + rng.normal(size=(count, FEATURES))).astype(np.float32), y


def torch_module(seed: int) -> Any:
    import pytorch_lightning as pl
    import torch
    import torch.nn.functional as F

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.net = torch.nn.Sequential(torch.nn.Linear(FEATURES, 32), torch.nn.ReLU(), torch.nn.Linear(32, CLASSES))

        def forward(self, x: Any) -> Any:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(batch[0])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    return Net()


def loader(count: int = 640, seed: int = 0, batch: int = BATCH) -> Any:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x, y = data(count, seed)
    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch)


def fit(setting: Setting, module: Any, train: Any = None, **options: Any) -> Any:
    import pytorch_lightning as pl

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": setting.accelerator, "devices": 1}
    trainer = pl.Trainer(**{"max_epochs": 1 if setting.short else 5, **quiet, **options})
    trainer.fit(module, train or loader(), loader(333, 1))
    return trainer


def trained_h1(setting: Setting) -> Any:
    h1 = torch_module(1)
    fit(setting, h1, loader(64))
    return h1.cpu().eval()


def weights(module: Any) -> np.ndarray:
    return np.concatenate([each.detach().float().cpu().numpy().ravel() for each in module.parameters()])


def counted(h1: Any, h2: Any) -> float:
    """BTC of the validation data by numpy, from answers on the CPU."""
    import torch

    x, y = data(333, 1)
    with torch.no_grad():
        one, two = (each.cpu().float().eval()(torch.from_numpy(x)).argmax(1).numpy() for each in (h1, h2))
    return float(((one == y) & (two == y)).sum() / (one == y).sum())


def check_metrics(setting: Setting) -> str:
    import torch
    from torchmetrics import MetricCollection

    import bc_lightning
    from bc_core import compare

    rng = np.random.default_rng(0)
    y, one, two = (rng.integers(0, CLASSES, 1000) for _ in range(3))
    names = ("BackwardTrustCompatibility", "BackwardErrorCompatibility", "NegativeFlipRate", "PositiveFlipRate")
    metrics = MetricCollection(
        {name: getattr(bc_lightning, name)(task="multiclass", num_classes=CLASSES) for name in names}
    ).to(setting.device)
    for part in np.array_split(np.arange(1000), 7):
        metrics.update(*(torch.from_numpy(each[part]).to(setting.device) for each in (two, y, one)))
    overlap = compare(y, one, two).overlap
    expected = [overlap.btc, overlap.bec(), overlap.score("nfr"), overlap.score("pfr")]
    np.testing.assert_allclose([metrics.compute()[name].cpu() for name in names], expected, rtol=1e-6)
    return f"{len(names)} scores of 1,000 instances equal numpy's"


def check_losses(setting: Setting) -> str:
    import torch

    from bc_core.losses._dissonances import DISSONANCES
    from bc_lightning import CompatibilityLoss

    torch.manual_seed(0)
    z2, z1, y = torch.randn(64, CLASSES) * 3, torch.randn(64, CLASSES) * 3, torch.randint(0, CLASSES, (64,))
    worst = 0.0
    for name in DISSONANCES:
        values = []
        for device, kind in ((setting.device, torch.float32), ("cpu", torch.float64)):
            h2 = z2.detach().clone().to(device, kind).requires_grad_()
            loss = CompatibilityLoss("cross_entropy", name, lambda_c=0.5)(h2, y.to(device), z1.to(device, kind))
            loss.backward()
            values.append(np.append(h2.grad.double().cpu().numpy(), loss.detach().double().cpu().numpy()))
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5, err_msg=name)
        worst = max(worst, float(np.abs(values[0] - values[1]).max()))
    return f"{len(DISSONANCES)} dissonances, values and gradients: at most {worst:.1e} from float64 on the CPU"


def check_no_waiting(setting: Setting) -> str:
    if setting.device != "cuda":
        raise LeftOutError("a CPU has nothing to wait for")
    import torch

    from bc_lightning import BTC, CompatibilityLoss

    loss, metric = CompatibilityLoss("cross_entropy"), BTC(task="multiclass", num_classes=CLASSES).cuda()
    z2, z1 = (torch.randn(64, CLASSES, device="cuda", requires_grad=True) for _ in range(2))
    y = torch.randint(0, CLASSES, (64,), device="cuda")
    for step in range(3):
        # A first batch is looked at; the others may not make the host wait for the device.
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            loss(z2, y, z1.detach()).backward()
            metric.update(z2.detach(), y, z1.detach())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return "loss, gradient and metric after the first batch without a synchronisation"


def check_training(setting: Setting) -> str:
    import torch
    import torch.nn.functional as F

    from bc_lightning import BCLightningModule

    h1, plain = trained_h1(setting), torch_module(2)
    fit(setting, plain)
    zero = BCLightningModule(torch_module(2), h1=h1, lambda_c=0.0)
    fit(setting, zero)
    assert np.array_equal(weights(plain), weights(zero)), "lambda_c = 0 is not plain training to the bit"
    ours = BCLightningModule(torch_module(2), h1=h1, lambda_c=2.0)
    trainer = fit(setting, ours)
    by_hand, old = torch_module(2).to(setting.device), copy.deepcopy(h1).to(setting.device)
    optimizer = by_hand.configure_optimizers()
    for _ in range(trainer.max_epochs):
        for x, y in loader():
            batch, target = x.to(setting.device), y.to(setting.device)
            with torch.no_grad():
                weight = 1 + 2.0 * (old(batch).argmax(1) == target)
            loss = (F.cross_entropy(by_hand(batch), target, reduction="none") * weight).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    np.testing.assert_allclose(weights(ours), weights(by_hand), rtol=1e-3, atol=1e-4)
    logged = float(trainer.callback_metrics["val_btc"])
    assert abs(logged - counted(h1, ours)) < 1e-6, f"val_btc {logged} against numpy's {counted(h1, ours)}"
    return "lambda_c = 0 to the bit, lambda_c = 2 as a loop by hand, val_btc as numpy's"


def check_precision(setting: Setting, precision: str) -> str:
    from bc_lightning import BCLightningModule

    if precision == "16-mixed" and setting.device != "cuda":
        raise LeftOutError("fp16 with a gradient scaler is for CUDA")
    h1 = trained_h1(setting)
    ours = BCLightningModule(torch_module(2), h1=h1, lambda_c=2.0)
    trainer = fit(setting, ours, precision=precision)
    scale = getattr(getattr(trainer.precision_plugin, "scaler", None), "get_scale", lambda: None)()
    assert np.isfinite(weights(ours)).all(), "weights are not finite"
    assert float(trainer.callback_metrics["train_dissonance"]) > 0
    difference = abs(float(trainer.callback_metrics["val_btc"]) - counted(h1, ours))
    # Near a tie a rounded score may fall to the other side.
    assert difference < 0.03, f"val_btc is {difference:.3f} from numpy's in float32"
    full = BCLightningModule(torch_module(2), h1=h1, lambda_c=2.0)
    fit(setting, full)
    distance = np.linalg.norm(weights(ours) - weights(full))
    way = np.linalg.norm(weights(full) - weights(torch_module(2)))
    assert distance < 0.2 * way, f"{distance / way:.0%} of the way from float32's weights"
    return f"{distance / way:.1%} of the way from float32's weights" + (f", scale {scale:g}" if scale else "")


def check_bf16(setting: Setting) -> str:
    return check_precision(setting, "bf16-mixed")


def check_fp16(setting: Setting) -> str:
    return check_precision(setting, "16-mixed")


def check_compile(setting: Setting) -> str:
    if setting.short:
        raise LeftOutError("the short form compiles nothing")
    import torch

    from bc_lightning import BCLightningModule

    h1, results = trained_h1(setting), []
    for compiled in (False, True):
        h2 = torch_module(2)
        if compiled:
            h2.net.compile()
        ours = BCLightningModule(h2, h1=h1, lambda_c=2.0)
        fit(setting, ours)
        results.append(weights(ours))
    torch.compiler.reset()
    np.testing.assert_allclose(*results, rtol=1e-3, atol=1e-3)
    return f"at most {np.abs(results[0] - results[1]).max():.1e} from the weights without"


def check_stored(setting: Setting) -> str:
    from torch.utils.data import DataLoader

    from bc_lightning import BCLightningModule, store_outputs

    h1, results = trained_h1(setting), []
    with tempfile.TemporaryDirectory() as folder:
        stored = {}
        for name, each in (("train", loader()), ("val", loader(333, 1))):
            trainer = fit(setting, torch_module(3), loader(BATCH), max_epochs=1)
            stored[name] = store_outputs(h1, each.dataset, f"{folder}/{name}", trainer=trainer).attach(each.dataset)
        given = store_outputs(h1, loader().dataset, f"{folder}/train")
        for reference, train in ((h1, loader()), (given, DataLoader(stored["train"], BATCH))):
            ours = BCLightningModule(torch_module(2), h1=reference, loss="imitation", lambda_c=2.0, stages=["train"])
            fit(setting, ours, train)
            results.append(weights(ours))
    np.testing.assert_allclose(*results, rtol=1e-3, atol=1e-4)
    return f"at most {np.abs(results[0] - results[1]).max():.1e} from the weights with h1 asked"


def one_of_two(setting: Setting, out: str, batch: int, rank: int | None = None, **options: Any) -> None:
    """Train one share of a global batch, or all of it, and save what came out."""
    from torch.utils.data import DataLoader, DistributedSampler

    from bc_lightning import BCLightningModule

    h1, train = torch_module(1).eval(), loader(batch=batch)
    if rank is not None:
        # Lightning's own would shuffle; so both processes' batches are together those of one process.
        share = DistributedSampler(train.dataset, num_replicas=2, rank=rank, shuffle=False)
        train = DataLoader(train.dataset, batch, sampler=share)
    ours = BCLightningModule(torch_module(2), h1=h1, lambda_c=2.0)
    trainer = fit(setting, ours, train, **options)
    np.savez(out, weights=weights(ours), btc=float(trainer.callback_metrics["val_btc"]))


def child(setting: Setting, *words: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--device", setting.device, *words, *(["--short"] if setting.short else [])]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str], setting: Setting) -> str:
    try:
        out, error = process.communicate(timeout=max(1.0, min(setting.left, 180)))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError("took more than its time, and was ended") from None
    assert process.returncode == 0, "\n".join(error.strip().splitlines()[-3:])
    return out.strip().splitlines()[-1] if out.strip() else ""


def check_two_processes(setting: Setting) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        # Two "nodes" of one process each, both on the first device, which Lightning gives to no two of one node.
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes = [
            child(setting, "--rank", str(rank), "--out", f"{folder}/{rank}.npz", NODE_RANK=str(rank), **shared)
            for rank in range(2)
        ]
        try:
            for process in processes:
                finished(process, setting)
        finally:
            for process in processes:
                process.kill()
        one_of_two(setting, f"{folder}/alone.npz", BATCH)
        alone, *both = (dict(np.load(f"{folder}/{name}.npz")) for name in ("alone", 0, 1))
    np.testing.assert_array_equal(both[0]["weights"], both[1]["weights"])
    np.testing.assert_allclose(both[0]["weights"], alone["weights"], rtol=1e-3, atol=1e-4)
    assert abs(both[0]["btc"] - both[1]["btc"]) < 1e-9
    # The weights agree to 1e-4, so an instance or two may fall to the other side.
    assert abs(both[0]["btc"] - alone["btc"]) < 0.01, f"val_btc {both[0]['btc']} against {alone['btc']} of one process"
    return f"weights of one process, val_btc {float(both[0]['btc']):.4f} in both"


def keras_part(setting: Setting) -> None:
    """One training in Keras, in a process of its own: a backend is for a process."""
    import keras

    from bc_core import compare
    from bc_keras import BTC, BCModel

    if keras.backend.backend() == "jax" and setting.device == "cuda":
        import jax

        if jax.default_backend() != "gpu":
            print("LEFT OUT JAX is installed without CUDA")
            return
    (x, y), (x_val, y_val) = data(), data(333, 1)
    layers = keras.layers

    def net(seed: int) -> Any:
        keras.utils.set_random_seed(seed)
        network = [layers.Input((FEATURES,)), layers.Dense(32, "relu"), layers.Dense(CLASSES, "softmax")]
        model = keras.Sequential(network)
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        return model

    h1 = net(1)
    h1.fit(x[:64], y[:64], epochs=2, verbose=0)
    before = [np.array(each) for each in h1.get_weights()]
    model = BCModel(net(2), h1=h1, lambda_c=2.0)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=[BTC()])
    epochs = 1 if setting.short else 5
    logs = model.fit(x, y, batch_size=BATCH, epochs=epochs, validation_data=(x_val, y_val), verbose=0).history
    one, two = (each.predict(x_val, verbose=0).argmax(1) for each in (h1, model))
    btc = compare(y_val, one, two).overlap.btc
    assert abs(logs["val_btc"][-1] - btc) < 1e-5, f"val_btc {logs['val_btc'][-1]} against numpy's {btc}"
    assert all(np.array_equal(a, b) for a, b in zip(before, h1.get_weights(), strict=True)), "h1 was changed"
    print(f"val_btc {btc:.4f} as numpy's, h1 as it was")


def check_keras(setting: Setting, backend: str) -> str:
    missing = [name for name in ("keras", backend) if importlib.util.find_spec(name) is None]
    if missing:
        raise LeftOutError(f"{' and '.join(missing)} not installed")
    said = finished(child(setting, "--keras", KERAS_BACKEND=backend), setting)
    if said.startswith("LEFT OUT "):
        raise LeftOutError(said.removeprefix("LEFT OUT "))
    return said


def check_keras_torch(setting: Setting) -> str:
    return check_keras(setting, "torch")


def check_keras_jax(setting: Setting) -> str:
    return check_keras(setting, "jax")


def check_step_time(setting: Setting) -> str:
    if setting.short:
        raise LeftOutError("the short form measures no time")
    import pytorch_lightning as pl
    import torch

    from bc_lightning import BCLightningModule

    class PlusForward(pl.Callback):
        """h1's forward pass beside a plain step: what cannot be avoided."""

        def __init__(self, h1: Any) -> None:
            self.h1 = copy.deepcopy(h1).to(setting.device)

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            with torch.no_grad():
                self.h1(batch[0])

    h1, seconds = torch_module(1).eval(), {"plain": [], "plain + h1": [], "ours": []}  # type: ignore[var-annotated]
    train = loader(6400)
    for turn in range(4):
        for name, times in seconds.items():
            module = torch_module(2)
            if name == "ours":
                module = BCLightningModule(module, h1=h1, lambda_c=2.0, stages=["train"], comparisons=False)
            beside = [PlusForward(h1)] if name == "plain + h1" else []
            begun = time.perf_counter()
            fit(setting, module, train, max_epochs=1, callbacks=beside, limit_val_batches=0)
            if setting.device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first warms up
                times.append(time.perf_counter() - begun)
    plain, both, ours = (statistics.median(times) for times in seconds.values())
    said = f"ours / (plain + h1) {ours / both:.2f}, ours / plain {ours / plain:.2f}, of a very small net"
    # A step of microseconds shows our own work at its largest; with a real net the ratios of `make bench` hold.
    assert ours / both < 3, said
    return said


CHECKS: dict[str, Callable[[Setting], str]] = {
    "metrics": check_metrics,
    "losses": check_losses,
    "no waiting for the device": check_no_waiting,
    "training in float32": check_training,
    "training in bf16": check_bf16,
    "training in fp16, with a scaler": check_fp16,
    "torch.compile": check_compile,
    "stored outputs": check_stored,
    "two processes, one device": check_two_processes,
    "Keras on torch": check_keras_torch,
    "Keras on JAX": check_keras_jax,
    "step time": check_step_time,
}


def about(setting: Setting) -> str:
    import torch

    name = torch.cuda.get_device_name() if setting.device == "cuda" else f"CPU, {os.cpu_count()} cores"
    return f"{name}, torch {torch.__version__}, Python {sys.version.split()[0]}"


def run(setting: Setting, only: str) -> int:
    print(about(setting), flush=True)
    failed = 0
    for name, check in CHECKS.items():
        if only not in name:
            continue
        begun, verdict = time.monotonic(), "pass"
        try:
            if setting.left < 10:
                raise LeftOutError("no time left")
            said = check(setting)
        except (LeftOutError, ImportError) as reason:
            verdict, said = "left out", str(reason)
        except Exception as error:
            verdict, failed = "FAIL", failed + 1
            said = " ".join((str(error) or type(error).__name__).split())[:300]
            traceback.print_exc(file=sys.stderr)
        print(f"{verdict:8}  {name:32}  {time.monotonic() - begun:5.1f} s  {said}", flush=True)
    print(f"{failed} failed", flush=True)
    return 1 if failed else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], help="by default CUDA where it is there")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", metavar="TEXT", default="", help="checks whose name has this in it")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    parser.add_argument("--keras", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    device = options.device
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    setting = Setting(device, options.short, time.monotonic() + 60 * options.minutes)
    if options.keras:
        keras_part(setting)
    elif options.rank is not None:
        from pytorch_lightning.strategies import DDPStrategy

        strategy = DDPStrategy(process_group_backend="gloo")
        one_of_two(setting, options.out, BATCH // 2, options.rank, num_nodes=2, strategy=strategy)
    else:
        sys.exit(run(setting, options.only))


if __name__ == "__main__":
    main()

"""Whether promises are kept: test NFR of trainings that are held to one, beside a grid of lambda_c; and what it costs.

    python benchmarks/update_data.py FOLDER                      # once: data files out of packages
    UPDATE_DATA=FOLDER python benchmarks/promises.py run         # resumable; a line of results for each training
    python benchmarks/promises.py cost                           # one training with a promise, and one with lambda_c
    KERAS_BACKEND=jax python benchmarks/promises.py cost --keras # the same in Keras, by backend
    python benchmarks/promises.py report                         # writes results/promises.md

Three updates by more data (`update_data.py`), three promises each, ten seeds. lambda_c is moved by the `Keeper` that
`BCLightningModule(promise=...)` and `BCModel(promise=...)` use, once at the end of each epoch, on the validation rows,
with the mean of weights that these look at too; networks of one seed are trained side by side, the grid among them,
from the same weights and batches. The dissonance is imitation. What is said of the test rows took no part in anything,
and the rule for lambda_c was found on seeds from 100 on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from scipy.stats import t as student
from torch import Tensor, nn

from bc_core import ErrorOverlap, judge
from bc_core.promise._keeper import Keeper, PromiseOptions

HERE = Path(__file__).parent
RESULTS, COST, REPORT = (HERE / "results" / f"promises{end}" for end in (".jsonl", "_cost.json", ".md"))
SEEDS = range(10, 20)
PROMISES = {
    "compas/more data": (0.08, 0.06, 0.04),
    "letter/more data": (0.024, 0.022, 0.02),
    "mnist/more data": (0.015, 0.012, 0.01),
}
GRID = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
CONFIDENCE = 0.95
PARTS = ("validation", "test")

Weights = dict[str, Tensor]


def of_labels(labels: Tensor, target: Tensor, h1_right: Tensor) -> ErrorOverlap:
    """Counts of one network."""
    right = labels == target
    cells = [[int((a & b).sum()) for b in (~right, right)] for a in (~h1_right, h1_right)]
    return ErrorOverlap([cells])


def trained(
    net: nn.Module,
    starts: Sequence[Weights],
    data: tuple[Tensor, Tensor],
    rows: Tensor,
    seed: int,
    penalty: Callable[[Tensor, Tensor], Tensor],
    how: tuple[float, int, int],
    after_epoch: Callable[[int, Weights], None] = lambda epoch, weights: None,
) -> Weights:
    """Train networks side by side on the same batches, by Adam: their weights stacked, so none feels another.

    Args:
        net: their form.
        starts: first weights of each.
        data: inputs and labels.
        rows: positions they learn from.
        seed: of the order of batches.
        penalty: of logits (networks, batch, classes) and positions (batch,), what is added to each network's mean loss.
        how: learning rate, epochs and batch size.
        after_epoch: called with the number of finished epochs.
    """
    rate, epochs, size = how
    weights = {name: torch.stack([start[name] for start in starts]).requires_grad_() for name in starts[0]}
    optimizer = torch.optim.Adam(weights.values(), lr=rate, fused=True)
    order = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        shuffled = rows[torch.randperm(len(rows), generator=order)]
        for batch in shuffled[: len(rows) // size * size].split(size):
            logits = answers(net, weights, data[0][batch])
            targets = data[1][batch].expand(len(starts), -1)
            base = F.cross_entropy(logits.movedim(-1, 1), targets, reduction="none").mean(1)
            optimizer.zero_grad()
            (base + penalty(logits, batch)).sum().backward()
            optimizer.step()
        with torch.no_grad():
            after_epoch(epoch + 1, weights)
    return {name: value.detach() for name, value in weights.items()}


def answers(net: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    """Logits of each network, (networks, N, classes)."""

    def of_one(own: Weights) -> Tensor:
        return torch.func.functional_call(net, own, (x,))

    return torch.func.vmap(of_one)(weights)


def of(weights: Weights, which: int | slice) -> Weights:
    """One network of several, or some."""
    return {name: value[which] for name, value in weights.items()}


def fresh(net: Callable[[], nn.Module], seed: int) -> Weights:
    """Weights of one network."""
    torch.manual_seed(seed)
    return {name: value.detach() for name, value in net().named_parameters()}


def run_seed(name: str, seed: int) -> list[dict[str, Any]]:
    """All trainings of one data set and seed."""
    from update_data import UPDATES

    update = UPDATES[name]()
    rows, data = update.rows(seed), (update.x, update.y)
    how = update.lr, update.epochs, update.batch_size
    h1, net = update.h1(), update.h2()

    def nothing(logits: Tensor, batch: Tensor) -> Tensor:
        return torch.zeros(len(logits))

    weights = trained(h1, [fresh(update.h1, 1000 + seed)], data, rows.h1, seed, nothing, how)
    with torch.no_grad():
        h1_logits = answers(h1, weights, update.x)[0]
    h1_right = h1_logits.argmax(1) == update.y
    keepers = [Keeper(PromiseOptions.of(f"nfr <= {limit}", None)) for limit in PROMISES[name]]
    number, members = len(keepers), len(keepers) + len(GRID)
    lambda_c = torch.tensor([keeper.lambda_c for keeper in keepers] + list(GRID))
    kept: list[Weights] = [{}] * number
    mean: Weights = {}

    def imitation(logits: Tensor, batch: Tensor) -> Tensor:
        said = h1_logits[batch].softmax(-1)
        return lambda_c * -(said * logits.log_softmax(-1)).sum(-1).mean(1)

    def look(epoch: int, weights: Weights) -> None:
        shares = [keeper.share_of_look(anew=not mean) for keeper in keepers]
        for part, value in weights.items():
            mean[part] = value.clone() if part not in mean else mean[part] + shares[0] * (value - mean[part])
        held_out, both = rows.validation, (weights, mean)
        labels = [answers(net, of(own, slice(number)), update.x[held_out]).argmax(-1) for own in both]
        for i, keeper in enumerate(keepers):
            now, of_mean = (of_labels(said[i], update.y[held_out], h1_right[held_out]) for said in labels)
            is_best = keeper.look(now, epoch, of_mean if keeper.mean_is_due else None)
            lambda_c[i] = keeper.lambda_c
            if epoch == update.epochs and keeper.mean_is_unseen:
                is_best |= keeper.look_at_mean(of_mean)
            if is_best:
                kept[i] = {part: value.clone() for part, value in of(both[keeper.best_is_mean], i).items()}

    first = fresh(update.h2, 2000 + seed)
    weights = trained(net, [first] * members, data, rows.h2, seed, imitation, how, look)
    fixed = [of(own, i) for own in (weights, mean) for i in range(number, members)]
    ends = {name: torch.stack([own[name] for own in (*kept, *fixed)]) for name in weights}
    with torch.no_grad():
        labels = {part: answers(net, ends, update.x[getattr(rows, part)]).argmax(-1) for part in PARTS}
    found: list[dict[str, Any]] = []
    for i in range(number + len(fixed)):
        told: dict[str, Any] = {"data": name, "seed": seed}
        if i < number:
            keeper = keepers[i]
            verdict = None if keeper.verdict is None else keeper.verdict.verdict
            told |= {"promise": PROMISES[name][i], "verdict": verdict}
            told |= {"lambda_c": keeper.lambda_c, "epoch": keeper.best_steps, "is_mean": keeper.best_is_mean}
        else:
            told |= {"grid": GRID[(i - number) % len(GRID)], "is_mean": i >= members}
        for part in PARTS:
            where = getattr(rows, part)
            told[part] = of_labels(labels[part][i], update.y[where], h1_right[where]).counts[0].tolist()
        found.append(told)
    return found


def run() -> None:
    """What is not there yet."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    there = {(row["data"], row["seed"]) for row in rows_of()}
    for seed in SEEDS:
        for name in PROMISES:
            if (name, seed) not in there:
                lines = "".join(json.dumps(row) + "\n" for row in run_seed(name, seed))
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(lines)
                print(f"{name}, seed {seed}", flush=True)


def rows_of() -> list[dict[str, Any]]:
    """Results so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


# -- what it costs ------------------------------------------------------------------------------------------------


def cost(rounds: int) -> None:
    """Whole trainings of Lightning that take turns; both validate on the same data after each epoch."""
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader, TensorDataset

    from bc_lightning import BCLightningModule

    torch.manual_seed(0)
    x, y = torch.randn(5000, 784), torch.randint(10, (5000,))

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))

    h1 = net()
    train, held_out = (DataLoader(TensorDataset(x[part], y[part]), 100) for part in (slice(4000), slice(4000, None)))

    def training(**options: Any) -> Callable[[], None]:
        def fit() -> None:
            module = BCLightningModule(net(), h1=h1, loss="imitation", optimizer=torch.optim.Adam, **options)
            trainer = pl.Trainer(
                max_epochs=5,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(module, train, None if "promise_data" in options else held_out)

        return fit

    _keep_times("Lightning", training, {"promise_data": held_out}, rounds)


def cost_in_keras(rounds: int, epochs: int) -> None:
    """The same of Keras, on one backend."""
    import keras
    import numpy as np

    from bc_keras import BCModel

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(5000, 784)).astype("float32"), draw.integers(10, size=5000)
    train, held_out = (x[:4000], y[:4000]), (x[4000:], y[4000:])

    def net() -> keras.Model:
        relu, softmax = keras.layers.Dense(256, "relu"), keras.layers.Dense(10, "softmax")
        return keras.Sequential([keras.Input((784,)), relu, softmax])

    h1 = net()

    def training(**options: Any) -> Callable[[], None]:
        validated = None if "promise_data" in options else held_out

        def fit() -> None:
            model = BCModel(net(), h1=h1, dissonance="imitation", **options)
            model.compile("adam", "sparse_categorical_crossentropy")
            model.fit(*train, batch_size=100, epochs=epochs, verbose=0, validation_data=validated)

        return fit

    _keep_times(f"Keras on {backend}, {epochs} epochs", training, {"promise_data": held_out}, rounds)


def _keep_times(side: str, training: Callable[..., Callable[[], None]], own: dict[str, Any], rounds: int) -> None:
    """Time trainings in turns, and write the seconds of all but the first of each."""
    from interleaved import timed

    promise = {"promise": "nfr <= 5%, btc >= 10%", "promise_options": {"most": 2.0}}
    rivals = {
        "lambda_c": training(lambda_c=1.0),
        "promise on the validation data": training(**promise),
        "promise on held-out data, none validated": training(**promise, **own),
    }
    times = timed(rivals, rounds, warm_up=1)
    kept = json.loads(COST.read_text(encoding="utf-8")) if COST.exists() else {}
    kept[side] = {name: values[1:] for name, values in times.items()}
    COST.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


# -- what was found -----------------------------------------------------------------------------------------------


def report() -> None:
    """Write the tables."""
    rows = rows_of()
    lines = [
        "# Promises",
        "",
        "Made by `python benchmarks/promises.py report`; how is said there.",
        "",
        "*Kept*: trainings whose test NFR is at most what was promised, of all, with a 95 % interval of the share; and "
        "of those that said *met*. *Grid*: of ten trainings with a fixed lambda_c, the most accurate on validation "
        "rows whose bound keeps the promise there, as `found.best` chooses (ten trainings instead of one); in how many "
        "seeds there is one, and in how many of these it keeps the promise on the test rows. *With means*: the same of "
        "the last weights and the means of weights that the promise looks at too. *Difference*: of the promise to that "
        "choice in accuracy, in points, with a 95 % interval over the seeds that have one. Scores are means over "
        "seeds, on test rows, in percent.",
        "",
        "| data | promise | kept | met, of these kept | NFR | accuracy | grid: seeds, kept, accuracy | difference "
        "| grid with means: seeds, kept, accuracy | difference |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, limits in PROMISES.items():
        lines += [_row(name, limit, [row for row in rows if row["data"] == name]) for limit in limits]
    lines += [
        "",
        "## What a fixed lambda_c does",
        "",
        "Means over the seeds on test rows: NFR @ accuracy, in percent.",
        "",
    ]
    lines += ["| lambda_c | " + " | ".join(f"{name}, last | its means" for name in PROMISES) + " |"]
    lines += ["|---:|" + "---:|" * 2 * len(PROMISES)]
    lines += [_of_fixed(value, rows) for value in GRID]
    if COST.exists():
        lines += [
            "",
            "## What it costs",
            "",
            "Whole trainings that took turns, with all that they compile: medians, their ratio, and the median of the "
            "ratios within a round. All validate on the 1,000 held-out rows after each epoch of 4,000 (5 where nothing "
            "else is said); the last looks at them by itself instead.",
            "",
            "| side | training | seconds | ratio | by round |",
            "|---|---|---:|---:|---:|",
        ]
        for side, times in json.loads(COST.read_text(encoding="utf-8")).items():
            plain = statistics.median(times["lambda_c"])
            for variant, values in times.items():
                median = statistics.median(values)
                within = statistics.median(a / b for a, b in zip(values, times["lambda_c"], strict=True))
                lines.append(f"| {side} | {variant} | {median:.2f} | {median / plain:.3f} | {within:.3f} |")
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(REPORT.read_text(encoding="utf-8"))


def _row(name: str, limit: float, rows: list[dict[str, Any]]) -> str:
    promised = {row["seed"]: row for row in rows if row.get("promise") == limit}
    tests = {seed: ErrorOverlap([row["test"]]) for seed, row in promised.items()}
    kept = [seed for seed, overlap in tests.items() if overlap.nfr <= limit]
    met = [seed for seed, row in promised.items() if row["verdict"] == "met"]
    low, high = binomtest(len(kept), len(tests)).proportion_ci(0.95, "exact")
    grid = [row for row in rows if "grid" in row]
    cells = [
        name,
        f"{100 * limit:g}%",
        f"{len(kept)} of {len(tests)} ({100 * low:.0f} to {100 * high:.0f} %)",
        f"{len(met)}, {len(set(met) & set(kept))}",
        _percent([overlap.nfr for overlap in tests.values()]),
        _percent([overlap.accuracy_h2 for overlap in tests.values()]),
    ]
    for among in ([row for row in grid if not row["is_mean"]], grid):
        chosen = _chosen(among, limit)
        good = sum(overlap.nfr <= limit for overlap in chosen.values())
        cells.append(f"{len(chosen)}, {good}, {_percent([overlap.accuracy_h2 for overlap in chosen.values()])}")
        cells.append(_difference([tests[seed].accuracy_h2 - chosen[seed].accuracy_h2 for seed in chosen]))
    return f"| {' | '.join(cells)} |"


def _chosen(grid: list[dict[str, Any]], limit: float) -> dict[int, ErrorOverlap]:
    """Of each seed the most accurate whose bound keeps the promise on validation rows, on the test rows."""
    found: dict[int, ErrorOverlap] = {}
    for seed in sorted({row["seed"] for row in grid}):
        passing = [
            row
            for row in grid
            if row["seed"] == seed
            and judge(f"nfr <= {limit}", ErrorOverlap([row["validation"]]), CONFIDENCE).verdict == "met"
        ]
        if passing:
            best = max(passing, key=lambda row: ErrorOverlap([row["validation"]]).accuracy_h2)
            found[seed] = ErrorOverlap([best["test"]])
    return found


def _of_fixed(value: float, rows: list[dict[str, Any]]) -> str:
    cells = []
    for name in PROMISES:
        for is_mean in (False, True):
            alike = (name, value, is_mean)
            tests = [
                ErrorOverlap([row["test"]])
                for row in rows
                if "grid" in row and (row["data"], row["grid"], row["is_mean"]) == alike
            ]
            cells.append(f"{_percent([t.nfr for t in tests])} @ {_percent([t.accuracy_h2 for t in tests])}")
    return f"| {value:g} | {' | '.join(cells)} |"


def _difference(values: list[float]) -> str:
    if len(values) < 2:
        return _percent(values)
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{100 * statistics.mean(values):+.2f} ± {100 * half:.2f}"


def _percent(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.2f}" if values else "-"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "cost", "report"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--keras", action="store_true", help="cost: of Keras, on the backend of KERAS_BACKEND")
    parser.add_argument("--epochs", type=int, default=5, help="of Keras")
    arguments = parser.parse_args()
    if arguments.what == "cost":
        cost_in_keras(arguments.rounds, arguments.epochs) if arguments.keras else cost(arguments.rounds)
    elif arguments.what == "run":
        run()
    else:
        report()


if __name__ == "__main__":
    main()

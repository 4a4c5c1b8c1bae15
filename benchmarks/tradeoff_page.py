"""The page and the picture of `tradeoff.py`, from its lines alone.

A method's front runs through its settings, plain training among them (each has a setting that is plain training). The
settings on it, and where on it a loss of accuracy lies, are chosen on validation data; between two neighbours a point
is both of them, one for some of the users. What is reported of it is the test data's.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs" / "methods.md"
CONFIRMED = "<!-- made by benchmarks/tradeoff.py --confirm: -->"
UNTIL = "<!-- until here -->"
LOSSES = (0.0, 0.25, 0.5, 1.0)  # points of accuracy against plain training
NOT_ONE_NETWORK = ("two networks", "five networks")
AREA_STEPS = 21
FIXED = (
    ("recommended, averaged", "lambda_c=1"),
    ("recommended, by the library", "lambda_c=1"),
    ("imitation, also on mixed inputs, averaged", "lambda_c=1"),
    ("focal distillation, averaged", "lambda_c=0.3"),
    ("churn, averaged", "lambda_c=0.5"),
    ("plain, averaged", "alpha=0"),
    ("plain on mixed inputs", "lambda_c=0"),
)  # a negative loss of accuracy is a gain
DOCS_METHODS = (
    "recommended, averaged, interpolated",
    "recommended, averaged",
    "focal distillation, averaged, interpolated",
    "focal distillation, averaged",
    "new error, averaged, interpolated",
    "plain, averaged, interpolated",
    "plain, interpolated",
    "new error",
    "original: strict imitation",
    "original: new error",
    "plain, averaged",
    "five networks: mean of answers",
    "two networks: mean of answers",
    "two networks: gate",
)
# Tables of five columns fit beside the menus of a page; in the first the sets on which the method that is recommended
# keeps what was wanted.
DATA_IN_DOCS = (
    *("mnist", "letter", "optdigits", "marketing", "texture"),
    *("penbased", "satimage", "adult", "compas", "magic"),
)
ACROSS = 5
IN_DOCS = [(f"{data}/more data", "warm") for data in DATA_IN_DOCS]

Floats = NDArray[np.float64]


class Scores(NamedTuple):
    """One setting, per seed and in percent."""

    accuracy: Floats
    nfr: Floats


class Setting(NamedTuple):
    """One setting, on the data that choose and on those that judge."""

    name: str
    validation: Scores
    test: Scores


class Point(NamedTuple):
    """A place on a front, per seed."""

    names: str
    test: Scores


def scores_of(counts: list[list[int]]) -> Scores:
    table = np.asarray(counts, dtype=float)
    total = table.sum(1)
    return Scores(100 * (table[:, 0] + table[:, 2]) / total, 100 * table[:, 1] / total)


def grouped(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, list[Setting]]]:
    """Update and start -> method -> its settings."""
    found: dict[tuple[str, str], dict[str, list[Setting]]] = {}
    for row in rows:
        setting = Setting(row["setting"], scores_of(row["validation"]), scores_of(row["test"]))
        found.setdefault((row["update"], row["start"]), {}).setdefault(row["method"], []).append(setting)
    # Without plain training, as in the middle of a run, there is nothing to compare with.
    return {key: methods for key, methods in found.items() if "plain" in methods}


def average(settings: list[Setting]) -> Setting:
    """Plain training: the mean of several draws."""
    parts = []
    for part in ("validation", "test"):
        scores = [getattr(setting, part) for setting in settings]
        parts.append(Scores(np.mean([s.accuracy for s in scores], 0), np.mean([s.nfr for s in scores], 0)))
    return Setting("plain", *parts)


def front(settings: list[Setting]) -> list[Setting]:
    """Settings that no other beats in both means on validation data, the most accurate first."""
    ordered = sorted(settings, key=lambda s: (-s.validation.accuracy.mean(), s.validation.nfr.mean()))
    kept: list[Setting] = []
    for setting in ordered:
        if not kept or setting.validation.nfr.mean() < kept[-1].validation.nfr.mean():
            kept.append(setting)
    return kept


def at(kept: list[Setting], accuracy: float) -> Point | None:
    """The place on a front where the mean validation accuracy is this; None if it is less everywhere."""
    if kept[0].validation.accuracy.mean() < accuracy:
        return None
    for better, worse in itertools.pairwise(kept):
        high, low = better.validation.accuracy.mean(), worse.validation.accuracy.mean()
        if low < accuracy:
            share = (high - accuracy) / (high - low)
            pairs = zip(better.test, worse.test, strict=True)
            scores = Scores(*((1 - share) * first + share * second for first, second in pairs))
            return Point(f"{better.name}, {worse.name}", scores)
    return Point(kept[-1].name, kept[-1].test)


def interval(values: Floats) -> float:
    """Half of a 95 % interval of the mean over seeds."""
    if len(values) < 2:
        return math.nan
    return float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def area(kept: list[Setting], plain: Setting) -> float:
    """Mean NFR over losses of 0 to 1 point, as a share of plain training's."""
    base = plain.validation.accuracy.mean()
    points = [at(kept, base - loss) for loss in np.linspace(0, 1, AREA_STEPS)]
    return float(np.mean([point.test.nfr.mean() for point in points if point]) / plain.test.nfr.mean())


def cell(point: Point | None, plain: Setting) -> str:
    """NFR as a share of plain's, with the interval of the paired difference; what was really lost."""
    if point is None:
        return "-"
    base = plain.test.nfr.mean()
    share = point.test.nfr.mean() / base
    spread = interval(point.test.nfr - plain.test.nfr) / base
    lost = plain.test.accuracy - point.test.accuracy
    return f"{share:.2f} ± {spread:.2f} (lost {lost.mean():.2f} ± {interval(lost):.2f})"


def section(name: str, start: str, methods: dict[str, list[Setting]]) -> list[str]:
    """Table of one update."""
    plain = average(methods["plain"])
    test = plain.test
    floor = np.std([s.test.nfr for s in methods["plain"]], axis=0, ddof=1).mean() if len(methods["plain"]) > 1 else 0.0
    lines = [
        f"## {name}, {start}",
        "",
        f"Plain training: accuracy {test.accuracy.mean():.2f} ± {interval(test.accuracy):.2f}, "
        f"NFR {test.nfr.mean():.2f} ± {interval(test.nfr):.2f} over {len(test.nfr)} seeds; another draw "
        f"of the same recipe changes the NFR by {floor:.2f} (standard deviation).",
        "",
        "| method | area | " + " | ".join(f"at {loss:g}" for loss in LOSSES) + " |",
        "|---" * (2 + len(LOSSES)) + "|",
    ]
    table = []
    for method, settings in methods.items():
        if method == "plain":
            continue
        kept = front([plain, *settings])
        cells = [cell(at(kept, plain.validation.accuracy.mean() - loss), plain) for loss in LOSSES]
        table.append((area(kept, plain), method, cells))
    for share, method, cells in sorted(table):
        mark = " †" if method.startswith(NOT_ONE_NETWORK) else ""
        lines.append(f"| {method}{mark} | {share:.2f} | {' | '.join(cells)} |")
    return [*lines, ""]


def summary(found: dict[tuple[str, str], dict[str, list[Setting]]]) -> list[str]:
    """Every method's area on every update."""
    columns = list(found)
    methods = list(dict.fromkeys(method for each in found.values() for method in each if method != "plain"))
    lines = ["| method | " + " | ".join(f"{name}, {start}" for name, start in columns) + " | mean |"]
    lines.append("|---" * (2 + len(columns)) + "|")
    table = []
    for method in methods:
        areas = []
        for key in columns:
            settings = found[key].get(method)
            plain = average(found[key]["plain"])
            areas.append(area(front([plain, *settings]), plain) if settings else math.nan)
        table.append((np.nanmean(areas), method, areas))
    for mean, method, areas in sorted(table):
        mark = " †" if method.startswith(NOT_ONE_NETWORK) else ""
        cells = " | ".join("" if math.isnan(value) else f"{value:.2f}" for value in areas)
        lines.append(f"| {method}{mark} | {cells} | {mean:.2f} |")
    return [*lines, ""]


def targets(found: dict[tuple[str, str], dict[str, list[Setting]]]) -> list[str]:
    """For each update the best method with one network, the original's best, and both at a glance."""
    lines = [
        "| update | no accuracy lost | half a point lost | the original's best |",
        "|---|---|---|---|",
    ]
    for (name, start), methods in found.items():
        plain = average(methods["plain"])
        base = plain.validation.accuracy.mean()
        fronts = {m: front([plain, *s]) for m, s in methods.items() if m != "plain"}
        ours = {m: kept for m, kept in fronts.items() if not m.startswith((*NOT_ONE_NETWORK, "original"))}
        theirs = {m: kept for m, kept in fronts.items() if m.startswith("original")}
        cells = [_best(ours, base, loss, plain) for loss in (0.0, 0.5)]
        lines.append(f"| {name}, {start} | {' | '.join(cells)} | {_best(theirs, base, 0.5, plain)} |")
    return [*lines, ""]


def _best(fronts: dict[str, list[Setting]], base: float, loss: float, plain: Setting) -> str:
    """The method that validation data choose, and what the test data say of it."""
    if not fronts:
        return ""
    # Chosen where nothing is reported from: by the validation NFR at this loss.
    method = min(fronts, key=lambda m: _validation_nfr(fronts[m], base - loss))
    return f"{method}: {cell(at(fronts[method], base - loss), plain)}"


def _validation_nfr(kept: list[Setting], accuracy: float) -> float:
    point = at([Setting(s.name, s.validation, s.validation) for s in kept], accuracy)
    return math.inf if point is None else float(point.test.nfr.mean())


def as_they_are(found: dict[tuple[str, str], dict[str, list[Setting]]]) -> list[str]:
    """Two settings that nothing was chosen for, and plain training made better, on the test data."""
    heads = " | ".join(f"{method}, {setting}" for method, setting in FIXED)
    lines = [f"| update | {heads} |", "|---" * (1 + len(FIXED)) + "|"]
    for (name, start), methods in found.items():
        plain = average(methods["plain"])
        cells = []
        for method, setting in FIXED:
            there = [s for s in methods.get(method, []) if s.name == setting]
            cells.append(cell(Point(setting, there[0].test), plain) if there else "")
        lines.append(f"| {name}, {start} | {' | '.join(cells)} |")
    return [*lines, ""]


def fill_docs(found: dict[tuple[str, str], dict[str, list[Setting]]]) -> None:
    """Tables of docs/methods.md: of some methods the shares at no loss and at half a point."""
    keys = list(found)
    tables = [_docs_table(found, keys[first : first + ACROSS]) for first in range(0, len(keys), ACROSS)]
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(CONFIRMED)
    after = rest.partition(UNTIL)[2]
    DOCS.write_text("\n\n".join([before + CONFIRMED, *tables, UNTIL + after]), encoding="utf-8")


def _docs_table(found: dict[tuple[str, str], dict[str, list[Setting]]], columns: list[tuple[str, str]]) -> str:
    lines = ["| method | " + " | ".join(name.partition("/")[0] for name, _ in columns) + " |"]
    lines.append("|---" * (1 + len(columns)) + "|")
    for method in DOCS_METHODS:
        cells = []
        for key in columns:
            plain = average(found[key]["plain"])
            base = plain.validation.accuracy.mean()
            kept = front([plain, *found[key].get(method, [])])
            points = [at(kept, base - loss) for loss in (0.0, 0.5)]
            shares = [p.test.nfr.mean() / plain.test.nfr.mean() for p in points if p is not None]
            cells.append(" / ".join(f"{share:.2f}" for share in shares) if method in found[key] else "")
        mark = " †" if method.startswith(NOT_ONE_NETWORK) else ""
        lines.append(f"| {method}{mark} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(rows: list[dict[str, Any]]) -> str:
    """All of it, as Markdown."""
    found = grouped(rows)
    lines = [
        "# Negative flips against accuracy, method by method",
        "",
        "Made by `python benchmarks/tradeoff.py` from `tradeoff.jsonl`; its docstring and those of `update_data.py`",
        "and `tradeoff_methods.py` say what was run. Shares are of plain training's NFR from the same start: 0.33 is a",
        "third of the negative flips. *At 0.5*: the point of the method's front that loses half a point of accuracy on",
        "validation data; the share is the test data's, with a paired 95 % interval over seeds, and in brackets what",
        "was lost there. Plain training lies on every front. *Area*: the mean share over losses of 0 to 1 point.",
        "† More than one network at inference.",
        "",
        "![Fronts](tradeoff.png)",
        "",
        "## The best with one network",
        "",
        "Validation data choose the method and its setting; the test data say what it did.",
        "",
        *targets(found),
        "## Settings as they are",
        "",
        "Nothing is chosen here: one setting for all updates. Two are plain training made better, without h1.",
        "",
        *as_they_are(found),
        "## Areas",
        "",
        *summary(found),
    ]
    for (name, start), methods in found.items():
        lines += section(name, start, methods)
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Fronts of the methods with the smallest areas, and of the original's losses; a panel per update."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = grouped(rows)
    across = 3
    down = math.ceil(len(found) / across)
    figure, axes = pyplot.subplots(down, across, figsize=(4.2 * across, 3.1 * down), squeeze=False)
    for panel in axes.flat[len(found) :]:
        panel.axis("off")
    for panel, ((name, start), methods) in zip(axes.flat, found.items(), strict=False):
        plain = average(methods["plain"])
        fronts = {m: front([plain, *settings]) for m, settings in methods.items() if m != "plain"}
        ranked = sorted(fronts, key=lambda method: area(fronts[method], plain))
        shown = [m for m in ranked if not m.startswith(NOT_ONE_NETWORK)][:3]
        shown += [m for m in ranked if m.startswith("original")] + [m for m in ranked if m.startswith("two")][:1]
        for method in dict.fromkeys(shown):
            points = [(s.test.accuracy.mean(), s.test.nfr.mean()) for s in fronts[method]]
            style = ":" if method.startswith(NOT_ONE_NETWORK) else "--" if method.startswith("original") else "-"
            panel.plot(*zip(*points, strict=True), style, marker=".", label=method, linewidth=1)
        panel.plot(plain.test.accuracy.mean(), plain.test.nfr.mean(), "k*", label="plain")
        # Weights that are averaged may gain more than a point.
        panel.set_xlim(plain.test.accuracy.mean() - 2, max(plain.test.accuracy.mean() + 1, panel.dataLim.xmax + 0.1))
        panel.set_title(f"{name}, {start}", fontsize=9)
        panel.legend(fontsize=5)
        panel.tick_params(labelsize=7)
    figure.supxlabel("accuracy of h2, %", fontsize=9)
    figure.supylabel("NFR, %", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def confirmed_page(found: dict[tuple[str, str], dict[str, list[Setting]]]) -> str:
    """What stood the search, on seeds that took no part in it."""
    lines = [
        "# The same on seeds that were not searched on",
        "",
        "Made by `python benchmarks/tradeoff.py --confirm` from `tradeoff_confirmed.jsonl`. Read as `tradeoff.md`;",
        "methods, settings and learning rates are those that were found there; rows, h1 and h2 are of other seeds.",
        "",
        "## The best with one network",
        "",
        *targets(found),
        "## Settings as they are",
        "",
        *as_they_are(found),
    ]
    for (name, start), methods in found.items():
        lines += section(name, start, methods)
    return "\n".join(lines)


def write_page(rows: list[dict[str, Any]], confirmed: bool = False) -> None:
    """results/tradeoff.md and its picture, or results/tradeoff_confirmed.md; and the table in the docs."""
    found = grouped(rows)
    if confirmed:
        (RESULTS / "tradeoff_confirmed.md").write_text(confirmed_page(found), encoding="utf-8")
        fill_docs({key: found[key] for key in IN_DOCS if key in found})
        return
    (RESULTS / "tradeoff.md").write_text(page(rows), encoding="utf-8")
    picture(rows, RESULTS / "tradeoff.png")

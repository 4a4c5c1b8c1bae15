"""The command lines of `bc-compare`, `bc-compare gate` and `bc-compare threshold`."""

from __future__ import annotations

import argparse
import datetime
import math
from typing import Any

from bc_core._numbers import read_share
from bc_core.predictions._further_columns import FILES

_EPILOG = """\
Exit status: 0 pass (or nothing to check), 1 fail, 2 bad input, 3 inconclusive.

A budget is checked on a one-sided Clopper-Pearson bound: it passes if even the unfavourable bound keeps it, fails
if even the favourable bound breaks it, and is otherwise inconclusive: more test instances are needed to tell.
"""
_COMPARE_EPILOG = f"""\
bc-compare gate holds an update to a whole policy: classes, slices, critical instances (bc-compare gate --help).
bc-compare predict writes a model's predictions of a file of data (bc-compare predict --help).
bc-compare threshold shows what breaks at each threshold of a binary model (bc-compare threshold --help).

{_EPILOG}"""


def compare_parser() -> argparse.ArgumentParser:
    """The options of `bc-compare OLD NEW`."""
    parser = argparse.ArgumentParser(
        prog="bc-compare",
        description="Show what an update changes: a comparison that Comparison.save wrote, or two files of "
        "predictions, joined by the ids of their instances (CSV, JSON Lines, npz, Parquet, Arrow).",
        epilog=_COMPARE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="OLD", help="a .json or .json.gz file, or the old model's predictions")
    parser.add_argument("new", metavar="NEW", nargs="?", help="the new model's predictions")
    parser.add_argument(
        "--max-nfr", type=_budget, metavar="X", help="budget for the negative flip rate, e.g. 0.005 or 0.5%%"
    )
    parser.add_argument(
        "--min-btc", type=_share, metavar="X", help="least backward trust compatibility, e.g. 0.98 or 98%%"
    )
    parser.add_argument(
        "--confidence", type=_confidence, default=0.95, metavar="X", help="of intervals and verdicts (default: 0.95)"
    )
    _add_files(parser)
    return parser


def gate_parser() -> argparse.ArgumentParser:
    """The options of `bc-compare gate`."""
    parser = argparse.ArgumentParser(
        prog="bc-compare gate",
        description="Hold an update to a policy.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="OLD", help="the old model's predictions, or a saved comparison")
    parser.add_argument("new", metavar="NEW", nargs="?", help="the new model's predictions")
    asked = parser.add_argument_group("what is asked (a flag takes the place of the policy's key of its name)")
    asked.add_argument(
        "--policy", metavar="FILE", help="compat.toml, or a pyproject.toml with [tool.bc-compare] (default: that here)"
    )
    asked.add_argument("--promise", action="append", metavar="BOUND", help='such as "nfr <= 0.5%%"; may be repeated')
    asked.add_argument("--min-gain", metavar="X", help="least gain of accuracy, e.g. 0.1%%")
    asked.add_argument("--non-inferiority", metavar="X", help="margin by which accuracy must not be worse, e.g. 0.5%%")
    asked.add_argument("--per-class", action="append", metavar="BOUND", help="of every class of --least instances")
    asked.add_argument("--per-slice", action="append", metavar="BOUND", help="of every slice of the columns of --slice")
    asked.add_argument("--least", type=int, metavar="N", help="instances that a class or slice must have (default: 30)")
    asked.add_argument("--critical", metavar="FILE", help="ids that must not break at all")
    asked.add_argument("--accepted", metavar="FILE", help="CSV of flips that do not count: id, reason, expires")
    asked.add_argument("--confidence", type=_confidence, metavar="X", help="of verdicts (default: 0.95)")
    blessing = parser.add_argument_group("to accept today's flips")
    blessing.add_argument("--accept", action="store_true", help="write them to the file of accepted flips")
    blessing.add_argument("--reason", metavar="TEXT", help="why")
    blessing.add_argument("--expires", type=_day, metavar="DATE", help="the last day on which they are accepted")
    _add_files(parser)
    return parser


def threshold_parser() -> argparse.ArgumentParser:
    """The options of `bc-compare threshold`."""
    parser = argparse.ArgumentParser(
        prog="bc-compare threshold",
        description="Show what an update of a binary model breaks at each threshold of its scores, and which to take.",
        epilog="Exit status: 0 the recommended threshold keeps the promise (or none was asked), 1 none does, 2 bad "
        "input, 3 inconclusive.",
    )
    parser.add_argument("file", metavar="OLD", help="the old model's predictions, labels or scores")
    parser.add_argument("new", metavar="NEW", help="the new model's, with scores of class 1")
    parser.add_argument("--promise", action="append", metavar="BOUND", help='such as "nfr <= 0.5%%"; may be repeated')
    parser.add_argument("--confidence", type=_confidence, default=0.95, metavar="X", help="of bounds (default: 0.95)")
    parser.add_argument("--threshold", type=_number, metavar="X", help="of OLD's scores (default: 0.5)")
    parser.add_argument("--json", metavar="FILE", help="all thresholds, for programs; - prints it")
    parser.add_argument("--html", metavar="FILE", help="the curve as a page of one file")
    parser.add_argument("--markdown", metavar="FILE", help="a pull request's summary; - prints it")
    _add_columns(parser)
    return parser


def _add_columns(parser: argparse.ArgumentParser) -> Any:
    files = parser.add_argument_group("files and their columns")
    files.add_argument("--data", metavar="FILE", help="true labels, weights and metadata, by id")
    files.add_argument("--id", metavar="COLUMN", help="ids (default: id, instance_id, example_id or sample_id)")
    files.add_argument("--by-position", action="store_true", help="join rows by their order, without ids")
    files.add_argument("--allow-unmatched", action="store_true", help="leave out ids that are not in every file")
    files.add_argument("--pred", metavar="COLUMN", help="predicted labels (default: pred, prediction, y_pred, ...)")
    files.add_argument("--new-pred", metavar="COLUMN", help="the same in NEW, where it differs")
    files.add_argument("--scores", metavar="COLUMN", help="class scores: a column of lists, or how columns begin")
    files.add_argument("--target", metavar="COLUMN", help="true labels (default: target, label, y_true, ...)")
    files.add_argument("--classes", action="append", metavar="NAMES", help="class names in order, parted by commas")
    return files


def _add_files(parser: argparse.ArgumentParser) -> None:
    files = _add_columns(parser)
    files.add_argument(
        "--new-classes", action="append", metavar="NAMES", help="classes that the old model did not know"
    )
    files.add_argument("--noise", action="append", metavar="FILE", help="predictions of the old recipe, another seed")
    files.add_argument("--slice", action="append", metavar="COLUMN", help="slice by its values; may be repeated")
    files.add_argument("--search", action="store_true", help="look for slices of one and two columns of --slice")
    files.add_argument("--weight", metavar="COLUMN", help="weights of instances")
    files.add_argument("--cluster", metavar="COLUMN", help="what instances belong to, such as a user")
    files.add_argument(
        "--columns-from",
        choices=FILES,
        help="the file whose slices, weights and clusters count, where several have the column and differ",
    )
    files.add_argument("--name", metavar="TEXT", help="what is compared, for titles")
    right = parser.add_argument_group("what counts as right (default: the label equals the true one)")
    right.add_argument("--threshold", type=_number, metavar="X", help="class 1 where its score is at least X")
    right.add_argument("--new-threshold", type=_number, metavar="X", help="the same in NEW, where it differs")
    right.add_argument("--top-k", type=int, metavar="K", help="the true class is among the K of highest scores")
    right.add_argument("--multilabel", action="store_true", help="all of several labels are right, each 0 or 1")
    right.add_argument(
        "--right",
        dest="rule",
        metavar="RULE",
        help='such as "abs(pred - target) <= 2"; or module:function, which is imported and run',
    )
    right.add_argument("--correct", metavar="COLUMN", help="what each file says of itself, 0 or 1")
    right.add_argument("--filter", metavar="NAME", help="of lm-eval's samples, the filter that is meant")
    outputs = parser.add_argument_group("what is written")
    outputs.add_argument("--json", metavar="FILE", help="everything, for programs; - prints it")
    outputs.add_argument("--html", metavar="FILE", help="the dashboard as one file")
    outputs.add_argument("--markdown", metavar="FILE", help="a pull request's summary; - prints it")
    outputs.add_argument("--junit", metavar="FILE", help="one test case a check; - prints it")
    outputs.add_argument("--tensorboard", metavar="DIR", help="folder of a run")
    outputs.add_argument("--save", metavar="FILE", help="the comparison, as a .json or .json.gz file")


def _share(text: str, *, small: bool = False) -> float:
    """Read `0.005` or `0.5%`."""
    try:
        return read_share(text, small=small)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _budget(text: str) -> float:
    return _share(text, small=True)


def _confidence(text: str) -> float:
    value = _share(text)
    if not 0.5 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a confidence from 0.5 to below 1, such as 0.95, got {text!r}")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number such as 0.5, got {text!r}")
    return value


def _day(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a date such as 2027-03-31, got {text!r}") from None

"""`bc-compare`: show what an update changes, and let a pipeline pass or fail on it."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bc_core.comparison._comparison import Comparison
from bc_core.counting._scores import SCORES
from bc_core.gate._policy import Policy, policy_of, read_policy, right_of
from bc_core.gate._report import Report
from bc_core.gate._request import (
    Inputs,
    Outputs,
    Read,
    accept,
    as_json,
    found_policy,
    merged,
    read,
    report,
    write,
)
from bc_core.gate._shown import junit, markdown, one_line, terminal
from bc_core.gate._threshold_command import as_dict, as_text, curve_of, verdict_of, write_json
from bc_core.predicting._command import parser as predict_parser
from bc_core.predicting._command import run as run_predict
from bc_core.predictions._columns import ColumnNames, listed_names
from bc_core.predictions._joining import join

PASS, FAIL, BAD_INPUT, INCONCLUSIVE, INTERRUPTED = 0, 1, 2, 3, 130
_STATUS = {"pass": PASS, "fail": FAIL, "inconclusive": INCONCLUSIVE, None: PASS}
_SHOW_PROGRESS_AFTER = 2.0

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Command line without the program's name. Default: that of the process.

    Returns:
        Exit status: 0 pass, 1 fail, 2 bad input, 3 inconclusive.

    Raises:
        SystemExit: With status 2 if the command line is wrong, 0 after `--help`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, run = {
        "gate": (_gate_parser, _gate),
        "predict": (predict_parser, _predict),
        "threshold": (_threshold_parser, _threshold),
    }.get(given[0] if given else "", (_parser, _show))
    options = parser().parse_args(given if run is _show else given[1:])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # class names may hold what the terminal cannot show
    try:
        status, text = run(options)
    except OSError as error:
        return _bad_input(f"{error.filename or options.file}: {error.strerror or error}")
    except (ValueError, ImportError) as error:
        return _bad_input(str(error))
    except KeyboardInterrupt:
        return _interrupted(options)
    except SystemExit as error:  # its status 0 would read "pass"
        return _bad_input(f"{options.file}: a module that was imported ended the program (status {error.code})")
    except MemoryError:
        return _bad_input(f"{options.file}: too large for the memory that there is")
    except Exception as error:
        # Python would exit with 1, and a CI job read "fail", a verdict that nobody reached.
        return _bad_input(f"{options.file}: cannot be judged ({type(error).__name__}: {error})")
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader has seen enough; the verdict stands
        # Python flushes once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _show(options: argparse.Namespace) -> tuple[int, str]:
    """`bc-compare FILE` and `bc-compare OLD NEW`."""
    if options.new is None:
        return _show_saved(options)
    promise = [
        f"{score} {relation} {limit!r}"
        for score, relation, limit in (("nfr", "<=", options.max_nfr), ("btc", ">=", options.min_btc))
        if limit is not None
    ]
    policy = policy_of({"promise": promise, "confidence": options.confidence}, "flags") if promise else None
    inputs = _inputs(options, _columns(options), listed_names(options.classes), listed_names(options.new_classes) or ())
    made = report(read(inputs, options.confidence, _Progress()), options.confidence, policy, search=options.search)
    return _STATUS[made.verdict], _written(made, options)


_OF_FILES = (
    *("data", "id", "by_position", "allow_unmatched", "pred", "new_pred", "scores", "target", "classes"),
    *("noise", "slice", "weight", "cluster"),
)


def _refuse_of_files(options: argparse.Namespace) -> None:
    """Refuse flags that a saved comparison would not heed."""
    if said := [f"--{name.replace('_', '-')}" for name in _OF_FILES if getattr(options, name)]:
        raise ValueError(
            f"{options.file}: a saved comparison does not heed {', '.join(said)}; give the two files of predictions"
        )


def _show_saved(options: argparse.Namespace) -> tuple[int, str]:
    if said := [name for name, value in _right_flags(options).items() if value is not None and value is not False]:
        raise ValueError(f"{options.file}: a saved comparison has judged what is right; take out {', '.join(said)}")
    _refuse_of_files(options)
    found = read(Inputs(options.file, new_classes=tuple(listed_names(options.new_classes) or ())), options.confidence)
    comparison = found.subject.comparison
    assert isinstance(comparison, Comparison)
    lines, verdicts = [comparison.describe(options.confidence)], []
    for score, limit in (("nfr", options.max_nfr), ("btc", options.min_btc)):
        if limit is not None:
            verdict, line = _check(comparison, score, limit, options.confidence)
            verdicts.append(verdict)
            lines.append(line)
    text = "\n".join(lines)
    if _outputs(options) is not None:
        text = _written(report(found, options.confidence), options, text)
    return FAIL if "fail" in verdicts else INCONCLUSIVE if "inconclusive" in verdicts else PASS, text


def _gate(options: argparse.Namespace) -> tuple[int, str]:
    """`bc-compare gate OLD NEW`."""
    path = found_policy(options.policy)
    keys = merged({} if path is None else read_policy(path), _flags(options))
    policy = policy_of(keys, "flags" if path is None else path)
    columns = replace(
        policy.columns, slices=tuple(dict.fromkeys((*policy.columns.slices, *(listed_names(options.slice) or ()))))
    )
    if options.new is None:
        _refuse_of_files(options)
    inputs = _inputs(options, columns, policy.classes, policy.new_classes)
    found = read(inputs, policy.confidence, _Progress())
    if not options.accept and (options.reason is not None or options.expires is not None):
        raise ValueError("--reason and --expires are of flips that --accept writes: say it too, or take them out")
    said = "" if not options.accept else _accepted(options, policy, found)
    made = report(found, policy.confidence, policy, search=options.search)
    return _STATUS[made.verdict], said + _written(made, options)


def _predict(options: argparse.Namespace) -> tuple[int, str]:
    """`bc-compare predict MODEL DATA`."""
    shown, begin = _Progress(), time.monotonic()

    def say(text: str) -> None:
        print(f"bc-compare: {one_line(text)}", file=sys.stderr, flush=True)

    def progress(rows: int) -> None:
        shown(f"{options.out} after {time.monotonic() - begin:.0f} s", rows)

    try:
        return PASS, run_predict(options, say, progress)
    except RuntimeError as error:  # another process writes that file
        raise ValueError(str(error)) from error


def _threshold(options: argparse.Namespace) -> tuple[int, str]:
    """`bc-compare threshold OLD NEW`."""
    columns = _columns(options)
    if columns.right is None:
        columns = replace(columns, right=right_of({"threshold": 0.5}, "flags"))
    joined = join(
        options.file,
        options.new,
        columns,
        data=options.data,
        class_names=listed_names(options.classes),
        allow_unmatched=options.allow_unmatched,
        progress=_Progress(),
    )
    curve = curve_of(joined, options.promise, options.confidence)
    if options.json is not None and options.json != "-":
        write_json(options.json, curve)
    text = json.dumps(as_dict(curve), indent=2, allow_nan=False) if options.json == "-" else as_text(curve)
    return _STATUS[verdict_of(curve)], text


def _interrupted(options: argparse.Namespace) -> int:
    taken_up = "; the same command goes on where it stopped" if hasattr(options, "out") else ""
    print(f"\nbc-compare: interrupted{taken_up}", file=sys.stderr)
    return INTERRUPTED


def _accepted(options: argparse.Namespace, policy: Policy, found: Read) -> str:
    if options.reason is None or options.expires is None:
        raise ValueError("--accept needs --reason TEXT and --expires DATE: why, and until when, the flips may be there")
    count = accept(policy, found.subject, options.reason, options.expires)
    return f"Accepted {count} flips until {options.expires} in {policy.accepted}\n"


def _check(comparison: Comparison, score: str, limit: float, confidence: float) -> tuple[str, str]:
    overlap = comparison.overlap
    verdict = overlap.gate(score, limit, confidence)
    low = overlap.interval(score, confidence, "lower", "clopper_pearson")[0]
    high = overlap.interval(score, confidence, "upper", "clopper_pearson")[1]
    relation = "at least" if SCORES[score].higher_is_better else "at most"
    return verdict, (
        f"{verdict.upper()}: {SCORES[score].title} {relation} {limit:.4%} wanted; measured "
        f"{overlap.score(score):.4%}, at {confidence:g} confidence at least {low:.4%}, at most {high:.4%}"
    )


def _bad_input(message: str) -> int:
    print(f"bc-compare: {one_line(' '.join(message.split()))}", file=sys.stderr)
    return BAD_INPUT


class _Progress:
    """How far long files are, on a terminal only."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __call__(self, path: str, rows: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - self._begin > _SHOW_PROGRESS_AFTER:
            print(f"\r{one_line(path)}: {rows:,} rows \033[K\r", end="", file=sys.stderr, flush=True)


def _inputs(
    options: argparse.Namespace, columns: ColumnNames, classes: Sequence[str] | None, new_classes: Sequence[str]
) -> Inputs:
    return Inputs(
        options.file,
        options.new,
        columns,
        options.data,
        tuple(options.noise or ()),
        None if classes is None else tuple(classes),
        options.allow_unmatched,
        options.name,
        tuple(new_classes),
    )


def _columns(options: argparse.Namespace) -> ColumnNames:
    named = {key: value for key, value in _column_flags(options).items() if value}
    right = {key: value for key, value in _right_flags(options).items() if value is not None and value is not False}
    return ColumnNames(
        **named, slices=tuple(dict.fromkeys(listed_names(options.slice) or ())), right=right_of(right, "flags")
    )


def _right_flags(options: argparse.Namespace) -> dict[str, Any]:
    names = ("threshold", "new_threshold", "top_k", "multilabel", "correct", "filter")
    return {"rule": options.right, **{name: getattr(options, name) for name in names}}


def _column_flags(options: argparse.Namespace) -> dict[str, Any]:
    names = ("id", "pred", "new_pred", "scores", "target", "weight", "cluster", "by_position")
    return {name: getattr(options, name) for name in names}


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    columns = listed_names(options.slice) or []
    if options.per_slice and not columns:
        raise ValueError("--per-slice asks of the slices of --slice COLUMN: name one")
    if options.least is not None and not (options.per_class or options.per_slice):
        raise ValueError("--least is of --per-class and --per-slice: say one too, or write `least` in the policy")
    least = {} if options.least is None else {"least": options.least}
    return {
        **{key: getattr(options, key) for key in ("promise", "min_gain", "non_inferiority", "confidence")},
        "critical": options.critical,
        "accepted": options.accepted,
        "classes": listed_names(options.classes),
        "new_classes": listed_names(options.new_classes),
        "per_class": {"promise": options.per_class, **least} if options.per_class else None,
        "per_slice": [{"column": c, "promise": options.per_slice, **least} for c in columns]
        if options.per_slice
        else None,
        "columns": {name: value or None for name, value in _column_flags(options).items()},
        "right": _right_flags(options),
    }


def _outputs(options: argparse.Namespace) -> Outputs | None:
    names = ("json", "html", "markdown", "junit", "tensorboard", "save")
    given = {name: getattr(options, name) for name in names}
    return Outputs(**given) if any(given.values()) else None


def _written(made: Report, options: argparse.Namespace, text: str | None = None) -> str:
    outputs = _outputs(options)
    if outputs is not None:
        write(made, outputs)
        for path, printed in ((outputs.json, as_json), (outputs.markdown, markdown), (outputs.junit, junit)):
            if path == "-":
                return printed(made).rstrip("\n")
    return terminal(made) if text is None else text


def _share(text: str) -> float:
    """Read `0.005` or `0.5%`."""
    number = text.strip()
    try:
        value = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a share such as 0.005 or 0.5%, got {text!r}") from None
    if not 0 <= value <= 1:
        hint = f"; for percent write {number}%" if 1 < value <= 100 else ""
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, got {text!r}{hint}")
    return value


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


def _parser() -> argparse.ArgumentParser:
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
        "--max-nfr", type=_share, metavar="X", help="budget for the negative flip rate, e.g. 0.005 or 0.5%%"
    )
    parser.add_argument(
        "--min-btc", type=_share, metavar="X", help="least backward trust compatibility, e.g. 0.98 or 98%%"
    )
    parser.add_argument(
        "--confidence", type=_confidence, default=0.95, metavar="X", help="of intervals and verdicts (default: 0.95)"
    )
    _add_files(parser)
    return parser


def _gate_parser() -> argparse.ArgumentParser:
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


def _threshold_parser() -> argparse.ArgumentParser:
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
    _add_columns(parser)
    parser.set_defaults(
        slice=None, weight=None, cluster=None, right=None, new_threshold=None, top_k=None, multilabel=False
    )
    parser.set_defaults(correct=None, filter=None)
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
    files.add_argument("--name", metavar="TEXT", help="what is compared, for titles")
    right = parser.add_argument_group("what counts as right (default: the label equals the true one)")
    right.add_argument("--threshold", type=_number, metavar="X", help="class 1 where its score is at least X")
    right.add_argument("--new-threshold", type=_number, metavar="X", help="the same in NEW, where it differs")
    right.add_argument("--top-k", type=int, metavar="K", help="the true class is among the K of highest scores")
    right.add_argument("--multilabel", action="store_true", help="all of several labels are right, each 0 or 1")
    right.add_argument(
        "--right",
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

"""`bc-compare`: show what an update changes, and let a pipeline pass or fail on it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bc_core._texts import one_line
from bc_core.comparison._comparison import Comparison
from bc_core.counting._scores import SCORES
from bc_core.files._files import write_whole
from bc_core.gate._accepting import blessing, refuse_careless
from bc_core.gate._options import compare_parser, gate_parser, threshold_parser
from bc_core.gate._policy import COLUMNS, RIGHT, policy_of, read_policy, right_of
from bc_core.gate._report import Report
from bc_core.gate._request import (
    Inputs,
    Outputs,
    found_policy,
    merged,
    read,
    report,
    this_day,
    write,
)
from bc_core.gate._shown import terminal
from bc_core.gate._threshold_command import as_json as curve_as_json
from bc_core.gate._threshold_command import as_markdown as curve_as_markdown
from bc_core.gate._threshold_command import as_text, curve_of, verdict_of
from bc_core.gate._threshold_page import threshold_page
from bc_core.predicting._command import parser as predict_parser
from bc_core.predicting._command import run as run_predict
from bc_core.predictions._columns import ColumnNames, listed_names
from bc_core.predictions._joining import join
from bc_core.promise._grammar import Constraint

PASS, FAIL, BAD_INPUT, INCONCLUSIVE, INTERRUPTED = 0, 1, 2, 3, 130
_STATUS = {"pass": PASS, "fail": FAIL, "inconclusive": INCONCLUSIVE, None: PASS}
_SHOW_PROGRESS_AFTER = 2.0


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
        "gate": (gate_parser, _gate),
        "predict": (predict_parser, _predict),
        "threshold": (threshold_parser, _threshold),
    }.get(given[0] if given else "", (compare_parser, _show))
    command = parser()
    # One line, as for all bad input: argparse would put thirty of flags before it.
    command.error = lambda message: command.exit(_bad_input(f"{_hinted(message)} ({command.prog} --help)"))  # type: ignore[method-assign]
    options = command.parse_args(given if run is _show else given[1:])
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


def _hinted(message: str) -> str:
    """What argparse says of a command line, and what to write in place of a flag that another command has."""
    for flag, instead in (("--max-nfr", "nfr <= 0.5%"), ("--min-btc", "btc >= 98%")):
        if message.startswith("unrecognized arguments") and flag in message:
            return f'{message}: say it as --promise "{instead}"'
    return message


def _show(options: argparse.Namespace) -> tuple[int, str]:
    """`bc-compare FILE` and `bc-compare OLD NEW`."""
    _refuse_overwriting(options)
    if options.new is None:
        return _show_saved(options)
    promise = [
        str(Constraint(score, limit))
        for score, limit in (("nfr", options.max_nfr), ("btc", options.min_btc))
        if limit is not None
    ]
    policy = policy_of({"promise": promise, "confidence": options.confidence}, "flags") if promise else None
    inputs = _inputs(options, _columns(options), listed_names(options.classes), listed_names(options.new_classes) or ())
    made = report(read(inputs, options.confidence, _Progress()), options.confidence, policy, search=options.search)
    return _STATUS[made.verdict], _written(made, options)


_OF_FILES = (*COLUMNS, "data", "allow_unmatched", "classes", "noise", "slice")


def _refuse_of_files(options: argparse.Namespace) -> None:
    """Refuse flags that a saved comparison would not heed."""
    if said := [f"--{name.replace('_', '-')}" for name in _said(options, _OF_FILES)]:
        raise ValueError(
            f"{options.file}: a saved comparison does not heed {', '.join(said)}; give the two files of predictions"
        )


def _show_saved(options: argparse.Namespace) -> tuple[int, str]:
    if said := _said(options, RIGHT):
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
    if _outputs(options) != Outputs():
        text = write(report(found, options.confidence), _outputs(options)) or text
    return FAIL if "fail" in verdicts else INCONCLUSIVE if "inconclusive" in verdicts else PASS, text


def _gate(options: argparse.Namespace) -> tuple[int, str]:
    """`bc-compare gate OLD NEW`."""
    path = found_policy(options.policy)
    keys = merged({} if path is None else read_policy(path), _flags(options))
    policy = policy_of(keys, "flags" if path is None else path)
    _refuse_overwriting(options, [path, policy.critical, policy.accepted])
    columns = replace(
        policy.columns, slices=tuple(dict.fromkeys((*policy.columns.slices, *(listed_names(options.slice) or ()))))
    )
    if options.new is None:
        _refuse_of_files(options)
    inputs = _inputs(options, columns, policy.classes, policy.new_classes)
    today = this_day()
    if options.accept:
        refuse_careless(policy.accepted, options.reason, options.expires, today)
    elif options.reason is not None or options.expires is not None:
        raise ValueError("--reason and --expires are of flips that --accept writes: say it too, or take them out")
    found = read(inputs, policy.confidence, _Progress())
    if not options.accept:
        made = report(found, policy.confidence, policy, today, options.search)
        return _STATUS[made.verdict], _written(made, options)
    blessed = blessing(policy, found.subject, options.reason, options.expires, today)
    made = report(found, policy.confidence, policy, today, options.search, blessed.flips)
    text = _written(made, options)
    # The list changes last: not before all that could be wrong is known, nor for an update that is not let through.
    if made.verdict == "fail":
        stays = f"{blessed.path} stays as it was"
        said = f"Nothing is accepted, as the update fails even if today's flips were, as shown here: {stays}"
    else:
        blessed.write()
        said = f"Accepted until {options.expires}: {blessed}"
    if _printed_for_programs(options):
        print(f"bc-compare: {one_line(said)}", file=sys.stderr)
        return _STATUS[made.verdict], text
    return _STATUS[made.verdict], f"{one_line(said)}\n{text}"


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
    _refuse_overwriting(options)
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
    made = {"json": curve_as_json(curve), "markdown": curve_as_markdown(curve)}
    printed = [text.rstrip("\n") for name, text in made.items() if getattr(options, name) == "-"]
    if options.html is not None:
        made["html"] = threshold_page(curve, Path(options.new).name, options.confidence)
    for name, text in made.items():
        if (path := getattr(options, name)) not in (None, "-"):
            write_whole(Path(path), text.encode("utf-8", "backslashreplace"))
    return _STATUS[verdict_of(curve)], printed[0] if printed else as_text(curve)


def _interrupted(options: argparse.Namespace) -> int:
    taken_up = "; the same command goes on where it stopped" if hasattr(options, "out") else ""
    print(f"\nbc-compare: interrupted{taken_up}", file=sys.stderr)
    return INTERRUPTED


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
    """How far long files and queries are, on a terminal only."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __call__(self, path: str, rows: int | str) -> None:
        if sys.stderr.isatty() and time.monotonic() - self._begin > _SHOW_PROGRESS_AFTER:
            far = rows if isinstance(rows, str) else f"{rows:,} rows"
            print(f"\r{one_line(path)}: {far} \033[K\r", end="", file=sys.stderr, flush=True)


def _refuse_overwriting(options: argparse.Namespace, others: Sequence[str | os.PathLike[str] | None] = ()) -> None:
    """Refuse a report that would be written over what is read."""
    read_from = [options.file, options.new, options.data, *(getattr(options, "noise", None) or ()), *others]
    known = {os.path.realpath(path) for path in read_from if path is not None}
    for name in ("json", "html", "markdown", "junit", "save"):
        path = getattr(options, name, None)
        if path not in (None, "-") and os.path.realpath(path) in known:
            raise ValueError(f"--{name} {path}: that is a file that is read; give the report another name")


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
    return ColumnNames(
        **_said(options, COLUMNS),
        slices=tuple(dict.fromkeys(listed_names(getattr(options, "slice", None)) or ())),
        right=right_of(_said(options, RIGHT), "flags"),
    )


def _said(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Of some options those that were said; a command need not have all of them."""
    given = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in given.items() if value is not None and value is not False}


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    columns = listed_names(options.slice) or []
    if options.per_slice and not columns:
        raise ValueError("--per-slice asks of the slices of --slice COLUMN: name one")
    if options.least is not None and not (options.per_class or options.per_slice):
        raise ValueError("--least is of --per-class and --per-slice: say one too, or write `least` in the policy")
    least = {} if options.least is None else {"least": options.least}
    return {
        **_said(options, ("promise", "min_gain", "non_inferiority", "confidence", "critical", "accepted")),
        "classes": listed_names(options.classes),
        "new_classes": listed_names(options.new_classes),
        "per_class": {"promise": options.per_class, **least} if options.per_class else None,
        "per_slice": [{"column": c, "promise": options.per_slice, **least} for c in columns]
        if options.per_slice
        else None,
        "columns": _said(options, COLUMNS),
        "right": _said(options, RIGHT),
    }


def _outputs(options: argparse.Namespace) -> Outputs:
    return Outputs(**_said(options, [each.name for each in fields(Outputs)]))


def _printed_for_programs(options: argparse.Namespace) -> bool:
    return "-" in (options.json, options.markdown, options.junit)


def _written(made: Report, options: argparse.Namespace) -> str:
    return write(made, _outputs(options)) or terminal(made)

"""`bc-compare`: show a saved comparison, and let a CI job pass or fail on it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from bc_core.comparison._comparison import Comparison
from bc_core.counting._scores import SCORES

PASS, FAIL, BAD_INPUT, INCONCLUSIVE = 0, 1, 2, 3

_EPILOG = """\
Exit status: 0 pass (or nothing to check), 1 fail, 2 bad input, 3 inconclusive.

A budget is checked on a one-sided Clopper-Pearson bound: it passes if even the unfavourable bound keeps it, fails
if even the favourable bound breaks it, and is otherwise inconclusive: more test instances are needed to tell.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Command line without the program's name. Default: that of the process.

    Returns:
        Exit status: 0 pass, 1 fail, 2 bad input, 3 inconclusive.

    Raises:
        SystemExit: With status 2 if the command line is wrong, 0 after `--help`.
    """
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # class names may hold what the terminal cannot show
    verdicts = []
    try:
        comparison = Comparison.load(options.file)
        lines = [comparison.describe(options.confidence)]
        for score, limit in (("nfr", options.max_nfr), ("btc", options.min_btc)):
            if limit is not None:
                verdict, line = _check(comparison, score, limit, options.confidence)
                verdicts.append(verdict)
                lines.append(line)
    except OSError as error:
        return _bad_input(f"{options.file}: {error.strerror or error}")
    except ValueError as error:
        return _bad_input(str(error))
    except MemoryError:
        return _bad_input(f"{options.file}: too large for the memory that there is")
    except Exception as error:
        # Python would exit with 1, and a CI job read "fail", a verdict that nobody reached.
        return _bad_input(f"{options.file}: cannot be judged ({type(error).__name__}: {error})")
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # the reader has seen enough; the verdict stands
        # Python flushes once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAIL if "fail" in verdicts else INCONCLUSIVE if "inconclusive" in verdicts else PASS


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
    print(f"bc-compare: {message}", file=sys.stderr)
    return BAD_INPUT


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bc-compare",
        description="Show a comparison of two models that Comparison.save wrote, and check it against budgets.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="a .json or .json.gz file")
    parser.add_argument(
        "--max-nfr", type=_share, metavar="X", help="budget for the negative flip rate, e.g. 0.005 or 0.5%%"
    )
    parser.add_argument(
        "--min-btc", type=_share, metavar="X", help="least backward trust compatibility, e.g. 0.98 or 98%%"
    )
    parser.add_argument(
        "--confidence", type=_confidence, default=0.95, metavar="X", help="of intervals and verdicts (default: 0.95)"
    )
    return parser

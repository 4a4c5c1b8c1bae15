"""`assert_compatible`: the gate as an assertion, for tests and for a pipeline's own code."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from bc_core.comparison._comparison import Comparison
from bc_core.gate._judging import Subject
from bc_core.gate._partitions import SlicedOverlap, subject_of_counts
from bc_core.gate._policy import policy_of, read_policy
from bc_core.gate._report import Report
from bc_core.gate._request import Inputs, Read, read, report
from bc_core.gate._shown import terminal
from bc_core.promise._grammar import Promise


class Asserted(NamedTuple):
    """What one assertion came to: a report, or the error that kept it from being judged."""

    report: Report | None
    raised: bool
    error: str = ""


# Told of every assertion, whether it holds or not: how the plugin of pytest gathers them.
listeners: list[Callable[[Asserted], None]] = []


def assert_compatible(
    old: Comparison | SlicedOverlap | str | os.PathLike[str],
    new: str | os.PathLike[str] | None = None,
    *,
    promise: str | Iterable[str] | Promise | None = None,
    policy: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
    inconclusive: bool = False,
) -> Report:
    """Raise an AssertionError where an update breaks too much; its message is what `bc-compare gate` prints.

    Args:
        old: What `compare` returned, the sum of `overlap_of_partition` over all partitions, the path of a saved
            comparison, or that of the old model's predictions.
        new: Path of the new model's predictions.
        promise: Bounds over all instances, such as ``"nfr <= 0.5%"``; in place of those of the policy.
        policy: Path of a policy file, or its keys.
        data: Path of a file of true labels and metadata.
        inconclusive: Whether an update may pass of which the instances are too few to tell.

    Returns:
        The report, where nothing is raised.

    Raises:
        AssertionError: The update fails, or (unless that is allowed) nothing can be told.
        TypeError: `old` is nothing that can be judged.
        ValueError: Something about the files or the policy is not as it should be.
        OSError: A file cannot be read.

    Example:
        >>> from bc_core import assert_compatible, compare
        >>> y = [0, 1] * 500
        >>> assert_compatible(compare(y, y, y), promise="nfr <= 0.5%").verdict
        'pass'
        >>> assert_compatible(compare(y, y, [0] * 1000), promise="nfr <= 0.5%")
        Traceback (most recent call last):
        AssertionError: FAIL: all instances: NFR at most 0.5% wanted; measured 50.0000%, ...
    """
    try:
        made = _judged(old, new, promise, policy, data)
    except Exception as error:
        _tell(Asserted(None, True, f"{type(error).__name__}: {error}"))
        raise
    broken = made.verdict == "fail" or (made.verdict == "inconclusive" and not inconclusive)
    _tell(Asserted(made, broken))
    if broken:
        raise AssertionError(terminal(made))
    return made


def _tell(asserted: Asserted) -> None:
    for tell in listeners:
        tell(asserted)


def _judged(
    old: Comparison | SlicedOverlap | str | os.PathLike[str],
    new: str | os.PathLike[str] | None,
    promise: str | Iterable[str] | Promise | None,
    policy: str | os.PathLike[str] | Mapping[str, Any] | None,
    data: str | os.PathLike[str] | None,
) -> Report:
    where, keys = "policy", policy
    if policy is not None and not isinstance(policy, Mapping):
        where, keys = os.fspath(policy), read_policy(policy)
    asked = dict(keys) if isinstance(keys, Mapping) else {}
    if promise is not None:
        asked["promise"] = promise
    held = policy_of(asked, where)
    if (new is not None or data is not None) and isinstance(old, (Comparison, SlicedOverlap)):
        raise ValueError(f"a {type(old).__name__} has been compared; `new` and `data` go with a file of predictions")
    if isinstance(old, Comparison):
        found = Read(Subject(old))
    elif isinstance(old, SlicedOverlap):
        found = Read(subject_of_counts(old))
    elif not isinstance(old, (str, os.PathLike)):
        raise TypeError(
            "expected a Comparison (of what `evaluate` returns its .comparison), a SlicedOverlap or paths of files, "
            f"got {type(old).__name__}; counts alone are judged by judge(promise, overlap)"
        )
    else:
        paths = (os.fspath(old), None if new is None else os.fspath(new))
        found = read(
            Inputs(
                *paths,
                held.columns,
                None if data is None else os.fspath(data),
                classes=held.classes,
                new_classes=held.new_classes,
            ),
            held.confidence,
        )
    return report(found, held.confidence, held)

"""Files of ids: critical instances, and flips that were accepted, each with its reason and until when."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bc_core._arrays import twins
from bc_core._texts import listed, shown
from bc_core.files._files import write_whole
from bc_core.predictions._reading import read_table
from bc_core.predictions._text_files import open_text

_HEADER = ("id", "reason", "expires")


@dataclass(frozen=True)
class AcceptedFlip:
    """A flip that somebody looked at and let through.

    Attributes:
        id: The instance.
        reason: Why it may break.
        expires: The last day on which it is accepted.
    """

    id: str
    reason: str
    expires: datetime.date


def read_ids(path: Path) -> list[str]:
    """The ids of a file: one a line, or the column `id` of a CSV.

    Raises:
        ValueError: It has none, or one comes twice.
        OSError: It cannot be read.
    """
    if path.name.lower().endswith(".csv"):
        ids = read_table(path, lambda names: ["id"] if "id" in names else names).texts("id").tolist()
    else:
        with open_text(str(path)) as file:
            ids = [text for line in file if (text := line.strip())]
    if not ids:
        raise ValueError(f"{path}: no id in it")
    _refuse_twins(path, ids)
    return [str(value) for value in ids]


def read_accepted(path: Path) -> list[AcceptedFlip]:
    """The accepted flips of a CSV of the columns id, reason and expires (a date such as 2027-03-31).

    Raises:
        ValueError: It is not there, a column is missing, a reason empty, a date none, or an id comes twice.
        OSError: It cannot be read.
    """
    if not path.exists():
        raise ValueError(
            f"{path}, the list of accepted flips, is not there. --accept --reason TEXT --expires DAY begins it; where "
            f"no flip is accepted leave it out of the policy."
        )
    with open_text(str(path)) as file:
        text = file.read()
    if text.strip() == ",".join(_HEADER):
        return []  # all of them were taken back
    table = read_table(path)
    columns = [table.texts(name).tolist() for name in _HEADER]
    flips = []
    for row, (instance, reason, expires) in enumerate(zip(*columns, strict=True)):
        if not reason.strip():
            raise table.fault("reason", row, "is empty: say why the flip is accepted")
        try:
            day = datetime.date.fromisoformat(expires.strip())
        except ValueError:
            raise table.fault("expires", row, f"is {shown(expires)}; expected a date such as 2027-03-31") from None
        flips.append(AcceptedFlip(instance, reason, day))
    _refuse_twins(path, [flip.id for flip in flips])
    return flips


def write_accepted(path: Path, flips: Iterable[AcceptedFlip]) -> None:
    """Write accepted flips, so that `read_accepted` reads them back; the file appears whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows((flip.id, flip.reason, flip.expires.isoformat()) for flip in flips)
    write_whole(path, text.getvalue().encode("utf-8"))


def refuse_unknown(unknown: Callable[[Sequence[str]], list[str]] | None, ids: Sequence[str]) -> None:
    """Refuse accepted ids that no instance has.

    Args:
        unknown: Of some ids, those that no instance has; None where that is not known.
        ids: The accepted ones.

    Raises:
        ValueError: There are some.
    """
    if unknown is not None and ids and (strange := unknown(ids)):
        raise ValueError(f"accepted ids that are not in the predictions: {listed(strange)}; take them out")


def _refuse_twins(path: Path, ids: list[str]) -> None:
    if several := twins(ids):
        raise ValueError(f"{path}: ids must be there once, and {listed(several)} come more than once")

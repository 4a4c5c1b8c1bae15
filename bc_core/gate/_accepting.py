"""`--accept`: today's flips as the list of accepted ones, which is written when all else is done."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from bc_core.gate._id_files import AcceptedFlip, read_accepted, read_ids, refuse_unknown, write_accepted
from bc_core.gate._judging import Subject
from bc_core.gate._policy import Policy


@dataclass(frozen=True)
class Blessing:
    """What the list of accepted flips is to be.

    Attributes:
        path: The list.
        flips: All that will be in it.
        new: How many of them are newly accepted.
        gone: How many of the list were none any more, and are taken off.
    """

    path: Path
    flips: tuple[AcceptedFlip, ...]
    new: int
    gone: int

    def write(self) -> None:
        """Write the list; what was there is replaced, or stays as it was.

        Raises:
            OSError: It cannot be written.
        """
        write_accepted(self.path, self.flips)

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.new} flips newly accepted, {len(self.flips) - self.new} accepted as before, "
            f"{self.gone} taken off, as they are none any more"
        )


def refuse_careless(
    path: Path | None, reason: str | None, expires: datetime.date | None, today: datetime.date
) -> tuple[Path, str, datetime.date]:
    """Refuse to accept flips without a file, a reason and a day, before anything is read.

    Raises:
        ValueError: So it is, or that day has passed.
    """
    if reason is None or expires is None:
        raise ValueError("--accept needs --reason TEXT and --expires DATE: why, and until when, the flips may be there")
    if path is None:
        raise ValueError("--accept writes the file that the policy names by `accepted`, or --accepted FILE: name one")
    if not path.name.lower().endswith(".csv"):
        raise ValueError(f"{path}: the list of accepted flips is a CSV, and its name must end in .csv")
    if not reason.strip():
        raise ValueError("--accept needs --reason TEXT: why the flips may be there")
    if expires < today:
        raise ValueError(f"--expires {expires}: that day has passed")
    return path, reason, expires


def blessing(
    policy: Policy, subject: Subject, reason: str | None, expires: datetime.date | None, today: datetime.date
) -> Blessing:
    """Today's flips, but for critical instances; nothing is written yet.

    Those that are none any more are taken off the list: the next update is held to today's state.

    Raises:
        ValueError: There is no file to write to, no reason or day, or what is there is damaged or of other instances.
        OSError: It cannot be read.
    """
    path, why, until = refuse_careless(policy.accepted, reason, expires, today)
    critical = set() if policy.critical is None else set(read_ids(policy.critical))
    known = {flip.id: flip for flip in read_accepted(path)} if path.exists() else {}
    # Of another test set the list would be thrown away, and its reasons with it.
    refuse_unknown(subject.unknown, list(known))
    flips, new = [], 0
    for instance in subject.flips:
        if instance in critical:
            continue
        before = known.get(instance)
        if before is None or before.expires < today:
            before, new = AcceptedFlip(instance, why, until), new + 1
        flips.append(before)
    return Blessing(path, tuple(flips), new, len(set(known) - {flip.id for flip in flips}))

"""Whether files fit into memory where instances are looked at one by one: the system would end the program unasked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bc_core.files._files import in_bytes
from bc_core.gate._large_files import connected
from bc_core.gate._origins import COLUMNAR, JSON, LEAST_BYTES, TEXT, NotPlainError, origin_of
from bc_core.predictions._columns import ColumnNames, keeping
from bc_core.predictions._reading import chunks
from bc_core.predictions._tables import Keep

# What is held of a byte of text, and of a value, at the very least: twice as much was measured.
_OF_TEXT, _OF_PACKED, _OF_NUMBER, _OF_NAME = 4, 12, 16, 60
_ROWS = 50_000
_CGROUP = Path("/sys/fs/cgroup")


def refuse_what_does_not_fit(paths: Sequence[str], said: ColumnNames, why: Sequence[str]) -> None:
    """Refuse files that memory cannot hold, before it is tried.

    Args:
        paths: The old model's file, the new one's, and others.
        said: Which columns are what.
        why: What was asked that looks at instances one by one, for the message.

    Raises:
        ValueError: They need more than there is, or a line of text is damaged.
    """
    files = [path for path in paths if os.path.isfile(path)]
    free = _free()
    if free is None or sum(map(os.path.getsize, files)) < LEAST_BYTES:
        return
    needed = sum(_needed(path, keeping(path, said, path == paths[1], path in paths[:2])) for path in files)
    if needed > free:
        for path in files:  # a damaged line may be all that keeps them from being counted, and is named
            if path.lower().endswith((*TEXT, *JSON)):
                for _ in chunks(path, keeping(path, said, path == paths[1], path in paths[:2]), _ROWS):
                    pass
        asked = f"{', '.join(why)} look at instances one by one" if why else "files of this kind are joined there"
        raise ValueError(
            f"{', '.join(paths)}: at least {in_bytes(needed)} of memory are needed, and {in_bytes(free)} are free, as "
            f"{asked}. Without that, Parquet of any size is counted; or draw a sample of the "
            "ids, or count partitions with overlap_of_partition (docs/gate.md)"
        )


def _needed(path: str, keep: Keep) -> int:
    size = os.path.getsize(path)
    if size < LEAST_BYTES:
        return 0
    name = path.lower()
    if not name.endswith(COLUMNAR):
        return size * (_OF_PACKED if name.endswith(".gz") else 1 if name.endswith(".npz") else _OF_TEXT)
    try:
        with connected(path) as (duckdb, connection):
            try:
                origin = origin_of(connection, path, "bc_room")
                relation = connection.sql(f"select * from {origin}")
                (rows,) = connection.execute(f"select count(*) from {origin}").fetchall()[0]
                types = dict(zip(relation.columns, map(str, relation.types), strict=True))
            except duckdb.Error:
                return 0
        kept = keep(list(types))
    except (ImportError, NotPlainError, ValueError):
        return 0  # reading it says what is wrong
    return int(rows) * sum(_OF_NAME if types[name] == "VARCHAR" else _OF_NUMBER for name in kept)


def _free() -> int | None:
    """Bytes of memory that the system, or what the process is confined to, has left; None where nobody says it."""
    found = []
    with suppress(OSError, KeyError, ValueError, IndexError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
        found.append(sum(int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree")))
    with suppress(OSError, KeyError, ValueError):  # "max" is no limit
        most, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        known = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        found.append(most - used + int(known["inactive_file"]))  # files that are only kept for the next reader
    return max(0, min(found)) if found else None

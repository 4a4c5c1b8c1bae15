"""An event file for TensorBoard, written without any framework."""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

_created = itertools.count()


class EventFile:
    """A file of summaries in a run of TensorBoard; it is made when the first are added, and never held open.

    Args:
        folder: the folder of the run; no other writer should be at work in it, as TensorBoard reads one growing file
            in a run.
        supersedes: whether steps that earlier files of the run have from this file's first step on are void, as when a
            training is resumed.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], supersedes: bool = True) -> None:
        _check_tensorboard()
        self.folder = Path(folder)
        self.supersedes = supersedes
        self.path: Path | None = None

    def add(self, step: int, scalars: Mapping[str, float], descriptions: Mapping[str, str]) -> None:
        """Append scalars of one step.

        Args:
            step: where on the horizontal axis.
            scalars: value by tag.
            descriptions: what TensorBoard says of a tag.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

        plugin = SummaryMetadata.PluginData(plugin_name="scalars")
        values = [
            Summary.Value(
                tag=tag,
                simple_value=value,
                metadata=SummaryMetadata(plugin_data=plugin, summary_description=descriptions.get(tag, "")),
            )
            for tag, value in scalars.items()
        ]
        self.add_summary(Summary(value=values), step)

    def add_summary(self, summary: Summary, step: int) -> None:
        """Append the summaries of one step, at once, so that what is in the file is whole.

        Args:
            summary: what `tensorboard.compat.proto.summary_pb2` calls so.
            step: where on the horizontal axis.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        buffer = io.BytesIO()
        records = RecordWriter(buffer)
        now = time.time()
        path = self.path
        if path is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads the files of a run by name, so the time comes first, and within a second the count must
            # sort as a number does: the tenth file after the ninth.
            name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{next(_created):06d}"
            path = self.folder / name
            records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
            if self.supersedes:
                start = SessionLog(status=SessionLog.START)
                records.write(Event(wall_time=now, step=step, session_log=start).SerializeToString())
        records.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
        with open(path, "ab") as file:
            file.write(buffer.getvalue())
        self.path = path


def _check_tensorboard() -> None:
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'Writing for TensorBoard needs its package: pip install "backward-compat-ml[tensorboard]".'
        ) from error

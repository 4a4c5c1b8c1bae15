"""Scalars for TensorBoard, written without TensorFlow, so on every backend."""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

_created = itertools.count()


class EventFile:
    """A file of scalars in a run of TensorBoard; it is made when the first are added, and never held open.

    Args:
        folder: the folder of the run; no other writer should be at work in it, as TensorBoard reads one growing file
            in a run.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        _check_tensorboard()
        self.folder = Path(folder)
        self.path: Path | None = None

    def add(self, step: int, scalars: Mapping[str, float], descriptions: Mapping[str, str]) -> None:
        """Append scalars of one step, at once, so that what is in the file is whole.

        Args:
            step: where on the horizontal axis; steps from here on of earlier files of the run are superseded.
            scalars: value by tag.
            descriptions: what TensorBoard says of a tag.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.summary.writer.record_writer import RecordWriter

        buffer = io.BytesIO()
        records = RecordWriter(buffer)
        now = time.time()
        path = self.path
        if path is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads the files of a run by name, so the time comes first.
            name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{next(_created)}"
            path = self.folder / name
            records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
            start = SessionLog(status=SessionLog.START)
            records.write(Event(wall_time=now, step=step, session_log=start).SerializeToString())
        plugin = SummaryMetadata.PluginData(plugin_name="scalars")
        values = [
            Summary.Value(
                tag=tag,
                simple_value=value,
                metadata=SummaryMetadata(plugin_data=plugin, summary_description=descriptions.get(tag, "")),
            )
            for tag, value in scalars.items()
        ]
        records.write(Event(wall_time=now, step=step, summary=Summary(value=values)).SerializeToString())
        with open(path, "ab") as file:
            file.write(buffer.getvalue())
        self.path = path


def _check_tensorboard() -> None:
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'log_dir needs TensorBoard\'s writer: pip install "backward-compat-ml[tensorboard]", or leave log_dir out.'
        ) from error

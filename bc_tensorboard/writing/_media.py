"""Texts and images of the instances of a data set, kept once for all steps of a run, beside its event files.

A pack is a file that only grows: a magic word, then records of an id and a text or an image. A record that a crash has
cut off is passed over by readers and overwritten by the next writer, so that nothing before it is lost. Writers take
turns by a lock on the file, since one must not take what another is about to finish for such a record.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from bc_core.comparison._comparison import Id
from bc_tensorboard._plugin_name import PLUGIN_NAME
from bc_tensorboard.writing._format import FULL, IMAGE, LEFT_OUT, NO_IMAGE, REDUCED, encode_media

MAGIC = b"BCMEDIA\x01"
FOLDER = Path("plugins") / PLUGIN_NAME

_TEXT, _IMAGE, _LEFT_OUT = 1, 2, 3
_INTEGER, _STRING = 1, 2
# Kind, kind of id, length of id, length of content, checksum of both.
_RECORD = struct.Struct("<BBIII")
# Records are written in pieces of about this size, so that memory and the time under the lock stay small.
_PIECE = 2**22
# File systems take names of 255 bytes.
_LONGEST_NAME = 200
# How much of a text goes with a table, in characters: two lines of it. The whole is asked for when it is looked at.
EXCERPT = 120


class Media(NamedTuple):
    """What a pack holds.

    Attributes:
        texts: Text by id.
        images: Where the image of an id is in the file: offset and length.
        end: Where whole records end.
        left_out: Instances whose images a limit has left out.
        longer: Of texts of which only the beginning is in `texts`, where they are in the file: offset and length.
    """

    texts: dict[Id, str]
    images: dict[Id, tuple[int, int]]
    end: int
    left_out: frozenset[Id] = frozenset()
    longer: Mapping[Id, tuple[int, int]] = MappingProxyType({})

    def encode(self, full: Media | None = None) -> bytes:
        """What the dashboard asks for: the texts, and of which instances there is an image.

        Args:
            full: The pack of larger images, if there is one.
        """
        return encode_known(
            [*self.texts, *self.images, *self.left_out],
            self.texts,
            self.images,
            self.left_out,
            longer=self.longer,
            full=() if full is None else full.images,
            reduced=() if full is None else full.left_out,
        )


def encode_known(
    ids: Iterable[Id],
    texts: Mapping[Id, str],
    pictured: Container[Id],
    left_out: Container[Id] = (),
    *,
    longer: Container[Id] = (),
    full: Container[Id] = (),
    reduced: Container[Id] = (),
) -> bytes:
    """Encode what is known of instances: their texts, and which have an image or would have one but for a limit.

    Args:
        ids: The instances, and perhaps others of which nothing is known.
        texts: Text by id.
        pictured: Instances that have an image.
        left_out: Those whose image a limit has left out.
        longer: Those whose text goes on.
        full: Those that have a larger image too.
        reduced: Those whose larger image a limit has left out.
    """
    # Whole numbers and text cannot share a column; a data set has one kind, unless its ids were changed midway.
    known = [each for each in dict.fromkeys(ids) if each in pictured or each in left_out or texts.get(each)]
    known = [each for each in known if isinstance(each, type(known[-1]))]

    def image_of(each: Id) -> int:
        if each in pictured:
            return FULL if each in full else REDUCED if each in reduced else IMAGE
        return LEFT_OUT if each in left_out else NO_IMAGE

    shown = [texts.get(each, "") for each in known]
    return encode_media(known, shown, [image_of(each) for each in known], [each in longer for each in known])


def excerpts_of(texts: Mapping[Id, str]) -> tuple[dict[Id, str], dict[Id, str]]:
    """Texts as they go with a table, and those of them that are longer."""
    longer = {each: text for each, text in texts.items() if len(text) > EXCERPT}
    return {each: text[:EXCERPT] for each, text in texts.items()}, longer


def full_path(path: Path) -> Path:
    """Where the pack of larger images is, beside a pack."""
    return path.with_suffix(".full")


def media_path(run: str | os.PathLike[str], dataset: str) -> Path:
    """Where the pack of a data set is, for the folder of a run."""
    name = quote(dataset, safe="")
    if len(name) > _LONGEST_NAME:
        # A hash keeps apart what begins alike.
        name = f"{name[: _LONGEST_NAME - 33]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return Path(run) / FOLDER / f"{name}.media"


def read_media(path: str | os.PathLike[str], excerpt: int | None = None) -> Media:
    """List what a pack holds, without reading its images.

    Args:
        path: The pack.
        excerpt: How many characters of each text to keep. Default: all.

    Returns:
        Its texts and the places of its images; of an id that comes twice the last holds.

    Raises:
        ValueError: If the file is something else.
        OSError: If it cannot be read.

    Example:
        >>> import tempfile
        >>> from bc_tensorboard.writing._media import append_media, media_path, read_media
        >>> with tempfile.TemporaryDirectory() as run:
        ...     path = media_path(run, "test")
        ...     append_media(path, [(7, "seventh")], [])
        ...     read_media(path).texts
        {7: 'seventh'}
    """
    texts: dict[Id, str] = {}
    images: dict[Id, tuple[int, int]] = {}
    longer: dict[Id, tuple[int, int]] = {}
    left_out: set[Id] = set()
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            if MAGIC.startswith(magic):
                return Media(texts, images, 0)  # cut off in its first bytes
            raise ValueError(f"{path}: not a file of texts and images; it begins with {magic!r} instead of {MAGIC!r}")
        end = len(MAGIC)
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            kind, id_kind, id_length, length, checksum = _RECORD.unpack(head)
            start = end + _RECORD.size + id_length
            if start + length > size or kind not in (_TEXT, _IMAGE, _LEFT_OUT) or id_kind not in (_INTEGER, _STRING):
                break
            name = file.read(id_length)
            if kind == _TEXT:
                content = file.read(length)
                if zlib.crc32(content, zlib.crc32(name)) != checksum:
                    break
            else:
                file.seek(length, os.SEEK_CUR)
            try:
                instance: Id = int(name) if id_kind == _INTEGER else name.decode("utf-8")
            except ValueError:
                break
            if kind == _TEXT:
                whole = content.decode("utf-8", "replace")
                texts[instance] = whole[:excerpt]
                longer.pop(instance, None)
                if excerpt is not None and len(whole) > excerpt:
                    longer[instance] = (start, length)
            elif kind == _IMAGE:
                images[instance] = (start, length)
            else:
                left_out.add(instance)
            end = start + length
    return Media(texts, images, end, frozenset(left_out - images.keys()), longer)


def read_image(path: str | os.PathLike[str], media: Media, instance: Id) -> bytes | None:
    """Read one image of a pack; None if there is none."""
    place = media.images.get(instance)
    if place is None:
        return None
    with open(path, "rb") as file:
        file.seek(place[0])
        return file.read(place[1])


def read_text(path: str | os.PathLike[str], media: Media, instance: Id) -> str | None:
    """Read one text of a pack in full; None if there is none."""
    place = media.longer.get(instance)
    if place is None:
        return media.texts.get(instance)
    with open(path, "rb") as file:
        file.seek(place[0])
        return file.read(place[1]).decode("utf-8", "replace")


def search_longer(path: str | os.PathLike[str], media: Media, wanted: str) -> Iterator[Id]:
    """Find the instances whose text, longer than its excerpt, contains another, whatever the case of letters."""
    wanted = wanted.lower()
    with open(path, "rb") as file:
        for instance, (start, length) in media.longer.items():
            file.seek(start)
            if wanted in file.read(length).decode("utf-8", "replace").lower():
                yield instance


def append_media(
    path: str | os.PathLike[str],
    texts: Iterable[tuple[Id, str]],
    images: Iterable[tuple[Id, bytes]],
    left_out: Iterable[Id] = (),
) -> None:
    """Add texts and images to a pack, and make it where there is none.

    Args:
        path: The pack; its folder is made.
        texts: Pairs of id and text.
        images: Pairs of id and an encoded image. Of a generator little is in memory at a time, and what it made before
            it failed is kept.
        left_out: Ids of instances whose images a limit leaves out.

    Raises:
        ValueError: If the file is something else.
        OSError: If it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    records = chain(
        (_record(_TEXT, instance, text.encode("utf-8", "replace")) for instance, text in texts),
        (_record(_IMAGE, instance, image) for instance, image in images),
        (_record(_LEFT_OUT, instance, b"") for instance in left_out),
    )
    piece, end = bytearray(), None
    try:
        for record in records:
            piece += record
            if len(piece) >= _PIECE:
                # Emptied first: what cannot be written, as on a full disk, must not be tried once more below.
                full, piece = piece, bytearray()
                end = _append(path, full, end)
    finally:
        _append(path, piece, end)


def _append(path: Path, records: bytearray, last_end: int | None) -> int:
    """Add whole records at once; returns where the file then ends."""
    with open(path, "ab") as file:
        _lock(file)
        size = os.path.getsize(path)
        # Nobody else wrote since: there is nothing to look through.
        end = size if size == last_end else read_media(path).end
        if end < size:
            file.truncate(end)
        start = b"" if end else MAGIC
        file.write(start + records)
        return end + len(start) + len(records)


def _lock(file: BinaryIO) -> None:
    """Wait until no other process adds to the file, until it is closed; one that only reads need not wait.

    Windows and some network drives have no such lock: there a run's folder is for one process at a time.
    """
    if sys.platform != "win32":
        import fcntl

        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)


def _record(kind: int, instance: Id, content: bytes) -> bytes:
    is_text = isinstance(instance, str)
    name = str(instance).encode("utf-8", "replace")
    checksum = zlib.crc32(content, zlib.crc32(name))
    head = _RECORD.pack(kind, _STRING if is_text else _INTEGER, len(name), len(content), checksum)
    return head + name + content

"""Thumbnails of instances, from whatever a data set holds images as."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bc_core._arrays import to_numpy
from bc_core.comparison._comparison import Id
from bc_tensorboard.writing._by_id import by_id
from bc_tensorboard.writing._media import append_media

if TYPE_CHECKING:
    from PIL.Image import Image

# Photographs take a fifth of the space as JPEG; drawings, digits and small pictures keep every pixel as PNG.
_JPEG_FROM = 64
_JPEG_QUALITY = 85
_CHANNELS = (1, 3, 4)
# Larger pictures are written in pieces of about this many bytes.
_PIECE = 2**22


def thumbnail(image: Any, size: int = 96) -> bytes | None:
    r"""Make a small PNG or JPEG of an image.

    Args:
        image: An array or a tensor of shape (H, W), (H, W, C) or (C, H, W) with C = 1, 3 or 4, as uint8, bool or as
            floats in 0..1; a PIL image (16 bits are scaled to 8, and it is turned as its EXIF says); the bytes of a
            PNG, JPEG or WebP file, a file opened for reading them, or a response of Flask that holds them; a pair
            (image, label), of which the first is taken; or None.
        size: Longer side, in pixels; smaller images stay as they are.

    Returns:
        The encoded image; None for None.

    Raises:
        ValueError: If it is no image: of another shape, empty, damaged, or floats outside 0..1.
        TypeError: If it is text, or cannot be made an array.

    Example:
        >>> import numpy as np
        >>> from bc_tensorboard.writing._images import thumbnail
        >>> thumbnail(np.zeros((28, 28)))[:4]
        b'\x89PNG'
    """
    return pictures(image, size)[0]


def pictures(image: Any, size: int = 96, full_size: int = 0) -> tuple[bytes | None, bytes | None]:
    """Make a thumbnail of an image, and a larger picture where the image is larger.

    Both are made anew, so that nothing that a camera wrote beside the pixels, such as the place, gets into logs.

    Args:
        image: As `thumbnail` takes it.
        size: Longer side of the thumbnail, in pixels.
        full_size: Longest side of the larger picture.

    Returns:
        The thumbnail, and the larger picture; None where there is none.

    Raises:
        ValueError: As `thumbnail`.
        TypeError: As `thumbnail`.

    Example:
        >>> import numpy as np
        >>> from bc_tensorboard.writing._images import pictures
        >>> small, full = pictures(np.zeros((300, 200)), 96, full_size=1024)
        >>> len(small) < len(full), pictures(np.zeros((28, 28)), 96, full_size=1024)[1]
        (True, None)
    """
    if isinstance(image, (tuple, list)) and len(image) and not isinstance(image[0], (int, float)):
        # An item of a data set: the image comes first.
        image = image[0]
    image = _content(image)
    if image is None:
        return None, None
    if isinstance(image, (str, os.PathLike)):
        raise TypeError(
            f"expected an image, got the text {str(image)[:80]!r}; if it names a file, open it (PIL.Image.open) or "
            "read its bytes"
        )
    picture = _picture(image)
    full = None
    if max(picture.size) > size:
        if full_size > size:
            larger = picture.copy()
            larger.thumbnail((full_size, full_size))
            full = _encoded(larger)
        picture.thumbnail((size, size))
    return _encoded(picture), full


def _encoded(picture: Image) -> bytes:
    buffer = io.BytesIO()
    if picture.mode == "RGB" and max(picture.size) >= _JPEG_FROM:
        picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    else:
        picture.save(buffer, "PNG", optimize=False)
    return buffer.getvalue()


def images_by_id(images: Any) -> Callable[[Id], Any]:
    """How images are asked for by id, as `by_id`; a function may also answer as a route of Flask would.

    `send_file` and its kin work within a request only, and there is none here: the function is called as if there was.

    Raises:
        TypeError: As `by_id`.
    """
    ask = by_id(images, "images")
    if ask is not images:
        return ask

    def asked(instance: Id) -> Any:
        if "flask" not in sys.modules:
            try:
                return ask(instance)
            except RuntimeError:
                # It may be the function that imports Flask.
                if "flask" not in sys.modules:
                    raise
        import flask

        if flask.has_request_context():
            return ask(instance)
        with flask.Flask(__name__, root_path=os.getcwd()).test_request_context():
            return _content(ask(instance))

    return asked


def _content(image: Any) -> Any:
    """The bytes of a response or an open file; anything else as it is."""
    if hasattr(image, "get_data"):
        # It would keep a file that is passed through to itself.
        image.direct_passthrough = False
        content = image.get_data()
        if hasattr(image, "close"):
            image.close()
        return content
    if hasattr(image, "getvalue"):
        return image.getvalue()
    if isinstance(image, io.IOBase):
        with image:
            return image.read()
    return image


def _picture(image: Any) -> Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(image, (bytes, bytearray, memoryview)):
        try:
            image = Image.open(io.BytesIO(image))
            image.load()
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise ValueError(f"expected the bytes of a PNG, JPEG or WebP file, got something else ({error})") from error
    if isinstance(image, Image.Image):
        # A camera held upright says so beside the pixels.
        turned: Image.Image = ImageOps.exif_transpose(image)
        # Of the file, which a turned copy is not.
        form = image.format
        if turned.mode.startswith("I;16") or (turned.mode == "I" and form == "PNG"):
            # Converted by Pillow, everything from 255 on is white. Values of 8 bits in a wider image stay as they are.
            wide = np.asarray(turned).astype(np.int64)
            return Image.fromarray((wide // 257 if wide.max(initial=0) > 255 else wide).astype(np.uint8))
        if turned.mode in ("I", "F"):
            return Image.fromarray(_bytes_of_pixels(np.asarray(turned)))
        plain = "RGBA" if "A" in turned.getbands() or "transparency" in turned.info else "RGB"
        if turned.mode in ("L", "RGB", "RGBA"):
            return turned.copy()
        return turned.convert("L" if turned.mode == "1" else plain)
    return Image.fromarray(_bytes_of_pixels(to_numpy(image, "image")))


def _bytes_of_pixels(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Pixels as uint8 of shape (H, W) or (H, W, 3 or 4)."""
    shape = pixels.shape
    if pixels.ndim == 3 and shape[2] not in _CHANNELS and shape[0] in _CHANNELS:
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or pixels.size == 0 or (pixels.ndim == 3 and pixels.shape[2] not in _CHANNELS):
        raise ValueError(
            f"expected an image of shape (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, got {shape}"
        )
    if pixels.dtype.kind == "b":
        two_tones: np.ndarray[Any, Any] = pixels.astype(np.uint8) * np.uint8(255)
        return two_tones
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind == "f":
        # Of what was computed, perhaps in a narrower type, and should be 0 or 1.
        slack = max(1e-6, 4 * float(np.finfo(pixels.dtype).eps))
        # Not (...): NaN compares false with everything.
        if not (low >= -slack and high <= 1 + slack):
            raise ValueError(
                f"expected floats in 0..1, got {low:g} to {high:g}; undo the normalisation, or divide by 255, "
                "before images are shown"
            )
        scaled: np.ndarray[Any, Any] = np.round(np.clip(pixels.astype(np.float64), 0, 1) * 255).astype(np.uint8)
        return scaled
    if pixels.dtype.kind not in "iu" or low < 0 or high > 255:
        raise ValueError(f"expected whole numbers in 0..255 or floats in 0..1, got {pixels.dtype} {low} to {high}")
    return pixels.astype(np.uint8)


class Thumbnails:
    """Thumbnails of some instances, made one by one as they are iterated over; what fails is counted, not raised.

    Args:
        images: As `by_id` takes.
        ids: Ids of the instances.
        size: Longer side, in pixels.
        full: Takes the larger pictures, and says how large they are to be.

    Attributes:
        failed: How many images could not be made.
        reason: Of the first of them.
    """

    def __init__(self, images: Any, ids: Iterable[Id], size: int, full: LargerPictures | None = None) -> None:
        self._ask, self._ids, self._size, self._full = images_by_id(images), ids, size, full
        self.failed = 0
        self.reason = ""

    def __iter__(self) -> Iterator[tuple[Id, bytes]]:
        for instance in self._ids:
            try:
                content, larger = pictures(self._ask(instance), self._size, self._full.size if self._full else 0)
            except Exception as error:  # a data set's own code: whatever it raises must not cost the comparison
                self.failed += 1
                self.reason = self.reason or f"{instance!r}: {type(error).__name__}: {error}"
                continue
            if larger is not None and self._full is not None:
                self._full.take(instance, larger)
            if content is not None:
                yield instance, content


class LargerPictures:
    """Writes larger pictures to their pack as they come, as far as there is room.

    Args:
        path: The pack.
        size: Longest side, in pixels.
        most: How many bytes the pack takes at most.
    """

    def __init__(self, path: Path, size: int, most: int) -> None:
        self._path, self.size = path, size
        self._room = most - (path.stat().st_size if path.exists() else 0)
        self._waiting: list[tuple[Id, bytes]] = []
        self._left_out: list[Id] = []
        self._bytes = 0

    def take(self, instance: Id, picture: bytes) -> None:
        """Keep a picture, or that it is left out."""
        if len(picture) > self._room:
            self._left_out.append(instance)
            return
        self._room -= len(picture)
        self._bytes += len(picture)
        self._waiting.append((instance, picture))
        if self._bytes > _PIECE:
            self.write()

    def write(self) -> None:
        """Write what was taken."""
        waiting, left_out = self._waiting, self._left_out
        self._waiting, self._left_out, self._bytes = [], [], 0
        if waiting or left_out:
            append_media(self._path, [], waiting, left_out)

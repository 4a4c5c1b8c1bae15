"""Thumbnails, read back with Pillow."""

from __future__ import annotations

import io
import subprocess
import sys

import flask
import numpy as np
import pytest
import torch
from PIL import Image

from bc_tensorboard.writing._by_id import by_id
from bc_tensorboard.writing._images import LargerPictures, Thumbnails, images_by_id, pictures, thumbnail
from bc_tensorboard.writing._media import read_media


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def _written(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


GREY = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10)
COLOUR = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (GREY, GREY),
        (GREY[:, :, None], GREY),
        (GREY[None], GREY),
        (GREY / 255, GREY),
        (torch.from_numpy(GREY / 255).float(), GREY),
        (GREY > 60, np.where(GREY > 60, 255, 0)),
        (GREY.astype(np.int64), GREY),
        (COLOUR, COLOUR),
        (torch.from_numpy(COLOUR).permute(2, 0, 1), COLOUR),
        ((COLOUR, 3), COLOUR),
        (Image.fromarray(COLOUR), COLOUR),
        (Image.fromarray(GREY).convert("I;16"), GREY),
        (Image.fromarray(GREY.astype(np.uint16) * 257), GREY),
        (_written(Image.fromarray(GREY.astype(np.uint16) * 257)), GREY),
        (Image.fromarray((GREY / 255).astype(np.float32)), GREY),
        (Image.fromarray(GREY.astype(np.int32)), GREY),
        (np.where(GREY.max() == GREY, 1.0000001, GREY / GREY.max()), np.round(GREY / GREY.max() * 255)),
        (thumbnail(COLOUR), COLOUR),
    ],
    ids=[
        "hw",
        "hw1",
        "1hw",
        "float",
        "tensor",
        "bool",
        "int64",
        "hwc",
        "chw",
        "item",
        "pil",
        "8in16",
        "16bit",
        "16bitpng",
        "F",
        "I",
        "rounding",
        "png",
    ],
)
def test_small_images_keep_every_pixel(image, wanted):
    content = thumbnail(image)
    assert opened(content).format == "PNG"
    assert opened(content).size == (10, 12)
    np.testing.assert_array_equal(np.asarray(opened(content)), wanted)


def test_an_image_is_turned_as_its_camera_was():
    exif = Image.Exif()
    exif[274] = 6  # Orientation: to be turned clockwise by 90 degrees
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "PNG", exif=exif)
    for image in (buffer.getvalue(), Image.open(io.BytesIO(buffer.getvalue()))):
        np.testing.assert_array_equal(np.asarray(opened(thumbnail(image))), np.rot90(COLOUR, -1))


def test_transparency_is_kept():
    pixels = np.dstack([COLOUR, np.full((12, 10), 77, np.uint8)])
    np.testing.assert_array_equal(np.asarray(opened(thumbnail(pixels))), pixels)


def test_photographs_are_scaled_down_and_small():
    ramp = np.linspace(0, 255, 400 * 300).reshape(300, 400)
    content = thumbnail(np.dstack([ramp, ramp[::-1], ramp]).astype(np.uint8), size=100)
    assert (opened(content).format, opened(content).size) == ("JPEG", (100, 75))
    assert len(content) < 10_000


def test_no_image_is_no_image():
    assert thumbnail(None) is None
    assert thumbnail((None, 3)) is None


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(5), r"expected an image of shape.*\(5,\)"),
        (np.zeros((5, 5, 2)), "1, 3 or 4 channels"),
        (np.zeros((0, 4)), "expected an image of shape"),
        (np.full((4, 4), 1.5), "floats in 0..1, got 1.5 to 1.5; undo the normalisation"),
        (np.full((4, 4), np.nan), "floats in 0..1"),
        (Image.fromarray(np.full((4, 4), 300.0, np.float32)), "floats in 0..1, got 300"),
        (Image.fromarray(np.full((4, 4), 70_000, np.int32)), "0..255"),
        (np.full((4, 4), 300), r"0..255"),
        (b"not an image", "bytes of a PNG, JPEG or WebP"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        thumbnail(image)


def test_images_come_from_functions_mappings_arrays_and_data_sets():
    stack = np.stack([GREY, GREY + 1])
    data = torch.utils.data.TensorDataset(torch.from_numpy(stack), torch.tensor([5, 6]))
    for images in (lambda i: stack[i], {1: stack[1]}, stack, torch.from_numpy(stack), data, list(stack)):
        np.testing.assert_array_equal(np.asarray(opened(thumbnail(by_id(images, "images")(1)))), GREY + 1)
    assert by_id({1: GREY}, "images")(2) is None
    assert by_id(str, "metadata")(7) == "7"
    with pytest.raises(TypeError, match="expected a function of the id, a mapping.*got str"):
        by_id("folder", "images")


def test_a_path_is_no_image_and_text_is_no_index():
    with pytest.raises(TypeError, match="got the text 'x/1.png'; if it names a file, open it"):
        thumbnail("x/1.png")
    with pytest.raises(TypeError, match="images: the ids are text, and ndarray is indexed by number; give a mapping"):
        by_id(np.zeros((3, 8, 8)), "images")("photo 1")


def test_what_fails_is_counted_and_the_rest_made():
    thumbnails = Thumbnails({1: GREY, 2: b"broken", 4: GREY}.get, [1, 2, 3, 4], 96)
    assert [instance for instance, _ in thumbnails] == [1, 4]
    assert thumbnails.failed == 1
    assert thumbnails.reason.startswith("2: ValueError: expected the bytes of a PNG")


def _png(size=(5, 3)):
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


def _answers(path):
    path.write_bytes(_png().getvalue())
    yield "file", lambda instance: flask.send_file(_png(), mimetype="image/png")
    yield "path", lambda instance: flask.send_file(path)
    yield "directory", lambda instance: flask.send_from_directory(path.parent, path.name)
    yield "made", lambda instance: flask.make_response(_png().getvalue(), 200, {"Content-Type": "image/png"})
    yield "response", lambda instance: flask.Response(_png().getvalue(), mimetype="image/png")
    yield "with status", lambda instance: (flask.send_file(_png(), mimetype="image/png"), 200)
    yield "no route", lambda instance: _png()
    yield "opened", lambda instance: path.open("rb")


def test_a_function_may_answer_as_a_route_of_flask(tmp_path):
    for name, answer in _answers(tmp_path / "image.png"):
        images = dict(Thumbnails(answer, [3], 96))
        assert Image.open(io.BytesIO(images[3])).size == (5, 3), name


def test_a_function_may_be_the_first_to_import_flask(tmp_path):
    code = f"""
import sys
from bc_tensorboard.writing._images import images_by_id, thumbnail
def image(instance):
    from flask import send_file
    return send_file({str(tmp_path / "image.png")!r})
def broken(instance):
    raise RuntimeError("no such instance")
ask = images_by_id(broken)
try:
    ask(1)
except RuntimeError as error:
    print(error, "flask" in sys.modules)
print(thumbnail(images_by_id(image)(1))[1:4])
"""
    (tmp_path / "image.png").write_bytes(_png().getvalue())
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["no such instance False", "b'PNG'"]


def test_within_a_request_it_is_that_of_the_caller():
    with flask.Flask("mine").test_request_context("/of/mine"):
        assert images_by_id(lambda instance: flask.request.path)(1) == "/of/mine"


def test_a_larger_picture_is_made_where_the_image_is_larger_and_tells_nothing_beside_its_pixels():
    camera = Image.new("RGB", (300, 200), "red")
    exif = camera.getexif()
    exif[0x010E] = "a secret place"
    held = io.BytesIO()
    camera.save(held, "JPEG", exif=exif)
    small, full = pictures(held.getvalue(), 96, 1024)
    assert (opened(small).size, opened(full).size) == ((96, 64), (300, 200))
    assert b"secret" in held.getvalue()
    assert b"secret" not in full
    assert opened(pictures(camera, 96, 150)[1]).size == (150, 100)
    assert pictures(GREY, 96, 1024)[1] is None
    assert pictures(camera, 96)[1] is None


def test_larger_pictures_beyond_the_room_are_left_out_and_thumbnails_stay(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 200, 200, 3), dtype=np.uint8)
    size = len(pictures(noise[0], 96, 1024)[1])
    path = tmp_path / "test.full"
    full = LargerPictures(path, 1024, most=int(2.5 * size))
    made = dict(Thumbnails(noise, [0, 1, 2], 96, full))
    full.write()
    media = read_media(path)
    assert (set(made), set(media.images), media.left_out) == ({0, 1, 2}, {0, 1}, frozenset([2]))
    again = LargerPictures(path, 1024, most=int(2.5 * size))
    list(Thumbnails(noise, [1], 96, again))
    again.write()
    assert read_media(path).left_out == {2}, "1 is there already, though it finds no room again"

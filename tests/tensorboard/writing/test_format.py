"""The binary form of comparisons: what goes in comes out, and damage is told of."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest

from bc_core import Comparison, compare
from bc_tensorboard.writing._format import decode, encode_comparison, encode_media


def random_comparison(size=500, classes=7, **options) -> Comparison:
    random = np.random.default_rng(3)
    target = random.integers(0, classes, size)
    h1, h2 = (np.where(random.random(size) < 0.2, random.integers(0, classes, size), target) for _ in range(2))
    return compare(target, h1, h2, num_classes=classes, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ids": np.arange(500)[::-1] * 1000 - 7},
        {"ids": [f"käfer 🐱 {i}" for i in range(500)], "metadata": lambda i: f"</script>{i}"},
        {"ids": 2**60 + np.arange(500)},
        {"ids": np.arange(500) * 2**40},
        {"ids": np.where(np.arange(500) < 250, np.arange(500) - 2**53, 2**53 - np.arange(500)[::-1])},
        {
            "class_names": ["a" * 10_000, '"', "<b>", "🐱", "", "\n", "'"],
            "name": "x" * 10_000,
            "step": 3,
            "lambda_c": 0.5,
        },
    ],
    ids=["positions", "falling", "text", "beyond", "wide", "far apart", "captions"],
)
def test_what_goes_in_comes_out(options):
    comparison = random_comparison(**options)
    header, columns = decode(
        encode_comparison(comparison, dataset="a/b", dissonance="new error", uncertain_classes=[2])
    )
    table = comparison.instances
    ids = columns["ids"] if isinstance(columns["ids"], list) else columns["ids"].tolist()
    assert ids == [str(i) if isinstance(i, int) and i > 2**53 else i for i in table.ids.tolist()]
    for name, wanted in (("target", table.target), ("h1", table.h1_pred), ("h2", table.h2_pred)):
        np.testing.assert_array_equal(columns[name], wanted)
    np.testing.assert_array_equal(columns["counts"], comparison.overlap.counts.ravel())
    assert columns.get("metadata") == (None if table.metadata is None else table.metadata.tolist())
    names = header["class_names"]
    assert (names if names is None else tuple(names)) == comparison.class_names
    assert (header["name"], header["step"], header["lambda_c"]) == (
        comparison.name,
        comparison.step,
        comparison.lambda_c,
    )
    assert (header["dataset"], header["dissonance"], header["uncertain_classes"]) == ("a/b", "new error", [2])


def test_without_any_error_there_are_empty_columns():
    _, columns = decode(encode_comparison(compare([0, 1], [0, 1], [0, 1])))
    assert {name: len(column) for name, column in columns.items()} == {
        "counts": 8,
        "ids": 0,
        "target": 0,
        "h1": 0,
        "h2": 0,
    }


def test_text_that_has_no_utf8_does_not_cost_the_comparison():
    _, columns = decode(encode_comparison(compare([0], [1], [0], metadata=["half a pair \ud83d"])))
    assert columns["metadata"] == ["half a pair ?"]


def test_media_come_back():
    ids, texts, images = ["a", "🐱"], ["", "</b>"], [True, False]
    _, columns = decode(encode_media(ids, texts, images))
    assert (columns["ids"], columns["text"], columns["has_image"].tolist()) == (ids, texts, [1, 0])


def test_a_hundred_thousand_rows_take_less_than_a_megabyte():
    random = np.random.default_rng(0)
    size = 1_000_000
    target = random.integers(0, 1000, size)
    wrong = random.random(size) < 0.1
    h2 = np.where(wrong, random.integers(0, 1000, size), target)
    content = encode_comparison(compare(target, target, h2, num_classes=1000))
    # 6 bytes for three labels of a thousand classes and one for the step to the next id, 100,000 times, before packing.
    assert len(content) < 700_000


CONTENT = encode_comparison(random_comparison(), dataset="test")


@pytest.mark.parametrize("length", [0, 3, 4, 11, 12, 40, len(CONTENT) - 1])
def test_cut_off_content_is_refused(length):
    with pytest.raises(ValueError, match="not a table of the dashboard|cut off|damaged"):
        decode(CONTENT[:length])


def changed(**changes) -> bytes:
    length = struct.unpack_from("<I", CONTENT, 8)[0]
    header = json.loads(CONTENT[12 : 12 + length]) | changes
    text = json.dumps(header).encode()
    return CONTENT[:8] + struct.pack("<I", len(text)) + text + CONTENT[12 + length :]


def test_a_newer_version_or_kind_is_named_with_what_to_do():
    with pytest.raises(ValueError, match="written in version 2.*update backward-compat-ml"):
        decode(CONTENT[:4] + struct.pack("<I", 2) + CONTENT[8:])
    with pytest.raises(ValueError, match="unknown kind 'hologram'.*update backward-compat-ml"):
        decode(changed(kind="hologram"))


def test_columns_that_contradict_the_header_are_refused():
    length = struct.unpack_from("<I", CONTENT, 8)[0]
    with pytest.raises(ValueError, match="columns are not as long"):
        decode(CONTENT[: 12 + length] + zlib.compress(zlib.decompress(CONTENT[12 + length :]) + b"more"))
    with pytest.raises(ValueError, match="damaged"):
        decode(changed(columns=[{"name": "counts"}]))


def test_classes_that_h1_did_not_know_are_written_where_there_are_some():
    given = ([0, 1, 2], [0, 1, 0], [0, 0, 2])
    header, _ = decode(encode_comparison(compare(*given, new_classes=[2])))
    assert header["new_classes"] == [2]
    assert "new_classes" not in decode(encode_comparison(compare(*given)))[0]

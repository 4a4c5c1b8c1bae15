import gzip
import json
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from bc_core.predictions import _text_files
from bc_core.predictions._reading import read_table


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_keeps_exactly_what_was_written(tmp_path, separator):
    rows = [["id", "pred", "score"], ["007", "1", "0.5"], ["8", "2", "0.25"]]
    table = read_table(write(tmp_path / "a.csv", "\r\n".join(separator.join(row) for row in rows)))
    assert table.texts("id").tolist() == ["007", "8"]
    assert table.columns["pred"].tolist() == [1, 2]
    assert table.columns["pred"].dtype == np.int64
    assert table.texts("pred").tolist() == ["1", "2"]
    assert table.numbers("score").tolist() == [0.5, 0.25]


@pytest.mark.parametrize("texts", [["1", "2.50"], ["1e3", "-0"], ["+1", "1_0"], ["9" * 30, "1"], ["0.10", "nan"]])
def test_numbers_that_do_not_give_back_their_text_stay_text(tmp_path, texts):
    table = read_table(write(tmp_path / "a.csv", "id\n" + "\n".join(texts)))
    assert table.texts("id").tolist() == texts


def test_columns_whose_kind_changes_far_below_lose_nothing(tmp_path):
    ids = [str(number) for number in range(120_000)] + ["x1", "0007"]
    floats = ["0.5"] * 60_000 + ["0.50"] * 60_002
    table = read_table(write(tmp_path / "a.csv", "id,f\n" + "\n".join(map(",".join, zip(ids, floats, strict=True)))))
    assert table.texts("id").tolist() == ids
    assert table.texts("f").tolist() == floats
    assert set(table.numbers("f").tolist()) == {0.5}
    assert (table.line_of(0), table.line_of(120_001)) == ("line 2", "line 120003")


def test_quoted_fields_hold_separators_and_line_breaks(tmp_path):
    table = read_table(write(tmp_path / "a.csv", 'id,note\na,"x, ""y""\nz"\n\nb,w\n\n'))
    assert table.columns["note"].tolist() == ['x, "y"\nz', "w"]
    assert table.line_of(1) == "line 5"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_say_what_they_are_are_read(tmp_path, encoding):
    assert read_table(write(tmp_path / "a.csv", "id\nü\n".encode(encoding))).columns["id"].tolist() == ["ü"]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv"])
def test_gzip_is_seen_from_the_content(tmp_path, name):
    assert read_table(write(tmp_path / name, gzip.compress(b"id\n1\n"))).columns["id"].tolist() == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty; expected a first line"),
        ("id,pred\n", "no row below"),
        ("id,id\n1,2\n", "'id' come more than once"),
        ("id,pred\n1,2\n3\n5,6\n", "line 3: expected 2 fields, as the first line has, got 1: '3'"),
        ("id,pred\n1,2\n3,4,5\n", "line 3: expected 2 fields"),
        ('id,pred\n1,2\n3,"4\n', "line 3: not CSV"),
        ('id,pred\n1,"a"b\n', "line 2: not CSV"),
        ("id,note\n1,ä\n2,ß\n".encode("latin-1"), "not UTF-8 .line 2, byte e4.; save it as UTF-8"),
        (gzip.compress(b"id\n" + os.urandom(5000).hex().encode())[:-2000], "cut off or damaged while packed"),
        ("id\n1\n".encode("utf-16-le"), "not UTF-8, but UTF-32, or UTF-16 without a mark"),
        ("id\n1\n".encode("utf-16-be"), "not UTF-8, but UTF-32, or UTF-16 without a mark"),
        ("id\n1\n".encode("utf-32"), "not UTF-8, but UTF-32, or UTF-16 without a mark"),
        (b"BZh91AY" + bytes(20), "packed by bzip2; unpack it, or pack it by gzip"),
        (b"PK\x03\x04" + bytes(20), "packed by zip"),
        ("id\n" + "9" * 200_000, "line 2: not CSV .field larger than field limit"),
    ],
)
def test_damaged_csv_is_refused_with_its_place(tmp_path, content, message):
    refused(write(tmp_path / "a.csv", content), message)


def test_a_bad_row_far_down_is_named(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        file.write("id,pred\n")
        file.writelines(f"{number},{number % 7}\n" for number in range(150_000))
        file.write("150000\n150001,3\n")
    refused(path, "line 150002: expected 2 fields, as the first line has, got 1: '150000'")


def test_a_zip_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(_text_files.open_text.__wrapped__, "__defaults__", (2**22,))
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"id\n")
        for _ in range(64):
            file.write((b"a" * 1023 + b"\n") * 2**10)
    tracemalloc.start()
    refused(path, "it holds more than 4.194 MB when unpacked; unpack it first")
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 2**25


def test_json_lines_keep_their_types(tmp_path):
    rows = [
        {"id": "a", "pred": 1, "scores": [0.1, 0.9], "ok": True},
        {"scores": [1, 0], "pred": 0, "id": "b", "ok": False},
    ]
    table = read_table(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n"))
    assert {name: column.dtype.kind for name, column in table.columns.items()} == {
        "id": "O",
        "pred": "i",
        "scores": "f",
        "ok": "b",
    }
    assert table.columns["scores"].tolist() == [[0.1, 0.9], [1, 0]]
    assert not table.untyped


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty; expected one JSON object a line"),
        ('{"id": 1}\n{"id": 2', "line 2: not JSON"),
        ('{"id": 1}\n{"id": 2, "pred": 0, "pred": 1}', "line 2: not JSON .the key 'pred' comes twice"),
        ("[1]\n", "line 1: expected a JSON object"),
        ('{"id": 1}\n\n{"id": null}', "line 3: column 'id' is missing"),
        ('{"id": 1}\n{"other": 2}', "line 2: column 'id' is missing"),
        ('{"id": 1}\n{"id": "2"}', "line 2: column 'id' holds '2', and whole numbers before"),
        ('{"id": true}\n{"id": 1}', "line 2: column 'id' holds 1, and true or false before"),
        ('{"id": {"a": 1}}', "line 1: column 'id' holds an object"),
        ('{"id": 99999999999999999999}', "must hold numbers below 2"),
        ('{"id": [1, 2]}\n{"id": [1]}', "lists of numbers of one length"),
        ('{"id": ' + "[" * 100_000, "line 1: not JSON"),
    ],
)
def test_damaged_json_lines_are_refused_with_their_place(tmp_path, content, message):
    refused(write(tmp_path / "a.jsonl", content), message)


def test_npz_holds_columns(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, id=np.array(["a", "b"]), pred=np.uint8([1, 0]), scores=np.float32([[0.1, 0.9], [0.5, 0.5]]))
    table = read_table(path)
    assert table.columns["id"].tolist() == ["a", "b"]
    assert (table.columns["pred"].dtype, table.columns["scores"].shape) == (np.int64, (2, 2))


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/never",)


def test_pickles_in_npz_are_refused_and_not_run(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, id=np.array([Evil()], dtype=object))
    refused(path, "damaged")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("id.npy", pickle.dumps([1, 2]))
    refused(path, "damaged|no array")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"id": np.arange(3), "pred": np.arange(2)}, "arrays of one length"),
        ({"id": np.zeros((2, 2, 2))}, "one number or text per instance"),
        ({"id": np.zeros(2, complex)}, "one number or text per instance"),
        ({"id": np.array([2**63], np.uint64)}, "below 2"),
        ({"id": np.array([b"\xff"])}, "not UTF-8"),
        ({"id": np.zeros(0)}, "empty"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path / "a.npz", message)


def test_other_names_are_refused(tmp_path):
    refused(write(tmp_path / "a.xlsx", "id"), r"expected a name that ends in \.csv, .*\.npz")
    with pytest.raises(OSError, match="No such file"):
        read_table(tmp_path / "none.csv")


def test_only_kept_columns_are_held(tmp_path):
    assert list(read_table(write(tmp_path / "a.csv", "id,x\n1,2\n"), lambda names: ["id"]).columns) == ["id"]
    assert list(read_table(write(tmp_path / "a.jsonl", '{"id": 1, "x": {}}'), lambda names: ["id"]).columns) == ["id"]


def test_faults_name_their_place(tmp_path):
    table = read_table(write(tmp_path / "a.csv", "id,w\n1,2\n3,x\n"))
    with pytest.raises(ValueError, match=r"a.csv, line 3: column 'w' is 'x', and every row needs a number"):
        table.numbers("w")
    table = read_table(write(tmp_path / "b.csv", "id,w\n1,2\n3,nan\n"))
    with pytest.raises(ValueError, match=r"b.csv, line 3: column 'w' is nan"):
        table.numbers("w")
    with pytest.raises(ValueError, match=r"no column 'v'; it has 'id', 'w'"):
        table.numbers("v")

"""Parquet and Arrow, by pyarrow, and where they are large by DuckDB: both of the extra `files`."""

import builtins
from decimal import Decimal

import numpy as np
import pytest

from bc_core._cli import main
from bc_core.predictions._joining import join
from bc_core.predictions._reading import read_table

pa = pytest.importorskip("pyarrow")
duckdb = pytest.importorskip("duckdb")
COLUMNS = {
    "id": ["a", "b", "c"],
    "pred": [0, 1, 2],
    "target": [0, 1, 1],
    "scores": [[0.8, 0.1, 0.1], [0.1, 0.9, 0.0], [0.2, 0.2, 0.6]],
    "ok": [True, False, True],
}


def write(path, columns):
    from pyarrow import feather, ipc, parquet

    table = pa.table(columns)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    elif path.suffix == ".feather":
        feather.write_feather(table, path)
    else:
        with ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather"])
def test_columns_are_read_as_they_are(tmp_path, ending):
    table = read_table(write(tmp_path / f"a.{ending}", COLUMNS))
    assert table.columns["id"].tolist() == COLUMNS["id"]
    assert table.columns["pred"].tolist() == COLUMNS["pred"]
    assert table.columns["ok"].dtype.kind == "b"
    np.testing.assert_array_equal(table.columns["scores"], COLUMNS["scores"])


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", ["dictionary", "large", "bytes"])
def test_text_is_text_however_it_is_stored(tmp_path, ending, kind):
    column = {
        "dictionary": pa.array(["a", "ü", "a"]).dictionary_encode(),
        "large": pa.array(["a", "ü", "a"], pa.large_string()),
        "bytes": pa.array([b"a", "ü".encode(), b"a"]),
    }[kind]
    assert read_table(write(tmp_path / f"a.{ending}", {"x": column})).columns["x"].tolist() == ["a", "ü", "a"]
    path = write(tmp_path / f"b.{ending}", {"x": pa.array([b"\xff"])})
    with pytest.raises(ValueError, match="bytes that are no UTF-8 text"):
        read_table(path)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_they_join_with_other_files(tmp_path, ending):
    old = write(tmp_path / f"old.{ending}", COLUMNS)
    new = tmp_path / "new.csv"
    new.write_text("id,pred\nc,1\na,0\nb,2\n")
    found = join(old, new)
    assert (found.target.tolist(), found.h2_pred.tolist(), found.num_classes) == ([0, 1, 1], [0, 2, 1], 3)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", None], "pred": [0, 1]}, "row 1: column 'id' is missing"),
        ({"id": ["a", "b"], "pred": [0, None]}, "row 1: column 'pred' is missing"),
        ({"id": ["a", "b"], "scores": [[0.1, 0.9], [0.1]]}, "lists of numbers of one length"),
        ({"id": [], "pred": []}, "empty"),
    ],
)
def test_what_is_missing_is_refused_with_its_place(tmp_path, ending, columns, message):
    path = write(tmp_path / f"a.{ending}", columns)
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_a_score_that_is_missing_in_a_list_is_no_0(tmp_path, ending):
    old = write(tmp_path / f"old.{ending}", {**COLUMNS, "scores": [[0.8, 0.2], [0.1, 0.9], [None, 0.6]]})
    with pytest.raises(ValueError, match="row 2: column 'scores' holds NaN or infinity"):
        join(old, old)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_decimals_are_numbers(tmp_path, ending):
    column = pa.array([Decimal("0.25"), Decimal("1.5")], pa.decimal128(6, 2))
    assert read_table(write(tmp_path / f"a.{ending}", {"x": column})).numbers("x").tolist() == [0.25, 1.5]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_damaged_files_are_bad_input(tmp_path, capsys, ending, damage):
    path = write(tmp_path / f"a.{ending}", COLUMNS)
    path.write_bytes(path.read_bytes()[:-30] if damage == "cut" else b"id,pred\n1,2\n" * 100)
    assert main([str(path), str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"bc-compare: {path}: not a")
    assert captured.err.count("\n") == 1
    assert main([str(tmp_path / f"none.{ending}"), str(path)]) == 2
    assert "No such file" in capsys.readouterr().err


def test_without_the_extra_the_message_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    path, found = write(tmp_path / "a.parquet", COLUMNS), builtins.__import__

    def missing(name, *arguments, **options):
        if name == "duckdb":
            raise ImportError(name)
        return found(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main([str(path), str(path)]) == 2
    assert "pip install 'backward-compat-ml[files]'" in capsys.readouterr().err

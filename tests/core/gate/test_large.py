"""Files that are counted by DuckDB come to what joining them in memory comes to."""

import datetime
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from bc_core._cli import main
from bc_core.gate import _large, _origins, _room
from bc_core.gate._large import read_large
from bc_core.gate._policy import policy_of
from bc_core.gate._request import Inputs, Read, read, report
from bc_core.predictions._columns import ColumnNames

pa = pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")
SIZE = 5000
NAMES = np.array(["cat", "dog", "eel"])
TODAY = datetime.date(2027, 1, 1)


def write(path, **columns):
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path, row_group_size=700)
    return str(path)


def update(folder, ids="text", named=True, third=False):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, SIZE)
    h1, h2 = (np.where(rng.random(SIZE) < right, y, rng.integers(0, 3, SIZE)) for right in (0.9, 0.93))
    y, h1, h2 = (NAMES[each] if named else each for each in (y, h1, h2))
    key = {
        "text": np.array([f"im{number:05d}" for number in range(SIZE)]),
        "dense": np.arange(SIZE) - 7,
        "sparse": rng.permutation(SIZE) * 1_000_003,
    }[ids]
    region, age = rng.choice(["eu", "us"], SIZE), rng.normal(40, 10, SIZE)
    order, other = rng.permutation(SIZE), rng.permutation(SIZE)
    known = {"target": y, "region": region, "age": age, "few": rng.integers(0, 4, SIZE)}
    old = write(folder / "old[1].parquet", id=key, pred=h1, **({} if third else known))
    write(folder / "old1.parquet", id=key, pred=h1, **known)  # what the name of the first would match
    new = write(folder / "new.parquet", id=key[order], prediction=h2[order])
    data = write(folder / "data.parquet", id=key[other], **{name: column[other] for name, column in known.items()})
    return old, new, data if third else None


POLICY = {
    "promise": ["nfr <= 5%", "btc >= 90%"],
    "non_inferiority": "2%",
    "per_class": {"promise": "nfr <= 5%"},
    "per_slice": [{"column": column, "promise": "nfr <= 5%"} for column in ("region", "age", "few")],
}


@pytest.mark.parametrize(
    ("ids", "named", "third"),
    [(ids, named, third) for ids in ("text", "dense", "sparse") for named, third in ((True, True), (False, False))],
)
def test_counts_slices_and_verdicts_are_those_of_memory(tmp_path, ids, named, third):
    old, new, data = update(tmp_path, ids, named, third)
    columns = ColumnNames(slices=("region", "age", "few"))
    subject = read_large(old, new, data, columns, None, "new", least_rows=0)
    wanted = read(Inputs(old, new, columns, data), 0.95)
    assert wanted.subject.rows is not None
    mine, theirs = subject.comparison, wanted.subject.comparison
    assert mine.overlap == theirs.overlap
    assert mine.class_names == theirs.class_names
    assert sorted(map(str, mine.instances.ids.tolist())) == sorted(map(str, theirs.instances.ids.tolist()))
    row = {value: place for place, value in enumerate(theirs.instances.ids.tolist())}
    order = [row[value] for value in mine.instances.ids.tolist()]
    for column in ("target", "h1_pred", "h2_pred"):
        np.testing.assert_array_equal(getattr(mine.instances, column), getattr(theirs.instances, column)[order])
    for name, column in subject.slices.items():
        assert column.values == wanted.subject.slices[name].values
        np.testing.assert_array_equal(column.counts, wanted.subject.slices[name].counts)
    assert mine.slices == theirs.slices
    policy = policy_of(POLICY, "policy")
    assert report(Read(subject), 0.95, policy, TODAY).judgement == report(wanted, 0.95, policy, TODAY).judgement


def test_accepted_and_critical_ids_are_looked_up(tmp_path):
    old, new, _ = update(tmp_path, "dense")
    columns = ColumnNames(slices=("region",))
    subject = read_large(old, new, None, columns, None, "new", least_rows=0)
    wanted = read(Inputs(old, new, columns), 0.95)
    assert (
        subject.unknown(["-7", "0", "99999", "x"])
        == wanted.subject.unknown(["-7", "0", "99999", "x"])
        == ["99999", "x"]
    )
    accepted = tmp_path / "accepted.csv"
    lines = [f"{each},known,2027-02-01" for each in subject.flips[::3]]
    accepted.write_text("\n".join(["id,reason,expires", *lines]))
    policy = policy_of({**POLICY, "per_slice": POLICY["per_slice"][:1], "accepted": str(accepted)}, "policy")
    mine, theirs = (report(each, 0.95, policy, TODAY).judgement for each in (Read(subject), wanted))
    assert mine == theirs
    assert len(mine.accepted) == len(lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": np.arange(100) // 2}, "ids come more than once, such as"),
        ({"id": np.arange(100) // 2 * 1000}, "ids come more than once, such as"),
        ({"id": np.arange(1, 101)}, "ids that do not match: .* 1 of the first are not in all of them, such as 0"),
        ({"id": np.arange(99), "pred": np.zeros(99, int)}, "ids that do not match: .* has 99 rows"),
        ({"pred": [0] * 99 + [None]}, "column 'pred' is missing, empty or not finite in 1 rows"),
        ({"pred": [0] * 99 + [-1]}, "class numbers must be 0 to 1, and labels are -1 to 1"),
        ({"target": [1] * 100}, "true labels of 50 instances differ between the files, such as that of 0"),
    ],
)
def test_what_is_wrong_is_refused_here_too(tmp_path, change, message):
    plain = {"id": np.arange(100), "pred": np.arange(100) % 2}
    old = write(tmp_path / "old.parquet", **plain, target=np.arange(100) % 2)
    new = write(tmp_path / "new.parquet", **{**plain, **change})
    with pytest.raises(ValueError, match=message):
        read_large(old, new, None, ColumnNames(), None, "new", least_rows=0)


def test_what_it_cannot_do_is_left_to_memory(tmp_path):
    plain = {"id": np.arange(10), "pred": np.arange(10) % 2}
    old = write(tmp_path / "old.parquet", **plain, target=np.arange(10) % 2, w=np.ones(10))
    new = write(tmp_path / "new.parquet", **plain)
    scored = write(tmp_path / "scored.parquet", id=np.arange(10), scores=[[0.1, 0.9]] * 9 + [[0.1, float("nan")]])
    text = write(tmp_path / "text.parquet", id=[str(n) for n in range(10)], pred=np.arange(10) % 2)
    assert read_large(old, new, None, ColumnNames(), None, "new") is None
    for other, columns in (
        (scored, ColumnNames()),
        (text, ColumnNames()),
        (new, ColumnNames(weight="w")),
        (new, ColumnNames(slices=("none",))),
    ):
        assert read_large(old, other, None, columns, None, "new", least_rows=0) is None
    assert read_large(old, new, None, ColumnNames(), None, "new", least_rows=0) is not None


@pytest.mark.parametrize("form", ["lists", "columns", "numbered"])
@pytest.mark.parametrize("arrow", [True, False])
def test_class_scores_and_arrow_files_come_to_what_they_do_in_memory(tmp_path, form, arrow):
    from pyarrow import feather

    rng = np.random.default_rng(1)
    y = rng.integers(0, 4, SIZE)  # nobody predicts the last class, but there are scores of it
    scores = rng.integers(0, 4, (SIZE, 5)).astype(np.float32)  # equal ones among them
    scores[np.arange(SIZE), y] += 2
    scores[:, 4] = -1
    names = {"lists": None, "columns": list("edcba"), "numbered": list("43210")}[form]
    columns = (
        {"scores": list(scores)} if names is None else {f"score_{name}": scores[:, k] for k, name in enumerate(names)}
    )
    truth = np.array(names)[y] if form == "columns" else y if form == "lists" else 4 - y
    order = rng.permutation(SIZE)
    new = write(
        tmp_path / "new.parquet", **{k: [v[i] for i in order] for k, v in {"id": np.arange(SIZE), **columns}.items()}
    )
    old = write(tmp_path / "old.parquet", id=np.arange(SIZE), target=truth, pred=truth)
    if arrow:
        from pyarrow import parquet

        old, new = (
            feather.write_feather(
                parquet.read_table(path), path.replace(".parquet", ".arrow"), compression="uncompressed"
            )
            or path.replace(".parquet", ".arrow")
            for path in (old, new)
        )
    mine = read_large(old, new, None, ColumnNames(), None, "new", least_rows=0)
    theirs = read(Inputs(old, new), 0.95).subject
    assert mine.comparison.overlap == theirs.comparison.overlap
    assert mine.comparison.overlap.num_classes == (4 if form == "columns" else 5)
    assert mine.comparison.class_names == theirs.comparison.class_names
    rows = [
        dict(zip(each.instances.ids.tolist(), each.instances.h2_pred.tolist(), strict=True))
        for each in (mine.comparison, theirs.comparison)
    ]
    assert rows[0] == rows[1]
    assert mine.unknown(["7", "x"]) == theirs.unknown(["7", "x"]) == ["x"]


def csv_of(path, separator=",", **columns):
    rows = zip(*columns.values(), strict=True)
    text = "\n".join([separator.join(columns), *(separator.join(f'"{value}"' for value in row) for row in rows)])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def check_is_counted_alike(mine, theirs):
    """What the engine counts is what is counted in memory."""
    assert mine.comparison.overlap == theirs.comparison.overlap
    assert mine.comparison.class_names == theirs.comparison.class_names
    assert sorted(mine.comparison.instances.ids.tolist()) == sorted(theirs.comparison.instances.ids.tolist())
    for name, column in mine.slices.items():
        assert column.values == theirs.slices[name].values
        np.testing.assert_array_equal(column.counts, theirs.slices[name].counts)


@pytest.mark.parametrize(
    ("ids", "named", "name"),
    [
        ("text", True, "old.csv"),
        ("dense", False, "old.tsv.gz"),
        ("dense", True, "old.csv"),
        ("padded", False, "old.csv"),
    ],
)
def test_csv_is_what_it_is_in_memory(tmp_path, ids, named, name):
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, SIZE)
    h1, h2 = (np.where(rng.random(SIZE) < 0.9, y, rng.integers(0, 3, SIZE)) for _ in range(2))
    if named:
        y, h1, h2 = (np.array(["a,b", "it's", "c d"])[each] for each in (y, h1, h2))
    key = {"text": [f"im{n}" for n in range(SIZE)], "dense": range(SIZE), "padded": [f"{n:05d}" for n in range(SIZE)]}
    order, key = rng.permutation(SIZE), list(key[ids])
    known = {
        "target": y,
        "region": rng.choice(["eu", "us"], SIZE),
        "age": rng.normal(40, 9, SIZE),
        "few": y.astype(str),
    }
    old = csv_of(tmp_path / name, ";", id=key, pred=h1, **known)
    new = csv_of(tmp_path / "new[1].csv", id=[key[i] for i in order], pred=h2[order], unused=order)
    columns = ColumnNames(slices=("region", "age", "few"))
    mine = read_large(old, new, None, columns, None, "new", least_rows=0, least_bytes=0)
    theirs = read(Inputs(old, new, columns), 0.95).subject
    check_is_counted_alike(mine, theirs)
    assert mine.unknown([str(key[7]), "x"]) == theirs.unknown([str(key[7]), "x"]) == ["x"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7", "line 9: expected 2 fields, as the first line has, got 1"),
        ('7,"1', "not CSV"),
        ("7,", "line 9: column 'pred' is empty"),
        ("7,0.5", "line 9: column 'pred' is 0.5"),
        ("7,-1", "line 9: column 'pred' is -1"),
        ("6,1", "1 id comes more than once: 6; the first at line 8 and line 9"),
        ("x7,1", "ids that do not match"),
        ("7,1\n\n", None),
    ],
)
def test_what_is_wrong_in_csv_is_named_with_its_line(tmp_path, capsys, monkeypatch, line, message):
    monkeypatch.setattr(_large, "LEAST_ROWS", 10)
    monkeypatch.setattr(read_large, "__defaults__", (None, 0, lambda path, rows: None))
    old = csv_of(tmp_path / "old.csv", id=range(50), pred=np.arange(50) % 2, target=np.arange(50) % 2)
    rows = [line if number == 7 else f"{number},{number % 2}" for number in range(50)]
    (tmp_path / "new.csv").write_text("\n".join(["id,pred", *rows]))
    assert main(["gate", old, str(tmp_path / "new.csv"), "--promise", "nfr <= 20%"]) == (0 if message is None else 2)
    assert (message or "") in capsys.readouterr().err


def test_the_command_takes_it_for_large_files(tmp_path, capsys, monkeypatch):
    old, new, _ = update(tmp_path)
    assert main(["gate", old, new, "--promise", "nfr <= 10%"]) == 0
    assert "Counted by DuckDB" not in capsys.readouterr().out
    monkeypatch.setattr(_large, "LEAST_ROWS", 1000)
    assert main(["gate", old, new, "--promise", "nfr <= 10%"]) == 0
    assert "Counted by DuckDB" in capsys.readouterr().out


@pytest.mark.parametrize("write_file", [write, lambda path, **columns: csv_of(path.with_suffix(".csv"), **columns)])
@pytest.mark.parametrize("large", [True, False])
def test_files_that_contradict_each_other_about_a_slice_are_refused(tmp_path, capsys, monkeypatch, write_file, large):
    monkeypatch.setattr(_large, "LEAST_ROWS", 10 if large else 10**9)
    monkeypatch.setattr(read_large, "__defaults__", (None, 0, lambda path, rows: None))
    rows, region = np.arange(100)[::-1], np.where(np.arange(100)[::-1] % 3, "eu", "us")
    other = np.where(np.isin(rows, (3, 4, 7, 9)), "xx", region)
    plain = {"pred": rows % 2, "size": rows % 5}
    old = write_file(tmp_path / "old.parquet", id=rows, **plain, target=rows % 2, region=region)
    new = write_file(
        tmp_path / "new.parquet", id=rows[::-1], **{k: v[::-1] for k, v in plain.items()}, region=other[::-1]
    )
    data = write_file(tmp_path / "data.parquet", id=rows, region=region)
    assert main([old, new, "--slice", "region"]) == 2
    said = capsys.readouterr().err
    assert "column 'region' of 4 instances differs between" in said
    first = (
        "3, 4, 7 (of the first 'us' and 'xx')"
        if large and write_file is write
        else "9, 7, 4 (of the first 'us' and 'xx')"
    )
    assert f"such as of {first}: say which file counts by --columns-from, old" in said
    assert main([old, new, "--slice", "size"]) == 0  # they agree
    for which, found in (("old", {"eu", "us"}), ("new", {"eu", "us", "xx"}), ("data", {"eu", "us"})):
        report = str(tmp_path / f"{which}.json")
        command = [old, new, "--data", data, "--slice", "region", "--columns-from", which, "--json", report]
        assert main(command) == 0
        names = {part["name"] for part in json.loads(Path(report).read_text())["slices"]}
        assert names == {f"region={name}" for name in found}
    capsys.readouterr()
    assert main([old, new, "--slice", "region", "--columns-from", "data"]) == 2
    assert "expected one of the files that were given: 'old', 'new'" in capsys.readouterr().err


def lines_of(path, **columns):
    rows = zip(*(np.asarray(values).tolist() for values in columns.values()), strict=True)
    text = "\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.mark.parametrize("form", ["names", "scores"])
def test_json_lines_are_what_they_are_in_memory(tmp_path, monkeypatch, form):
    monkeypatch.setattr(_origins, "_ROWS", 700)
    rng = np.random.default_rng(3)
    y, order = rng.integers(0, 3, SIZE), rng.permutation(SIZE)
    h1, scores = np.where(rng.random(SIZE) < 0.9, y, rng.integers(0, 3, SIZE)), rng.random((SIZE, 3))
    named = form == "names"
    key = np.array([f"im{n}" for n in range(SIZE)]) if named else np.arange(SIZE)
    known = {
        "target": NAMES[y] if named else y,
        "region": rng.choice(["eu", "us"], SIZE),
        "age": rng.normal(40, 9, SIZE),
    }
    new = {"pred": NAMES[scores.argmax(axis=1)]} if named else {"scores": scores}
    old = lines_of(tmp_path / "old.jsonl.gz", id=key, pred=NAMES[h1] if named else h1, **known)
    new = lines_of(tmp_path / "new.ndjson", id=key[order], **{name: column[order] for name, column in new.items()})
    columns, told = ColumnNames(slices=("region", "age")), []
    mine = read_large(
        old, new, None, columns, None, "new", least_rows=0, least_bytes=0, progress=lambda *far: told.append(far)
    )
    theirs = read(Inputs(old, new, columns), 0.95).subject
    check_is_counted_alike(mine, theirs)
    assert mine.unknown([str(key[7]), "x"]) == ["x"]
    assert [far for far in told if far[0] == new and far[1] == SIZE]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 7', "line 8: not JSON"),
        ('{"id": 7}', "line 8: column 'pred' is missing"),
        ('{"id": 6, "pred": 1}', "6"),
    ],
)
def test_what_is_wrong_in_json_lines_is_named_with_its_line(tmp_path, capsys, monkeypatch, line, message):
    monkeypatch.setattr(_large, "LEAST_ROWS", 10)
    monkeypatch.setattr(read_large, "__defaults__", (None, 0, lambda path, rows: None))
    monkeypatch.setattr(_origins, "_ROWS", 5)
    old = csv_of(tmp_path / "old.csv", id=range(50), pred=np.arange(50) % 2, target=np.arange(50) % 2)
    rows = [line if number == 7 else f'{{"id": {number}, "pred": {number % 2}}}' for number in range(50)]
    (tmp_path / "new.jsonl").write_text("\n".join(rows))
    assert main([old, str(tmp_path / "new.jsonl")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("write_file", [write, lambda path, **columns: csv_of(path.with_suffix(".csv"), **columns)])
def test_what_memory_cannot_hold_is_refused_before_it_is_tried(tmp_path, capsys, monkeypatch, write_file):
    rows = np.arange(1000)
    old = write_file(tmp_path / "old.parquet", id=rows, pred=rows % 2, target=rows % 2, w=rows)
    new = write_file(tmp_path / "new.parquet", id=rows, pred=rows % 2)
    command = [old, new, "--weight", "w"]
    monkeypatch.setattr(_room, "LEAST_BYTES", 1)
    assert main(command) == 0
    monkeypatch.setattr(_room, "_free", lambda: 20_000)
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "of memory are needed, and 20 kB are free, as weights look at instances one by one" in said
    if new.endswith(".csv"):
        whole = Path(new).read_text()
        Path(new).write_text(whole.replace('"700","0"', '"700"'))
        assert main(command) == 2
        assert "new.csv, line 702: expected 2 fields" in capsys.readouterr().err
        Path(new).write_text(whole)
    monkeypatch.setattr(_room, "_free", lambda: None)  # a system that does not say it
    assert main(command) == 0


def test_free_memory_is_known_here_and_bounded_by_what_confines_the_process(tmp_path, monkeypatch):
    if not Path("/proc/meminfo").exists():
        pytest.skip("this system does not say it")
    assert 10**6 < _room._free() < 10**14
    monkeypatch.setattr(_room, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    (tmp_path / "memory.stat").write_text("anon 900\ninactive_file 500\n")
    assert _room._free() == 3500
    (tmp_path / "memory.max").write_text("max\n")
    assert _room._free() > 10**6

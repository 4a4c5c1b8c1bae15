"""Counts of partitions add up to those of the whole, on the engines of docs/gate.md too."""

import itertools
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from bc_core import SlicedOverlap, assert_compatible, compare, overlap_of_partition

PAGE = (Path(__file__).parents[3] / "docs" / "gate.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SIZE, NAMES = 3000, np.array(["cat", "dog"])
POLICY = {
    "promise": "nfr <= 20%",
    "per_class": {"promise": "nfr <= 20%"},
    "per_slice": [{"column": column, "promise": "nfr <= 20%", "least": 300} for column in ("region", "age")],
}


def columns():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, SIZE)
    right = rng.random((2, SIZE)) < [[0.9], [0.93]]
    h1, h2 = np.where(right, y, 1 - y)
    region, age = rng.choice(["eu", "us", "asia"], SIZE, p=[0.5, 0.49, 0.01]), rng.integers(1, 90, SIZE)
    return {"target": NAMES[y], "h1": NAMES[h1], "h2": NAMES[h2], "region": region, "age": age}


def counted(data, rows=slice(None)):
    slices = {name: data[name][rows] for name in ("region", "age")}
    labels = (data[name][rows] for name in ("target", "h1", "h2"))
    return overlap_of_partition(*labels, class_names=list(NAMES), slices=slices, edges={"age": [18, 65]})


def test_partitions_add_up_to_the_whole_and_are_judged_alike(tmp_path):
    data = columns()
    bounds = [0, 1, 1, 700, 701, SIZE]  # one of a single row, one of none
    parts = [counted(data, slice(*each)) for each in itertools.pairwise(bounds)]
    whole = sum(pickle.loads(pickle.dumps(part)) for part in parts)
    assert whole == counted(data)
    assert SlicedOverlap.from_json(whole.to_json()) == whole
    comparison = compare(data["target"], data["h1"], data["h2"], class_names=list(NAMES))
    assert whole.overlap == comparison.overlap
    h1, h2 = (data[name] == data["target"] for name in ("h1", "h2"))
    for value, counts in whole.slices["region"].items():
        here = data["region"] == value
        wanted = [[(here & (h1 == a) & (h2 == b)).sum() for b in (0, 1)] for a in (0, 1)]
        np.testing.assert_array_equal(counts, wanted)
    assert set(whole.slices["age"]) == {"below 18", "18 to 65", "65 and above"}
    assert whole.slices["age"]["18 to 65"].sum() == ((data["age"] >= 18) & (data["age"] < 65)).sum()
    # The same as of one file, whose few values are slices of their own.
    rows = ["id,target,pred,new,region,age"]
    ages = np.array(["below 18", "18 to 65", "65 and above"])[np.searchsorted([18, 65], data["age"], side="right")]
    lines = zip(range(SIZE), data["target"], data["h1"], data["h2"], data["region"], ages, strict=True)
    (tmp_path / "both.csv").write_text("\n".join([*rows, *(",".join(map(str, line)) for line in lines)]))
    policy = {**POLICY, "columns": {"pred": "pred", "new_pred": "new"}}
    wanted = assert_compatible(tmp_path / "both.csv", tmp_path / "both.csv", policy=policy)
    found = assert_compatible(whole, policy=POLICY)
    assert set(found.judgement.checks) == set(wanted.judgement.checks)
    assert set(found.slices) == set(wanted.slices)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": None}, "a partition need not hold every class"),
        ({"slices": {"age": [1]}}, "age: expected 2 values, one an instance, got shape"),
        ({"slices": {"age": [1.0, float("nan")]}}, "age: a number is NaN or infinite"),
        ({"slices": {"region": ["eu", ""]}}, "region: 1 values are missing"),
        ({"slices": {"age": [1, 2]}, "edges": {"age": [5, 5]}}, "expected numbers in rising order"),
        ({"slices": {"age": ["x", "y"]}, "edges": {"age": [5]}}, "its values are no numbers"),
        ({"edges": {"age": [5]}}, "edges of columns that are no slices: .*age"),
        ({"class_names": ["cat", "eel"]}, "dog"),
    ],
)
def test_what_is_wrong_is_refused(change, message):
    options = {"class_names": ["cat", "dog"], **change}
    with pytest.raises(ValueError, match=message):
        overlap_of_partition(["cat", "dog"], ["cat", "cat"], ["dog", "dog"], **options)


def test_partitions_of_other_data_are_not_added():
    one = overlap_of_partition([0], [0], [0], num_classes=2, slices={"a": [1]}, edges={"a": [0.5]})
    for other, message in (
        (overlap_of_partition([0], [0], [0], num_classes=2, slices={"a": [1]}, edges={"a": [2.0]}), "edges differ"),
        (overlap_of_partition(["x"], ["x"], ["x"], class_names=["x", "y"], slices={"a": [1]}), "class_names differ"),
        (overlap_of_partition([0], [0], [0], num_classes=3, slices={"a": [1]}, edges={"a": [0.5]}), "classes"),
    ):
        with pytest.raises(ValueError, match=message):
            one + other
    with pytest.raises(ValueError, match="counts of partitions have none"):
        assert_compatible(one, policy={"promise": "nfr <= 9%", "critical": "ids.txt"})
    with pytest.raises(ValueError, match="the partitions were not counted by slices of 'b'"):
        assert_compatible(one, policy={"per_slice": [{"column": "b", "promise": "nfr <= 9%"}]})
    for text in ("x", "[]", '{"counts": []}', one.to_json().replace("[[0, 0], [0, 1]]", "[0]")):
        with pytest.raises(ValueError, match="not what SlicedOverlap.to_json gave"):
            SlicedOverlap.from_json(text)


def on_dask(frame):
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    from dask import dataframe

    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster):
        yield {"dask": dask, "frame": dataframe.from_pandas(frame, npartitions=5)}


def on_ray(frame):
    ray = pytest.importorskip("ray")
    data = pytest.importorskip("ray.data")
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    data.DataContext.get_current().enable_progress_bars = False
    yield {"dataset": data.from_pandas(frame).repartition(5)}
    ray.shutdown()


def on_spark(frame):
    sql = pytest.importorskip("pyspark.sql")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    yield {"spark_frame": session.createDataFrame(frame).repartition(5)}
    session.stop()


@pytest.mark.slow  # a cluster of processes; Ray is installed with the tests, the others where somebody has them
@pytest.mark.parametrize(("title", "cluster"), [("Dask", on_dask), ("Ray Data", on_ray), ("Spark", on_spark)])
def test_the_pages_lines_count_exactly_on_a_cluster(title, cluster):
    pandas = pytest.importorskip("pandas")
    data = columns()
    (defined,) = (each for each in SNIPPETS if "def count" in each)
    (lines,) = (each for each in SNIPPETS if each.startswith(f"# {title}\n"))
    for given in cluster(pandas.DataFrame(data)):
        names = {"__name__": "__main__", **given}
        exec(defined + lines, names)
        assert names["whole"] == counted(data)

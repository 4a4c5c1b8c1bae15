"""Two Parquet files joined by id: time and peak memory of bc-compare beside a plain pandas script, from 1 M rows on.

python benchmarks/gate_size.py 1000000 10000000 [100000000] [--no-pandas]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

CHUNK = 1_000_000
STEP = 1_000_003  # rows of the new file are in another order: without a common divisor with their number

PANDAS = """
import pandas as pd
old, new = pd.read_parquet("old.parquet"), pd.read_parquet("new.parquet")
both = old.merge(new, on="id", suffixes=("", "_new"))
both["h1"], both["h2"] = both.pred == both.target, both.pred_new == both.target
print(both.groupby(["target", "h1", "h2"]).size().sum(), both.groupby(["region", "h1", "h2"]).size().sum())
"""
OURS = """
from bc_core._cli import main
main(["gate", "old.parquet", "new.parquet", "--promise", "nfr <= 10%", "--slice", "region"])
"""
MEASURED = """
import resource, time
begin = time.perf_counter()
{code}
used = resource.getrusage(resource.RUSAGE_SELF)
print("MEASURED", time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def rows_of(ids):
    """Labels of some instances: a function of the id, so that both files agree on the target."""
    mixed = (ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)
    target = (mixed % np.uint64(10)).astype(np.int64)
    wrong = (target + 1) % 10
    h1 = np.where(mixed % np.uint64(1009) < 40, wrong, target)
    h2 = np.where(mixed % np.uint64(997) < 30, wrong, np.where(mixed % np.uint64(3) == 0, target, h1))
    return target, h1, h2, (mixed % np.uint64(7)).astype(np.int64)


def write(folder, size):
    """The old file in the order of ids, the new one in another."""
    for name in ("old", "new"):
        writer = None
        for begin in range(0, size, CHUNK):
            place = np.arange(begin, min(size, begin + CHUNK), dtype=np.int64)
            ids = place if name == "old" else place * STEP % size
            target, h1, h2, region = rows_of(ids)
            table = (
                {"id": ids, "pred": h1, "target": target, "region": region}
                if name == "old"
                else {"id": ids, "pred": h2}
            )
            table = pa.table(table)
            writer = writer or parquet.ParquetWriter(folder / f"{name}.parquet", table.schema)
            writer.write_table(table)
        writer.close()


def measured(folder, code):
    """Seconds, seconds of the processor, and megabytes of a process of its own."""
    command = [sys.executable, "-c", MEASURED.format(code=code)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if "MEASURED" not in result.stdout:
        return None
    return tuple(float(text) for text in result.stdout.rsplit("MEASURED", 1)[1].split())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--no-pandas", action="store_true")
    options = parser.parse_args()
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), size)
            for what, code in (("bc-compare", OURS), *((("pandas", PANDAS),) * (not options.no_pandas))):
                found = measured(name, code)
                told = (
                    "out of memory"
                    if found is None
                    else "{:.1f} s ({:.1f} s of the processor), {:.0f} MB".format(*found)
                )
                print(f"{size:,} rows, {what}: {told}", flush=True)

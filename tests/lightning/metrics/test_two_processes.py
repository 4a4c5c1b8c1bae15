"""Two real processes, one of which sees more batches than the other: the score is that of all instances.

Run as a script, this file is one of the processes.
"""

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from warm_programs import Program

WORLD_SIZE = 2
SIZES_BY_RANK = ((16, 7, 33), (5,))


def batches_of(rank):
    generator = torch.Generator().manual_seed(rank)
    for size in SIZES_BY_RANK[rank]:
        target = torch.randint(3, (size,), generator=generator)
        preds, reference = (torch.randn(size, 3, generator=generator) for _ in range(2))
        preds[torch.arange(size), target] += 1
        reference[torch.arange(size), target] += 1
        yield preds, target, reference


def make_metrics():
    import bc_lightning.metrics as m

    return {
        "btc": m.BTC(task="multiclass", num_classes=3),
        "btc_macro": m.BTC(task="multiclass", num_classes=3, average="macro"),
        "bec": m.BEC(task="multiclass", num_classes=3, given="h2_wrong"),
        "nfr": m.NegativeFlipRate(task="multiclass", num_classes=3, average=None),
        "pfr": m.PositiveFlipRate(task="multiclass", num_classes=3, ignore_index=0),
        "nfi": m.NegativeFlipImpact(task="multiclass", num_classes=3),
        "by_class": m.IncompatibilityByClass(task="multiclass", num_classes=3),
        "overlap": m.ErrorOverlapMetric(task="multiclass", num_classes=3),
    }


def values_of(batches, collected):
    from torchmetrics import MetricCollection

    metrics = make_metrics()
    runner = MetricCollection(metrics) if collected else None
    for batch in batches:
        if runner is not None:
            runner.update(*batch)
        else:
            for metric in metrics.values():
                metric.update(*batch)
    values = runner.compute() if runner is not None else {name: metric.compute() for name, metric in metrics.items()}
    return {name: value.tolist() for name, value in values.items()}, metrics


def process(rank, meeting_place):
    dist.init_process_group(
        "gloo", f"file://{meeting_place}", rank=rank, world_size=WORLD_SIZE, timeout=timedelta(seconds=60)
    )
    single, metrics = values_of(batches_of(rank), collected=False)
    collected, _ = values_of(batches_of(rank), collected=True)
    overlap = metrics["overlap"].to_error_overlap().counts.tolist()
    local = metrics["overlap"].counts.sum().item()
    print(
        json.dumps({"single": single, "collected": collected, "to_error_overlap": overlap, "local": local}), flush=True
    )
    # Gloo ends the process whose partner leaves while a message is on its way, and may end one that takes its threads
    # down: all have everything here before any goes, and nothing is taken down.
    Path(f"{meeting_place}.{rank}").touch()
    while not all(Path(f"{meeting_place}.{other}").exists() for other in range(WORLD_SIZE)):
        time.sleep(0.01)
    os._exit(0)


@pytest.mark.slow
def test_the_value_is_that_of_all_instances_on_every_process(tmp_path):
    processes = [Program(__file__, tmp_path / "meeting", str(rank)) for rank in range(WORLD_SIZE)]
    results = []
    for running in processes:
        out, err = running.communicate(timeout=120)
        assert running.returncode == 0, err
        results.append(json.loads(out.splitlines()[-1]))
    expected, _ = values_of([batch for rank in range(WORLD_SIZE) for batch in batches_of(rank)], collected=False)
    for rank, result in enumerate(results):
        assert result["single"] == expected
        assert result["collected"] == expected
        assert result["to_error_overlap"] == expected["overlap"]
        assert result["local"] == sum(SIZES_BY_RANK[rank])  # each process goes on with its own counts


if __name__ == "__main__":
    process(int(sys.argv[2]), sys.argv[1])

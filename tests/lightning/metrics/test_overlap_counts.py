"""`overlap_counts`, the function for the inside of a training step."""

import pytest
import torch

from bc_lightning.functional import overlap_counts


def counted_one_by_one(preds, target, reference, num_classes, ignore_index=None):
    table = torch.zeros(num_classes, 2, 2, dtype=torch.long)
    for p, t, r in zip(preds.flatten().tolist(), target.flatten().tolist(), reference.flatten().tolist(), strict=True):
        if 0 <= t < num_classes and t != ignore_index:
            table[t, int(r == t), int(p == t)] += 1
    return table


def random_labels(num_classes, shape, seed=0, low=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(low, num_classes, shape, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("num_classes", [1, 2, 10, 300])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (50,), (50, 1), (4, 5, 6)])
def test_counts(num_classes, shape):
    labels = random_labels(num_classes, shape)
    counts = overlap_counts(*labels, num_classes)
    assert counts.dtype == torch.int64
    assert torch.equal(counts, counted_one_by_one(*labels, num_classes))


@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 3, 255])
def test_ignored_targets(ignore_index):
    preds, target, reference = random_labels(4, (200,))
    target[::3] = ignore_index
    counts = overlap_counts(preds, target, reference, 4, ignore_index)
    assert torch.equal(counts, counted_one_by_one(preds, target, reference, 4, ignore_index))


@pytest.mark.parametrize("wild", [-1, -(2**63), 2**63 - 1, 4, 2**61])
def test_labels_out_of_range_are_left_out_or_wrong_and_never_written_elsewhere(wild):
    preds, target, reference = random_labels(4, (100,))
    for labels in (preds, target, reference):
        labels[torch.randperm(100)[:20]] = wild
    counts = overlap_counts(preds, target, reference, 4)
    assert torch.equal(counts, counted_one_by_one(preds, target, reference, 4))


def test_mixed_integer_types():
    preds, target, reference = random_labels(4, (100,))
    expected = counted_one_by_one(preds, target, reference, 4)
    assert torch.equal(overlap_counts(preds.to(torch.uint8), target.to(torch.int16), reference.int(), 4), expected)
    target[0] = -1  # not the 255 that it would be among unsigned bytes
    preds[0] = reference[0] = 255
    expected = counted_one_by_one(preds, target, reference, 4)
    assert torch.equal(overlap_counts(preds.to(torch.uint8), target.to(torch.int8), reference, 4), expected)


def test_two_halves_add_up_to_the_whole():
    labels = random_labels(5, (100,))
    halves = [overlap_counts(*(x[part] for x in labels), 5) for part in (slice(0, 37), slice(37, None))]
    assert torch.equal(halves[0] + halves[1], overlap_counts(*labels, 5))


def test_labels_that_are_not_contiguous():
    labels = [x.t() for x in random_labels(5, (10, 7))]
    assert torch.equal(overlap_counts(*labels, 5), counted_one_by_one(*labels, 5))


def test_shapes_that_differ_are_refused():
    with pytest.raises(
        ValueError, match=r"`preds_labels` to have the shape of `target_labels`, \(4,\), but got \(5,\)"
    ):
        overlap_counts(torch.zeros(5).long(), torch.zeros(4).long(), torch.zeros(4).long(), 2)


def test_scores_are_refused():
    with pytest.raises(ValueError, match=r"`reference_labels` to hold integer labels, but got torch.float32"):
        overlap_counts(torch.zeros(4).long(), torch.zeros(4).long(), torch.zeros(4), 2)


def test_no_shape_depends_on_values():
    """A graph that is traced without values has no place where the host would wait for one."""
    labels = random_labels(4, (100,))
    graph = torch.fx.experimental.proxy_tensor.make_fx(
        lambda *x: overlap_counts(*x, num_classes=4, ignore_index=0), tracing_mode="fake"
    )(*labels)
    assert torch.equal(graph(*labels), overlap_counts(*labels, 4, ignore_index=0))


@pytest.mark.slow
def test_compiles_to_one_graph():
    compiled = torch.compile(overlap_counts, fullgraph=True, backend="aot_eager")
    for size in (10, 33):
        labels = random_labels(4, (size,), seed=size)
        assert torch.equal(compiled(*labels, 4, 0), overlap_counts(*labels, 4, 0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_waits_for_the_gpu():
    labels = [x.cuda() for x in random_labels(4, (100,))]
    overlap_counts(*labels, 4, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        counts = overlap_counts(*labels, 4, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(counts.cpu(), counted_one_by_one(*(x.cpu() for x in labels), 4, 0))

"""The migration page: the expressions for evaluation run, and every name of the original has a line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "migration.md").read_text(encoding="utf-8")

# The public functions and classes of BackwardCompatibilityML 1.4.2, apart from the eight losses and the routes.
NAMES = [
    "trust_compatibility_score",
    "error_compatibility_score",
    "model_accuracy",
    "compare_models",
    "compatibility_scores",
    "evaluate_model_performance_and_compatibility_on_dataset",
    "evaluate_model_performance_and_compatibility",
    "get_model_error_overlap",
    "get_all_error_instance_indices",
    "get_error_instance_indices",
    "get_error_instance_ids_by_class",
    "get_incompatible_instances_by_class",
    "ComparisonManager",
    "train_epoch",
    "train",
    "test",
    "train_compatibility_epoch",
    "train_compatibility",
    "test_compatibility",
    "train_new_error",
    "train_strict_imitation",
    "bc_fit",
    "BCNewErrorCompatibilityModel",
    "MLPClassifier",
    "LogisticRegression",
    "compatibility_sweep",
    "SweepManager",
    "start_sweep",
    "start_sweep_synchronous",
    "is_running",
    "get_sweep_status",
    "get_sweep_summary",
    "get_evaluation",
    "get_instance_image",
    "CompatibilityAnalysis",
    "ModelComparison",
    "log_mem",
    "show_allocated_tensors",
    "get_gpu_mem",
    "clean_from_gpu",
    "get_class_probabilities",
    "labels_to_probabilities",
    "sigmoid_to_labels",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_original_has_a_line(name):
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|")]
    assert any(re.search(rf"\b{name}\b", row) for row in rows)


def test_the_expressions_for_evaluation_say_what_a_plain_loop_says():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    h1, h2 = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    x, y = torch.randn(50, 4), torch.arange(50) % 3
    data = [
        (list(range(start, start + 10)), x[start : start + 10], y[start : start + 10]) for start in range(0, 50, 10)
    ]
    scope = {"h1": h1, "h2": h2, "data": data, "metric": lambda model, data, device: torch.tensor(0.25)}
    block = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    exec(block.replace("  # or bc_keras", ""), scope)
    section = PAGE.split("## Scores and evaluation")[1].split("## Training")[0]
    expressions = [
        part
        for line in section.splitlines()
        if line.startswith("|")
        for part in re.findall(r"`([^`]*(?:overlap|found|comparison|table|evaluate)[.(][^`]*)`", line.split("|")[2])
        if "ComparisonView" not in part
    ]
    assert len(expressions) >= 14
    values = {expression: eval(expression, scope) for expression in expressions}

    a, b, t = h1(x).argmax(1).numpy(), h2(x).argmax(1).numpy(), y.numpy()
    right1, right2 = a == t, b == t
    assert values["overlap.btc, overlap.bec()"] == (
        (right1 & right2).sum() / right1.sum(),
        (~right1 & ~right2).sum() / (~right1).sum(),
    )
    assert values["overlap.accuracy_h2"] == right2.mean() == values["found.h2_performance"]
    np.testing.assert_allclose(
        values['overlap.per_class("accuracy_h2")'], [right2[t == c].mean() for c in range(3)], rtol=1e-12
    )
    assert values["table.ids"].tolist() == np.flatnonzero(~right1 | ~right2).tolist()
    assert values["table.ids[table.h2_pred != table.target]"].tolist() == np.flatnonzero(~right2).tolist()
    assert values["comparison.negative_flips().ids"].tolist() == np.flatnonzero(right1 & ~right2).tolist()
    only1, only2, both = values['comparison.to_dict()["models_error_overlap"]']
    assert (only1, only2, both) == tuple(
        np.flatnonzero(wrong).tolist() for wrong in (~right1, ~right2, ~right1 & ~right2)
    )
    assert values["evaluate(h1, h2, data, performance_metric=metric)"].h2_performance == 0.25

"""The migration page: every name of the original has a line, and what each line says to call is called."""

from __future__ import annotations

import gc
import logging
import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "migration.md").read_text(encoding="utf-8")

# The public functions and classes of BackwardCompatibilityML 1.4.2.
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
    *("remove_memory_hooks", "add_memory_hooks", "generate_mem_hook", "no_cache"),
    *("build_environment_params", "render_widget_html", "init_app_routes", "default_get_instance_metadata"),
    *("BCNLLLoss", "BCCrossEntropyLoss", "BCBinaryCrossEntropyLoss", "BCKLDivergenceLoss", "BCKLDivLoss"),
    *("StrictImitationNLLLoss", "StrictImitationCrossEntropyLoss", "StrictImitationBinaryCrossEntropyLoss"),
    "StrictImitationKLDivergenceLoss",
]


def sections():
    """By heading of this library's part: its block of code, and the rows of its tables as (number, left, right)."""
    found = {}
    for part in PAGE.split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        if "transformational" in title.lower():
            continue
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        cells = [
            [cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in text.splitlines() if line[:1] == "|"
        ]
        found[title] = blocks, [(each[0], each[-1]) for each in cells if each[0] != "there" and "---" not in each[0]]
    return found


SECTIONS = sections()
ROWS = [(title, *row) for title, (_, rows) in SECTIONS.items() for row in rows]
# A row that starts a server's client.
SLOW = ("mlflow=",)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_original_has_a_line(name):
    assert any(re.search(rf"\b{name}\b", there) for _, there, _ in ROWS)


@pytest.fixture
def scope(tmp_path, monkeypatch):
    """What the page takes for given: plain modules and lists of batches, as the original took them."""
    torch = pytest.importorskip("torch")
    import bc_core
    import bc_lightning
    import bc_tensorboard

    monkeypatch.chdir(tmp_path)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.manual_seed(0)

    class Triple(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)

        def forward(self, x):
            scores = self.linear(x)
            return scores, scores.softmax(-1), scores.log_softmax(-1)

    def batches():
        x, y = torch.randn(50, 4), torch.arange(50) % 3
        return [[list(range(a, a + 10)), x[a : a + 10], y[a : a + 10]] for a in range(0, 50, 10)]

    h1, h2 = Triple(), Triple()
    binary = [torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Sigmoid()) for _ in range(2)]
    data, training_set, test_set = batches(), batches(), batches()
    x, y = (torch.cat([batch[part] for batch in data]) for part in (1, 2))
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / ".gitkeep").touch()
    return {
        **{name: getattr(bc_core, name) for name in ("trust_compatibility_score", "error_compatibility_score")},
        **{name: getattr(bc_lightning, name) for name in ("ModelComparison", "evaluate")},
        **{"bc_core": bc_core, "bc_tensorboard": bc_tensorboard, "bcloss": bc_lightning, "torch": torch, "gc": gc},
        **{"h1": h1, "h2": h2, "network": h2, "model": h2, "dataset": data, "data": data},
        **{"training_set": training_set, "test_set": test_set, "x": x, "y": y, "labels": y},
        **{"h1_labels": h1(x)[0].argmax(1), "h2_labels": h2(x)[0].argmax(1)},
        "expected_labels": torch.nn.functional.one_hot(y, 3).tolist(),
        "metric": lambda model, data, device: torch.tensor(0.25),
        "get_instance_image": lambda instance: np.zeros((3, 3)),
        **{"folder": tmp_path / "sweep", "loss": "new_error", "lambda_c": 1.0, "lambda_c_stepsize": 1.0},
        "original_folder": Path(__file__).parent / "data" / "original_sweep" / "one_batch",
        **{"number_of_epochs": 1, "OptimizerClass": torch.optim.SGD, "optimizer_kwargs": {"lr": 0.1}},
        **{"batch_size": 10, "batch_size_train": 10, "batch_size_test": 10, "input_size": 4, "num_classes": 3},
        "loss_function": bc_lightning.BCNLLLoss(h1, h2, 0.5),
        **{"NewErrorLossClass": bc_lightning.BCCrossEntropyLoss},
        "StrictImitationLossClass": bc_lightning.StrictImitationCrossEntropyLoss,
        **{"b1": binary[0], "b2": binary[1], "sigmoids": binary[1](x), "discriminant_pivot": 0.3},
        "binary_data": [(ids, x, (y > 0).float()) for ids, x, y in data],
    }


def keras_scope(scope):
    """The same of Keras."""
    keras = pytest.importorskip("keras")
    import bc_keras

    def layers():
        return [keras.layers.Input((4,)), keras.layers.Dense(3, activation="softmax")]

    x, y = (scope[name].numpy() for name in ("x", "y"))
    sets = {name: [(each[1].numpy(), each[2].numpy()) for each in scope[name]] for name in ("training_set", "test_set")}
    models = {name: keras.Sequential(layers()) for name in ("h1", "h2")}
    return scope | {"x": x, "y": y, "layers": layers(), "BCKLDivLoss": bc_keras.BCKLDivLoss, **models, **sets,
                    "BCBinaryCrossEntropyLoss": bc_keras.BCBinaryCrossEntropyLoss}  # fmt: skip


def begun(title, scope, code):
    """The scope after the section's own block."""
    if title == "Training in TensorFlow" or (title.startswith("Which lambda_c") and "bcloss" not in code):
        scope = keras_scope(scope)
        title = "Training in TensorFlow"
    elif title == "What is not here":
        title = "Training in PyTorch"
    for block in SECTIONS[title][0]:
        if title == "Sweeps":
            run(SECTIONS["Training in PyTorch"][0][0], scope)
        run(block.replace("  # or bc_keras", ""), scope)
    if title == "Sweeps" and not code.startswith(("running =", "manager =", "sweep(", "analysis =")):
        for name in ("manager", "analysis"):
            cell = next(right for _, _, right in ROWS if right.startswith(f"`{name} ="))
            run(spans(cell)[0], scope)
        if "start_sweep" not in code:
            scope["manager"].start_sweep_synchronous()
            scope["running"] = scope["manager"].sweep
    return scope


def spans(cell):
    return re.findall(r"`([^`]+)`", cell)


def run(code, scope):
    try:
        compiled = compile(code, "migration.md", "eval")
    except SyntaxError:
        exec(compile(code, "migration.md", "exec"), scope)
        return None
    return eval(compiled, scope)


@pytest.mark.usefixtures("background_here")
@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning", "ignore::DeprecationWarning:keras")
@pytest.mark.parametrize(
    ("title", "there", "here"),
    [
        pytest.param(
            *row, id=f"{row[0]}: {row[1]}"[:80], marks=[pytest.mark.slow] * any(each in row[2] for each in SLOW)
        )
        for row in ROWS
    ],
)
def test_every_line_is_run_as_it_stands(title, there, here, scope):
    calls = spans(here)
    if not calls:
        # What has no equal value is said so.
        assert here == "none"
        return
    values = {}
    scope = begun(title, scope, calls[0])
    for call in calls:
        if title == "Sweeps" and "background=True" in call:
            # The manager of the same line has the folder.
            scope["folder"] = scope["folder"].with_name("other")
        values[call] = run(call, scope)
    for running in (scope.get("running"), getattr(scope.get("manager"), "sweep", None)):
        if hasattr(running, "wait"):
            running.wait()


def test_the_expressions_for_evaluation_say_what_a_plain_loop_says(scope):
    h1, h2, x, y = (scope[name] for name in ("h1", "h2", "x", "y"))
    scope = begun("Scores and evaluation", scope, "")
    here = [right for title, _, right in ROWS if title == "Scores and evaluation"]
    calls = [call for right in here for call in spans(right) if "View" not in call and "to_html" not in call]
    values = {call: run(call, scope) for call in calls}

    a, b, t = h1(x)[0].argmax(1).numpy(), h2(x)[0].argmax(1).numpy(), y.numpy()
    right1, right2 = a == t, b == t
    btc, bec = (right1 & right2).sum() / right1.sum(), (~right1 & ~right2).sum() / (~right1).sum()
    assert values["overlap.btc, overlap.bec()"] == (btc, bec)
    assert values["trust_compatibility_score(h1_labels, h2_labels, expected_labels)"] == btc
    assert values["error_compatibility_score(h1_labels, h2_labels, expected_labels)"] == bec
    assert values["overlap.accuracy_h2"] == right2.mean() == values["evaluate(model, model, dataset).h2_performance"]
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


def call_of(title, name):
    return next(spans(right)[0] for section, there, right in ROWS if section == title and name in there)


@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
def test_training_is_that_of_the_originals_loop(scope):
    torch, h1, h2 = (scope[name] for name in ("torch", "h1", "h2"))
    by_hand = type(h2)()
    for name, lambda_c in (("train_epoch", 0.0), ("train_compatibility_epoch", 0.5)):
        by_hand.load_state_dict(h2.state_dict())
        optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
        loss = scope["bcloss"].BCNLLLoss(h1, by_hand, lambda_c)
        for _, x, y in scope["training_set"]:
            optimizer.zero_grad()
            loss(x, y).backward()
            optimizer.step()
        run(call_of("Training in PyTorch", name), begun("Training in PyTorch", scope, ""))
        for found, known in zip(h2.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(found, known)


def test_the_one_line_replacements_of_utils_are_what_the_functions_were(scope):
    torch, y = scope["torch"], scope["y"]
    here = {name: run(call_of("What is not here", name), scope) for name in ("class_prob", "labels_to", "sigmoid")}
    assert here["class_prob"].tolist() == pytest.approx([17 / 50, 17 / 50, 16 / 50])
    rows = np.zeros((50, 3))
    rows[np.arange(50), y.numpy()] = 1
    assert here["labels_to"].dtype == torch.float32
    assert here["labels_to"].tolist() == rows.tolist()
    assert here["sigmoid"].tolist() == [[int(each >= 0.3)] for each in scope["sigmoids"].flatten()]

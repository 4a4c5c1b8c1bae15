"""The buttons of `CompatibilityAnalysis`: what is offered when, and what a press does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from gated_sweep import Analyses, Analysis

from bc_tensorboard.original._widgets import CompatibilityAnalysis

ORIGINALS = Path(__file__).parents[2] / "data" / "original_sweep"


@pytest.fixture
def analysis(tmp_path):
    with Analyses(tmp_path) as made:
        yield made


def buttons(shown):
    return [action["label"] for action in shown.view.index["actions"]["offered"]]


def press(shown, label):
    shown.view._handle_msg(
        {
            "content": {"data": {"method": "custom", "content": {"type": "action", "id": 1, "label": label}}},
            "buffers": [],
        }
    )


def wait_for(shown, condition):
    """Wait for an index that fulfils the condition."""
    fulfilled = threading.Event()

    def look(change):
        if condition(change["new"]):
            fulfilled.set()

    shown.view.observe(look, "index")
    if not condition(shown.view.index):
        assert fulfilled.wait(60), shown.view.index
    shown.view.unobserve(look, "index")


def offers(label):
    """Only this one, with nothing else at work."""

    def condition(index):
        actions = index["actions"]
        return [action["label"] for action in actions["offered"]] == [label] and actions["doing"] is None

    return condition


def test_it_is_offered_to_start_only_what_can_be_started(analysis, tmp_path):
    shown = analysis()
    assert buttons(shown) == ["Start the sweep"]
    [action] = shown.view.index["actions"]["offered"]
    assert "lambda_c from 0 to 1 in steps of 1, 2 epochs each" in action["note"]
    assert str(tmp_path / "sweep") in action["note"]
    # That there is no folder yet is no warning where the button makes it.
    assert shown.view.index["warnings"] == []
    for name in ("number_of_epochs", "h1", "h2", "training_set"):
        assert buttons(analysis(**{name: None})) == []
    assert buttons(CompatibilityAnalysis(tmp_path / "sweep", 1, 2, 3, 4)) == []
    # One of the original is finished, and nobody's to go on with.
    assert buttons(analysis(ORIGINALS / "one_batch")) == []


def test_why_it_did_not_start_is_shown(analysis, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "letter.txt").touch()
    shown = analysis()
    press(shown, "Start the sweep")
    failed = shown.view.index["actions"]["failed"]
    assert failed["label"] == "Start the sweep"
    assert "ValueError" in failed["error"]
    assert "holds no sweep, but letter.txt. Give a new or empty folder." in failed["error"]
    assert buttons(shown) == ["Start the sweep"]
    assert not shown.is_running
    shown.refresh()
    assert shown.view.index["actions"]["failed"] is None


@pytest.mark.slow
def test_it_is_started_stopped_gone_on_with_and_finished_by_its_buttons(analysis, tmp_path):
    shown = analysis()
    press(shown, "Start the sweep")
    assert shown.is_running
    sweep = shown.sweep
    # From the press on there is no moment in which the page shows nothing of it.
    assert offers("Stop")(shown.view.index)
    assert shown.view.index["progress"] == 0
    # A press of another view, which did not know yet.
    press(shown, "Start the sweep")
    assert shown.sweep is sweep

    analysis.let_finish(sweep._asked[:1])
    wait_for(shown, lambda index: index["series"])
    # Plain training is of both losses. Who looks at the first point must find it by that name when there are more.
    plain = ["new_error, lambda_c 0", "strict_imitation, lambda_c 0"]
    assert [(each["run"], each["dissonance"]) for each in shown.view.index["series"]] == [
        (plain[0], "new error"),
        (plain[1], "strict imitation"),
    ]
    with analysis.held_at_the_stop(sweep):
        press(shown, "Stop")
        assert shown.view.index["actions"]["doing"] == "Stopping the sweep; what is finished stays"
    wait_for(shown, offers("Go on"))
    assert not shown.is_running
    assert shown.view.index["progress"] is None
    [action] = shown.view.index["actions"]["offered"]
    assert action["note"] == "2 of its 3 points are not finished."
    assert shown.view.index["warnings"] == []

    # Who opens the folder to look gets told; who has what it needs gets the button.
    [warning] = Analysis(tmp_path / "sweep").view.index["warnings"]
    assert "start() goes on with it" in warning
    again = analysis()
    assert buttons(again) == ["Go on"]
    press(again, "Go on")
    assert again.is_running
    # Two cannot train in one folder, and the page says so.
    press(shown, "Go on")
    assert "RuntimeError" in shown.view.index["actions"]["failed"]["error"]

    analysis.let_finish(again.sweep._asked)
    again.sweep.wait(120)
    wait_for(again, lambda index: index["progress"] is None)
    runs = [each["run"] for each in again.view.index["series"]]
    assert sorted(runs) == sorted([*plain, "new_error, lambda_c 1", "strict_imitation, lambda_c 1"])
    assert again.view.index["actions"] == {"offered": [], "doing": None, "failed": None}


@pytest.mark.slow
def test_going_on_keeps_what_it_was_started_with(analysis):
    shown = analysis()
    shown.start(seeds=[0, 1])
    wait_for(shown, offers("Stop"))
    press(shown, "Stop")
    wait_for(shown, offers("Go on"))
    assert shown.view.index["actions"]["offered"][0]["note"] == "6 of its 6 points are not finished."
    press(shown, "Go on")
    assert len(shown.sweep._asked) == 6
    # One seed is finished, and the other will be.
    analysis.let_finish(shown.sweep._asked[:1])
    wait_for(shown, lambda index: index["series"])
    assert shown.view.index["series"][0]["run"] == "new_error, seed 0, lambda_c 0"

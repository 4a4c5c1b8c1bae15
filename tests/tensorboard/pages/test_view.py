"""The notebook widget, driven by the messages that its front end sends, over a comm that keeps what is sent."""

import copy
import dataclasses
import io
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from invariance_updates import measured, predicted
from PIL import Image

from bc_core import compare
from bc_tensorboard import ComparisonView
from bc_tensorboard.pages._actions import Action
from bc_tensorboard.plugin._invariance import decode_invariance
from bc_tensorboard.writing._format import decode
from bc_tensorboard.writing._invariance import encode_invariance
from bc_tensorboard.writing._media import EXCERPT

ORIGINALS = Path(__file__).parents[2] / "data" / "original_sweep"


class FakeComm:
    """Stands for the connection between kernel and browser."""

    kernel = True
    comm_id = "fake"

    def __init__(self):
        self.sent = []

    def send(self, data=None, metadata=None, buffers=None):
        # What crosses to the browser is JSON.
        self.sent.append((json.loads(json.dumps(data, allow_nan=False)), [bytes(buffer) for buffer in buffers or []]))

    def on_msg(self, callback):
        pass

    def close(self, *args, **kwargs):
        pass


def connected(*args, **options):
    view = ComparisonView(*args, **options)
    view.comm = FakeComm()
    return view


def ask(view, **content):
    """Send a message as the browser does, and return the one reply with its buffers."""
    view.comm.sent.clear()
    view._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    replies = [(data["content"], buffers) for data, buffers in view.comm.sent if data["method"] == "custom"]
    assert len(replies) == 1
    return replies[0]


def three(**options):
    return compare([0, 1, 1], [0, 1, 0], [0, 0, 1], **{"name": "u", **options})


def test_the_index_lists_the_comparisons():
    comparison = three(step=4, lambda_c=0.5)
    [series] = ComparisonView(comparison, dissonance="new error").index["series"]
    assert (series["run"], series["dataset"], series["dissonance"]) == ("u", "test", "new error")
    [[step, wall_time, weight, *cells]] = series["steps"]
    assert (step, weight, cells) == (4, 0.5, [0, 1, 1, 1])
    assert wall_time > 1.7e9


def test_settings_are_of_all_runs_or_by_run():
    given = {"settings": {"start": "warm", "seed": 0}}
    view = ComparisonView({"a": three(), "b": three()}, **given)
    assert [series["settings"] for series in view.index["series"]] == [{"start": "warm", "seed": 0.0}] * 2
    view.add({"c": three(), "d": three()}, settings={"d": {"seed": 1}})
    assert [series.get("settings") for series in view.index["series"][2:]] == [None, {"seed": 1.0}]
    for wrong in ({"seed": [1]}, {"d": {"seed": 1}, "seed": 1}, "warm"):
        with pytest.raises(ValueError, match="settings: expected"):
            ComparisonView(three(), settings=wrong)


def test_a_table_is_answered_encoded():
    view = connected(three(step=4, class_names=["cat", "dog"]))
    reply, [blob] = ask(view, type="table", id=17, run="u", dataset="test", step=4)
    assert reply == {"type": "reply", "id": 17, "ok": True}
    header, columns = decode(blob)
    assert (header["step"], header["class_names"]) == (4, ["cat", "dog"])
    assert [columns[name].tolist() for name in ("ids", "target", "h1", "h2")] == [[1, 2], [1, 1], [1, 0], [0, 1]]


def test_texts_and_images_are_answered():
    view = connected(three(metadata=["a", "b", "c"]), images=np.ones((3, 40, 20)), image_size=10)
    reply, [blob] = ask(view, type="media", id=1, run="u", dataset="test")
    assert reply["ok"]
    _, columns = decode(blob)
    assert (columns["ids"].tolist(), columns["text"], columns["has_image"].tolist()) == ([1, 2], ["b", "c"], [1, 1])
    reply, [image] = ask(view, type="image", id=2, run="u", dataset="test", instance=2)
    assert reply == {"type": "reply", "id": 2, "ok": True}
    assert Image.open(io.BytesIO(image)).size == (5, 10)


def test_the_whole_text_and_the_larger_picture_are_answered_on_demand():
    texts = ["a", "b" * 500 + " Käfer", "a Käfer"]
    view = connected(three(metadata=texts), images=np.ones((3, 400, 200)))
    _, [blob] = ask(view, type="media", id=1, run="u", dataset="test")
    _, columns = decode(blob)
    assert columns["text"] == [texts[1][:EXCERPT], texts[2]]
    assert columns["is_longer"].tolist() == [1, 0]
    for instance in (1, 2):
        _, [text] = ask(view, type="text", id=2, run="u", dataset="test", instance=instance)
        assert text.decode() == texts[instance]
    _, [found] = ask(view, type="search", id=3, run="u", dataset="test", text="KÄFER")
    assert json.loads(found) == ["1"], "short texts are searched where they are"
    for full, size in ((False, (48, 96)), (True, (200, 400))):
        _, [image] = ask(view, type="image", id=4, run="u", dataset="test", instance=1, full=full)
        assert Image.open(io.BytesIO(image)).size == size


def test_text_ids_and_ids_beyond_those_of_javascript_find_their_images():
    big = 2**53 + 1
    for ids, instance in ((["a", "b", "c"], "b"), ([1, big, 3], str(big)), ([1, 5, 3], 5.0)):
        asked = []
        view = connected(three(ids=ids), images=lambda i, asked=asked: asked.append(i) or np.zeros((2, 2)))
        reply, buffers = ask(view, type="image", id=1, run="u", dataset="test", instance=instance)
        assert (reply["ok"], len(buffers)) == (True, 1)
        assert asked == [ids[1]]
        assert type(asked[0]) is type(ids[1])


def test_what_has_no_texts_and_no_image_is_answered_with_nothing():
    view = connected(three())
    assert ask(view, type="media", id=1, run="u", dataset="test") == ({"type": "reply", "id": 1, "ok": True}, [])
    view = connected(three(), images={2: np.zeros((2, 2))})
    _, [blob] = ask(view, type="media", id=1, run="u", dataset="test")
    assert decode(blob)[1]["ids"].tolist() == [2]
    assert ask(view, type="image", id=2, run="u", dataset="test", instance=1) == (
        {"type": "reply", "id": 2, "ok": True},
        [],
    )


@pytest.mark.parametrize(
    "content",
    [
        {"type": "table", "run": "other", "dataset": "test", "step": 0},
        {"type": "table", "run": "u", "dataset": "other", "step": 0},
        {"type": "table", "run": "u", "dataset": "test", "step": 1},
        {"type": "table", "run": "u", "dataset": "test", "step": "0"},
        {"type": "table", "run": ["u"], "dataset": {}, "step": None},
        {"type": "table"},
        {"type": "media", "run": "other", "dataset": "test"},
        {"type": "image", "run": "u", "dataset": "test", "instance": 0},
        {"type": "image", "run": "u", "dataset": "test", "instance": "../../etc/passwd"},
        {"type": "image", "run": "u", "dataset": "test", "instance": [1]},
        {"type": "image", "run": "u", "dataset": "test"},
        {"type": "invariance", "run": "u", "dataset": "test", "step": 0},
        {"type": "invariance", "run": ["u"], "dataset": {}, "step": []},
    ],
    ids=str,
)
def test_what_is_not_there_is_answered_with_advice(content):
    # Instance 0 is one that both models get right: it is not in the view.
    view = connected(three(), images=lambda instance: pytest.fail("asked for what is not shown"))
    reply, buffers = ask(view, id=9, **content)
    assert (reply["type"], reply["id"], reply["ok"], buffers) == ("reply", 9, False, [])
    assert reply["error"]["error"]
    assert reply["error"]["advice"]


def test_an_exception_in_the_users_images_or_texts_is_an_answer_and_no_line_of_the_log(caplog, capsys):
    def broken(instance):
        raise KeyError(f"no file for {instance}")

    view = connected(three(), images=broken, metadata=broken)
    reply, _ = ask(view, type="image", id=3, run="u", dataset="test", instance=1)
    assert reply["ok"] is False
    assert reply["error"]["error"] == "The image could not be made: KeyError: 'no file for 1'"
    assert "images=" in reply["error"]["advice"]
    reply, _ = ask(view, type="media", id=4, run="u", dataset="test")
    assert "The texts could not be made" in reply["error"]["error"]
    assert (caplog.text, *capsys.readouterr()) == ("", "", "")
    assert ask(view, type="table", id=5, run="u", dataset="test", step=0)[0]["ok"]


def test_what_is_no_image_is_an_error_of_that_image():
    view = connected(three(), images=lambda instance: np.full((2, 2), 3.0))
    reply, _ = ask(view, type="image", id=3, run="u", dataset="test", instance=1)
    assert "0..1" in reply["error"]["error"]


@pytest.mark.parametrize("content", [None, 3, [], {}, {"type": "anywidget-command"}, {"type": ["table"]}], ids=str)
def test_messages_of_others_are_left_alone(content):
    view = connected(three())
    view._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    assert view.comm.sent == []


def test_comparisons_are_added_and_replaced():
    view = connected(three(step=1))
    view.comm.sent.clear()
    view.add(three(step=2))
    view.add(three(name="other"), dataset="train", dissonance="strict imitation")
    assert {(each["run"], each["dataset"]): len(each["steps"]) for each in view.index["series"]} == {
        ("u", "test"): 2,
        ("other", "train"): 1,
    }
    sent = [data["state"]["index"] for data, _ in view.comm.sent if data["method"] == "update"]
    assert sent[-1] == view.index
    assert len(sent) == 2

    before = copy.deepcopy(view.index)
    view.add(compare([0, 1, 1], [0, 1, 0], [0, 1, 1], name="u", step=2))
    old, new = (index["series"][0]["steps"][1] for index in (before, view.index))
    assert (old[3:], new[3:]) == ([0, 1, 1, 1], [0, 1, 0, 2])
    # The front end takes another time as the sign that a table must be asked for anew.
    assert new[1] > old[1]
    _, [blob] = ask(view, type="table", id=1, run="u", dataset="test", step=2)
    assert decode(blob)[1]["ids"].tolist() == [2]

    view.replace([three(name="alone")], warnings=["one file was left out"])
    assert [each["run"] for each in view.index["series"]] == ["alone"]
    assert view.index["warnings"] == ["one file was left out"]


def test_the_points_of_a_sweep_may_be_added_one_by_one():
    view = ComparisonView()
    for weight in (0.0, 0.5, 1.0, 0.5):
        view.add(three(name="new error", lambda_c=weight))
    assert [(each["run"], each["steps"][0][2]) for each in view.index["series"]] == [
        ("new error", 0.0),
        ("new error, lambda_c 0.5", 0.5),
        ("new error, lambda_c 1", 1.0),
    ]


def test_what_is_refused_changes_nothing():
    view = connected(three())
    before = copy.deepcopy(view.index)
    for wrong, error in ((3, TypeError), ([three(name="a"), "b"], TypeError), ([three(step=1)] * 2, ValueError)):
        with pytest.raises(error):
            view.add(wrong)
        with pytest.raises(error):
            view.replace(wrong)
    with pytest.raises(TypeError, match="colour: no option of add"):
        view.add(three(), colour="red")
    assert view.index == before
    assert ask(view, type="table", id=1, run="u", dataset="test", step=0)[0]["ok"]


def where(view):
    return {(each["run"], each["dataset"]): [step for step, _ in each["steps"]] for each in view.index["invariance"]}


def test_invariance_is_listed_and_answered_as_a_page_has_it():
    update = measured()
    view = connected(three(step=4), invariance=update)
    assert where(view) == {("u", "test"): [4]}
    reply, [blob] = ask(view, type="invariance", id=1, run="u", dataset="test", step=4.0)
    assert reply == {"type": "reply", "id": 1, "ok": True}
    assert blob == decode_invariance(encode_invariance(update))
    assert repr(view) == "ComparisonView(1 comparison, 1 invariance update; runs: u)"


def test_invariance_needs_no_comparison():
    view = connected(invariance={"a": {"val": predicted(), 3: predicted(seed=1)}})
    assert where(view) == {("a", "val"): [0], ("a", "test"): [3]}
    assert view.index["series"] == []
    assert repr(view) == "ComparisonView(0 comparisons, 2 invariance updates; runs: a)"
    assert where(ComparisonView(None, invariance=predicted())) == {("update", "test"): [0]}


def test_invariance_is_added_to_the_run_that_comes_with_it():
    view = connected(three(step=1), invariance=predicted())
    view.add(three(name="other", step=7), invariance=predicted(seed=1))
    # Alone it is of the one run that it can be of.
    with pytest.raises(ValueError, match="as there are u, other"):
        view.add(invariance=predicted(seed=2))
    view.add(invariance={"u": {1: predicted(seed=3)}})
    assert where(view) == {("u", "test"): [1], ("other", "test"): [7]}
    # What took the place of an earlier one is of another time, so that the front end asks anew.
    assert view.index["invariance"][0]["steps"][0][1] > view.index["invariance"][1]["steps"][0][1]
    _, [blob] = ask(view, type="invariance", id=1, run="u", dataset="test", step=1)
    assert blob == decode_invariance(encode_invariance(predicted(seed=3)))
    view.replace([three(name="alone")])
    assert where(view) == {}


def test_invariance_that_is_refused_changes_nothing():
    view = connected(three(), invariance=predicted())
    before = copy.deepcopy(view.index)
    for wrong, error in ((3, TypeError), ({"u": 3}, TypeError), ({1: predicted()}, TypeError)):
        with pytest.raises(error):
            view.add(three(name="new"), invariance=wrong)
    assert view.index == before
    assert "new" not in repr(view)


class Owner:
    """Offers a button in a view, and keeps the states that the view was in while the button was at work."""

    def __init__(self, act=lambda: None, **options):
        self.view = connected(three())
        self.act, self.calls, self.during = act, 0, []
        self.view.replace(three(), actions=[Action("Start", "Starting", self.start, "It takes a while.", **options)])

    def start(self):
        self.calls += 1
        self.during.append(self.view.index["actions"])
        return self.act()

    def press(self, label="Start"):
        return ask(self.view, type="action", id=5, label=label)

    @property
    def actions(self):
        return self.view.index["actions"]


OFFERED = {"offered": [{"label": "Start", "note": "It takes a while."}], "doing": None, "failed": None}
STARTING = {"offered": [], "doing": "Starting", "failed": None}


def test_a_button_is_offered_pressed_once_and_gone():
    owner = Owner()
    assert owner.actions == OFFERED
    assert owner.press() == ({"type": "reply", "id": 5, "ok": True}, [])
    assert owner.during == [STARTING]
    # What can be done next is the owner's to say; until then there is no button, and a second press does nothing.
    assert owner.actions == {"offered": [], "doing": None, "failed": None}
    assert owner.press()[0]["ok"]
    assert owner.calls == 1


def test_what_is_offered_while_a_button_is_at_work_stays():
    owner = Owner()
    stop = Action("Stop", "Stopping", lambda: None)
    owner.act = lambda: owner.view.replace(three(), actions=[stop], progress=0.5)
    owner.press()
    assert owner.actions["offered"] == [{"label": "Stop", "note": ""}]
    assert owner.view.index["progress"] == 0.5
    # One that is not there, or not there any more, does nothing.
    for label in ("Start", "start", None, ["Stop"]):
        owner.press(label)
    assert owner.calls == 1


def test_an_exception_of_a_button_is_shown_until_something_else_is_offered(caplog, capsys):
    def fail():
        raise ValueError("the folder of another sweep")

    owner = Owner(fail)
    assert owner.press()[0]["ok"]
    assert owner.actions == {
        **OFFERED,
        "failed": {"label": "Start", "error": "ValueError: the folder of another sweep"},
    }
    assert (caplog.text, *capsys.readouterr()) == ("", "", "")
    owner.act = lambda: None
    owner.press()
    assert owner.during[1] == STARTING
    assert owner.actions["failed"] is None


def test_a_button_in_the_background_leaves_the_kernel_free():
    begun, end = threading.Event(), threading.Event()

    def stop():
        begun.set()
        assert end.wait(60)
        raise OSError("late")

    owner = Owner(stop, background=True)
    assert owner.press()[0]["ok"]
    assert begun.wait(60)
    assert owner.actions == STARTING
    # It answers meanwhile, and takes no second press.
    assert ask(owner.view, type="table", id=1, run="u", dataset="test", step=0)[0]["ok"]
    assert owner.press()[0]["ok"]
    failed = threading.Event()
    owner.view.observe(lambda change: failed.set() if change["new"]["actions"]["failed"] else None, "index")
    end.set()
    assert failed.wait(60)
    assert owner.actions == {**OFFERED, "failed": {"label": "Start", "error": "OSError: late"}}
    assert owner.calls == 1


def test_state_is_read_and_set_from_python_and_from_the_browser():
    view = connected(three())
    view.comm.sent.clear()
    view.state = "run=u&region=regress"
    assert view.comm.sent[-1][0]["state"] == {"state": "run=u&region=regress"}
    view._handle_msg({"content": {"data": {"method": "update", "state": {"state": "run=u"}}}, "buffers": []})
    assert view.state == "run=u"


def test_two_views_share_nothing():
    first, second = connected(three(name="a")), connected(three(name="b"))
    first.state = "run=a"
    first.add(three(name="c"))
    assert (second.state, [each["run"] for each in second.index["series"]]) == ("", ["b"])
    ask(first, type="table", id=1, run="a", dataset="test", step=0)
    assert not [data for data, _ in second.comm.sent if data["method"] == "custom"]


def test_an_evaluation_of_a_sweep_brings_its_own_names():
    @dataclasses.dataclass
    class Evaluation:
        comparison: object
        dataset: str = "testing"
        dissonance: str = "strict imitation"
        uncertain_classes: tuple = (1,)
        datapoint_index: int = 3

    view = connected([Evaluation(three(lambda_c=0.25))])
    [series] = view.index["series"]
    assert (series["run"], series["dataset"], series["dissonance"]) == (
        "u, lambda_c 0.25",
        "testing",
        "strict imitation",
    )
    _, [blob] = ask(view, type="table", id=1, run="u, lambda_c 0.25", dataset="testing", step=0)
    assert decode(blob)[0]["uncertain_classes"] == [1]


def test_the_view_is_described_in_a_line_and_shown_as_a_widget():
    view = ComparisonView([three(), three(name="other")])
    assert repr(view) == "ComparisonView(2 comparisons; runs: u, other)"
    bundle = view._repr_mimebundle_()[0]
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id
    assert "export" in view._esm


def test_without_anywidget_the_advice_is_what_to_install():
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "import bc_tensorboard\n"
        "try: bc_tensorboard.ComparisonView\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 'pip install "backward-compat-ml[notebook]"' in out


@pytest.mark.slow
def test_a_kernel_shows_the_view_and_answers_it(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    cells = [
        "from bc_core import compare\n"
        "from bc_tensorboard import ComparisonView\n"
        "view = ComparisonView(compare([0, 1, 1], [0, 1, 0], [0, 0, 1], name='u'), images=lambda i: 1 / 0)\n"
        "view",
        "from bc_tensorboard.original._widgets import CompatibilityAnalysis\n"
        f"kept = CompatibilityAnalysis({str(ORIGINALS / 'one_batch')!r})",
        "view._handle_msg({'content': {'data': {'method': 'custom', 'content':\n"
        "    {'type': 'image', 'id': 1, 'run': 'u', 'dataset': 'test', 'instance': 1}}}, 'buffers': []})",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    first, second, third = (cell["outputs"] for cell in notebook.cells)
    widgets = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    for outputs, runs in ((first, 1), (second, 12)):
        [output] = outputs
        model = output["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
        assert len(widgets[model]["state"]["index"]["series"]) == runs
    assert third == []

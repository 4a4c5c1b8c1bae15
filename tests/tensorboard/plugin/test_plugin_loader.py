"""How TensorBoard finds and loads the plugin."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from served_logs import python_provider
from tensorboard.backend import application
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

from bc_tensorboard.plugin._loader import KEPT_STEPS, PLUGIN_NAME, BackwardCompatibilityLoader
from bc_tensorboard.writing._media import media_path


def test_the_loader_asks_for_enough_steps_and_leaves_the_users_number_alone():
    loader = BackwardCompatibilityLoader()
    for given, expected in [
        ({}, KEPT_STEPS),
        ({"images": 3}, KEPT_STEPS),
        ({PLUGIN_NAME: 7}, 7),
        ({PLUGIN_NAME: 0}, 0),
    ]:
        flags = Namespace(samples_per_plugin=given)
        loader.fix_flags(flags)
        assert flags.samples_per_plugin == {**given, PLUGIN_NAME: expected}


def test_the_loader_module_imports_nothing_that_could_fail():
    code = (
        "import sys, bc_tensorboard.plugin._loader\n"
        "heavy = {'numpy', 'bc_core', 'torch', 'tensorflow', 'keras', 'PIL', 'werkzeug'} & set(sys.modules)\n"
        "ours = {m.partition('.')[2] for m in sys.modules if m.startswith('bc_tensorboard.')}\n"
        "assert not heavy and ours == {'_plugin_name', 'plugin', 'plugin._loader'}, (heavy, ours)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plugin_that_cannot_be_loaded_leaves_the_other_tabs_alone(tmp_path, monkeypatch, caplog):
    from tensorboard.plugins.scalar import scalars_plugin

    monkeypatch.setitem(sys.modules, "bc_tensorboard.plugin._plugin", None)
    context = base_plugin.TBContext(logdir=str(tmp_path), flags=Namespace(logdir_spec=""))
    assert BackwardCompatibilityLoader().load(context) is None
    [record] = caplog.records
    assert "The compatibility tab is off" in record.getMessage()
    assert record.exc_info is None
    flags = Namespace(logdir=str(tmp_path), samples_per_plugin={}, window_title="", path_prefix="")
    plugins = [BackwardCompatibilityLoader, scalars_plugin.ScalarsPlugin]
    app = application.TensorBoardWSGIApp(flags, plugins, python_provider(tmp_path))
    assert set(Client(app).get("/data/plugins_listing").json) == {"scalars"}


def test_tensorboard_finds_the_loader_by_its_entry_point():
    from importlib.metadata import entry_points

    [found] = [point for point in entry_points(group="tensorboard_plugins") if point.name == PLUGIN_NAME]
    loader = application.make_plugin_loader(found.load())
    assert isinstance(loader, BackwardCompatibilityLoader)


def test_the_writing_half_and_the_plugin_mean_the_same_name_and_version():
    from bc_tensorboard import summary
    from bc_tensorboard.plugin._plugin_data import EVENTS_VERSION

    assert (summary.PLUGIN_NAME, summary.VERSION) == (PLUGIN_NAME, EVENTS_VERSION)
    assert media_path("run", "a/b") == Path("run", "plugins", PLUGIN_NAME, "a%2Fb.media")

"""The plugin in a real TensorBoard, as a user starts it."""

import json
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from tensorboard_process import tensorboard

from bc_core import compare
from bc_tensorboard import summary
from bc_tensorboard.writing._format import decode

pytestmark = pytest.mark.slow

ORIGINALS = Path(__file__).parents[2] / "data" / "original_sweep"


def get(address, **query):
    with urllib.request.urlopen(f"{address}?{urllib.parse.urlencode(query)}", timeout=30) as response:
        return response.read(), response.headers


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_tensorboard_serves_what_was_logged_under_a_path_prefix(tmp_path, load_fast):
    rng = np.random.default_rng(0)
    compared = compare(*rng.integers(0, 3, (3, 50)), num_classes=3, metadata=[f"text {i}" for i in range(50)])
    pixels = rng.integers(0, 255, (50, 8, 8), dtype=np.uint8)
    for step in (0, 1):
        summary.comparison(tmp_path / "run", compared, step, dataset="my test", dissonance="new error", images=pixels)
    shutil.copytree(ORIGINALS / "one_batch", tmp_path / "old")
    flags = ("--path_prefix=/some/where", f"--load_fast={load_fast}", "--reload_interval=1")
    # Where its server is not fast, TensorBoard reads with TensorFlow where there is one.
    with tensorboard(tmp_path, *flags, with_tensorflow=load_fast == "false") as address:
        assert urllib.parse.urlsplit(address).path == "/some/where/"
        base = f"{address}data/plugin/backward_compatibility"
        deadline = time.monotonic() + 60
        while True:
            index = json.loads(get(f"{base}/index")[0])
            [*series] = (entry for entry in index["series"] if entry["run"] == "run")
            if (series and len(series[0]["steps"]) == 2) or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        [entry] = series
        cells = compared.overlap.counts.sum(axis=0).ravel().tolist()
        assert [[row[0], *row[2:]] for row in entry["steps"]] == [[step, None, *cells] for step in (0, 1)]
        assert len(index["series"]) == 13

        query = {"run": "run", "dataset": "my test"}
        header, columns = decode(get(f"{base}/table", **query, step=1)[0])
        assert header["step"] == 1
        assert columns["ids"].tolist() == compared.instances.ids.tolist()
        media = decode(get(f"{base}/media", **query)[0])[1]
        assert media["text"] == [f"text {i}" for i in media["ids"].tolist()]
        image, headers = get(f"{base}/image", **query, id=media["ids"][0])
        assert (image[:4], headers["Content-Type"]) == (b"\x89PNG", "image/png")

        listing = json.loads(get(f"{address}data/plugins_listing")[0])
        assert listing["backward_compatibility"]["enabled"]
        assert "scalars" in listing
        # TensorBoard's page of the tab loads our script relative to this folder.
        page = get(f"{address}data/plugin_entry.html", name="backward_compatibility")[0].decode()
        assert 'base href="plugin/backward_compatibility/"' in page
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(f"{base}/table", **query, step=7)
        assert caught.value.code == 404
        assert set(json.loads(caught.value.read())) == {"error", "advice"}


def test_a_broken_installation_leaves_tensorboard_running(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['bc_tensorboard.plugin._plugin'] = None\n")
    (tmp_path / "logs").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with tensorboard(tmp_path / "logs", "--load_fast=false") as address:
            listing = json.loads(get(f"{address}data/plugins_listing")[0])
    assert "backward_compatibility" not in listing
    assert "scalars" in listing

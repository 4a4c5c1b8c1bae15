"""A log folder with comparisons, and the plugin that serves it."""

import contextlib
import json
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
from tensorboard.backend import application
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.compat.proto.summary_pb2 import (
    DATA_CLASS_BLOB_SEQUENCE,
    DATA_CLASS_TENSOR,
    Summary,
    SummaryMetadata,
)
from tensorboard.data import server_ingester
from tensorboard.util import grpc_util, tensor_util
from werkzeug.test import Client

from bc_core import compare
from bc_tensorboard.plugin._loader import KEPT_STEPS, PLUGIN_NAME, BackwardCompatibilityLoader
from bc_tensorboard.writing._event_file import EventFile
from bc_tensorboard.writing._format import encode_comparison

BASE = f"/data/plugin/{PLUGIN_NAME}"
ORIGINALS = Path(__file__).parents[1] / "data" / "original_sweep"
PNG = b"\x89PNG\r\n\x1a\n and the rest"


def comparison(seed=0, step=None, size=40):
    rng = np.random.default_rng(seed)
    return compare(*rng.integers(0, 3, (3, size)), ids=np.arange(size) + 100, num_classes=3, step=step)


def write(event_file, step, compared, tag="test", weight=0.5, version=1, table=None):
    """Write the two summaries of a comparison, spelt out: what the plugin has to read, whoever wrote it."""
    content = {"version": version, "dataset": "test", "dissonance": "new error", "num_classes": 3}
    metadata = {"plugin_name": "backward_compatibility", "content": json.dumps(content).encode()}
    counts = [*compared.overlap.counts.sum(axis=0).ravel(), weight]
    blob = encode_comparison(compared, dataset="test") if table is None else table
    values = [
        ("counts", DATA_CLASS_TENSOR, np.array(counts, dtype=np.float64)),
        ("table", DATA_CLASS_BLOB_SEQUENCE, np.array([blob], dtype=object)),
    ]
    event_file.add_summary(
        Summary(
            value=[
                Summary.Value(
                    tag=f"backward_compatibility/{tag}/{name}",
                    tensor=tensor_util.make_tensor_proto(array),
                    metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(**metadata), data_class=kind),
                )
                for name, kind, array in values
            ]
        ),
        step,
    )


def log(folder, steps=(0, 1), **options):
    events = EventFile(folder)
    for step in steps:
        write(events, step, comparison(step, step), **options)
    return events


def python_provider(logdir, spec=None):
    multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={PLUGIN_NAME: KEPT_STEPS})
    for name, folder in spec or [(None, logdir)]:
        multiplexer.AddRunsFromDirectory(str(folder), name)
    multiplexer.Reload()
    return data_provider.MultiplexerDataProvider(multiplexer, str(logdir))


@contextlib.contextmanager
def rust_provider(logdir):
    ingester = server_ingester.SubprocessServerDataIngester(
        server_binary=server_ingester.get_server_binary(),
        logdir=str(logdir),
        reload_interval=0,
        channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
        samples_per_plugin={PLUGIN_NAME: KEPT_STEPS},
    )
    ingester.start()
    try:
        # The server answers at once and reads meanwhile.
        state, deadline = None, time.monotonic() + 60
        while time.monotonic() < deadline:
            runs = ingester.data_provider.list_tensors(None, experiment_id="", plugin_name=PLUGIN_NAME)
            if runs and runs == state:
                break
            state = runs
            time.sleep(0.2)
        yield ingester.data_provider
    finally:
        ingester._stdin_handle.close()


def client_of(logdir, provider, logdir_spec="", plugin=BackwardCompatibilityLoader):
    flags = Namespace(
        logdir="" if logdir_spec else str(logdir),
        logdir_spec=logdir_spec,
        samples_per_plugin={},
        window_title="",
        path_prefix="",
    )
    return Client(application.TensorBoardWSGIApp(flags, [plugin], provider))


def local(logdir):
    return client_of(logdir, python_provider(logdir))


def index_of(client):
    response = client.get(f"{BASE}/index")
    assert response.status_code == 200
    return response.json


def refused(response, status):
    assert response.status_code == status
    assert set(response.json) == {"error", "advice"}
    assert "Traceback" not in response.text
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return response.json["error"]

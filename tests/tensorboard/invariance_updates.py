"""Invariance updates of made-up networks, for tests of what shows them."""

from __future__ import annotations

import dataclasses
from argparse import Namespace

import numpy as np
from tensorboard.backend import application
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

from bc_core.invariance import (
    Interval,
    InvarianceResult,
    LayerMeasures,
    PairedInterval,
    TransformSet,
    compare_predictions,
)
from bc_tensorboard._plugin_name import PLUGIN_NAME
from bc_tensorboard.plugin._loader import KEPT_STEPS, BackwardCompatibilityLoader

TURNS = TransformSet.rotations([0, 15, 30])


def layers(names, seed=0, features=6):
    rng = np.random.default_rng(seed)
    made = []
    for name in names:
        sv = rng.uniform(0.5, 2, (features, 4))
        sv[0] = 0
        tv = rng.uniform(0, 1.5, (features, 1)) * sv
        flat = [part.ravel() for part in (tv, tv**2, sv, sv**2, tv**2, sv)]
        made.append(LayerMeasures(name, (features, 4), 0, 100, len(TURNS), *flat))
    return InvarianceResult(made, TURNS.names, TURNS.sizes)


def predicted(seed=0, transforms=TURNS, labels=True, n=80):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    h1, h2 = (np.where(rng.random((n, len(transforms))) < 0.3, 0, y[:, None]) for _ in range(2))
    return compare_predictions(h1, h2, y if labels else None, transforms=transforms)


def measured(names=("conv", "fc"), **options):
    h1, h2 = layers(names, 1), layers(names, 2)
    intervals = {names[0]: PairedInterval(Interval(0.1, 0.9), Interval(0.2, 0.8), Interval(-0.1, 0.1))}
    return dataclasses.replace(predicted(**options), h1=h1, h2=h2, intervals=intervals)


def served(logdir):
    """The plugin in this process."""
    multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={PLUGIN_NAME: KEPT_STEPS})
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    context = base_plugin.TBContext(
        data_provider=data_provider.MultiplexerDataProvider(multiplexer, str(logdir)),
        logdir=str(logdir),
        flags=Namespace(logdir=str(logdir), logdir_spec=""),
    )
    plugin = BackwardCompatibilityLoader().load(context)
    return Client(application.TensorBoardWSGI([plugin]))

"""A sweep that trains nothing: each point waits until the test lets it finish, in a process of its own."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from pathlib import Path

from bc_core import compare, linear_lambdas
from bc_core.sweep._folder import Trained
from bc_core.sweep._running import run_sweep
from bc_tensorboard.original._widgets import CompatibilityAnalysis

# Each lambda breaks fewer of these.
TARGET = [0, 1, 2] * 20


class Gated:
    """A recipe whose points are finished once a file of their name is in the folder of gates."""

    trackers = ()
    performance_metric = None
    evaluated = ("test",)

    def __init__(self, gates):
        self.gates = Path(gates)

    def describe(self):
        return {"gates": str(self.gates)}

    def prepare(self, folder):
        pass

    def environment(self, threads):
        return {}

    def train(self, point, directory, report):
        while not (self.gates / point.name).exists():
            time.sleep(0.02)
        broken = 9 - round(6 * point.lambda_c)
        h1 = [*TARGET[:50], *[(label + 1) % 3 for label in TARGET[50:]]]
        h2 = [*[(label + 1) % 3 for label in TARGET[:broken]], *TARGET[broken:]]
        return Trained({"test": compare(TARGET, h1, h2, lambda_c=point.lambda_c)})


class Analysis(CompatibilityAnalysis):
    """As that of a framework; h1 stands for the folder of gates."""

    def _begun(self, options):
        lambdas = linear_lambdas(self.lambda_c_stepsize)
        losses = ["new_error", "strict_imitation"]
        return run_sweep(
            Gated(self.h1), folder=self.folder_name, losses=losses, lambdas=lambdas, **{"seeds": 1, **options}
        )


class Analyses:
    """Makes some, and ends what they started: a process that waits at a gate would wait for ever."""

    def __init__(self, path):
        self.path, self.gates = path, path / "gates"
        self.gates.mkdir()
        self.made = []

    def __enter__(self):
        return self

    def __call__(self, folder=None, **options):
        """One that has what it needs to start: three points, where nothing else is said."""
        given = {"number_of_epochs": 2, "h1": self.gates, "h2": "h2", "training_set": [1], "lambda_c_stepsize": 1.0}
        self.made.append(Analysis(folder or self.path / "sweep", **{**given, **options}))
        return self.made[-1]

    def let_finish(self, points):
        """Open the gates of these points."""
        for point in points:
            (self.gates / point.name).touch()

    @contextmanager
    def held_at_the_stop(self, sweep):
        """Within it the sweep does not come to its end, however soon it is cancelled."""
        let_go, cancel = threading.Event(), sweep.cancel
        sweep.cancel = lambda: let_go.wait(60) and cancel()
        try:
            yield
        finally:
            let_go.set()
            sweep.cancel = cancel

    def __exit__(self, *_):
        for one in self.made:
            if one.is_running:
                one.sweep.cancel()

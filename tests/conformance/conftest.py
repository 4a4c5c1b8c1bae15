"""Both sides behind one face, so that what they promise in common is tested once.

A test that takes the fixture `side` speaks numpy and runs on Lightning, or on Keras where KERAS_BACKEND says on which
backend: a process has one. A side is a class, with the same methods in each; what a new test needs of both is added to
both. Those of losses and invariance have files of their own, others stand in the one file that uses them, which has a
fixture `side` of its own. What only one side promises is tested beside that side.
"""

import os

import pytest


@pytest.fixture(scope="session", params=["keras" if "KERAS_BACKEND" in os.environ else "lightning"])
def side(request):
    if request.param == "keras":
        from keras_side import KerasSide

        return KerasSide()
    from lightning_side import LightningSide

    return LightningSide()

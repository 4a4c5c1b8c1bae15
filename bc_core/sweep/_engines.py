"""Who trains the points of a sweep: this process, several processes of this machine, or Ray Tune."""

from __future__ import annotations

from typing import Literal

from bc_core.files._interrupts import ctrl_c_raises
from bc_core.sweep._processes import in_processes
from bc_core.sweep._ray import by_ray
from bc_core.sweep._work import Work, error_of

Engine = Literal["in_process", "processes", "ray"]


def _in_process(work: Work) -> None:
    with ctrl_c_raises():
        for point in work.points:
            if work.stop.is_set():
                return
            work.done(point, error_of(work.recipe, work.folder, point))


# A further engine is a function of the work, and a line here.
ENGINES = {"in_process": _in_process, "processes": in_processes, "ray": by_ray}

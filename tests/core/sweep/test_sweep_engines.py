"""What the engines of a sweep do around the points, with points that only wait."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bc_core.sweep._folder import SweepFolder

SCRIPT = """
    import sys, time
    from pathlib import Path

    from bc_core.sweep._running import run_sweep


    class Waiting:
        trackers = ()
        performance_metric = None
        evaluated = ()

        def describe(self):
            return {"trains": "nothing"}

        def prepare(self, folder):
            pass

        def environment(self, threads):
            return {}

        def train(self, point, directory, report):
            Path(sys.argv[1], "begun").touch()
            time.sleep(600)


    if __name__ == "__main__":
        folder = Path(sys.argv[1])
        run_sweep(
            Waiting(), folder=folder / "sweep", losses=["new_error"], lambdas=[0, 1], seeds=0, background=True,
            progress_bar=False,
        )
        while not (folder / "begun").exists():
            time.sleep(0.05)
        print("ends")
"""


def test_an_interpreter_ends_whatever_trains_in_the_background(tmp_path):
    script = tmp_path / "script.py"
    # The folder by value: a worker has arguments of its own.
    script.write_text(textwrap.dedent(SCRIPT).replace("sys.argv[1]", repr(str(tmp_path))))
    # The point would take ten minutes; starting a worker takes seconds.
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("after", ["start", "task"])
@pytest.mark.parametrize("background", [True, False])
def test_the_workers_of_a_killed_sweep_end(tmp_path, after, background):
    script = tmp_path / "script.py"
    text = textwrap.dedent(SCRIPT).replace("sys.argv[1]", repr(str(tmp_path)))
    script.write_text(text.replace("background=True", f"background={background}, engine='processes', workers=2"))
    mark = {**os.environ, "BC_TEST_WORKERS_OF": str(tmp_path)}
    caller = subprocess.Popen([sys.executable, script], env=mark, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def workers():
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                is_ours = str(tmp_path).encode() in (place / "environ").read_bytes()
                if is_ours and b"LokyProcess" in (place / "cmdline").read_bytes():
                    found.append(int(place.name))
        return found

    def wait_for(what):
        began = time.monotonic()
        while not what():
            assert time.monotonic() - began < 100
            time.sleep(0.02)

    # As soon as there are any, so while they import; or while they train, for ten minutes.
    wait_for(workers if after == "start" else (tmp_path / "begun").exists)
    caller.kill()
    caller.wait()
    wait_for(lambda: not workers())
    # The lock ended with the process, and nobody trained on.
    with SweepFolder(tmp_path / "sweep").locked():
        assert not list((tmp_path / "sweep" / "points").iterdir())


LARGE = """
    import os, sys, time, warnings
    from pathlib import Path

    from bc_core import compare
    from bc_core.sweep._folder import Trained
    from bc_core.sweep._running import run_sweep

    kept = []


    class Large:
        trackers = ()
        performance_metric = None
        evaluated = ()

        def describe(self):
            return {"trains": "nothing"}

        def prepare(self, folder):
            pass

        def environment(self, threads):
            return {}

        def train(self, point, directory, report):
            # As much as importing a framework takes; loky looks at most once a second.
            kept.append(bytearray(os.urandom(1 << 20) * 200))
            time.sleep(1.1)
            (Path(sys.argv[1]) / f"{point.seed}").write_text(str(os.getpid()))
            return Trained({"test": compare([0, 1], [0, 1], [0, 1])})


    if __name__ == "__main__":
        warnings.simplefilter("error")
        run_sweep(
            Large(), folder=Path(sys.argv[1]) / "sweep", losses=["new_error"], lambdas=[1], seeds=range(4),
            background=True, progress_bar=False,
        ).wait()
        print("ends")
"""


@pytest.mark.slow
def test_a_worker_that_takes_memory_is_not_taken_for_a_leak(tmp_path):
    pytest.importorskip("psutil")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(LARGE).replace("sys.argv[1]", repr(str(tmp_path))))
    environment = {name: value for name, value in os.environ.items() if name != "LOKY_MAX_MEMORY_LEAK_SIZE"}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr
    assert "leak" not in done.stderr
    # One worker did it all.
    assert len({(tmp_path / str(seed)).read_text() for seed in range(4)}) == 1

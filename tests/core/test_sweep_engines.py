"""What the engines of a sweep do around the points, with points that only wait."""

import subprocess
import sys
import textwrap

SCRIPT = """
    import sys, time
    from pathlib import Path

    from bc_core._sweep._running import run_sweep


    class Waiting:
        tracking = None

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

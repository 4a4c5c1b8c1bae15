"""A real TensorBoard, as a user starts it."""

import contextlib
import re
import subprocess
import sys
import threading


@contextlib.contextmanager
def tensorboard(logdir, *flags, with_tensorflow=False):
    """Start TensorBoard on a free port of this machine only; yields its address.

    It imports TensorFlow where there is one, which takes longer than all else; users of torch have none.
    """
    without = "" if with_tensorflow else "import sys; sys.modules['tensorflow'] = None; "
    command = [
        sys.executable,
        "-c",
        f"{without}from tensorboard.main import run_main; run_main()",
        "--logdir",
        str(logdir),
        "--host=127.0.0.1",
        "--port=0",
        *flags,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lines, started = [], threading.Event()

    def listen():
        for line in process.stderr:
            lines.append(line)
            if re.search(r" at http://", line):
                started.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        assert started.wait(120), "".join(lines)
        yield re.search(r" at (http://\S+)", "".join(lines))[1]
    finally:
        process.terminate()
        process.wait(30)
        listener.join(30)

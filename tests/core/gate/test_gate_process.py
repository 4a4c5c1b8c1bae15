"""What only a process of its own shows: exit status, start-up, what is imported."""

import subprocess
import sys

import pytest

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "pandas", "pyarrow", "duckdb", "matplotlib", "ray", "mlflow")


def command(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)


@pytest.fixture
def files(tmp_path):
    rows = range(10_000)
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("id,pred,target\n" + "".join(f"im{n},{n % 4},{n % 4}\n" for n in rows))
    new.write_text("id,pred\n" + "".join(f"im{n},{(n + (n % 100 == 0)) % 4}\n" for n in reversed(rows)))
    return str(old), str(new)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--promise", "nfr <= 2%"], 0),
        (["--promise", "nfr <= 0.5%"], 1),
        (["--promise", "nfr <= 1.1%"], 3),
        (["--promise", "nfr < 1%"], 2),
        (["--bogus"], 2),
    ],
)
def test_the_process_exits_with_the_verdict(files, options, status):
    result = command("-m", "bc_core", "gate", *files, *options)
    assert result.returncode == status
    assert "Traceback" not in result.stderr
    assert bool(result.stderr) == (status == 2)


def test_nothing_heavy_is_imported_and_ten_thousand_rows_take_little_time(files):
    code = (
        "import sys, time; begin = time.process_time()\n"
        "from bc_core._cli import main\n"
        f"status = main(['gate', {files[0]!r}, {files[1]!r}, '--promise', 'nfr <= 2%', '--per-class', 'nfr <= 8%'])\n"
        "print(status, time.process_time() - begin, file=sys.stderr)\n"
        f"print(*({set(FRAMEWORKS)} & set(sys.modules)), file=sys.stderr)"
    )
    result = command("-c", code)
    (status, seconds), loaded = result.stderr.splitlines()[0].split(), result.stderr.splitlines()[1]
    assert (status, loaded) == ("0", "")
    # Of the processor, not of the clock, as other tests run beside: about 0.4 seconds on two cores of a cloud machine.
    assert float(seconds) < 2


def test_to_start_needs_numpy_alone():
    """What takes long to import, SciPy as well, is imported where it is used: a typo is told of at once."""
    code = (
        "import sys; from bc_core._cli import main\ntry: main(['gate', '--help'])\n"
        f"finally: print(*({set(FRAMEWORKS)} | {{'scipy', 'numpy'}}) & set(sys.modules))"
    )
    assert command("-c", code).stdout.splitlines()[-1] == "numpy"

"""`bc-compare predict`: the command line of `predict`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence

from bc_core._user_functions import module_here
from bc_core.predicting._adapter import ModelSettings
from bc_core.predicting._run import BATCH, predict
from bc_core.predictions._columns import listed_names

_EPILOG = """\
What runs, of which MODEL:
  .onnx                  a graph of known operators, by onnxruntime; no code of the model's
  .pt .pth .ts           TorchScript, by torch's own interpreter; no Python. Checkpoints and pickled modules are refused
  .pt2                   torch.export: Python that torch makes of the graph; a pickle in the file is refused
  .keras                 layers of Keras; a Lambda layer, which holds code, is refused
  folder, saved_model.pb TensorFlow's graph, whose operators may read and write files
  .skops                 known types of scikit-learn; other types are refused
  folder, config.json    Hugging Face text classification; weights as safetensors, code in the folder is refused
  http(s)://             nothing here; batches are posted as {"instances": [...]}
  module:function        that module, and the function with each batch
  .pkl .joblib ...       pickles run what is in them: refused
What is refused is allowed by --trust, and then said. Other kinds: --adapter module:function (docs/predict.md).

An interrupted run is taken up by the same command. Exit status: 0 whole, 2 bad input, 130 interrupted.
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        prog="bc-compare predict",
        description="Write what a model predicts of a file of data, as a file that bc-compare reads.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("file", metavar="MODEL", help="a file, folder, address or module:function; see below")
    made.add_argument(
        "data", metavar="DATA", help="CSV, JSON Lines, npz, Parquet or Arrow; or a folder of texts or images"
    )
    made.add_argument("--out", required=True, metavar="FILE", help="ends in .csv, .jsonl or .parquet")
    made.add_argument("--overwrite", action="store_true", help="replace FILE, and begin anew what was begun")
    columns = made.add_argument_group("columns of DATA (patterns such as 'x*' too)")
    columns.add_argument("--features", action="append", metavar="NAMES", help="numbers of one array, parted by commas")
    columns.add_argument("--text", metavar="NAME", help="texts")
    columns.add_argument("--input", action="append", metavar="NAME=NAMES", help="of a model of several inputs")
    columns.add_argument("--id", metavar="NAME", help="ids (default: id, instance_id, example_id or sample_id)")
    columns.add_argument("--by-position", action="store_true", help="number the rows, which have no ids")
    columns.add_argument("--target", metavar="NAME", help="true labels, if any (default: target, label, y_true, ...)")
    columns.add_argument("--keep", action="append", metavar="NAMES", help="written too, such as columns of slices")
    model = made.add_argument_group("the model")
    model.add_argument("--adapter", metavar="NAME", help="what opens it: such as onnx, or module:function")
    model.add_argument("--trust", action="store_true", help="run code that comes with it, and load pickles")
    model.add_argument("--import", dest="imports", action="append", metavar="MODULE", help="before it is opened")
    model.add_argument("--output", metavar="NAME", help="which of several outputs")
    model.add_argument("--classes", action="append", metavar="NAMES", help="of its scores in order, parted by commas")
    model.add_argument("--labels", action="store_true", help="write predicted labels, no scores")
    model.add_argument("--batch", type=_count, default=BATCH, metavar="N", help=f"rows at once (default: {BATCH})")
    model.add_argument("--device", metavar="NAME", help="such as cuda (default: the processor)")
    model.add_argument("--option", action="append", metavar="KEY=VALUE", help="for the adapter")
    endpoint = made.add_argument_group("an endpoint")
    endpoint.add_argument(
        "--header", action="append", metavar="NAME=TEXT", help="TEXT may have $NAMES of the environment"
    )
    endpoint.add_argument("--timeout", type=_positive, default=60.0, metavar="S", help="of an answer (default: 60)")
    endpoint.add_argument("--retries", type=_retries, default=5, metavar="N", help="where that may help (default: 5)")
    endpoint.add_argument("--rate", type=_positive, metavar="N", help="requests a second at most")
    return made


def run(options: argparse.Namespace, say: Callable[[str], None], progress: Callable[[int], None]) -> str:
    """Predict, and say what was written.

    Raises:
        ValueError: Something is not as it should be.
        ImportError: Something is not installed.
        OSError: A file cannot be read or written.
    """
    for module in options.imports or ():
        say(f"{module} is imported: what is in that module runs")
        module_here(module, "--import")
    begin = time.monotonic()
    done = predict(
        options.file,
        options.data,
        options.out,
        features=listed_names(options.features) or (),
        text=options.text,
        inputs={name: text.split(",") for name, text in _pairs(options.input, "--input").items()},
        keep=listed_names(options.keep) or (),
        id=options.id,
        target=options.target,
        by_position=options.by_position,
        classes=listed_names(options.classes),
        adapter=options.adapter,
        batch_size=options.batch,
        overwrite=options.overwrite,
        settings=ModelSettings(
            trust=options.trust,
            output=options.output,
            labels=options.labels,
            device=options.device,
            timeout=options.timeout,
            retries=options.retries,
            rate=options.rate,
            headers=_headers(_pairs(options.header, "--header")),
            options=_pairs(options.option, "--option"),
            say=say,
        ),
        progress=progress,
    )
    before = f", {done.before} of them by an earlier run" if done.before else ""
    return f"{done.path}: {done.rows} rows{before}, in {time.monotonic() - begin:.1f} s"


def _pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise ValueError(f"{option}: expected NAME=VALUE, got {text!r}")
        if name in found:
            raise ValueError(f"{option}: {name!r} comes twice")
        found[name] = value
    return found


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    """Secrets of the environment in their places: a command line is seen by everybody on the machine."""
    found = {}
    for name, value in given.items():
        filled = os.path.expandvars(value)
        if "$" in value and filled == value:
            raise ValueError(f"--header {name}: {value} names nothing in the environment")
        if not (filled.isprintable() and name.isascii() and name.isprintable()):
            raise ValueError(f"--header {name}: a header is one line of text")
        found[name] = filled
    return found


def _count(text: str) -> int:
    return _at_least(text, 1)


def _retries(text: str) -> int:
    return _at_least(text, 0)


def _at_least(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value

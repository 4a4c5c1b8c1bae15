"""The dashboard as a widget of a notebook: the kernel holds the comparisons and answers what the view asks for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bc_core.invariance import InvarianceUpdate
from bc_tensorboard.pages._actions import Action, Actions
from bc_tensorboard.plugin._collection import Collection, Dissonance, NotShownError, Settings, Texts
from bc_tensorboard.plugin._invariance import Key, placed_updates, series_of
from bc_tensorboard.writing._invariance import invariance_json

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise ImportError(
        'The dashboard in a notebook needs anywidget: pip install "backward-compat-ml[notebook]", then restart the '
        "kernel. bc_tensorboard.to_html(comparisons, path) writes a file and needs nothing more."
    ) from error

STATIC = Path(__file__).parent.parent / "static"
_ASKED = ("table", "media", "image", "text", "search", "invariance")
# Those that ask for what the user's own code gives, and what is said where that fails.
_MADE = {"image": "The image", "media": "The texts", "text": "The text", "search": "The texts"}


class _Update(NamedTuple):
    """An invariance update, and when it was given: the front end asks anew for one of another time."""

    update: InvarianceUpdate
    wall_time: float


class ComparisonView(anywidget.AnyWidget):
    """The dashboard in a notebook; show it as the last expression of a cell, or with `display`.

    Tables, texts and images go to the browser when they are looked at, over the connection that the notebook has with
    its kernel: there is no server and no port, and each view has a state of its own.

    Args:
        comparisons: As `bc_tensorboard.to_html` takes them; none to begin with, if they are added later.
        dataset: Name of the data set, where the comparisons do not say.
        dissonance: How h2 was trained, such as "new error"; or a mapping from the name of a run to that.
        settings: What else h2 was trained with, such as ``{"start": "warm", "seed": 0}``, to colour the sweep by; or a
            mapping from the name of a run to that.
        images: Images of the instances, as in `bc_tensorboard.summary.comparison`; or a mapping from the name of a data
            set to such. One is asked for when it is looked at; what a function of yours raises is shown in its place.
        metadata: Text of an instance, a mapping or a function from id to text, in place of those in the comparisons.
        image_size: Longer side of the thumbnails, in pixels.
        invariance: What `compare_invariance` returned, as `bc_tensorboard.to_html` takes it; `comparisons` may be left
            out then.

    Attributes:
        state: What is looked at, as text such as "run=update&region=regress". It follows the view, and may be set.
        index: What the view lists; it changes when comparisons are added.

    Raises:
        ImportError: If anywidget is not installed.
        TypeError: If something is no comparison, or no invariance update.
        ValueError: If two comparisons are of one run, data set and step, or it is not said of which run an invariance
            update is.

    Example:
        >>> from bc_core import compare
        >>> from bc_tensorboard import ComparisonView
        >>> view = ComparisonView(compare([0, 1, 1], [0, 1, 0], [0, 0, 1], name="update", step=1))
        >>> view.add(compare([0, 1, 1], [0, 1, 0], [0, 1, 1], name="update", step=2))
        >>> view
        ComparisonView(2 comparisons; runs: update)
    """

    _esm = STATIC / "widget.js"
    index = traitlets.Dict(help="What the view lists.").tag(sync=True)
    state = traitlets.Unicode("", help="What is looked at.").tag(sync=True)

    def __init__(
        self,
        comparisons: Any = (),
        *,
        dataset: str = "test",
        dissonance: Dissonance = None,
        settings: Settings = None,
        images: Any = None,
        metadata: Texts | None = None,
        image_size: int = 96,
        invariance: Any = None,
        **widget_options: Any,
    ) -> None:
        self._collection = Collection(image_size)
        self._invariance: dict[Key, _Update] = {}
        self._actions = Actions(self._show)
        # A thread that follows a sweep changes what is shown, beside the one that answers.
        self._lock = threading.RLock()
        self._defaults: dict[str, Any] = {
            "dataset": dataset,
            "dissonance": dissonance,
            "settings": settings,
            "images": images,
            "metadata": metadata,
        }
        self._take(comparisons, invariance, self._defaults)
        super().__init__(index=self._index(), **widget_options)
        self.on_msg(self._answer)

    def add(self, comparisons: Any = (), *, invariance: Any = None, **options: Any) -> None:
        """Show more comparisons; one of the same run, data set and step takes the place of the earlier one.

        Args:
            comparisons: As for the constructor.
            invariance: As for the constructor; a single update is of the run that is added with it, or else of the
                only run there is.
            options: `dataset`, `dissonance`, `settings`, `images` and `metadata`, as for the constructor, whose values
                hold where nothing is said.

        Raises:
            TypeError: If something is no comparison or no invariance update, or there is no such option.
            ValueError: As the constructor.
        """
        unknown = sorted(set(options) - set(self._defaults))
        if unknown:
            raise TypeError(f"{unknown[0]}: no option of add; there are {', '.join(self._defaults)}")
        with self._lock:
            self._take(comparisons, invariance, {**self._defaults, **options})
            self._show()

    def replace(
        self,
        comparisons: Any,
        warnings: Any = (),
        progress: float | None = None,
        dissonance: Dissonance = None,
        actions: Iterable[Action] = (),
    ) -> None:
        """Show these comparisons in place of all that were shown.

        Args:
            comparisons: As for the constructor.
            warnings: Sentences that are shown above them, such as what could not be read.
            progress: The share that is done, from 0 to 1, of what is still making more of them, such as a sweep.
            dissonance: As for the constructor, whose value holds where nothing is said.
            actions: Buttons that the view offers now.

        Raises:
            TypeError: As the constructor; what was shown then stays.
            ValueError: As the constructor.
        """
        collection = Collection(self._collection.image_size)
        given = self._defaults if dissonance is None else {**self._defaults, "dissonance": dissonance}
        collection.add(comparisons, **given, wall_time=time.time())
        collection.progress = progress
        collection.warnings = [str(warning) for warning in warnings]
        with self._lock:
            self._collection, self._invariance = collection, {}
            self._actions.offer(actions)
            self._show()

    def _take(self, comparisons: Any, invariance: Any, options: dict[str, Any]) -> None:
        """Take comparisons and updates in, all or none."""
        now = time.time()
        collection = self._collection.copy()
        added = collection.add(() if comparisons is None else comparisons, **options, wall_time=now)
        updates = {}
        if invariance is not None:
            runs = list(dict.fromkeys(run for run, _, _ in added)) or collection.runs
            updates = placed_updates(invariance, [*collection.keys, *added], options["dataset"], runs)
        self._collection = collection
        self._invariance |= {key: _Update(update, now) for key, update in updates.items()}

    def _index(self) -> dict[str, Any]:
        return {
            **self._collection.index(),
            "invariance": series_of({key: given.wall_time for key, given in self._invariance.items()}),
            "actions": self._actions.index(),
        }

    def _show(self) -> None:
        with self._lock:
            self.index = self._index()

    def _answer(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """Answer a message of the front end; nothing that goes wrong stays in the log of the kernel."""
        if not isinstance(content, dict) or content.get("type") not in (*_ASKED, "action"):
            return
        reply: dict[str, Any] = {"type": "reply", "id": content.get("id"), "ok": True}
        found: bytes | None = None
        try:
            if content["type"] == "action":
                self._actions.press(content.get("label"))
            else:
                found = self._asked_for(content)
        except NotShownError as error:
            reply.update(ok=False, error={"error": str(error), "advice": error.advice})
        except Exception as error:  # images and texts come from code of the user's
            what = {**_MADE, "invariance": "The invariance"}.get(content["type"], "The comparison")
            reply.update(
                ok=False,
                error={
                    "error": f"{what} could not be made: {type(error).__name__}: {error}",
                    "advice": "It was raised in the kernel, by what the view was given as images= or metadata=."
                    if content["type"] in _MADE
                    else None,
                },
            )
        self.send(reply, buffers=None if found is None else [found])

    def _asked_for(self, content: dict[str, Any]) -> bytes | None:
        run, dataset = content.get("run"), content.get("dataset")
        if content["type"] == "table":
            return self._collection.table(run, dataset, content.get("step"))  # type: ignore[arg-type]
        if content["type"] == "media":
            return self._collection.media(run, dataset)  # type: ignore[arg-type]
        if content["type"] == "invariance":
            return self._update_at(run, dataset, content.get("step"))
        if content["type"] == "text":
            text = self._collection.text(run, dataset, content.get("instance"))  # type: ignore[arg-type]
            return None if text is None else text.encode("utf-8", "replace")
        if content["type"] == "search":
            found = self._collection.search(run, dataset, content.get("text"))  # type: ignore[arg-type]
            return json.dumps(found).encode("utf-8", "replace")
        return self._collection.image(run, dataset, content.get("instance"), full=bool(content.get("full")))  # type: ignore[arg-type]

    def _update_at(self, run: Any, dataset: Any, step: Any) -> bytes:
        for key, given in self._invariance.items():
            if key == (run, dataset, step):
                return invariance_json(given.update)
        raise NotShownError(
            f"There is no invariance of the run {str(run)[:200]!r} on the data set {str(dataset)[:200]!r} at step "
            f"{str(step)[:80]} here.",
            "The view may be older than its data: run the cell that shows it again.",
        )

    def __repr__(self) -> str:
        runs = list(dict.fromkeys([*self._collection.runs, *(run for run, _, _ in self._invariance)]))
        named = f"; runs: {', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''}" if runs else ""
        numbers = [_counted(len(self._collection.keys), "comparison")]
        if self._invariance:
            numbers.append(_counted(len(self._invariance), "invariance update"))
        return f"ComparisonView({', '.join(numbers)}{named})"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

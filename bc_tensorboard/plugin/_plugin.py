"""The compatibility tab of TensorBoard: its routes.

The server hands out JSON for the index and encoded columns for everything of the size of the data; filtering, sorting
and paging is the browser's work.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from bc_tensorboard._plugin_name import PLUGIN_NAME
from bc_tensorboard.plugin._collection import NotShownError
from bc_tensorboard.plugin._invariance import decode_invariance
from bc_tensorboard.plugin._plugin_data import LogFolders, LoggedComparisons, MediaPack, OriginalSweeps

STATIC = Path(__file__).parent.parent / "static"
SCRIPTS = ("index.js",)


# The index grows while a training runs, and one that starts again replaces tables under the same names.
NEVER_KEPT = "no-store"
# An id has one image in a run.
KEPT = "private, max-age=3600, immutable"

Handler = Callable[["BackwardCompatibilityPlugin", wrappers.Request], wrappers.Response]


class RequestError(ValueError):
    """A request that cannot be answered.

    Args:
        message: What is wrong with it.
        advice: What to ask instead.
    """

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice


def _route(handler: Handler) -> Callable[..., Any]:
    """Make a method a WSGI application that takes GET and HEAD and says in JSON what went wrong."""

    @functools.wraps(handler)
    def application(self: BackwardCompatibilityPlugin, environ: Any, start_response: Any) -> Any:
        request = wrappers.Request(environ)
        if request.method not in ("GET", "HEAD"):
            response = _refusal(request, 405, f"{request.method} is not allowed here.", "Use GET.")
            response.headers["Allow"] = "GET, HEAD"
            return response(environ, start_response)
        try:
            response = handler(self, request)
        except RequestError as error:
            response = _refusal(request, 400, str(error), error.advice)
        except NotShownError as error:
            response = _refusal(request, 404, str(error), error.advice)
        except errors.PublicError as error:
            response = _refusal(request, error.http_code, str(error), "Reload; the run may have been removed.")
        except Exception:
            # The cause is for the log of the server, not for whoever is at the browser.
            logging.getLogger("tensorboard").exception("The compatibility tab could not answer %s", request.path)
            response = _refusal(request, 500, "The server failed.", "The log of TensorBoard says why.")
        return response(environ, start_response)

    return application


class BackwardCompatibilityPlugin(base_plugin.TBPlugin):  # type: ignore[misc]  # TensorBoard comes without types
    """Serves comparisons of h1 and h2, and the page that shows them.

    Args:
        context: What TensorBoard tells a plugin.
    """

    plugin_name = PLUGIN_NAME

    def __init__(self, context: Any) -> None:
        spec = getattr(context.flags, "logdir_spec", None)
        self._logged = LoggedComparisons(context.data_provider)
        self._folders = LogFolders(context.logdir, spec)
        self._sweeps = OriginalSweeps(self._folders)

    def get_plugin_apps(self) -> Mapping[str, Any]:
        """Name the routes; TensorBoard puts them under `/data/plugin/backward_compatibility`."""
        return {
            "/index": self._serve_index,
            "/table": self._serve_table,
            "/media": self._serve_media,
            "/image": self._serve_image,
            "/text": self._serve_text,
            "/search": self._serve_search,
            "/invariance": self._serve_invariance,
            **{f"/static/{name}": self._serve_script for name in SCRIPTS},
        }

    def is_active(self) -> bool:
        """Tell whether there is a sweep of the original library; for logged data TensorBoard looks by plugin name."""
        return self._sweeps.any()

    def frontend_metadata(self) -> Any:
        """Name the tab and its script."""
        return base_plugin.FrontendMetadata(es_module_path="/static/index.js", tab_name="Compatibility")

    @_route
    def _serve_index(self, request: wrappers.Request) -> wrappers.Response:
        logged, warnings = self._logged.series(*_origin(request))
        sweeps, sweep_warnings = self._sweeps.series()
        invariance, more_warnings = self._logged.invariance_series(*_origin(request))
        series = {(entry["run"], entry["dataset"]): {**entry, "has_media": False} for entry in sweeps}
        linked = []
        for entry in logged:
            run, dataset = entry["run"], entry["dataset"]
            has_media = self._folders.media_file(run, dataset) is not None
            series[run, dataset] = {**entry, "has_media": has_media}
            if not has_media and self._folders.is_elsewhere(run, dataset):
                linked.append(run)
        index = {
            "series": [series[key] for key in sorted(series)],
            "warnings": warnings + sweep_warnings + more_warnings + [_linked(run) for run in dict.fromkeys(linked)],
            "progress": None,
        }
        if invariance:
            index["invariance"] = sorted(invariance, key=lambda entry: (entry["run"], entry["dataset"]))
        return _respond(request, json.dumps(index, allow_nan=False), "application/json")

    @_route
    def _serve_table(self, request: wrappers.Request) -> wrappers.Response:
        run, dataset, step = _place(request)
        blob = self._logged.table(*_origin(request), run, dataset, step)
        if blob is None and step == 0:
            blob = self._sweeps.table(run, dataset)
        if blob is None:
            raise _no_series(run, dataset)
        return _respond(request, blob, "application/octet-stream")

    @_route
    def _serve_invariance(self, request: wrappers.Request) -> wrappers.Response:
        run, dataset, step = _place(request)
        blob = self._logged.invariance(*_origin(request), run, dataset, step)
        if blob is None:
            raise _no_series(run, dataset)
        return _respond(request, decode_invariance(blob).decode("utf-8"), "application/json")

    @_route
    def _serve_media(self, request: wrappers.Request) -> wrappers.Response:
        pack = self._pack(request)
        return _respond(request, pack.encode(), "application/octet-stream")

    @_route
    def _serve_image(self, request: wrappers.Request) -> wrappers.Response:
        name = _argument(request, "id")
        image = self._pack(request).image(name, full=request.args.get("full") == "1")
        if image is None:
            raise NotShownError(f"There is no image of the instance {name[:80]}.", "Give images= when logging.")
        content_type = _image_type(image)
        if content_type is None:
            raise NotShownError(f"The image of the instance {name[:80]} is damaged.", "Log it again.")
        return _respond(request, image, content_type, KEPT)

    @_route
    def _serve_text(self, request: wrappers.Request) -> wrappers.Response:
        name = _argument(request, "id")
        text = self._pack(request).text(name)
        if text is None:
            raise NotShownError(f"There is no text of the instance {name[:80]}.", "Give metadata= when comparing.")
        return _respond(request, json.dumps({"text": text}), "application/json")

    @_route
    def _serve_search(self, request: wrappers.Request) -> wrappers.Response:
        ids = self._pack(request).search(_argument(request, "text"))
        return _respond(request, json.dumps({"ids": ids}), "application/json")

    def _pack(self, request: wrappers.Request) -> MediaPack:
        run, dataset = _argument(request, "run"), _argument(request, "dataset")
        # A path is made of the names only where TensorBoard lists such a run with such a data set.
        if not self._logged.has(*_origin(request), run, dataset):
            raise _no_series(run, dataset)
        path = self._folders.media_file(run, dataset)
        if path is None:
            raise NotShownError(
                f"There are no texts or images of the data set {dataset[:200]!r} in the run {run[:200]!r}.",
                "They lie beside the event files, under plugins: copy the whole folder of the run.",
            )
        return MediaPack(path, self._folders.media_file(run, dataset, full=True))

    @_route
    def _serve_script(self, request: wrappers.Request) -> wrappers.Response:
        name = request.path.rpartition("/")[2]
        if name not in SCRIPTS or not (STATIC / name).is_file():
            raise NotShownError(f"There is no script {name!r}.", "Install backward-compat-ml again.")
        return _respond(request, (STATIC / name).read_bytes(), "text/javascript")


def _respond(
    request: wrappers.Request, content: str | bytes, content_type: str, kept: str = NEVER_KEPT, status: int = 200
) -> wrappers.Response:
    """Answer with TensorBoard's own headers (nosniff, compression of text) and our rule for keeping a copy."""
    response: wrappers.Response = http_util.Respond(request, content, content_type, code=status)
    response.headers["Cache-Control"] = kept
    response.headers.pop("Expires", None)
    return response


def _refusal(request: wrappers.Request, status: int, message: str, advice: str) -> wrappers.Response:
    body = json.dumps({"error": message, "advice": advice})
    return _respond(request, body, "application/json", status=status)


def _origin(request: wrappers.Request) -> tuple[Any, str]:
    return plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)


def _argument(request: wrappers.Request, name: str) -> str:
    value = request.args.get(name)
    if value is None:
        raise RequestError(f"The argument {name!r} is missing.", "Take the run, data set and step from the index.")
    return str(value)


def _place(request: wrappers.Request) -> tuple[str, str, int]:
    run, dataset, text = (_argument(request, name) for name in ("run", "dataset", "step"))
    if re.fullmatch("-?[0-9]{1,20}", text) is None:
        raise RequestError(f"step: expected a whole number, got {text[:40]!r}.", "Take one of the index.")
    return run, dataset, int(text)


def _linked(run: str) -> str:
    return (
        f"Run {run}: its texts and images are not shown, as its folder is a link to one outside the log folder. Start "
        "TensorBoard with --logdir on the folder itself, or with --logdir_spec name:folder,name:folder."
    )


def _no_series(run: str, dataset: str) -> NotShownError:
    return NotShownError(
        f"Nothing was logged in the run {run[:200]!r} on the data set {dataset[:200]!r}.",
        "Reload; the run may have been removed or renamed.",
    )


def _image_type(image: bytes) -> str | None:
    """Tell the type of an image by how it starts; nothing else is served, whatever is in the file."""
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if image.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if image.startswith(b"RIFF") and image[8:12] == b"WEBP":
        return "image/webp"
    return None

"""A model behind an address: batches as JSON, tried anew where that may help, no faster than allowed."""

from __future__ import annotations

import datetime
import email.utils
import http.client
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

import numpy as np

from bc_core._texts import shown
from bc_core.files._files import in_bytes
from bc_core.predicting._adapter import Batch, ModelSettings, Predictor

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
# An endpoint that asks for more is asked again by another run.
MOST_PATIENCE = 300.0
_MOST_BYTES = 2**28
_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Another address might be anybody's, and would get the headers."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


class _Endpoint:
    classes: tuple[str, ...] | None = None
    # Whether these stand in the order of one answer, which means nothing.
    any_order = False

    def __init__(self, url: str, settings: ModelSettings) -> None:
        self._url, self._settings = url, settings
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._next = 0.0
        self.fingerprint = f"endpoint {url}"

    def __call__(self, batch: Batch) -> Any:
        instances: list[Any]
        if isinstance(batch, dict):
            rows = [array.tolist() for array in batch.values()]
            instances = [dict(zip(batch, row, strict=True)) for row in zip(*rows, strict=True)]
        else:
            instances = batch if isinstance(batch, list) else batch.tolist()
        answer = self._parsed(self._answered(json.dumps({"instances": instances}).encode()))
        if len(answer) != len(instances):
            raise ValueError(f"{self._url}: {len(answer)} answers to {len(instances)} instances")
        return self._read(answer)

    def _answered(self, body: bytes) -> bytes:
        """What is answered, tried until it is or nothing is left to try."""
        for tried in range(self._settings.retries + 1):
            self._keep_rate()
            asked: float | None = None
            try:
                headers = {"Content-Type": "application/json", "Accept": "application/json", **self._settings.headers}
                request = urllib.request.Request(self._url, body, headers)
                with self._opener.open(request, timeout=self._settings.timeout) as response:
                    return self._content(response)
            except urllib.error.HTTPError as error:
                with error:
                    told = f"status {error.code} {error.reason}: {shown(error.read(200).decode('utf-8', 'replace'))}"
                if error.code not in _PASSING:
                    raise ValueError(f"{self._url}: {told}") from None
                asked = _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                told = "no answer in time" if isinstance(reason, TimeoutError) else f"{type(error).__name__}: {reason}"
            if asked is not None and asked > MOST_PATIENCE:
                raise ValueError(f"{self._url}: {told}; it asks to be left alone for {asked:.0f} s")
            if tried < self._settings.retries:
                doubled = min(LONGEST_WAIT, FIRST_WAIT * 2**tried) * random.uniform(0.5, 1.0)
                time.sleep(max(doubled, asked or 0.0))
        raise ValueError(f"{self._url}: {told}, after {self._settings.retries + 1} tries")

    def _content(self, response: Any) -> bytes:
        """All of an answer, however slowly its bytes come, within the time and the room that it may take."""
        end, content = time.monotonic() + self._settings.timeout, bytearray()
        while chunk := response.read1(1 << 16):
            content += chunk
            if len(content) > _MOST_BYTES:
                raise ValueError(f"{self._url}: an answer of more than {in_bytes(_MOST_BYTES)}")
            if time.monotonic() > end:
                raise TimeoutError
        # read1 does not say that the connection ended before the length that was promised.
        if response.length:
            raise http.client.IncompleteRead(bytes(content), response.length)
        return bytes(content)

    def _keep_rate(self) -> None:
        if self._settings.rate is None:
            return
        now = time.monotonic()
        if now < self._next:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + 1 / self._settings.rate

    def _parsed(self, content: bytes) -> list[Any]:
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            raise ValueError(
                f"{self._url}: the answer is no JSON: {shown(content[:60].decode('utf-8', 'replace'))}"
            ) from None
        if isinstance(answer, dict):
            answer = next((answer[key] for key in ("predictions", "outputs") if key in answer), None)
        if not isinstance(answer, list):
            raise ValueError(
                f'{self._url}: expected {{"predictions": [...]}} or a list, one entry an instance, got '
                f"{shown(content[:60].decode('utf-8', 'replace'))}"
            )
        return answer

    def _read(self, answer: list[Any]) -> Any:
        """Labels, numbers or rows of scores; of objects the entry that was named."""
        if answer and all(isinstance(each, list) and each and isinstance(each[0], dict) for each in answer):
            return self._named([_scores_by_label(self._url, each) for each in answer])
        if answer and all(isinstance(each, dict) for each in answer):
            if self._settings.output is not None:
                missing = next((each for each in answer if self._settings.output not in each), None)
                if missing is not None:
                    raise ValueError(f"{self._url}: an answer without {self._settings.output!r}: {shown(str(missing))}")
                answer = [each[self._settings.output] for each in answer]
            else:
                raise ValueError(f"{self._url}: each answer has {', '.join(answer[0])}; say which by --output")
            if answer and all(isinstance(each, dict) for each in answer):
                return self._named(answer)
        kinds = {type(each) for each in answer}
        if kinds - {int, float} and len(kinds) > 1:
            raise ValueError(f"{self._url}: answers of several kinds: {shown(str(answer[:5]))}")
        try:
            array = np.asarray(answer)
        except ValueError:
            array = np.empty(0, object)
        if array.dtype.kind not in "biufU":
            raise ValueError(f"{self._url}: expected labels, numbers or rows of scores, got {shown(str(answer[:3]))}")
        return array

    def _named(self, rows: list[Mapping[str, Any]]) -> Any:
        names = tuple(rows[0]) if self.classes is None else self.classes
        if self.classes is None and {name.removeprefix("LABEL_") for name in names} == set(map(str, range(len(names)))):
            names = tuple(sorted(names, key=lambda name: int(name.removeprefix("LABEL_"))))
        elif self.classes is None:
            self.any_order = True
        for row in rows:
            if set(row) != set(names) or not all(isinstance(each, (int, float)) for each in row.values()):
                raise ValueError(f"{self._url}: expected a score of each of {', '.join(names)}, got {shown(str(row))}")
        self.classes = names
        return np.asarray([[row[name] for name in names] for row in rows], np.float64)


def _scores_by_label(url: str, entries: list[Any]) -> dict[str, Any]:
    try:
        found = {str(each["label"]): each["score"] for each in entries}
        if len(found) == len(entries):
            return found
        raise KeyError
    except (KeyError, TypeError):
        raise ValueError(f"{url}: expected a score of each label, once, got {shown(str(entries))}") from None


def _seconds(text: str | None) -> float | None:
    """How long `Retry-After` asks to wait: a number of seconds, or a date."""
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return max(0.0, (moment - datetime.datetime.now(datetime.timezone.utc)).total_seconds())


def open_endpoint(model: str, settings: ModelSettings) -> Predictor:
    """Have an endpoint answer batches: `{"instances": [...]}` is posted, `{"predictions": [...]}` or a list expected.

    Raises:
        ValueError: The address is none.
    """
    try:
        parts = urllib.parse.urlsplit(model)
        known = (
            bool(parts.hostname) and parts.port != 0 and model.isascii() and model.isprintable() and " " not in model
        )
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{model}: no address such as https://models.example/v1/cats:predict")
    return _Endpoint(model, settings)

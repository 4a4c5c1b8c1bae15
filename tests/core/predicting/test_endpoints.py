"""An endpoint that answers, fails, asks for patience and talks nonsense: a real server on this machine."""

import datetime
import email.utils
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from bc_core import ModelSettings, predict
from bc_core._cli import main
from bc_core.predicting import _http
from bc_core.predictions._reading import read_table

X = np.random.default_rng(0).normal(size=(40, 2))
SCORES = np.stack([X.sum(axis=1), -X.sum(axis=1)], axis=1)


@pytest.fixture
def server(monkeypatch):
    """A server whose next answers are said beforehand; after these it predicts."""
    monkeypatch.setattr(_http, "FIRST_WAIT", 0.01)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.asked.append((time.monotonic(), dict(self.headers), body))
            planned = made.planned.pop(0) if made.planned else made.usual
            status, headers, content = planned(json.loads(body)["instances"])
            if status is None:  # the connection breaks in the middle of an answer
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[1, 2")
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.planned, made.usual = [], [], scores
    made.url = f"http://127.0.0.1:{made.server_port}/v1/cats:predict"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def answer(content, status=200, **headers):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda instances: (status, headers, body)


def scores(instances):
    sums = [sum(row) for row in instances]
    return 200, {}, json.dumps({"predictions": [[total, -total] for total in sums]}).encode()


def of_each(function):
    return lambda instances: (200, {}, json.dumps([function(each) for each in instances]).encode())


@pytest.fixture
def data(tmp_path):
    np.savez(tmp_path / "data.npz", x=X)
    return tmp_path / "data.npz"


def asked_of(server, data, settings=None, **options):
    out = data.with_name("out.jsonl")
    predict(server.url, data, out, by_position=True, settings=settings, batch_size=16, overwrite=True, **options)
    return read_table(out)


def test_batches_are_posted_and_read(server, data, monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    options = ["--by-position", "--batch", "16", "--header", "Authorization=Bearer $TOKEN"]
    assert main(["predict", server.url, str(data), "--out", str(data.with_name("out.csv")), *options]) == 0
    found = read_table(data.with_name("out.csv"))
    np.testing.assert_array_equal(found.column("score_0"), SCORES[:, 0])
    assert [len(json.loads(body)["instances"]) for _, _, body in server.asked] == [16, 16, 8]
    assert {headers["Authorization"] for _, headers, _ in server.asked} == {"Bearer secret"}


def test_labels_objects_and_named_scores_are_read(server, data):
    server.usual = of_each(lambda row: "cat" if sum(row) > 0 else "dog")
    assert asked_of(server, data).column("pred").tolist() == np.where(SCORES[:, 0] > 0, "cat", "dog").tolist()
    server.usual = of_each(lambda row: {"class": "cat", "value": sum(row)})
    found = asked_of(server, data, ModelSettings(output="value"))
    np.testing.assert_array_equal(found.column("pred"), SCORES[:, 0])
    # As the inference API of Hugging Face gives them: the surest first.
    server.usual = of_each(
        lambda row: sorted(
            [{"label": "cat", "score": sum(row)}, {"label": "dog", "score": -sum(row)}], key=lambda e: -e["score"]
        )
    )
    found = asked_of(server, data)
    np.testing.assert_array_equal(np.stack([found.column("score_cat"), found.column("score_dog")], axis=1), SCORES)


def test_what_may_pass_is_tried_anew(server, data):
    server.planned = [
        answer({"error": "busy"}, 503),
        answer(b"", 500),
        lambda instances: (None, {}, b""),
        answer({}, 429, **{"Retry-After": "0.2"}),
    ]
    np.testing.assert_array_equal(asked_of(server, data).column("scores"), SCORES)
    times = [when for when, _, _ in server.asked]
    assert len(times) == 4 + 3
    assert times[4] - times[3] >= 0.2


def test_a_date_to_come_back_is_kept(server, data):
    moment = email.utils.format_datetime(
        datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2),
        usegmt=True,
    )
    server.planned = [answer({}, 429, **{"Retry-After": moment})]
    asked_of(server, data)
    times = [when for when, _, _ in server.asked]
    assert times[1] - times[0] >= 0.9  # dates have whole seconds


def test_the_rate_is_kept(server, data):
    asked_of(server, data, ModelSettings(rate=10))
    times = [when for when, _, _ in server.asked]
    assert len(times) == 3
    assert times[-1] - times[0] >= 0.15  # two spaces of 0.1 s, but for what the first one took to come


def test_an_answer_that_takes_too_long_is_none(server, data, capsys):
    server.planned = [lambda instances: (time.sleep(0.5), scores(instances))[1]]
    np.testing.assert_array_equal(asked_of(server, data, ModelSettings(timeout=0.2)).column("scores"), SCORES)
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("planned", "message"),
    [
        (answer(b"<html>welcome</html>"), "the answer is no JSON: '<html>welcome</html>'"),
        (answer({"result": 1}), 'expected {"predictions": \\[...\\]} or a list'),
        (answer({"predictions": [1]}), "1 answers to 16 instances"),
        (answer([{"label": 1, "score": 2}] * 16), "each answer has label, score; say which by --output"),
        (answer([1, "a"] * 8), "answers of several kinds"),
        (answer([[1, 2], [1]] * 8), "expected labels, numbers or rows of scores"),
        (answer(b"[" + b"NaN," * 15 + b"NaN]"), "NaN or infinity on .*data.npz, row 0"),
        (answer({"error": "no such model"}, 404), "status 404 Not Found: .*no such model"),
        (answer(b"", 302, Location="http://127.0.0.1:1/"), "status 302"),
        (answer(b"", 429, **{"Retry-After": "3600"}), "status 429 .*left alone for 3600 s"),
    ],
)
def test_nonsense_is_one_line_and_asked_once(server, data, planned, message):
    server.planned = [planned]
    with pytest.raises(ValueError, match=message):
        asked_of(server, data)
    assert len(server.asked) == 1


def test_one_that_stays_down_is_given_up_and_taken_up_later(server, data, capsys):
    out = str(data.with_name("out.csv"))
    options = ["predict", server.url, str(data), "--out", out, "--by-position", "--batch", "16", "--retries", "2"]
    server.planned, server.usual = [scores], answer(b"out of order", 503)
    assert main(options) == 2
    assert "status 503" in (said := capsys.readouterr().err)
    assert "after 3 tries" in said
    assert len(server.asked) == 1 + 3
    server.usual = scores
    assert main(options) == 0
    assert "40 rows, 16 of them by an earlier run" in capsys.readouterr().out
    np.testing.assert_array_equal(read_table(out).column("score_0"), SCORES[:, 0])


def test_nobody_there_and_no_address_are_one_line(server, data):
    settings = ModelSettings(retries=0)
    server.url = "http://127.0.0.1:1/"
    with pytest.raises(ValueError, match="http://127.0.0.1:1/: .*refused"):
        asked_of(server, data, settings)
    for url in ("http://", "http://host:port/", "https://a b/"):
        server.url = url
        with pytest.raises(ValueError, match="no address"):
            asked_of(server, data, settings)


def by_label(one, other):
    def made(row):
        entries = [{"label": one, "score": sum(row)}, {"label": other, "score": -sum(row)}]
        return sorted(entries, key=lambda entry: -entry["score"])  # as servers of transformers answer

    return of_each(made)


@pytest.mark.parametrize("classes", [None, ["cat", "dog"], ["dog", "cat"]])
def test_names_of_classes_never_change_places(server, data, classes):
    server.usual = by_label("cat", "dog")
    out = data.with_name("out.csv")
    predict(server.url, data, out, features=["x"], by_position=True, classes=classes)
    table = read_table(out)
    np.testing.assert_allclose(table.numbers("score_cat"), SCORES[:, 0])
    np.testing.assert_allclose(table.numbers("score_dog"), SCORES[:, 1])


def test_names_by_number_may_be_said_and_others_not(server, data):
    server.usual = by_label("LABEL_0", "LABEL_1")
    out = data.with_name("out.csv")
    predict(server.url, data, out, features=["x"], by_position=True, classes=["cat", "dog"])
    np.testing.assert_allclose(read_table(out).numbers("score_cat"), SCORES[:, 0])
    server.usual = by_label("chat", "chien")
    with pytest.raises(ValueError, match="it names its classes 'ch.*, in any order; take out --classes"):
        predict(server.url, data, out, features=["x"], by_position=True, classes=["cat", "dog"], overwrite=True)
    server.usual = of_each(lambda row: [{"label": "cat", "score": 0.1}, {"label": "cat", "score": 0.9}])
    with pytest.raises(ValueError, match="a score of each label, once"):
        predict(server.url, data, out, features=["x"], by_position=True, overwrite=True)

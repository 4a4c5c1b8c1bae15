"""Another function of the same name is another h1; one that is only made again is the same."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bc_core.reference._callable_fingerprint import fingerprint_of_callable, is_same_h1, is_sure, says_by_name


class Model:
    """Stands for a framework's."""

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, x):
        return x * self.weight


def read(value):
    return f"sha256:{value.weight}" if isinstance(value, Model) else None


def name(h1):
    return fingerprint_of_callable(h1, read)


def made(source, **values):
    """A function `h1` as a module would hold it, whose globals are these."""
    space = {"__name__": "service", "np": np, "functools": functools, **values}
    exec(compile(textwrap.dedent(source), "service.py", "exec"), space)
    return space["h1"]


CODE = "def h1(x): return x * W"
OTHERS = {
    "code": ("def h1(x): return x * 2", "def h1(x): return x + 2"),
    "constant": ("def h1(x): return x * 2", "def h1(x): return x * 3"),
    "attribute": ("def h1(x): return x.argmin(1)", "def h1(x): return x.argmax(1)"),
    "inner function": (
        "def h1(x): return [(lambda v: v + 1)(v) for v in x]",
        "def h1(x): return [(lambda v: v + 2)(v) for v in x]",
    ),
    "helper": (
        "def help(x): return x + 1\ndef h1(x): return help(x)",
        "def help(x): return x - 1\ndef h1(x): return help(x)",
    ),
    "default": ("def h1(x, t=1.0): return x * t", "def h1(x, t=2.0): return x * t"),
    "keyword default": ("def h1(x, *, t=1.0): return x * t", "def h1(x, *, t=2.0): return x * t"),
    "closure": (
        "def make(t):\n    return lambda x: x * t\nh1 = make(1)",
        "def make(t):\n    return lambda x: x * t\nh1 = make(2)",
    ),
    "partial": (
        "def f(x, t): return x * t\nh1 = functools.partial(f, t=1)",
        "def f(x, t): return x * t\nh1 = functools.partial(f, t=2)",
    ),
    "object": (
        "class S:\n    def __init__(self, t): self.t = t\n    def __call__(self, x): return x * self.t\nh1 = S(1)",
        "class S:\n    def __init__(self, t): self.t = t\n    def __call__(self, x): return x * self.t\nh1 = S(2)",
    ),
    "object's method": (
        "class S:\n    def ask(self, x): return x\n    def __call__(self, x): return self.ask(x)\nh1 = S()",
        "class S:\n    def ask(self, x): return -x\n    def __call__(self, x): return self.ask(x)\nh1 = S()",
    ),
    "base class": (
        "class B:\n    def ask(self, x): return x\nclass S(B):\n    def go(self, x): return self.ask(x)\nh1 = S().go",
        "class B:\n    def ask(self, x): return -x\nclass S(B):\n    def go(self, x): return self.ask(x)\nh1 = S().go",
    ),
    "cached": (
        "@functools.lru_cache\ndef h1(x): return x * 2",
        "@functools.lru_cache\ndef h1(x): return x * 3",
    ),
    "decorated": (
        "def d(f):\n    @functools.wraps(f)\n    def g(x): return f(x) * 2\n    return g\n@d\ndef h1(x): return x",
        "def d(f):\n    @functools.wraps(f)\n    def g(x): return f(x) * 3\n    return g\n@d\ndef h1(x): return x",
    ),
    "calls itself": (
        "def h1(x): return h1(x - 1) if x else 1",
        "def h1(x): return h1(x - 1) if x else 2",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_of_the_same_name_is_another(kind):
    one, again, other = (name(made(source)) for source in (*OTHERS[kind][:1] * 2, OTHERS[kind][1]))
    assert one.partition("#")[0] == other.partition("#")[0]
    assert is_same_h1(one, again)
    assert is_sure(one, again)
    assert not is_same_h1(one, other)


def fitted(seed):
    x = np.random.default_rng(seed).normal(size=(30, 2))
    return LogisticRegression().fit(x, x[:, 0] > 0)


@dataclass
class Config:
    t: float


VALUES = {
    "number": (1.0, 1.0, 2.0),
    "type of number": (1, 1, 1.0),
    "text": ("a", "a", "b"),
    "array": (np.arange(3), np.arange(3), np.arange(3)[::-1]),
    "array's type": (np.arange(3), np.arange(3), np.arange(3.0)),
    "list of arrays": ([np.ones(2), np.ones(3)], [np.ones(2), np.ones(3)], [np.ones(2), np.zeros(3)]),
    "dict": ({"t": 1.0, "u": 2}, {"u": 2, "t": 1.0}, {"t": 2.0, "u": 2}),
    "set": ({"a", "b", "c"}, {"c", "b", "a"}, {"a", "b"}),
    "model": (Model(1), Model(1), Model(2)),
    "models": ([Model(1), Model(2)], [Model(1), Model(2)], [Model(2), Model(1)]),
    "method of a model": (Model(1).__call__, Model(1).__call__, Model(2).__call__),
    "object": (Config(1.0), Config(1.0), Config(2.0)),
    "estimator": (fitted(0), fitted(0), fitted(1)),
    "method of an estimator": (fitted(0).predict, fitted(0).predict, fitted(1).predict),
}


@pytest.mark.parametrize("kind", VALUES)
def test_what_a_function_uses_is_a_part_of_it(kind):
    one, again, other = (name(made(CODE, W=value)) for value in VALUES[kind])
    assert is_sure(one, again)
    assert not is_same_h1(one, other)


def test_what_is_no_part_of_it():
    plain = name(made(CODE, W=2))
    assert name(made("'''A module.'''\n\n\n" + CODE + "  # with a comment\n", W=2)) == plain
    assert name(made(CODE, W=2, unused=[1, 2])) == plain
    told = [name(made("def h1(x):\n    log.info('asked')\n    return x", log=logging.getLogger(n))) for n in "ab"]
    assert is_sure(*told)


UNSEEN = {
    "a lock": ("def h1(x):\n    with W: return x", threading.Lock(), threading.Lock()),
    "a list that it fills": ("def h1(x):\n    W.append(len(x))\n    return x", [], [3]),
    "a cache": ("def h1(x):\n    W[len(x)] = x\n    return x", {}, {3: 1}),
    "a counter": ("def h1(x):\n    global W\n    W += 1\n    return x", 0, 5),
}


@pytest.mark.parametrize("kind", UNSEEN)
def test_what_cannot_be_read_or_changes_is_no_proof(kind):
    source, *values = UNSEEN[kind]
    one, other = (name(made(source, W=value)) for value in values)
    assert one.endswith("?")
    assert is_same_h1(one, other)
    assert not is_sure(one, other)
    assert "service.h1" in says_by_name(one)
    assert "h1.fingerprint =" in says_by_name(one)


def test_an_object_that_counts_its_calls_is_still_itself():
    source = """
        class S:
            def __init__(self): self.asked = 0
            def __call__(self, x):
                self.asked += 1
                return x
        h1 = S()
    """
    h1 = made(source)
    before = name(h1)
    h1(3)
    assert is_same_h1(before, name(h1))
    assert before.endswith("?")


def test_names_of_other_versions_are_told_by_the_name_alone():
    new = name(made(CODE, W=2))
    old = new.partition("#")[0]
    of_another_python = new.replace("#cpython-", "#cpython-9")
    assert old == "callable:service.h1"
    for recorded in (old, of_another_python):
        assert is_same_h1(recorded, new)
        assert is_same_h1(new, recorded)
        assert not is_sure(recorded, new)
    assert not is_same_h1("callable:service.h2", new)
    assert not is_same_h1("sha256:1", "sha256:2")


def test_ones_own_and_those_without_content():
    h1 = made(CODE, W=2)
    h1.fingerprint = "service-2026-11"
    assert name(h1) == "service-2026-11"
    assert name(len) == "callable:builtins.len"
    assert name(Model(3).__call__) == "callable:Model.__call__(sha256:3)"
    assert name(functools.partial(Model(3))).startswith("callable:partial(sha256:3)#")


def test_it_is_the_same_in_another_process(tmp_path):
    script = tmp_path / "service.py"
    script.write_text(
        textwrap.dedent("""
        import numpy as np
        from bc_core.reference._callable_fingerprint import fingerprint_of_callable
        NAMES, W, CONFIG = {"c", "a", "b"}, np.arange(3), {"u": 1, "t": {2.0, 3.0}}
        class Service:
            def __init__(self): self.t = 1.0
            def __call__(self, x): return x * self.t if "a" in {"a", "b", "c"} else x
        service = Service()
        def h1(x): return service(x) * W, NAMES, CONFIG, np.argmax
        print(fingerprint_of_callable(h1, lambda value: None))
    """)
    )
    found = []
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        command = [sys.executable, str(script)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found.append(done.stdout)
    assert found[0] == found[1]
    assert "?" not in found[0]

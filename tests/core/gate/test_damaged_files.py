"""Whatever is done to the files, the command ends in a verdict or in one line and status 2."""

import collections
import gzip
import json
import random

import numpy as np
import pytest

from bc_core._cli import main

SIZE = 60
Y = np.arange(SIZE) * 7 % 3
H1, H2 = np.where(np.arange(SIZE) % 9, Y, 0), np.where(np.arange(SIZE) % 7, Y, 1)
NAMES = np.array(["cat", "dog", "eel"])
FLIPS = np.flatnonzero((H1 == Y) & (H2 != Y))
POLICY = """promise = ["nfr <= 50%", "btc >= 9%"]
non_inferiority = "50%"
critical = "critical.txt"
accepted = "accepted.csv"
[per_class]
promise = "nfr <= 90%"
least = 1
[[per_slice]]
column = "region"
promise = "nfr <= 90%"
only = ["e*"]
[columns]
weight = "w"
"""


def npz(path):
    np.savez(path, id=np.arange(SIZE), pred=NAMES[H2])
    return path.read_bytes()


@pytest.fixture
def whole(tmp_path):
    old = [f"{i},{NAMES[H1[i]]},{NAMES[Y[i]]},{'eu' if i % 2 else 'us'},{i / 7:.3f},{1 + i % 3}\n" for i in range(SIZE)]
    new = [f"{i},{NAMES[H2[i]]}\n" for i in range(SIZE)]
    lines = [json.dumps({"id": i, "pred": str(NAMES[H2[i]]), "scores": [0.1, 0.2, 0.7]}) for i in range(SIZE)]
    return {
        "old.csv": ("id,pred,target,region,age,w\n" + "".join(old)).encode(),
        "new.jsonl": "\n".join(lines).encode(),
        "new.csv.gz": gzip.compress(("id,pred\n" + "".join(new)).encode()),
        "new.npz": npz(tmp_path / "new.npz"),
        "policy.toml": POLICY.encode(),
        "critical.txt": "".join(f"{i}\n" for i in range(20) if i not in FLIPS).encode(),
        "accepted.csv": ("id,reason,expires\n" + "".join(f"{i},known,2099-01-01\n" for i in FLIPS)).encode(),
    }


def damaged(content, draw):
    content = bytearray(content)
    for _ in range(draw.choice([1, 1, 3])):
        at = draw.randrange(len(content))
        how = draw.randrange(5)
        if how == 0:
            content[at] = draw.randrange(256)
        elif how == 1:
            del content[at : at + draw.choice([1, 2, 30])]
        elif how == 2:
            content[at:at] = bytes(draw.choice(b',"\n\r\0{}[]x9.-e') for _ in range(3))
        elif how == 3:
            del content[max(1, at) :]
        else:
            content[at : at + 8] = bytes(8)
        content = content or bytearray(b"x")
    return bytes(content)


@pytest.mark.filterwarnings("ignore")
def test_damage_ends_in_a_verdict_or_in_one_line(tmp_path, capsys, whole):
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    news, statuses, draw = [name for name in whole if name.startswith("new")], collections.Counter(), random.Random(0)
    for new in news:
        assert (
            main(["gate", str(tmp_path / "old.csv"), str(tmp_path / new), "--policy", str(tmp_path / "policy.toml")])
            == 0
        )
    capsys.readouterr()
    for _ in range(400):
        name = draw.choice(list(whole))
        (tmp_path / name).write_bytes(damaged(whole[name], draw))
        new = name if name in news else draw.choice(news)
        options = ["--policy", str(tmp_path / "policy.toml"), "--slice", "age"]
        status = main(["gate", str(tmp_path / "old.csv"), str(tmp_path / new), *options])
        statuses[status] += 1
        told = capsys.readouterr().err
        assert told.count("\n") == (status == 2), told
        assert "cannot be judged" not in told
        (tmp_path / name).write_bytes(whole[name])
    assert set(statuses) <= {0, 1, 2, 3}
    assert statuses[2] > 250

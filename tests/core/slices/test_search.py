import json

import numpy as np

from bc_core._cli import main
from bc_core.slices._columns import SliceColumn
from bc_core.slices._search import find_slices

SIZE = 6000


def column(name, codes, count):
    nothing = np.zeros((count, 2, 2), int)
    return SliceColumn(name, tuple(map(str, range(count))), nothing, np.zeros(0, int), codes)


def columns(rng, count=6, values=5):
    return [column(f"c{number}", rng.integers(0, values, SIZE), values) for number in range(count)]


def test_a_broken_pair_is_found_and_its_rate_is_that_of_the_other_half():
    rng = np.random.default_rng(0)
    some = columns(rng)
    inside = (some[1].codes == 2) & (some[4].codes == 0)
    broken = rng.random(SIZE) < np.where(inside, 0.4, 0.01)
    found = find_slices(some, np.ones(SIZE, bool), ~broken)
    assert found[0].name == "c1=2, c4=0"
    assert found[0].low < 0.4 < found[0].high
    assert inside.sum() / 2 - 30 < found[0].total < inside.sum() / 2 + 30
    assert {each.name for each in found} <= {"c1=2, c4=0", "c1=2", "c4=0"}


def test_a_broken_column_is_not_told_again_by_its_pairs():
    rng = np.random.default_rng(1)
    some = columns(rng)
    broken = rng.random(SIZE) < np.where(some[2].codes == 3, 0.3, 0.02)
    assert [each.name for each in find_slices(some, np.ones(SIZE, bool), ~broken)] == ["c2=3"]


def test_where_nothing_is_worse_nothing_is_found_as_often_as_promised():
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        alarms += bool(find_slices(columns(rng), np.ones(SIZE, bool), rng.random(SIZE) > 0.03, seed=seed))
    assert alarms <= 18  # 5 % of 200 are 10; three standard errors of it 9


def test_too_few_instances_find_nothing():
    right = np.ones(10, bool)
    assert find_slices([column("a", np.arange(10) % 2, 2)], right, ~right) == []
    assert find_slices([column("a", np.zeros(0, int), 2)], right[:0], right[:0]) == []


def test_the_command_looks_for_slices(tmp_path, capsys):
    rng = np.random.default_rng(2)
    y, region, device = rng.integers(0, 3, SIZE), rng.choice(["eu", "us"], SIZE), rng.choice(["phone", "web"], SIZE)
    broken = (y == 1) & (region == "eu") & (rng.random(SIZE) < 0.4)
    rows = zip(range(SIZE), y, y, region, device, strict=True)
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("\n".join(["id,pred,target,region,device", *(",".join(map(str, row)) for row in rows)]))
    new.write_text(
        "\n".join(["id,pred", *(f"{n},{(c + b) % 3}" for n, (c, b) in enumerate(zip(y, broken, strict=True)))])
    )
    options = ["--slice", "region,device", "--search"]
    assert main([str(old), str(new), *options, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["found_slices"][0]["name"] == "region=eu, class=1"
    assert main([str(old), str(new), *options]) == 0
    assert "  region=eu, class=1: " in capsys.readouterr().out
    assert main(["gate", str(old), str(new), "--promise", "nfr <= 90%", *options, "--markdown", "-"]) == 0
    assert "- region=eu, class=1: " in capsys.readouterr().out
    assert main([str(old), str(new), "--search"]) == 2
    assert "by the columns of --slice: name some" in capsys.readouterr().err

"""`bc-compare OLD NEW` and `bc-compare gate`, in process; what needs one of its own is in test_gate_process.py."""

import configparser
import csv
import datetime
import json
import re
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bc_core import Comparison, compare
from bc_core._cli import main

SIZE = 6000
NAMES = np.array(["cat", "dog", "eel"])
TOMORROW = str(datetime.date.today() + datetime.timedelta(days=2))
YESTERDAY = str(datetime.date.today() - datetime.timedelta(days=2))


class Update:
    """Two files of predictions, of which the new one breaks eels in the eu."""

    def __init__(self, folder, broken=0.5):
        rng = np.random.default_rng(0)
        self.folder, self.ids = folder, [f"im{number:05d}" for number in range(SIZE)]
        self.y, self.region = rng.integers(0, 3, SIZE), rng.choice(["asia", "eu", "us"], SIZE)
        self.h1 = np.where(rng.random(SIZE) < 0.9, self.y, (self.y + 1) % 3)
        bad = (self.y == 2) & (self.region == "eu") & (rng.random(SIZE) < broken)
        self.h2 = np.where(bad, (self.y + 1) % 3, np.where(rng.random(SIZE) < 0.5, self.y, self.h1))
        self.flips = [self.ids[row] for row in np.flatnonzero((self.h1 == self.y) & (self.h2 != self.y))]
        order = rng.permutation(SIZE)
        self.old = self.write("old.csv", id=self.ids, pred=NAMES[self.h1], target=NAMES[self.y], region=self.region)
        self.new = self.write("new.csv", id=np.array(self.ids)[order], pred=NAMES[self.h2][order])

    def write(self, name, **columns):
        with (self.folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
        return str(self.folder / name)

    def policy(self, text, name="compat.toml"):
        (self.folder / name).write_text(text)
        return str(self.folder / name)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    return Update(tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return Update(tmp_path_factory.mktemp("good"), broken=0.0)


POLICY = """
promise = "nfr <= 10%"
non_inferiority = "2%"
[per_class]
promise = "nfr <= 5%"
[[per_slice]]
column = "region"
promise = "nfr <= 5%"
"""


def test_two_files_show_what_the_arrays_say(bad, capsys):
    assert main([bad.old, bad.new, "--slice", "region", "--json", "-"]) == 0
    shown = json.loads(capsys.readouterr().out)
    overlap = compare(bad.y, bad.h1, bad.h2).overlap
    assert (shown["instances"], shown["negative_flips"], shown["verdict"]) == (SIZE, overlap.h1_only_right, None)
    for name, line in shown["scores"].items():
        assert line["value"] == pytest.approx(overlap.score(name))
        assert (line["low"], line["high"]) == pytest.approx(overlap.interval(name))
    assert shown["classes"][0]["name"] == "eel"
    assert shown["slices"][0]["name"] == "region=eu"
    in_eu = bad.region == "eu"
    assert shown["slices"][0]["negative_flips"] == ((bad.h1 == bad.y) & (bad.h2 != bad.y) & in_eu).sum()
    assert shown["slices"][0]["p_value"] < 1e-6
    assert {each["id"] for each in shown["new_mistakes"]} <= set(bad.flips)


def test_the_table_shows_the_worst_first(bad, capsys):
    assert main([bad.old, bad.new, "--slice", "region"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"Worst classes\n  eel: \d+ of \d+ instances broke", shown)
    assert re.search(r"Worst slices\n  region=eu: .*more than by chance \(p .* among 3\)", shown)
    assert "only h1 (negative flips)" in shown
    assert "Comparison 'new'" in shown


@pytest.mark.parametrize(
    ("options", "status"),
    [(["--max-nfr", "10%"], 0), (["--max-nfr", "1%"], 1), (["--min-btc", "99%"], 1), (["--max-nfr", "5.5%"], 3)],
)
def test_budgets_are_the_same_flags_as_for_a_saved_comparison(bad, capsys, options, status):
    assert main([bad.old, bad.new, *options]) == status
    saved = str(bad.folder / "saved.json.gz")
    main([bad.old, bad.new, "--save", saved])
    assert main([saved, *options]) == status
    capsys.readouterr()


def test_a_good_update_passes_and_a_bad_one_fails_and_names_the_broken_class_and_slice(good, bad, capsys):
    assert main(["gate", good.old, good.new, "--policy", good.policy(POLICY)]) == 0
    assert "PASS: 8 pass" in capsys.readouterr().out
    assert main(["gate", bad.old, bad.new, "--policy", bad.policy(POLICY)]) == 1
    shown = capsys.readouterr().out
    failed = {line.split(":")[1].strip() for line in shown.splitlines() if line.startswith("FAIL") and "wanted" in line}
    assert failed == {"class eel", "slice region=eu"}


def test_too_few_instances_are_inconclusive_and_say_how_many_more(good, capsys):
    few = [
        good.write(name, id=good.ids[:100], pred=NAMES[h][:100], target=NAMES[good.y][:100])
        for name, h in (("a.csv", good.h1), ("b.csv", good.h2))
    ]
    assert main(["gate", *few, "--promise", "nfr <= 1%"]) == 3
    shown = capsys.readouterr().out
    assert int(re.search(r"about (\d+) more instances of it would decide", shown)[1]) == pytest.approx(199, abs=3)
    assert "INCONCLUSIVE: 1 inconclusive" in shown


def test_slices_and_classes_are_chosen_by_name_pattern_and_size(bad, capsys):
    policy = bad.policy('[per_class]\npromise = "nfr <= 5%"\nonly = ["c*", "dog"]\n', "some.toml")
    assert main(["gate", bad.old, bad.new, "--policy", policy]) == 0
    shown = capsys.readouterr().out
    assert "class cat" in shown
    assert "class dog" in shown
    assert "class eel: NFR at most" not in shown
    policy = bad.policy(
        f'[[per_slice]]\ncolumn = "region"\npromise = "nfr <= 5%"\nleast = {SIZE}\nonly = ["us"]\n', "named.toml"
    )
    assert main(["gate", bad.old, bad.new, "--policy", policy]) == 0
    assert "slice region=us" in capsys.readouterr().out
    assert main(["gate", bad.old, bad.new, "--per-slice", "nfr <= 5%", "--slice", "region", "--least", "5999"]) == 2
    assert "no slice of 'region' has 5999 instances or more" in capsys.readouterr().err


def test_flags_take_the_place_of_keys(bad, capsys):
    policy = bad.policy('promise = "nfr <= 0.1%"\nnon_inferiority = "2%"', "strict.toml")
    assert main(["gate", bad.old, bad.new, "--policy", policy]) == 1
    assert main(["gate", bad.old, bad.new, "--policy", policy, "--promise", "nfr <= 20%"]) == 0
    assert main(["gate", bad.old, bad.new, "--policy", policy, "--promise", "nfr <= 20%", "--min-gain", "50%"]) == 1
    assert "accuracy gains at least 50% wanted" in capsys.readouterr().out


def test_a_policy_in_pyproject_here_is_found(bad, capsys, monkeypatch):
    monkeypatch.chdir(bad.folder)
    bad.policy('[tool.bc-compare]\npromise = "nfr <= 1%"\n', "pyproject.toml")
    try:
        assert main(["gate", bad.old, bad.new]) == 1
    finally:
        (bad.folder / "pyproject.toml").unlink()
    assert main(["gate", bad.old, bad.new]) == 2
    assert "the policy asks nothing" in capsys.readouterr().err


def test_a_critical_instance_must_not_break(bad, capsys):
    unbroken = [each for each in bad.ids if each not in set(bad.flips)][:3]
    critical = bad.folder / "critical.txt"
    critical.write_text("\n".join(unbroken))
    policy = bad.policy('critical = "critical.txt"', "critical.toml")
    assert main(["gate", bad.old, bad.new, "--policy", policy]) == 0
    critical.write_text("\n".join([*unbroken, bad.flips[0]]))
    assert main(["gate", bad.old, bad.new, "--policy", policy]) == 1
    assert f"FAIL: critical instances: none breaks wanted; 1 of 4 broke: {bad.flips[0]}" in capsys.readouterr().out
    for content, message in (
        ("nobody\n", "1 critical ids are not in the predictions: 'nobody'"),
        ("\n", "no id in it"),
        ("a\na", "'a' come more than once"),
    ):
        critical.write_text(content)
        assert main(["gate", bad.old, bad.new, "--policy", policy]) == 2
        assert message in capsys.readouterr().err


def accepted_file(update, *rows):
    with (update.folder / "accepted.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "reason", "expires"), *rows])
    return str(update.folder / "accepted.csv")


def test_accepted_flips_do_not_count_until_they_expire(bad, capsys):
    half = len(bad.flips) // 2
    accepted = accepted_file(
        bad, *((each, "known", TOMORROW if place < half else YESTERDAY) for place, each in enumerate(bad.flips))
    )
    command = [
        "gate",
        bad.old,
        bad.new,
        "--promise",
        "nfr <= 90%",
        "--min-gain=-90%",
        "--accepted",
        accepted,
        "--json",
        "-",
    ]
    assert main(command) == 0
    shown = json.loads(capsys.readouterr().out)
    nfr, gain = shown["checks"]
    assert nfr["value"] == pytest.approx((len(bad.flips) - half) / SIZE)
    assert gain["value"] == pytest.approx((bad.h2 == bad.y).mean() - (bad.h1 == bad.y).mean())  # accuracy is what it is
    assert (len(shown["accepted"]), len(shown["expired"])) == (half, len(bad.flips) - half)
    assert shown["scores"]["nfr"]["above"] == len(bad.flips)


def test_accepted_flips_count_in_no_class_or_slice(bad, capsys):
    accepted = accepted_file(bad, *((each, "known", TOMORROW) for each in bad.flips))
    policy = bad.policy(POLICY, "whole.toml")
    assert main(["gate", bad.old, bad.new, "--policy", policy, "--accepted", accepted]) == 0
    saved = str(bad.folder / "saved.json")
    main([bad.old, bad.new, "--save", saved])
    command = ["gate", saved, "--per-class", "nfr <= 5%", "--promise", "nfr <= 1%"]
    assert main(command) == 1
    assert main([*command, "--accepted", accepted]) == 0
    capsys.readouterr()


def test_today_can_be_blessed_and_the_next_update_is_held_to_it(bad, capsys):
    path = bad.folder / "blessed.csv"
    command = ["gate", bad.old, bad.new, "--promise", "nfr <= 0.1%", "--accepted", str(path)]
    assert main(command) == 2
    assert "is not there. --accept --reason" in capsys.readouterr().err
    blessing = [*command, "--accept", "--reason", "eels are retired, in part", "--expires", TOMORROW]
    assert main(blessing) == 0
    said = f"Accepted until {TOMORROW}: {path}: {len(bad.flips)} flips newly accepted, 0 accepted as before, 0 taken"
    assert said in capsys.readouterr().out
    assert path.read_text().splitlines()[1] == f'{bad.flips[0]},"eels are retired, in part",{TOMORROW}'
    assert main(command) == 0
    # A next update breaks others.
    others = bad.h2.copy()
    again = np.flatnonzero((bad.h1 == bad.y) & (bad.h2 == bad.y))[:200]
    others[again] = (bad.y[again] + 1) % 3
    newer = bad.write("newer.csv", id=bad.ids, pred=NAMES[others])
    assert main(["gate", bad.old, newer, *command[3:]]) == 1
    # What is none any more is taken off the list, and old entries keep their reason.
    fixed = bad.write("fixed.csv", id=bad.ids, pred=NAMES[np.where(np.arange(SIZE) < SIZE // 2, bad.y, bad.h2)])
    assert main(["gate", bad.old, fixed, *command[3:], "--accept", "--reason", "x", "--expires", TOMORROW]) == 0
    left = path.read_text().splitlines()[1:]
    assert left == [
        line
        for line in [f'{each},"eels are retired, in part",{TOMORROW}' for each in bad.flips]
        if int(line[2:7]) >= SIZE // 2
    ]


def test_critical_instances_are_never_accepted(bad, capsys):
    critical = bad.folder / "one.txt"
    critical.write_text(bad.flips[0])
    path = bad.folder / "but_one.csv"
    options = ["--critical", str(critical), "--accepted", str(path), "--accept", "--reason", "x", "--expires", TOMORROW]
    assert main(["gate", bad.old, bad.new, "--promise", "nfr <= 1%", *options]) == 1
    assert "Nothing is accepted, as the update fails even if today's flips were" in capsys.readouterr().out
    assert not path.exists()
    fixed = bad.write("but_one_fixed.csv", id=bad.ids, pred=NAMES[np.where(np.arange(SIZE) % 2, bad.y, bad.h2)])
    critical.write_text("im00001")
    assert main(["gate", bad.old, fixed, "--promise", "nfr <= 10%", *options, "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["verdict"] == "pass"  # nothing else is printed among what a program reads
    assert "newly accepted" in captured.err
    assert "im00001" not in path.read_text()
    critical.write_text(bad.flips[0])
    accepted = accepted_file(bad, (bad.flips[0], "x", TOMORROW))
    assert main(["gate", bad.old, bad.new, "--critical", str(critical), "--accepted", accepted]) == 2
    assert "ids that are critical must not break" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "none/\0/report.json"], "null byte"),
        (["--html", "page.txt"], "expected a name that ends in .html"),
        (["--per-class", "nfr <= 1%", "--least", "99999"], "no class has 99999 instances"),
        (["--critical", "nobody.txt"], "critical ids are not in the predictions"),
        (["--search"], "--search looks at instances"),
    ],
)
def test_whatever_goes_wrong_leaves_the_list_as_it_was(bad, capsys, options, message, monkeypatch):
    monkeypatch.chdir(bad.folder)
    Path("nobody.txt").write_text("nobody")
    path = accepted_file(bad, (bad.flips[0], "looked at", TOMORROW))
    before = Path(path).read_bytes()
    command = ["gate", bad.old, bad.new, "--promise", "nfr <= 0.1%", "--accepted", path]
    blessing = ["--accept", "--reason", "x", "--expires", TOMORROW]
    assert main([*command, *blessing, *options]) == 2
    assert message in capsys.readouterr().err
    assert Path(path).read_bytes() == before


def test_the_list_of_another_test_set_is_not_thrown_away(bad, capsys):
    path = accepted_file(bad, (bad.flips[0], "looked at", TOMORROW))
    ids = [f"x{each}" for each in bad.ids]
    old = bad.write("other_old.csv", id=ids, pred=NAMES[bad.h1], target=NAMES[bad.y])
    new = bad.write("other_new.csv", id=ids, pred=NAMES[bad.h2])
    blessing = ["--accepted", path, "--accept", "--reason", "x", "--expires", TOMORROW]
    assert main(["gate", old, new, "--promise", "nfr <= 10%", *blessing]) == 2
    assert "accepted ids that are not in the predictions" in capsys.readouterr().err
    assert "looked at" in Path(path).read_text()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("nobody", "x", TOMORROW), "accepted ids that are not in the predictions: 'nobody'"),
        (("im00001", "", TOMORROW), "line 2: column 'reason' is empty"),
        (("im00001", "x", "soon"), "line 2: column 'expires' is 'soon'; expected a date such as"),
        (("im00001", "x"), "line 2: expected 3 fields"),
    ],
)
def test_wrong_lists_of_accepted_flips_are_bad_input(bad, capsys, row, message):
    accepted = accepted_file(bad, row)
    assert main(["gate", bad.old, bad.new, "--promise", "nfr <= 90%", "--accepted", accepted]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--accept"], "--accept needs --reason TEXT and --expires DATE"),
        (["--accept", "--reason", "x", "--expires", TOMORROW], "--accepted FILE: name one"),
        (["--accept", "--reason", " ", "--expires", TOMORROW, "--accepted", "a.csv"], "--accept needs --reason"),
        (["--accept", "--reason", "x", "--expires", YESTERDAY, "--accepted", "a.csv"], "that day has passed"),
        (["--accept", "--reason", "x", "--expires", TOMORROW, "--accepted", "a.txt"], "must end in .csv"),
        (["--per-slice", "nfr <= 1%"], "--per-slice asks of the slices of --slice COLUMN"),
        (["--per-class", "nfr <= 1%", "--classes", "cat,dog"], "which is none of the classes 'cat', 'dog'"),
        (["--policy", "none.toml"], "none.toml: No such file"),
        (["--weight", "region"], "column 'region' is"),
        (["--slice", "zone"], "no column 'zone' (of --slice)"),
        (["--json", "r", "--markdown", "r"], "two reports of one name: r, r"),
        (["--html", "report.txt"], "expected a name that ends in .html"),
    ],
)
def test_what_cannot_be_is_one_line_and_status_2(bad, capsys, options, message):
    assert main(["gate", bad.old, bad.new, "--promise", "nfr <= 90%", *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("bc-compare: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_saved_comparison_cannot_tell_of_slices_and_critical_instances(bad, capsys):
    saved = str(bad.folder / "saved2.json")
    main([bad.old, bad.new, "--save", saved])
    critical = bad.folder / "critical2.txt"
    critical.write_text(bad.flips[0])
    for options in (["--critical", str(critical)], ["--per-slice", "nfr <= 1%", "--slice", "region"]):
        assert main(["gate", saved, *options]) == 2
        assert "give the two files of predictions" in capsys.readouterr().err


def test_predictions_are_not_compared_with_themselves(bad, capsys, tmp_path):
    assert main(["gate", bad.old, bad.old, "--promise", "nfr <= 1%"]) == 2
    assert (
        "compared with itself; where both models are in one file, say --pred and --new-pred" in capsys.readouterr().err
    )
    both = bad.write("both.csv", id=bad.ids, first=NAMES[bad.h1], second=NAMES[bad.h2], target=NAMES[bad.y])
    assert main([both, both, "--pred", "first", "--new-pred", "second", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["negative_flips"] == len(bad.flips)
    copy = tmp_path / "copy.csv"
    copy.write_bytes(Path(bad.old).read_bytes())
    assert main([bad.old, str(copy)]) == 0
    assert "The new model predicts exactly what the old one does" in capsys.readouterr().out


def test_one_file_of_predictions_is_not_enough(bad, capsys):
    for command in ([bad.old], ["gate", bad.old, "--promise", "nfr <= 1%"]):
        assert main(command) == 2
        assert "one file of predictions; give that of the new model too" in capsys.readouterr().err


def test_an_old_model_that_is_never_right_is_bad_input(good, capsys):
    never = good.write("never.csv", id=good.ids, pred=NAMES[(good.y + 1) % 3], target=NAMES[good.y])
    assert main(["gate", never, good.new, "--promise", "nfr <= 1%"]) == 2
    assert "right on no instance" in capsys.readouterr().err


def test_everything_is_written(bad, capsys):
    out = bad.folder / "out"
    files = {
        name: str(out / f"report.{ending}")
        for name, ending in (
            ("json", "json"),
            ("html", "html"),
            ("markdown", "md"),
            ("junit", "xml"),
            ("save", "json.gz"),
        )
    }
    options = [text for name, path in files.items() for text in (f"--{name}", path)]
    policy = bad.policy(POLICY, "all.toml")
    assert main(["gate", bad.old, bad.new, "--policy", policy, *options]) == 1
    capsys.readouterr()
    report = json.loads((out / "report.json").read_text())
    assert report["verdict"] == "fail"
    suite = ElementTree.parse(out / "report.xml").getroot()
    assert int(suite.get("tests")) == len(suite.findall("testcase")) == len(report["checks"]) == 8
    failed = [case.get("classname") for case in suite.findall("testcase") if case.find("failure") is not None]
    assert failed == ["bc-compare.class eel", "bc-compare.slice region=eu"]
    markdown = (out / "report.md").read_text()
    assert markdown.startswith("## ❌ Compatibility: fail")
    assert "| ❌ | class eel | NFR at most 5% |" in markdown
    assert len(markdown.splitlines()) < 60
    assert "bc-data" in (out / "report.html").read_text()
    saved = Comparison.load(out / "report.json.gz")
    assert saved.overlap == compare(bad.y, bad.h1, bad.h2).overlap
    (column,) = saved.slices  # for the dashboard
    counts = {f"region={value}": cells[1, 0] for value, cells in zip(column.values, column.counts, strict=True)}
    assert counts == {each["name"]: each["negative_flips"] for each in report["slices"]}


def test_a_run_of_tensorboard_is_written_by_whoever_says_so_in_its_metadata(bad, capsys, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = configparser.ConfigParser()
    settings.read(Path(__file__).parents[3] / "setup.cfg")  # the installed copy of it may be older
    value = re.search(r"to_tensorboard = (\S+)", settings["options.entry_points"]["bc_core.pages"])[1]
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: [metadata.EntryPoint(value=value, **wanted)])
    assert main([bad.old, bad.new, "--tensorboard", str(bad.folder / "run")]) == 0
    events = EventAccumulator(str(bad.folder / "run"), {"tensors": 0}).Reload()
    assert events.PluginTagToContent("backward_compatibility")
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: [])
    assert main([bad.old, bad.new, "--tensorboard", str(bad.folder / "run")]) == 2
    assert "Nothing that is installed logs to TensorBoard" in capsys.readouterr().err


def test_markdown_can_be_printed(bad, capsys):
    assert main(["gate", bad.old, bad.new, "--promise", "nfr <= 90%", "--markdown", "-"]) == 0
    assert capsys.readouterr().out.startswith("## ✅ Compatibility: pass")
    assert main(["gate", bad.old, bad.new, "--promise", "nfr <= 90%", "--junit", "-"]) == 0
    assert ElementTree.fromstring(capsys.readouterr().out).get("failures") == "0"


def test_names_in_data_do_no_harm_in_reports(tmp_path, capsys):
    nasty = ["<script>alert(1)</script>|x", "@everyone \x1b[2J ]]>", "new\nline"]
    y = [0, 1, 2] * 30
    update = Update.__new__(Update)
    update.folder = tmp_path
    old = update.write("old.csv", id=range(90), pred=[nasty[c] for c in y], target=[nasty[c] for c in y])
    new = update.write("new.csv", id=range(90), pred=[nasty[(c + 1) % 3] for c in y])
    options = ["--markdown", str(tmp_path / "r.md"), "--junit", str(tmp_path / "r.xml")]
    assert main(["gate", old, new, "--per-class", "nfr <= 1%", *options]) == 1
    assert "\x1b" not in capsys.readouterr().out
    text = (tmp_path / "r.md").read_text()
    assert "<script>" not in text
    assert "@everyone" not in text
    assert all(line.count(" | ") == 3 for line in text.splitlines() if line.startswith("| ❌"))
    assert len(ElementTree.parse(tmp_path / "r.xml").getroot().findall("testcase")) == 3


def test_weights_clusters_and_noise_are_said(bad, capsys):
    rng = np.random.default_rng(3)
    data = bad.write("data.csv", id=bad.ids, w=rng.gamma(2, size=SIZE), user=np.arange(SIZE) // 4)
    seed = np.where(rng.random(SIZE) < 0.97, bad.h1, (bad.h1 + 1) % 3)
    noise = bad.write("seed.csv", id=bad.ids, pred=NAMES[seed])
    options = ["--data", data, "--weight", "w", "--cluster", "user", "--noise", noise]
    assert main([bad.old, bad.new, *options, "--json", "-"]) == 0
    shown = json.loads(capsys.readouterr().out)
    weights = np.loadtxt(data, delimiter=",", skiprows=1, usecols=1)
    broke = (bad.h1 == bad.y) & (bad.h2 != bad.y)
    assert shown["scores"]["nfr"]["value"] == pytest.approx(weights[broke].sum() / weights.sum())
    assert shown["scores"]["nfr"]["below"] < SIZE
    worth = re.search(r"worth (\d+) plain instances", shown["notes"][0])[1]
    assert int(worth) == pytest.approx(weights.sum() ** 2 / (weights**2).sum(), abs=1)
    assert "6000 instances of 1500 'user'" in shown["notes"][1]
    flips = ((bad.h1 == bad.y) & (seed != bad.y)).mean(), ((seed == bad.y) & (bad.h1 != bad.y)).mean()
    assert shown["noise"]["rate"] == pytest.approx(np.mean(flips))
    assert main([bad.old, bad.new, *options]) == 0
    assert "A retraining alone breaks" in capsys.readouterr().out


def test_ids_that_are_left_out_are_said(good, capsys):
    short = good.write("short.csv", id=good.ids[1:], pred=NAMES[good.h2][1:])
    assert main([good.old, short]) == 2
    assert "1 of" in capsys.readouterr().err
    assert main([good.old, short, "--allow-unmatched"]) == 0
    assert "1 ids of" in capsys.readouterr().out

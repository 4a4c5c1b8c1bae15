"""What would come to a wrong number without a word: each is known, or refused in one line."""

import json
import shutil

import numpy as np
import pytest

from bc_core import assert_compatible, compare
from bc_core._cli import main

SIZE = 100


def csv(path, *columns):
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in zip(*columns, strict=True)))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rows, y = list(range(SIZE)), [row % 2 for row in range(SIZE)]
    broken = [1 - label if row % 5 == 0 else label for row, label in enumerate(y)]
    both = csv(
        folder / "both.csv",
        ["id", *rows],
        ["v1", *y],
        ["v2", *broken],
        ["score", *(0.1 + 0.8 * label for label in y)],
        ["ok", *[1] * SIZE],
        ["target", *y],
        ["kind", *["[x]"] * SIZE],
    )
    old = csv(folder / "old.csv", ["id", *rows], ["pred", *y], ["target", *y], ["kind", *["[x]"] * SIZE])
    new = csv(folder / "new.csv", ["id", *rows], ["pred", *broken])
    shutil.copy(new, folder / "copy.csv")
    saved = str(folder / "saved.json")
    compare(y, y, broken).save(saved)
    (folder / "page.toml").write_text('[[per_slice]]\ncolumn = "kind"\npromise = "nfr <= 1%"\nonly = ["[x]"]\n')
    return {name: str(folder / f"{name}.csv") for name in ("both", "old", "new", "copy")} | {
        "saved": saved,
        "policy": str(folder / "page.toml"),
        "both": both,
        "old": old,
    }


PAIR = ["--pred", "v1", "--new-pred", "v2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["both", "both", *PAIR, "--threshold", "0.5"], "compared with itself"),
        (["both", "both", *PAIR, "--correct", "ok"], "compared with itself"),
        (["both", "both", *PAIR, "--right", "score > 0.5 or target == 0"], "compared with itself"),
        (["old", "new", "--threshold", "0.5"], "labels and no scores"),
        (["old", "new", "--filter", "none"], "no sample logs of lm-eval"),
        (["old", "new", "--noise", "old"], "it is given twice"),
        (["old", "new", "--noise", "copy", "--noise", "copy"], "it is given twice"),
        (["gate", "old", "new", "--promise", "nfr <= 1%", "--least", "5"], "--least is of --per-class"),
        (["gate", "old", "new", "--promise", "nfr <= 1%", "--reason", "known"], "--accept"),
        (["saved", "--weight", "w"], "does not heed --weight"),
        (["gate", "saved", "--promise", "nfr <= 1%", "--data", "old"], "does not heed --data"),
        (["old", "new", "--right", "1 / target <= 5"], "it divides by zero"),
        (["old", "new", "--right", "log(target) <= 1"], "the logarithm of 0"),
    ],
)
def test_what_would_be_ignored_is_refused(files, capsys, arguments, message):
    assert main([files.get(each, each) for each in arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said


def test_two_thresholds_of_one_file_are_two_models(files, capsys):
    assert main([files["both"], files["both"], "--threshold", "0.5", "--new-threshold", "0.95", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["negative_flips"] == SIZE // 2


def test_a_threshold_of_several_labels_that_are_no_scores_is_refused(tmp_path, capsys):
    for name in ("a", "b"):
        rows = [["id", 1, 2], *([f"{kind}_{label}", 0, 1] for kind in ("pred", "target") for label in "xy")]
        csv(tmp_path / f"{name}.csv", *rows)
    files = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--multilabel"]
    assert main(files) == 0
    assert main([*files, "--threshold", "0.7"]) == 2
    assert "labels and no scores" in capsys.readouterr().err


def test_a_slice_whose_name_is_a_pattern_is_found(files, capsys):
    assert main(["gate", files["old"], files["new"], "--policy", files["policy"]]) == 1
    assert "slice kind=[x]" in capsys.readouterr().out


def test_weights_of_a_policy_and_counts_do_not_go_together(files):
    y = [0, 1] * 50
    with pytest.raises(ValueError, match="only counted, so that 'w'"):
        assert_compatible(compare(y, y, y), policy={"promise": "nfr <= 5%", "columns": {"weight": "w"}})
    with pytest.raises(ValueError, match="has been compared"):
        assert_compatible(compare(y, y, y), files["new"], promise="nfr <= 5%")


@pytest.mark.parametrize(
    ("old", "new", "target", "rule", "message"),
    [
        (["1.0", "2.0"], ["1", "unknown"], [1, "unknown"], [], "the labels '1' and '1.0' are one number"),
        (
            [2**53 + 1, 2],
            [2**53, 2],
            [2**53, 2],
            ["--right", "pred == target"],
            f"line 2: column 'pred' is {2**53 + 1}",
        ),
        (["1_1", "2"], ["11", "2"], ["11", "2"], [], "line 2: column 'pred' is '1_1' among numbers"),
        (["11", "2"], ["1_1", "2"], ["1_1", "2"], [], None),
        (["NA", "2"], ["1", "2"], [1, 2], [], "old.csv, line 2: column 'pred' is 'NA' among numbers"),
        (["1_1", "2"], ["1_1", "2"], ["1_1", "2"], ["--right", "pred > 1"], "'1_1'"),
    ],
)
def test_numbers_that_are_and_are_not(tmp_path, capsys, old, new, target, rule, message):
    old = csv(tmp_path / "old.csv", ["id", 1, 2], ["pred", *old], ["target", *target])
    new = csv(tmp_path / "new.csv", ["id", 1, 2], ["pred", *new])
    assert main([old, new, *rule]) == (0 if message is None else 2)
    said = capsys.readouterr()
    assert ("1 only h2" in said.out) if message is None else (message in said.err)


def test_a_threshold_is_as_exact_as_the_scores(tmp_path, capsys):
    scores = np.array([0.7, 0.2, 0.9, 0.1], np.float32)
    wide = csv(tmp_path / "wide.csv", ["id", *range(4)], ["score", *scores.astype(str)], ["target", 1, 0, 1, 0])
    np.savez(tmp_path / "narrow.npz", id=np.arange(4), score=scores)
    for files in ((wide, str(tmp_path / "narrow.npz")), (str(tmp_path / "narrow.npz"), wide)):
        assert main([*files, "--threshold", "0.7", "--json", "-"]) == 0
        assert json.loads(capsys.readouterr().out)["both_right"] == 4
    labels = np.stack([scores, 1 - scores], axis=1)
    np.savez(tmp_path / "a.npz", id=np.arange(4), scores=labels, target=(labels >= np.float32(0.7)).astype(int))
    np.savez(tmp_path / "b.npz", id=np.arange(4), scores=labels)
    several = ["--multilabel", "--threshold", "0.7", "--json", "-"]
    assert main([str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), *several]) == 0
    assert json.loads(capsys.readouterr().out)["both_right"] == 4


def test_a_module_that_ends_the_program_gives_no_verdict(files, tmp_path, capsys, monkeypatch):
    (tmp_path / "script_of_mine.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["gate", files["old"], files["new"], "--promise", "nfr <= 1%", "--right", "script_of_mine:near"]) == 2
    assert "ended the program (status 0)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "target", "options", "message"),
    [
        ([0, 1], ["cat", "dog"], [0, 1], [], "labels of mixed types"),
        ([0, 1], ["cat", "dog"], [0, 1], ["--classes", "cat,dog"], None),
        (
            [0, 5],
            ["cat", "dog"],
            [0, 1],
            ["--classes", "cat,dog"],
            "line 3: column 'pred' is 5, and classes are 0 to 1",
        ),
        ([0, 1], ["False", "True"], [0, 1], [], "labels of mixed types"),
        ([0, 1], ["False", "True"], [0, 1], ["--classes", "False,True"], None),
        (["cafe\u0301", "b"], ["caf\u00e9", "b"], ["caf\u00e9", "b"], [], "look alike"),
        (["cat\u200b", "b"], ["cat", "b"], ["cat", "b"], [], "look alike"),
        (["Cat", "b"], ["cat", "b"], ["cat", "b"], [], "differ by case alone"),
        (["a", "b"], ["A", "b"], ["a", "B"], [], None),
        ([0, 1], [0, "x"], [0, 1], [], "new.csv, line 3: column 'pred' is 'x' among numbers"),
        ([0, 1], [0, "x"], [0, 1], ["--classes", "0,1,x"], None),
        ([0, 1], [0, "x"], [0, "x"], [], None),
    ],
)
def test_labels_that_are_written_otherwise_are_no_mistakes(tmp_path, capsys, old, new, target, options, message):
    old = csv(tmp_path / "old.csv", ["id", 1, 2], ["pred", *old], ["target", *target])
    new = csv(tmp_path / "new.csv", ["id", 1, 2], ["pred", *new])
    assert main([old, new, *options]) == (0 if message is None else 2)
    said = capsys.readouterr()
    assert message is None or message in said.err


def test_two_classes_that_only_their_case_tells_apart_are_named(tmp_path, capsys):
    old = csv(tmp_path / "old.csv", ["id", 1, 2], ["pred", "US", "us"], ["target", "US", "us"])
    new = csv(tmp_path / "new.csv", ["id", 1, 2], ["pred", "US", "US"])
    assert main([old, new]) == 2
    assert "by --classes if they are two" in capsys.readouterr().err
    assert main([old, new, "--classes", "US,us"]) == 0
    assert "1 only h1" in capsys.readouterr().out


def test_no_report_is_written_over_what_is_read(files, tmp_path, capsys):
    new = shutil.copy(files["new"], tmp_path / "new.csv")
    (tmp_path / "link.csv").symlink_to(new)
    for name in (str(new), str(tmp_path / "link.csv")):
        assert main([files["old"], str(new), "--json", name]) == 2
        assert "that is a file that is read" in capsys.readouterr().err
    policy = tmp_path / "compat.toml"
    policy.write_text('promise = "nfr <= 90%"\naccepted = "accepted.csv"\n')
    accept = ["--accept", "--reason", "x", "--expires", "2999-01-01", "--markdown", str(tmp_path / "accepted.csv")]
    assert main(["gate", files["old"], str(new), "--policy", str(policy), *accept]) == 2
    assert main(["gate", files["old"], str(new), "--policy", str(policy), "--junit", str(policy)]) == 2


def test_what_is_suspicious_is_said(files, tmp_path, capsys):
    seed = shutil.copy(files["new"], tmp_path / "seed.csv")
    assert main([files["old"], files["new"], "--noise", str(seed)]) == 0
    assert "is hardly another seed" in capsys.readouterr().out
    strange = csv(tmp_path / "strange.csv", ["id", *range(SIZE)], ["pred", *[2] * SIZE])
    assert main([files["old"], strange]) == 0
    assert "The new model is right on no instance: look at how its labels are written" in capsys.readouterr().out


@pytest.mark.parametrize("of_fox", [29, 30])
def test_a_class_that_the_old_model_never_predicts_is_named(tmp_path, capsys, of_fox):
    target = ["cat", "dog"] * 50 + ["fox"] * of_fox
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    for path, pred in ((old, ["cat", "dog"] * 50 + ["cat"] * of_fox), (new, target)):
        path.write_text("id,pred,target\n" + "".join(f"{n},{pred[n]},{target[n]}\n" for n in range(len(target))))
    assert main([str(old), str(new)]) == 0
    said = (
        "The old model never predicts 'fox': if it does not know it, nothing of that could break, and NFR looks smaller"
    )
    assert (said in capsys.readouterr().out) == (of_fox == 30)
    # The remedy.
    assert main([str(old), str(new), "--new-classes", "fox"]) == 0
    assert "never predicts" not in capsys.readouterr().out


def test_weights_of_any_size_are_weights(files, tmp_path, capsys):
    found = []
    for scale in (1.0, 1e300, 1e-300):
        weights = csv(tmp_path / "w.csv", ["id", *range(SIZE)], ["w", *(scale * (1 + row % 3) for row in range(SIZE))])
        assert main([files["old"], files["new"], "--data", weights, "--weight", "w", "--json", "-"]) == 0
        found.append(json.loads(capsys.readouterr().out)["scores"]["nfr"]["value"])
    np.testing.assert_allclose(found, found[0], rtol=1e-12)


def test_rows_that_have_other_ids_are_not_joined_by_their_order(tmp_path, capsys):
    old = csv(tmp_path / "old.csv", ["id", 1, 2, 3], ["pred", 0, 1, 1], ["target", 0, 1, 1])
    new = csv(tmp_path / "new.csv", ["sample_id", 2, 1, 3], ["pred", 1, 0, 1])
    plain = csv(tmp_path / "plain.csv", ["pred", 0, 1, 1])
    assert main([old, new, "--by-position"]) == 2
    assert "in 2 rows other ones, such as '1' and '2' in line 2" in capsys.readouterr().err
    assert main([old, plain, "--by-position"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: OLD (bc-compare --help)"),
        (["gate", "--nonsense", "a"], "unrecognized arguments: --nonsense (bc-compare gate --help)"),
        (["a", "--max-nfr", "2"], "got '2'; for percent write 2% (bc-compare --help)"),
        (["a", "--max-nfr", "200%"], "got '200%' (bc-compare --help)"),
        (["a", "--max-nfr\nx", "1"], '--max-nfr x 1: say it as --promise "nfr <= 0.5%" (bc-compare --help)'),
    ],
)
def test_a_command_line_that_cannot_be_read_is_said_in_one_line(capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("bc-compare: ")
    assert lines[0].endswith(said)

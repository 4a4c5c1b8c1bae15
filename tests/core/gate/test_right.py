"""Other notions of right than one label that equals another: against definitions written out here."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from bc_core import Comparison, assert_compatible, compare, compare_right, threshold_curve
from bc_core._cli import main
from bc_core.predictions._expressions import Expression

SIZE = 2000
RNG = np.random.default_rng(0)
Y = RNG.integers(0, 2, SIZE)
OLD, NEW = (np.clip(0.5 + (Y - 0.5) * 0.5 + RNG.normal(0, 0.25, SIZE), 0, 1) for _ in range(2))
IDS = [f"im{number}" for number in range(SIZE)]


def write(path, **columns):
    columns = {name: np.asarray(values).tolist() for name, values in columns.items()}
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    else:
        rows = zip(*columns.values(), strict=True)
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    return str(path)


def shown(capsys, *arguments, status=0):
    assert main([*arguments, "--json", "-"]) == status, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def four(found):
    return found["both_right"], found["negative_flips"], found["positive_flips"], found["both_wrong"]


def wanted(h1_right, h2_right):
    overlap = compare_right(h1_right, h2_right).overlap
    return overlap.both_right, overlap.h1_only_right, overlap.h2_only_right, overlap.both_wrong


def refused(capsys, *arguments):
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err.strip().split("\n")
    assert len(said) == 1
    return said[0]


def test_a_threshold_of_each_model(tmp_path, capsys):
    old = write(tmp_path / "old.csv", id=IDS, score=OLD, target=Y)
    new = write(tmp_path / "new.jsonl", id=IDS[::-1], probs=np.stack([1 - NEW, NEW], axis=1)[::-1])
    found = shown(capsys, old, new, "--threshold", "0.4", "--new-threshold", "0.7")
    assert four(found) == wanted((OLD >= 0.4) == Y, (NEW >= 0.7) == Y)
    assert [part["name"] for part in found["classes"]] == ["1", "0"]
    sure = found["new_mistakes"][0]["sureness"]
    flips = ((OLD >= 0.4) == Y) & ((NEW >= 0.7) != Y)
    assert sure == pytest.approx(np.where(NEW >= 0.7, NEW, 1 - NEW)[flips].max())
    # A score that is called a prediction, as a model of one output writes it.
    single = write(tmp_path / "single.csv", id=IDS, pred=NEW)
    assert "--threshold X --scores pred" in refused(capsys, old, single, "--threshold", "0.4")
    pair = [write(tmp_path / "first.csv", id=IDS, pred=OLD, target=Y), single]
    found = shown(capsys, *pair, "--threshold", "0.4", "--scores", "pred")
    assert four(found) == wanted((OLD >= 0.4) == Y, (NEW >= 0.4) == Y)
    # Named classes, the first of which is class 0.
    old = write(tmp_path / "old.csv", id=IDS, score_ham=1 - OLD, score_spam=OLD, target=np.array(["ham", "spam"])[Y])
    assert "which of 'ham', 'spam' is class 1" in refused(capsys, old, new, "--threshold", "0.4")
    found = shown(capsys, old, new, "--threshold", "0.4", "--classes", "ham,spam")
    assert four(found) == wanted((OLD >= 0.4) == Y, (NEW >= 0.4) == Y)


def test_the_curve_over_the_threshold_is_what_each_threshold_gives(tmp_path, capsys):
    old = write(tmp_path / "old.csv", id=IDS, pred=(OLD >= 0.5).astype(int), target=Y)
    new = write(tmp_path / "new.csv", id=IDS, score=NEW)
    found = shown(capsys, "threshold", old, new)
    for place in (0, 50, len(found["thresholds"]) - 1):
        at = compare(Y, (OLD >= 0.5).astype(int), (found["thresholds"][place] <= NEW).astype(int)).overlap
        assert found["nfr"][place] == pytest.approx(at.nfr)
        assert found["accuracy_h2"][place] == pytest.approx(at.accuracy_h2)
        assert found["counts"][place] == at.counts.sum(axis=0).tolist()
    assert main(["threshold", old, new, "--promise", "nfr <= 20%"]) == 0
    said = capsys.readouterr().out
    assert "<- recommended" in said
    # Above all scores, by less than six digits show.
    assert f" >{NEW.max():.6g} " in said
    assert "On the other half:\nPromise nfr <= 20%: met" in said
    assert main(["threshold", old, new, "--promise", "nfr <= 0.1%"]) == 1
    assert "No threshold keeps nfr <= 0.1% for sure" in capsys.readouterr().out
    assert "labels and no scores" in refused(capsys, "threshold", new.replace("new", "old"), old, "--pred", "pred")


def test_the_recommended_threshold_is_chosen_on_one_half_and_judged_on_the_other():
    h1 = (OLD >= 0.5).astype(int)
    curve = threshold_curve(Y, h1, NEW, promise="nfr <= 15%", seed=3)
    half = np.zeros(SIZE, bool)
    half[np.random.default_rng(3).permutation(SIZE)[: SIZE // 2]] = True
    kept = []
    for threshold in curve.thresholds:
        at = compare(Y[half], h1[half], (NEW[half] >= threshold).astype(int)).overlap
        if at.gate("nfr", 0.15, 0.95) == "pass":
            kept.append((at.accuracy_h2, -threshold))
    assert curve.recommended == -max(kept)[1]
    other = compare(Y[~half], h1[~half], (NEW[~half] >= curve.recommended).astype(int)).overlap
    assert curve.verdict.value == pytest.approx(other.nfr)
    single = np.array([0.7, 0.3], np.float32)
    curve = threshold_curve([1, 0], [1, 0], single, thresholds=[0.7])
    assert curve.score("nfr")[0] == float((single < np.float32(0.7))[0]) == 0
    # The one above them all is above them also where they are compared in their own type.
    above = threshold_curve([1, 0], [1, 0], single).thresholds[-1]
    assert not (single >= np.float32(above)).any()
    assert threshold_curve(Y, h1, NEW, thresholds=[0.5]).score("nfr")[0] == pytest.approx(
        compare(Y, h1, (NEW >= 0.5).astype(int)).overlap.nfr
    )
    with pytest.raises(ValueError, match="classes 0 and 1"):
        threshold_curve([0, 2], [0, 1], [0.5, 0.5])


def test_top_k(tmp_path, capsys):
    y, old, new = RNG.integers(0, 6, SIZE), RNG.integers(0, 4, (SIZE, 6)), RNG.normal(size=(SIZE, 6))  # old has ties
    first, second = (
        write(tmp_path / "old.jsonl", id=IDS, scores=old, target=y),
        write(tmp_path / "new.csv", id=IDS, **{f"score_{c}": new[:, c] for c in range(6)}),
    )
    found = shown(capsys, first, second, "--top-k", "3")
    rights = [
        np.array([y[row] in sorted(range(6), key=lambda c: (-scores[row, c], c))[:3] for row in range(SIZE)])
        for scores in (old, new)
    ]
    assert four(found) == wanted(*rights)
    assert sum(part["negative_flips"] for part in found["classes"]) == found["negative_flips"]
    assert found["new_mistakes"][0]["target"] != found["new_mistakes"][0]["h2_pred"]
    one = shown(capsys, first, second, "--top-k", "1")
    assert four(one) == four(shown(capsys, first, second))
    assert "the top 6 are all of them" in refused(capsys, first, second, "--top-k", "6")
    write(tmp_path / "labels.csv", id=IDS, pred=y)
    assert "no class scores" in refused(capsys, first, str(tmp_path / "labels.csv"), "--top-k", "3")


def test_several_labels_of_an_instance(tmp_path, capsys):
    truth, old = RNG.integers(0, 2, (SIZE, 3)), RNG.random((SIZE, 3))
    old = np.where(RNG.random((SIZE, 3)) < 0.9, truth * 0.5 + old / 2, old)
    new = np.where(RNG.random((SIZE, 3)) < [0.98, 0.8, 0.98], truth, 1 - truth)
    names = ["cat", "dog", "eel"]
    data = write(tmp_path / "data.jsonl", id=IDS, target=truth)
    first = write(tmp_path / "old.csv", id=IDS, **{f"score_{n}": old[:, c] for c, n in enumerate(names)})
    second = write(
        tmp_path / "new.csv", id=IDS, **{f"pred_{n}": new[:, c] for c, n in reversed(list(enumerate(names)))}
    )
    files = [first, second, "--data", data, "--classes", "cat,dog,eel", "--multilabel"]
    h1, h2 = (old >= 0.5) == truth, new == truth
    found = shown(capsys, *files)
    assert four(found) == wanted(h1.all(axis=1), h2.all(axis=1))
    assert found["multilabel"]
    assert found["classes"][0]["name"] == "dog"
    for part in found["classes"]:
        column = names.index(part["name"])
        assert part["negative_flips"] == (h1 & ~h2)[:, column].sum()
        assert (part["positive_flips"], part["total"]) == ((~h1 & h2)[:, column].sum(), SIZE)
    assert " + " in found["new_mistakes"][0]["target"] + found["new_mistakes"][0]["h2_pred"] + " + "
    assert four(shown(capsys, *files, "--threshold", "0.6")) == wanted(
        ((old >= 0.6) == truth).all(axis=1), h2.all(axis=1)
    )
    checks = shown(capsys, "gate", *files, "--promise", "nfr <= 90%", "--per-class", "nfr <= 10%", status=1)["checks"]
    assert {check["scope"]: check["verdict"] for check in checks} == {
        "all instances": "pass",
        "label cat": "pass",
        "label dog": "fail",
        "label eel": "pass",
    }
    assert main([*files]) == 0
    assert "Worst labels\n  dog" in capsys.readouterr().out
    assert "is 0.5, and a label is 0 or 1" in refused(
        capsys, first, write(tmp_path / "half.csv", id=IDS, pred_cat=Y, pred_dog=Y * 0.5, pred_eel=Y), *files[2:]
    )
    assert "the labels 'cat', 'dog'" in refused(
        capsys, first, write(tmp_path / "two.csv", id=IDS, pred_cat=Y, pred_dog=Y), *files[2:]
    )
    assert "no columns of true labels" in refused(capsys, first, second, "--multilabel")


def test_many_sets_of_labels_are_shown_as_right_or_wrong(tmp_path, capsys):
    truth = RNG.integers(0, 2, (SIZE, 12))
    new = np.where(RNG.random((SIZE, 12)) < 0.95, truth, 1 - truth)
    old = write(tmp_path / "old.jsonl", id=IDS, pred=truth, target=truth)
    saved = tmp_path / "saved.json"
    found = shown(capsys, old, write(tmp_path / "new.jsonl", id=IDS, pred=new), "--multilabel", "--save", str(saved))
    assert four(found) == wanted(np.ones(SIZE, bool), (new == truth).all(axis=1))
    table = Comparison.load(saved).negative_flips()
    row = IDS.index(table.ids[0])
    of = [" + ".join(str(c) for c in range(12) if values[c]) for values in (truth[row], truth[row], new[row])]
    assert table.metadata[0] == f"true {of[0]}, old {of[1]}, new {of[2]}"


def test_numbers_are_right_by_a_rule(tmp_path, capsys, monkeypatch):
    true, scale = RNG.normal(10, 3, SIZE), RNG.integers(1, 3, SIZE)
    old, new = true + RNG.normal(0, 1, SIZE), true + RNG.normal(0, 1, SIZE)
    first = write(tmp_path / "old.csv", id=IDS, pred=old, target=true)
    second = write(tmp_path / "new.jsonl", id=IDS, pred=new)
    data = write(tmp_path / "data.csv", id=IDS, scale=scale, region=RNG.choice(["eu", "us"], SIZE))
    found = shown(capsys, first, second, "--right", "abs(pred - target) <= 1.5")
    assert four(found) == wanted(abs(old - true) <= 1.5, abs(new - true) <= 1.5)
    assert found["classes"] == []
    mistake = found["new_mistakes"][0]
    row = IDS.index(mistake["id"])
    assert (mistake["target"], mistake["h2_pred"]) == (str(true[row]), str(new[row]))
    rule = "abs(pred - target) <= scale and not pred < 4"
    found = shown(capsys, first, second, "--data", data, "--right", rule, "--slice", "region")
    assert four(found) == wanted(*((abs(each - true) <= scale) & (each >= 4) for each in (old, new)))
    assert {part["name"] for part in found["slices"]} == {"region=eu", "region=us"}
    # The same by a function, a policy and an assertion.
    (tmp_path / "near.py").write_text("def right(pred, target):\n    return abs(pred - target) <= 1.5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    by_function = shown(capsys, first, second, "--right", "near:right")
    assert four(by_function) == wanted(abs(old - true) <= 1.5, abs(new - true) <= 1.5)
    assert "near:right, which was imported" in by_function["notes"][-1]
    policy = {"promise": "nfr <= 1%", "right": {"rule": "abs(pred - target) <= 1.5"}}
    with pytest.raises(AssertionError, match="NFR at most 1% wanted"):
        assert_compatible(first, second, policy=policy)
    toml = tmp_path / "compat.toml"
    toml.write_text('promise = "nfr <= 50%"\n[right]\nrule = "abs(pred - target) <= 1.5"\n')
    html = tmp_path / "page.html"
    assert main(["gate", first, second, "--policy", str(toml), "--html", str(html)]) == 0
    assert html.stat().st_size > 10_000
    capsys.readouterr()
    assert "there are no classes" in refused(
        capsys, "gate", first, second, "--policy", str(toml), "--per-class", "nfr <= 1%"
    )
    other = write(tmp_path / "other.csv", id=IDS, target=np.where(np.arange(SIZE) == 3, 0.5, true))
    rule = ["--right", "abs(pred - target) <= 1.5"]
    assert "true values of 1 instances differ" in refused(capsys, first, second, "--data", other, *rule)
    for rule, message in {
        "pred": "comes to no yes or no",
        "abs(pred - truth) < 1": "reads 'truth', which is in none of",
        "log(pred - 100) < 1": "comes to no number in row 0",
        "pred == 'a'": "is compared as a number",
        "lower(pred) == lower(target)": "is a number, and no text",
        "near:nothing": "has no 'nothing'",
        "abs(pred - target) <=": "is no rule",
    }.items():
        assert message in refused(capsys, first, second, "--right", rule), rule
    assert "say one" in refused(capsys, first, second, "--right", "pred > 1", "--top-k", "2")
    (toml).write_text("[right]\ntopk = 3\n")
    assert "did you mean top_k?" in refused(capsys, "gate", first, second, "--policy", str(toml))
    (toml).write_text("[right]\ntop_k = true\n")
    assert "top_k must be a whole number" in refused(capsys, "gate", first, second, "--policy", str(toml))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true') == 0",
        "pred.real > 0",
        "[pred][0] > 1",
        "(lambda: pred)() > 1",
        "open('x') == pred",
        "pred if target else pred",
        "pred is target",
        "pred in target",
        "abs(pred, target) > 1",
        "abs(x=pred) > 1",
        "f'{pred}' == 'a'",
        "pred > True",
        f"pred > 1{'0' * 400}",
        "(pred := 1) > 0",
        "1 < 2",
        "(" * 500 + "pred" + ")" * 500,
        "pred > 1" + " " * 2000,
        "pred\x00 > 1",
        "",
    ],
)
def test_a_rule_runs_nothing(text):
    with pytest.raises(ValueError, match="rule of what is right|reads no column|is no rule"):
        Expression(text)


def test_huge_powers_and_texts_in_rules():
    columns = {"pred": np.array([1.0, 2.0]), "name": np.array([" Cat", "dog"], object)}
    assert Expression("pred ** 9 ** 9 ** 9 > 1")(columns).tolist() == [False, True]
    assert Expression("lower(strip(name)) == 'cat' or pred == 2")(columns).tolist() == [True, True]
    assert Expression("1 < pred <= 2")(columns).tolist() == [False, True]
    assert Expression("min(pred, 1.5) + round(pred / 2) >= 2")(columns).tolist() == [False, True]


def samples(path, right, filters=("none",), measure="exact_match", shift=0):
    """Lines as lm-eval writes them with --log_samples."""
    with path.open("w") as file:
        for number in range(len(right)):
            for name in filters:
                value = float(right[number]) if name == filters[-1] else 0.0
                line = {"doc_id": number, "doc": {"question": "1+1"}, "target": "2", "arguments": {"gen_args_0": {}}}
                line |= {"resps": [["2"]], "filtered_resps": ["2"], "filter": name, "metrics": [measure]}
                line |= {"doc_hash": f"{number + shift:x}", measure: value}
                file.write(json.dumps(line) + "\n")
    return str(path)


def test_samples_of_lm_eval_are_read_as_they_are(tmp_path, capsys):
    old, new = RNG.random(300) < 0.7, RNG.random(300) < 0.7
    first, second = samples(tmp_path / "samples_old.jsonl", old), samples(tmp_path / "samples_new.jsonl", new)
    found = shown(capsys, first, second)
    assert four(found) == wanted(old, new)
    assert found["new_mistakes"][0]["id"] == int(np.flatnonzero(old & ~new)[0])
    filters = ("strict-match", "flexible-extract")
    several = [samples(tmp_path / f"{n}.jsonl", r, filters) for n, r in (("a", old), ("b", new))]
    assert "say which by --filter" in refused(capsys, *several)
    assert four(shown(capsys, *several, "--filter", "flexible-extract")) == wanted(old, new)
    assert four(shown(capsys, *several, "--filter", "strict-match")) == (0, 0, 0, 300)
    assert "no samples of the filter 'x'" in refused(capsys, *several, "--filter", "x")
    graded = [samples(tmp_path / f"{n}.jsonl", r, measure="f1") for n, r in (("c", old * 0.6), ("d", new * 0.6))]
    assert "say which column counts by --correct" in refused(capsys, *graded)
    assert "says neither 1 nor 0" in refused(capsys, *graded, "--correct", "f1")
    assert four(shown(capsys, *graded, "--right", "f1 >= 0.5")) == wanted(old, new)
    other = samples(tmp_path / "other.jsonl", new, shift=1)
    assert "other documents under 300 ids" in refused(capsys, first, other)


def test_a_column_that_says_it(tmp_path, capsys):
    old, new = RNG.random(50) < 0.7, RNG.random(50) < 0.7
    ids = IDS[:50]
    first = write(tmp_path / "old.csv", id=ids, passed=old)
    second = write(tmp_path / "new.jsonl", id=ids[::-1], passed=new[::-1])
    assert four(shown(capsys, first, second, "--correct", "passed")) == wanted(old, new)
    assert "no column 'ok' (of --correct)" in refused(capsys, first, second, "--correct", "ok")
    write(tmp_path / "bad.csv", id=ids, passed=["yes"] * 50)
    assert "line 2: column 'passed' is 'yes'" in refused(
        capsys, first, str(tmp_path / "bad.csv"), "--correct", "passed"
    )


def test_the_curve_is_written_as_a_page_and_as_markdown(tmp_path, capsys):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    scores = np.round(np.clip(0.5 * y + 0.5 * rng.random(400), 0, 1), 3)
    old = write(tmp_path / "old.csv", id=range(400), pred=y, target=y)
    new = write(tmp_path / "n<e>w.csv", id=range(400), score=scores)
    page, summary, curve = (str(tmp_path / name) for name in ("page.html", "summary.md", "curve.json"))
    outputs = ["--html", page, "--markdown", summary, "--json", curve]
    assert main(["threshold", old, new, "--promise", "nfr <= 20%", *outputs]) == 0
    found = json.loads(Path(curve).read_text())
    text, told = Path(page).read_text(), Path(summary).read_text()
    assert "n&lt;e&gt;w.csv" in text
    assert "n<e>w" not in text
    assert "script" not in text
    recommended = f"{found['recommended']:.6g}"
    assert f"Recommended: {found['recommended']!r}" in text
    assert re.search(rf"\| {re.escape(recommended)} \|.*\| recommended \|", told)
    # Every threshold is in the page, with the rate that the counts give.
    rows = re.findall(r"<tr><td>([^<]+)</td><td>([^<]+)%</td>", text)
    assert (
        len(rows) == len(found["thresholds"]) == len(re.search('class="curve nfr" points="([^"]+)"', text)[1].split())
    )
    assert [float(rate) for _, rate in rows] == pytest.approx([100 * rate for rate in found["nfr"]], abs=0.006)
    capsys.readouterr()
    assert main(["threshold", old, new, "--markdown", "-"]) == 0
    assert capsys.readouterr().out.startswith("## Thresholds\n")
    assert main(["threshold", old, new, "--html", new]) == 2
    assert "that is a file that is read" in capsys.readouterr().err

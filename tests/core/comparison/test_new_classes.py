"""Instances of classes that h1 did not know: counted with the others, and shown apart."""

import dataclasses
import json

import numpy as np
import pytest

from bc_core import Comparison, ErrorOverlap, assert_compatible, compare, judge

TARGET = np.array([0, 0, 1, 1, 2, 2, 2])
H1 = np.array([0, 1, 1, 1, 0, 1, 0])
H2 = np.array([0, 0, 1, 0, 2, 2, 0])


def made(**options):
    return compare(TARGET, H1, H2, num_classes=3, new_classes=[2], **options)


def test_counts_of_some_classes():
    overlap = ErrorOverlap.from_predictions(TARGET, H1, H2, num_classes=3)
    some = overlap.of_classes([0, 1])
    assert some == ErrorOverlap.from_predictions(TARGET[:4], H1[:4], H2[:4], num_classes=3)
    assert some + overlap.of_classes([2]) == overlap
    with pytest.raises(ValueError, match=r"numbers 0\.\.2"):
        overlap.of_classes([3])


def test_known_and_new_classes_add_up():
    comparison = made()
    assert comparison.known + comparison.new == comparison.overlap
    assert comparison.known.accuracy_h1 == 3 / 4
    assert comparison.overlap.accuracy_h1 == 3 / 7
    assert (comparison.new.total, comparison.new.h2_only_right, comparison.new.both_wrong) == (3, 2, 1)
    # No instance of a new class is in the support.
    assert comparison.known.btc == comparison.overlap.btc


def test_the_description_shows_them_apart():
    text = made(class_names=["cat", "dog", "fox"]).describe()
    assert "Classes that h1 did not know: fox\n  3 instances, of which h2 gets 2 right\nWithout these\n" in text
    assert "Without these" not in compare(TARGET, H1, H2).describe()


def test_files_keep_them_and_older_files_have_none(tmp_path):
    comparison = made()
    assert Comparison.load(comparison.save(tmp_path / "new.json")) == comparison
    without = dataclasses.replace(comparison, new_classes=())
    assert without != comparison
    content = json.loads(without.save(tmp_path / "old.json").read_text())
    assert "new_classes" not in content
    assert Comparison.load(tmp_path / "old.json") == without
    content["new_classes"] = ["fox"]
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="new_classes: expected a list of class numbers"):
        Comparison.load(tmp_path / "bad.json")


def test_shards_must_agree():
    one, other = made(ids=range(7)), compare(TARGET, H1, H2, num_classes=3, ids=range(7, 14))
    with pytest.raises(ValueError, match="whose new_classes differs"):
        one + other
    assert (one + made(ids=range(7, 14))).new.total == 6


def test_a_class_that_h1_is_right_about_is_not_new():
    with pytest.raises(ValueError, match=r"right about instances of the classes \[1\]"):
        compare(TARGET, H1, H2, num_classes=3, new_classes=[1])
    with pytest.raises(ValueError, match=r"numbers 0\.\.2"):
        compare(TARGET, H1, H2, num_classes=3, new_classes=[3])


def test_scores_verdicts_and_the_gate_count_instances_of_new_classes_alike():
    """Of each 10 instances 3 are of the new class, and of the other 7 one breaks: NFR is 1/10, and 1/7 without."""
    target, h1, h2 = np.tile([0] * 7 + [2] * 3, 200), np.tile([0] * 10, 200), np.tile([0] * 6 + [1] + [2, 2, 1], 200)
    comparison = compare(target, h1, h2, num_classes=3, new_classes=[2])
    assert (comparison.overlap.nfr, comparison.known.nfr) == (0.1, pytest.approx(1 / 7))
    assert comparison.overlap.btc == comparison.known.btc == pytest.approx(6 / 7)
    # 11.5 % is above the bound of 200 in 2000, and far below 1/7.
    for promise, verdict, word in (("nfr <= 11.5%", "pass", "met"), ("btc >= 87%", "inconclusive", "cannot be told")):
        report = assert_compatible(comparison, promise=promise, inconclusive=True)
        assert report.verdict == verdict
        assert judge(promise, comparison.overlap).verdict == word
    apart = report.to_dict()["new_classes"]
    assert (apart["instances"], apart["h2_right"]) == (600, 400)
    assert apart["scores_without"]["nfr"] == pytest.approx(1 / 7)
    assert apart["scores_without"]["btc"] == pytest.approx(6 / 7)
    assert judge("nfr <= 11.5%", comparison.known).verdict == "missed"

"""The metric module of n-gram scores: loaded from its file, equal to known values, clear about Java."""

import os
import shutil

import pytest

REASON = "pip install 'instructvla[eval]'"
evaluate = pytest.importorskip("evaluate", reason=REASON)
pytest.importorskip("pycocoevalcap", reason=REASON)

from instructvla.evaluation.metrics import caption_scores  # noqa: E402

REFERENCES = [["There is a red cup on the table.", "a cup"], ["I will move the pot to the left."], ["it is blue"]]


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(caption_scores.__file__, keep_in_memory=True)


@pytest.mark.skipif(shutil.which("java") is None, reason="apt-get install default-jre-headless")
def test_scores_are_those_of_the_definitions(metric):
    said = ["there is a red cup on the table", "I will move\rthe pot!", ""]
    scores = metric.compute(predictions=said, references=REFERENCES)
    # 13 words, all of them right; the references that are nearest in length have 19: brevity penalty e^(1 - 19/13).
    assert scores["bleu_1"] == pytest.approx(0.6303, abs=1e-3)
    assert 0 < scores["bleu_4"] <= scores["bleu_1"]
    assert 0 < scores["meteor"] < 1 and 0 < scores["cider"] < 10


def test_too_few_predictions_and_missing_references_are_refused(metric, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)
    with pytest.raises(ValueError, match="2 predictions or more, got 1"):
        metric.compute(predictions=["a"], references=[["a"]])
    with pytest.raises(ValueError, match="prediction 1 has no reference"):
        metric.compute(predictions=["a", "b"], references=[["a"], []])


def test_a_missing_java_is_told_with_its_remedy(metric, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="need Java.*apt-get install"):
        metric.compute(predictions=["a", "b"], references=[["a"], ["b"]])


def test_a_broken_java_is_told(monkeypatch, tmp_path):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho no memory >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ValueError, match="gave 1 of 2 texts"):
        caption_scores.tokenised([["a"], ["b"]])
    with pytest.raises(ValueError, match="METEOR's Java program broke off: no memory"):
        caption_scores.meteor({0: ["a"]}, {0: ["a"]})

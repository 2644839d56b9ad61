"""Scores per task and tables of them: the paper's numbers stand beside those of the paper's data alone."""

import re
import shutil
from pathlib import Path

import pytest

from tests.tiny_embeddings import tiny_embedding_model

for package in ("evaluate", "pycocoevalcap", "sentence_transformers"):
    pytest.importorskip(package, reason="pip install 'instructvla[eval]'")

from instructvla.evaluation.metrics.language_answers import Answer  # noqa: E402
from instructvla.evaluation.metrics.language_report import (  # noqa: E402
    PAPER,
    PAPER_COLUMNS,
    language_scores,
    language_tables,
)
from instructvla.evaluation.metrics.language_samples import Task  # noqa: E402

SCORES = {"Sentence-BERT": 64.25, "BLEU-1": 40.0, "BLEU-4": 10.0, "METEOR": 20.0, "CIDEr": 1.234}
RECORD = {
    "model": "mine",
    "parameters": 12_345_678,
    "data": "language_evaluation_with_gt.json",
    "is_vla_it": True,
    "is_paper_split": True,
    "embedding_models": {"Sentence-BERT": "folder/mini"},
    "samples": {"captioning": 1000},
    "scores": {"captioning": SCORES},
}


def rows(text):
    """First cell → cells."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {line[0]: line for line in lines}


def test_the_papers_rows_have_a_column_of_their_own_model():
    table = rows(language_tables(RECORD))
    learned = ["Sentence-BERT (all-mpnet-base-v2)", "Sentence-BERT (mini)", "SimCSE (sup-simcse-roberta-large)"]
    assert table[""] == ["", "parameters", *learned, "BLEU-1", "BLEU-4", "METEOR", "CIDEr"]
    assert table["mine"] == ["mine", "12.3M", "–", "64.2", "–", "40.0", "10.0", "20.0", "1.23"]
    paper = table["paper: InstructVLA (Generalist)"]
    assert paper[1:] == ["2B", "72.0", "–", "77.0", "44.3", "8.2", "18.7", "0.84"]


def test_the_papers_own_embedding_model_shares_its_column():
    same = {**RECORD, "embedding_models": {"Sentence-BERT": "sentence-transformers/all-mpnet-base-v2"}}
    assert rows(language_tables(same))["mine"][2:4] == ["64.2", "–"]


def test_other_data_stand_alone():
    text = language_tables({**RECORD, "is_paper_split": False})
    assert "paper" not in text and "VLA-IT captioning, 1,000 samples of language_evaluation" in text
    chats = language_tables({**RECORD, "is_paper_split": False, "is_vla_it": False})
    assert chats.startswith("Captioning, 1,000 samples")


def test_paper_numbers_are_those_of_the_paper():
    papers = list((Path(__file__).parents[2] / "shared" / "paper").glob("*2507.17520*.md"))
    if not papers:
        pytest.skip("put the paper's text, *2507.17520*.md, into the folder shared/paper beside the checkout")
    text = papers[0].read_text(encoding="utf-8")
    for number, task in enumerate(Task, start=3):
        table = text[text.index(f"Table {number}: VLA-IT") :]
        for (method, size), scores in PAPER[task].items():
            line = re.search(rf"^{re.escape(method.partition(' ')[0])}.*$", table, re.M)[0]
            assert line.endswith(" ".join([f"{score:.1f}" for score in scores[:-1]] + [f"{scores[-1]:.2f}"]))
            assert size.replace("–", "-") in line and len(scores) == len(PAPER_COLUMNS)


@pytest.mark.skipif(shutil.which("java") is None, reason="apt-get install default-jre-headless")
def test_scores_are_per_task_of_cleaned_texts_in_percent(tmp_path):
    model = str(tiny_embedding_model(tmp_path))
    answers = [
        Answer(Task.QUESTION, "0", "?", "The red cup is on the table.", "red cup is on table"),
        Answer(Task.QUESTION, "1", "?", "There are 2 plates.", "there are two plates!"),
    ]
    scores = language_scores(answers, {"Sentence-BERT": model, "SimCSE": model})
    assert list(scores) == ["question answering"]
    found = scores["question answering"]
    assert sorted(found) == sorted(PAPER_COLUMNS)
    assert {name: found[name] for name in ("Sentence-BERT", "SimCSE", "BLEU-1")} == pytest.approx(
        {"Sentence-BERT": 100.0, "SimCSE": 100.0, "BLEU-1": 100.0}, abs=1e-3
    )
    assert found["CIDEr"] == pytest.approx(10.0)

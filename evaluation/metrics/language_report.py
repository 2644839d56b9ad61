"""Scores of answers, and tables of them beside the paper's (appendix A.1, Tables 3 to 5)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import evaluate

from instructvla.evaluation.metrics import caption_scores, sentence_similarity
from instructvla.evaluation.metrics.answer_cleaning import cleaned
from instructvla.evaluation.metrics.language_answers import Answer
from instructvla.evaluation.metrics.language_samples import Task
from instructvla.evaluation.metrics.sentence_embeddings import Pooling
from instructvla.model_card import markdown_table

SENTENCE_BERT, SIMCSE = "Sentence-BERT", "SimCSE"
POOLING = {SENTENCE_BERT: Pooling.SENTENCE, SIMCSE: Pooling.POOLER}
AUTHORS_MODELS = {SENTENCE_BERT: "all-mpnet-base-v2", SIMCSE: "sup-simcse-roberta-large"}  # of their evaluation's code
CAPTION_SCORES = {"BLEU-1": "bleu_1", "BLEU-4": "bleu_4", "METEOR": "meteor", "CIDEr": "cider"}
UNSCALED = ("CIDEr",)  # the other scores are in %, as in the paper
PAPER_COLUMNS = (SENTENCE_BERT, SIMCSE, *CAPTION_SCORES)
# Method, parameters → the columns above.
PAPER: Mapping[Task, Mapping[tuple[str, str], tuple[float, ...]]] = {
    Task.CAPTION: {
        ("Qwen2-VL", "2B"): (61.3, 67.5, 16.8, 1.5, 12.4, 0.30),
        ("GPT4o", "–"): (60.7, 67.1, 16.3, 1.8, 16.2, 0.09),
        ("OpenVLA (VLA-IT)", "7B"): (0.0, 0.0, 0.0, 0.0, 0.0, 0.00),
        ("Magma", "8B"): (59.8, 66.7, 12.4, 1.2, 12.3, 0.12),
        ("InstructVLA (Generalist)", "2B"): (72.0, 77.0, 44.3, 8.2, 18.7, 0.84),
    },
    Task.QUESTION: {
        ("Qwen2-VL", "2B"): (51.9, 53.4, 15.3, 2.8, 17.9, 0.82),
        ("GPT4o", "–"): (63.6, 63.6, 29.6, 19.9, 9.8, 1.16),
        ("OpenVLA (VLA-IT)", "7B"): (0.0, 0.0, 0.0, 0.0, 0.0, 0.00),
        ("Magma", "8B"): (53.5, 54.5, 23.7, 5.7, 21.6, 1.04),
        ("InstructVLA (Generalist)", "2B"): (64.9, 65.9, 44.6, 17.4, 23.5, 1.85),
    },
    Task.INSTRUCTION: {
        ("Qwen2-VL", "2B"): (52.3, 54.0, 5.6, 1.5, 11.6, 0.09),
        ("GPT4o", "–"): (52.8, 54.1, 17.8, 4.2, 20.6, 1.02),
        ("OpenVLA (VLA-IT)", "7B"): (0.0, 0.0, 0.0, 0.0, 0.0, 0.00),
        ("Magma", "8B"): (10.9, 13.6, 3.7, 0.8, 1.6, 0.00),
        ("InstructVLA (Generalist)", "2B"): (71.6, 73.1, 50.2, 24.1, 25.8, 2.26),
    },
}


def language_scores(answers: Sequence[Answer], embedding_models: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Scores of each task that has answers, of `cleaned` texts.

    Args:
        answers: two or more of a task.
        embedding_models: "Sentence-BERT" and "SimCSE" → model, as `embedding_model` takes it; those absent give no
            score.

    Returns:
        task → column → score, in % but for CIDEr.

    Raises:
        ValueError: as the metrics.
    """
    return {
        str(task): _scores([one for one in answers if one.task is task], embedding_models)
        for task in Task
        if any(one.task is task for one in answers)
    }


def _scores(answers: Sequence[Answer], embedding_models: Mapping[str, str]) -> dict[str, float]:
    texts = {
        "predictions": [cleaned(one.answer) for one in answers],
        "references": [[cleaned(one.reference)] for one in answers],
    }
    scores = {
        column: _metric(sentence_similarity).compute(**texts, model=model, pooling=POOLING[column])["similarity"]
        for column, model in embedding_models.items()
    }
    found = _metric(caption_scores).compute(**texts)
    scores |= {column: found[name] for column, name in CAPTION_SCORES.items()}
    return {column: score if column in UNSCALED else 100 * score for column, score in scores.items()}


def _metric(module: Any) -> evaluate.Metric:
    return evaluate.load(module.__file__, keep_in_memory=True)


def language_tables(record: Mapping[str, Any]) -> str:
    """Markdown of a record of `evaluate_language`: a table per task; the paper's rows where the data are the paper's.

    A learned score has a column for each model of embeddings: similarities of different models can't be compared.
    """
    return "\n\n".join(_table(Task(task), record) for task in record["scores"])


def _table(task: Task, record: Mapping[str, Any]) -> str:
    rows = list(_paper_rows(task)) if record["is_paper_split"] else []
    own = {_column(name, record["embedding_models"]): score for name, score in record["scores"][task].items()}
    rows.append((record["model"], _short(record["parameters"]), own))
    present = {column for _, _, scores in rows for column in scores}
    order = [column for name in PAPER_COLUMNS for column in sorted(present) if column.partition(" (")[0] == name]
    lines = [[name, size, *(_number(column, scores) for column in order)] for name, size, scores in rows]
    title = f"VLA-IT {task}" if record["is_vla_it"] else task.capitalize()
    caption = f"{title}, {record['samples'][task]:,} samples of {record['data']}; in %, but for CIDEr."
    return f"{caption}\n\n{markdown_table(['', 'parameters', *order], lines)}"


def _paper_rows(task: Task) -> Iterator[tuple[str, str, dict[str, float]]]:
    columns = [_column(name, AUTHORS_MODELS) for name in PAPER_COLUMNS]
    for (method, size), scores in PAPER[task].items():
        yield f"paper: {method}", size, dict(zip(columns, scores, strict=True))


def _column(name: str, models: Mapping[str, str]) -> str:
    """With the model's name, without the folder or owner that it lies under."""
    return f"{name} ({Path(models[name]).name})" if name in models else name


def _number(column: str, scores: Mapping[str, float]) -> str:
    if column not in scores:
        return "–"
    return f"{scores[column]:.{2 if column in UNSCALED else 1}f}"


def _short(parameters: int) -> str:
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e8 else f"{parameters / 1e6:.1f}M"

"""`instructvla language`: what a checkpoint answers about VLA-IT's pictures, scored as in the paper (Tables 3 to 5)."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.metrics.caption_scores import require_java
from instructvla.evaluation.metrics.language_answers import MAX_NEW_TOKENS, kept_answers
from instructvla.evaluation.metrics.language_report import (
    SENTENCE_BERT,
    SIMCSE,
    language_scores,
    language_tables,
)
from instructvla.evaluation.metrics.language_samples import RELEASED, LanguageData, language_data
from instructvla.evaluation.metrics.sentence_embeddings import PACKAGED, embedding_model
from instructvla.evaluation.tabletop.checkpoints import load_checkpoint
from instructvla.evaluation.weights_fingerprint import weights_fingerprint
from instructvla.training.data.episode_shards import file_sha256

RECORD = "language.json"

app = typer.Typer(add_completion=False)


def evaluate_language(
    name: str,
    data: LanguageData,
    folder: Path,
    sentence_bert: str | None = None,
    simcse: str | None = None,
    batch_size: int = 16,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> dict[str, Any]:
    """Asks a checkpoint, or goes on asking it, and scores its answers.

    Args:
        name: of the checkpoint, a folder or Hub repository.
        data: what is asked.
        folder: of the run; holds settings, answers and at the end this record as `language.json`.
        sentence_bert: model of the embeddings, as sentence-transformers loads it; None: no such score.
        simcse: model of the embeddings, whose pooler's output counts; None: no such score.
        batch_size: samples asked at once.
        max_new_tokens: of an answer.

    Returns:
        the record, as JSON: model, parameters, data, is_vla_it, is_paper_split, settings, embedding_models, samples
        (task → number) and scores (task → column → score, in % but for CIDEr).

    Raises:
        ValueError: no Java, no such checkpoint or embedding model, a folder with answers of other settings, or a
            picture that can't be read.
    """
    require_java()
    models = {column: model for column, model in ((SENTENCE_BERT, sentence_bert), (SIMCSE, simcse)) if model}
    for model in models.values():
        embedding_model(model)
    checkpoint = load_checkpoint(name)
    settings = {
        "name": name,
        "weights": weights_fingerprint(checkpoint),
        "data": str(data.file),
        "data_sha256": file_sha256(data.file),
    }
    answers = kept_answers(checkpoint, data.samples, folder, settings, batch_size, max_new_tokens)
    scores = language_scores(answers, models)
    record = {
        "model": name,
        "parameters": checkpoint.num_parameters(),
        "data": str(data.file),
        "is_vla_it": data.is_vla_it,
        "is_paper_split": data.is_vla_it and data.is_whole and data.file.name == RELEASED,
        "settings": {**settings, "max_new_tokens": max_new_tokens},
        "embedding_models": models,
        "samples": {task: sum(one.task == task for one in answers) for task in scores},
        "scores": scores,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return record


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="Checkpoint: folder or Hub repository.")],
    data: Annotated[Path, typer.Option(help=f"VLA-IT's {RELEASED}, a chat file (LLaVA), or the folder of either.")],
    output: Annotated[Path, typer.Option(help="Folder of the run; one that was interrupted goes on.")],
    sentence_bert: Annotated[
        str | None, typer.Option(help=f"Embedding model of sentence-transformers: folder, Hub repository, {PACKAGED}.")
    ] = None,
    simcse: Annotated[str | None, typer.Option(help="Embedding model of SimCSE: folder or Hub repository.")] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Pictures or conversations; default: all.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions asked at once.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = MAX_NEW_TOKENS,
) -> None:
    """Captions, answers and responses to instructions, scored: one table per task, the paper's rows beside VLA-IT's."""
    with errors_on_stderr():
        record = evaluate_language(
            model, language_data(data, limit), output, sentence_bert, simcse, batch_size, max_new_tokens
        )
    typer.echo(language_tables(record))


if __name__ == "__main__":
    app()

"""The model card that travels with a checkpoint as README.md, from the template `model_card.md`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

TEMPLATE = Path(__file__).with_name("model_card.md")
STATISTICS_INTRODUCTION = "The processor un-normalises actions with these ranges; `unnorm_key` selects one.\n\n"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(cell_text, line)) + " |" for line in lines)


def cell_text(value: Any) -> str:
    """A table's cell: numbers for a person, texts on one line."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split()).replace("|", r"\|")


def render_tables(tables: Iterable[Mapping[str, Any]]) -> str:
    """Tables with their titles, of `{"title", "header", "rows"}` and maybe a "note" above the table."""
    parts = []
    for table in tables:
        note = [table["note"]] if table.get("note") else []
        parts += [f"### {table['title']}", *note, markdown_table(table["header"], table["rows"])]
    return "\n\n".join(parts)


def render_model_card(
    model, repo_id: str, evaluation: Mapping[str, str] | str | None = None, training: Mapping[str, Any] | None = None
) -> str:
    """The card's text.

    Args:
        model: an `InstructVLAForConditionalGeneration`, with or without a processor.
        repo_id: "organisation/name" or the folder that the example loads.
        evaluation: benchmark → result, as an evaluation command printed it; or Markdown, see `instructvla card`.
        training: what the training run recorded: `{"tables": …}`, see `render_tables`.
    """
    config, processor = model.config, model.processor_or_none()
    statistics = "This checkpoint has no statistics yet: until training gives it some, it can chat, but not act."
    if processor is not None and processor.statistics:
        rate = processor.control_rate_hz
        rows = [[key, f"{rate[key]:g} Hz" if key in rate else "not recorded"] for key in processor.statistics]
        statistics = STATISTICS_INTRODUCTION + markdown_table(["unnorm_key", "control rate"], rows)
    results = "No evaluation is recorded for this checkpoint."
    if isinstance(evaluation, str):
        results = evaluation
    elif evaluation:
        results = markdown_table(["benchmark", "result"], [[name, result] for name, result in evaluation.items()])
    stage = "2, vision-language-action instruction tuning" if config.thinks_by_default else "1, action pre-training"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        model_name=repo_id.rstrip("/").split("/")[-1],
        repo_id=repo_id,
        parameters=f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        horizon=config.horizon,
        action_dim=config.action_dim,
        cameras=", ".join(config.cameras),
        statistics=statistics,
        stage=stage,
        attention=config.action_expert_config.attention,
        evaluation_table=results,
        training=render_tables(training["tables"]) if training else "No training run is recorded for this checkpoint.",
    )


def write_model_card(
    model, folder: str | Path, repo_id: str | None = None, evaluation=None, training: Mapping[str, Any] | None = None
) -> None:
    """Write the card into `folder` as README.md; arguments as in `render_model_card`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    card = render_model_card(model, repo_id or folder.name, evaluation, training)
    (folder / "README.md").write_text(card, encoding="utf-8")

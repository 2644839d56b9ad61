"""What a run recorded, as the tables of its checkpoints' cards: settings, data, trained parameters, losses, errors.

Nothing is in them that the run did not log or was not told.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeVar

from instructvla.model_card import render_tables
from instructvla.training.open_loop import DISTANCE, ERROR, distinct
from instructvla.training.retention import EXACT, PREFIX, SCORE, TEXT_LOSS

LOSSES = ("loss", "lm_loss", "flow_loss", "chat_loss")
LOSS_ROWS = 8
RETENTION_ROWS = {
    TEXT_LOSS: "text loss on held-out conversations",
    SCORE: "answers about pictures, F1 of words",
    EXACT: "answers about pictures, exact match",
}

Table = dict[str, Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class DatasetFacts:
    """One dataset that was trained on.

    Args:
        name: of the dataset, or of the chat file.
        weight: relative to the others'; None where it has none.
        episodes: None for conversations.
        frames: or conversations.
    """

    name: str
    weight: float | None = None
    episodes: int | None = None
    frames: int | None = None


@dataclass(frozen=True)
class RunFacts:
    """What a run knows beside its log.

    Args:
        stage: e.g. "1, action pre-training".
        settings: those that were used, nested or not. Of absolute paths only the last part goes into the card.
        datasets: the data.
        parameters: part of the model → (trained, all) parameters.
        action_names: one per action dimension.
        action_units: likewise.
        gripper_dims: action dimensions whose error is a share of wrong states.
        started_from: checkpoint that the run started from, or None.
    """

    stage: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    datasets: Sequence[DatasetFacts] = ()
    parameters: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    action_names: Sequence[str] = ()
    action_units: Sequence[str] = ()
    gripper_dims: Sequence[int] = ()
    started_from: str | None = None


def training_report(log_history: Iterable[Mapping[str, Any]], facts: RunFacts) -> dict[str, Any]:
    """The report of a checkpoint, for `model.training_report`, from which `save_pretrained` and `push_to_hub` make
    training_report.json and the card's section on training.

    Args:
        log_history: of the trainer's state: dicts with "step" and what was logged then.
        facts: of the run.

    Returns:
        `{"stage", "step", "tables": [{"title", "header", "rows", maybe "note"}, …]}`, ready for JSON; tables of which
        nothing was recorded are left out.
    """
    log = [dict(entry) for entry in log_history if "step" in entry]
    tables = [
        settings_table(facts),
        data_table(facts),
        parameter_table(facts),
        loss_table(log),
        open_loop_table(log, facts),
        retention_table(log),
    ]
    step = max((int(entry["step"]) for entry in log), default=0)
    return {"stage": facts.stage, "step": step, "tables": [table for table in tables if table["rows"]]}


def run_tables(log_history: Iterable[Mapping[str, Any]], facts: RunFacts) -> str:
    """The tables of `training_report` as Markdown."""
    return render_tables(training_report(log_history, facts)["tables"])


def settings_table(facts: RunFacts) -> Table:
    started = {} if facts.started_from is None else {"started from": facts.started_from}
    settings = {"stage": facts.stage, **started, **flattened(facts.settings)}
    rows = [[name, shown(value)] for name, value in settings.items()]
    return {"title": "Settings", "header": ["setting", "value"], "rows": rows}


def data_table(facts: RunFacts) -> Table:
    rows = [[shown(data.name), shown(data.weight), data.episodes, data.frames] for data in facts.datasets]
    return {"title": "Data", "header": ["dataset", "weight", "episodes", "frames or conversations"], "rows": rows}


def parameter_table(facts: RunFacts) -> Table:
    """Trained and all parameters of each part, and together."""
    rows: list[list[Any]] = [[part, trained, total] for part, (trained, total) in facts.parameters.items()]
    if rows:
        rows.append(["together", sum(row[1] for row in rows), sum(row[2] for row in rows)])
    return {"title": "Trained parameters", "header": ["part", "trained", "of"], "rows": rows}


def loss_table(log: Sequence[Mapping[str, Any]]) -> Table:
    """Losses at the first and the last logged step, and at some between them."""
    entries = [entry for entry in log if any(name in entry for name in LOSSES)]
    columns = [name for name in LOSSES if any(name in entry for entry in entries)]
    rows = [[entry["step"], *(shown(entry.get(name)) for name in columns)] for entry in spread(entries, LOSS_ROWS)]
    return {"title": "Losses", "header": ["step", *columns], "rows": rows}


def open_loop_table(log: Sequence[Mapping[str, Any]], facts: RunFacts) -> Table:
    """Errors of the last evaluation, per action dimension."""
    entry = last_with(log, ERROR)
    names = zip(distinct(facts.action_names), facts.action_units, strict=True)
    rows = [
        [
            name,
            shown(entry.get(f"{DISTANCE}/{name}")),
            unit,
            percent(entry.get(f"{ERROR}/{name}")),
            "wrong open or closed" if dim in facts.gripper_dims else "of q99 − q01",
        ]
        for dim, (name, unit) in enumerate(names)
    ]
    mean = [["mean", None, None, percent(entry[ERROR]), None]] if ERROR in entry else []
    return {
        "title": f"Open-loop action error on held-out episodes, step {entry.get('step')}",
        "note": "Predicted against recorded action chunks; the robot did not move by them.",
        "header": ["dimension", "mean absolute error", "unit", "share", ""],
        "rows": rows + mean if mean else [],
    }


def retention_table(log: Sequence[Mapping[str, Any]]) -> Table:
    """The last evaluation's scores with and without adapters."""
    entry = last_with(log, f"{PREFIX}{TEXT_LOSS}")
    rows = [
        [text, shown(entry.get(f"{PREFIX}base_{name}")), shown(entry[f"{PREFIX}{name}"])]
        for name, text in RETENTION_ROWS.items()
        if f"{PREFIX}{name}" in entry
    ]
    title = f"Retention of the base model's abilities, step {entry.get('step')}"
    return {"title": title, "header": ["measure", "base model", "this checkpoint"], "rows": rows}


def last_with(log: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next((entry for entry in reversed(log) if name in entry), {})


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """The first, the last, and evenly some between them."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"data": {"seed": 0}}` as `{"data.seed": 0}`; what is not set is left out, and so are access tokens."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        elif value is not None and not name.endswith("token"):
            flat[f"{prefix}{name}"] = value
    return flat


def shown(value: Any) -> Any:
    """A value that JSON and a table hold: numbers and words as they are, of absolute paths the last part."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(str(shown(flattened(item) if isinstance(item, Mapping) else item)) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(item)}" for name, item in value.items())
    path = PurePath(str(value))
    return path.name if path.is_absolute() else str(value)


def percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"

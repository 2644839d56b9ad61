"""What a run leaves: VLA-IT's JSON, episodes with annotations as Parquet, rejections, and a report in numbers."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructvla.training.annotation.annotated_episodes import AnnotatedEpisodes, CheckedAnswers
from instructvla.training.annotation.annotation_journal import AnnotationJournal
from instructvla.training.annotation.entry_checks import CheckSettings
from instructvla.training.annotation.episode_requests import NO_INSTRUCTION
from instructvla.training.data.dataset_statistics import DescribedReader
from instructvla.training.data.message_groups import without_numbers
from instructvla.training.data.prepare import prepare
from instructvla.training.data.vla_it import staged_file, write_vla_it

VLA_IT, EPISODES, REJECTIONS, REPORT = "vla_it.json", "episodes", "rejections.jsonl", "report.json"
DIGITS = 16  # of the digest in the name of a folder that is being filled


@dataclass(frozen=True)
class OutputSettings:
    """
    Args:
        source: folder or Hub dataset of the episodes, for the manifest.
        split: of it.
        checks: which entries are kept.
        parquet: whether the episodes are written too, with their pictures.
        workers: processes that read episodes.
    """

    source: str = ""
    split: str = "train"
    checks: CheckSettings = CheckSettings()
    parquet: bool = True
    workers: int = 0


def write_output(reader: DescribedReader, journal: AnnotationJournal, settings: OutputSettings) -> dict[str, Any]:
    """Write what the journals of a folder hold into it; what an earlier run wrote is replaced. The report.

    Raises:
        ValueError: no answer is there that can be used, or an episode can't be read.
    """
    folder = journal.folder
    if not journal.answers:
        raise ValueError(f"{folder} has no answer that can be used yet, so there is nothing to write.")
    rejected: list[dict[str, Any]] = []
    answers = CheckedAnswers.of(journal, settings.checks, rejected)
    origin = {name: journal.settings[name] for name in ("model", "prompt_version")}
    episodes = AnnotatedEpisodes(reader, answers, origin)
    with staged_file(folder / REJECTIONS) as file:
        file.writelines(json.dumps(rejection).encode() + b"\n" for rejection in rejected)
    description = reader.description
    place = {"first_step": description.first_step, "dropped_steps": description.dropped_steps}
    write_vla_it(folder / VLA_IT, episodes.without_pictures().annotated(), **place)
    if settings.parquet:
        write_parquet(episodes, folder, settings)
    report = report_of(journal, answers, len(reader))
    with staged_file(folder / REPORT) as file:
        file.write(json.dumps(report, indent=1).encode() + b"\n")
    return report


def write_parquet(episodes: AnnotatedEpisodes, folder: Path, settings: OutputSettings) -> None:
    """Episodes in the folder `episodes`, as `instructvla prepare` writes them; it appears when all are there."""
    filling = folder / f".{EPISODES}-{episodes.fingerprint[:DIGITS]}"
    for stale in folder.glob(f".{EPISODES}-*"):
        if stale != filling:
            shutil.rmtree(stale)
    prepare(
        episodes,
        filling,
        split=settings.split,
        source=settings.source,
        skip_bad=True,
        workers=settings.workers,
        show_progress=True,
    )
    if (folder / EPISODES).exists():
        shutil.rmtree(folder / EPISODES)
    os.replace(filling, folder / EPISODES)


def report_of(journal: AnnotationJournal, answers: CheckedAnswers, episodes: int) -> dict[str, Any]:
    """The run in numbers, as JSON."""
    unreadable = [reason for reason in journal.excluded.values() if reason != NO_INSTRUCTION]
    given_up = len(journal.asked.keys() - journal.answers.keys())
    return {
        "settings": dict(journal.settings),
        "episodes": episodes,
        "annotated": answers.annotated,
        "without_instruction": len(journal.excluded) - len(unreadable),
        "unreadable": len(unreadable),
        "answered": len(journal.answers),
        "unusable": given_up,
        "not_asked": episodes - len(journal.answers) - len(journal.excluded) - given_up,
        "entries": dict(answers.entries),
        "rejected": {f"{kind}: {reason}": count for (kind, reason), count in answers.reasons.most_common()},
        "answers_paid": sum(journal.asked.values()),
        "answers_unusable": grouped_reasons(journal.unusable),
        "models": dict(journal.models),
        "prompt_tokens": journal.prompt_tokens,
        "completion_tokens": journal.completion_tokens,
        "cost_usd": round(journal.cost, 6),
        "answers_unpriced": journal.unpriced,
    }


def told_cost(cost: float, unpriced: int, answers: int) -> str:
    """Dollars for a person; unknown where not one answer has a price."""
    if answers and unpriced == answers:
        return "unknown"
    return f"${cost:,.2f}" + (
        f" and that of {unpriced:,} answers whose tokens or prices are unknown" if unpriced else ""
    )


def grouped_reasons(reasons: Mapping[str, int]) -> dict[str, int]:
    """Reasons that differ in numbers alone as one."""
    groups: dict[str, int] = {}
    for reason, count in reasons.items():
        key = without_numbers(reason)
        groups[key] = groups.get(key, 0) + count
    return groups

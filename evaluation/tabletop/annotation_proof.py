"""`instructvla annotation-proof`: the whole annotation pipeline where the truth is known, and what its checks find.

Episodes of the tabletop's expert are annotated by an oracle that makes errors on purpose, checked, and drawn from as
stage 2 does. Every error is known, so that precision and recall of the checks can be told.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.intervals import Rate
from instructvla.evaluation.tabletop.expert_episodes import TabletopEpisodes
from instructvla.evaluation.tabletop.oracle_endpoint import MODEL, Oracle, running_oracle, truths
from instructvla.evaluation.tabletop.planted_errors import BROKEN, Planted
from instructvla.training.annotation import annotate_command
from instructvla.training.annotation.annotation_output import EPISODES, REJECTIONS
from instructvla.training.data.episodes import Episode
from instructvla.training.data.prepare import prepare
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.sample_shares import STAGES, sample_shares

SOURCE, ANNOTATED, LOG = "source", "annotated", "planted.jsonl"
LANGUAGES = ("en", "fr", "es")  # of the tabletop's commands
ASKS = 5  # of an episode: the oracle may break several answers in a row
STAGE_2_FRAMES = 500

Place = tuple[int, str, int]  # episode, kind and number of an entry

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Findings:
    """What the checks found of the errors that were planted.

    Args:
        planted: place → error, in the answers that were used.
        rejected: place → reason for which it was.
        broken, repeated: answers without JSON, and how many of them were asked for again.
    """

    planted: Mapping[Place, Planted]
    rejected: Mapping[Place, str]
    broken: int
    repeated: int

    def recall(self, reason: str) -> Rate:
        """Of the errors of a kind, those whose entries were rejected for any reason."""
        places = [place for place, planted in self.planted.items() if planted.reason == reason]
        return Rate(sum(place in self.rejected for place in places), len(places))

    def precision(self, reason: str) -> Rate:
        """Of the entries that were rejected for a reason, those in which any error was planted."""
        places = [place for place, rejected in self.rejected.items() if rejected == reason]
        return Rate(sum(place in self.planted for place in places), len(places))

    @property
    def total(self) -> tuple[Rate, Rate]:
        """Precision and recall over all kinds."""
        both = len(self.planted.keys() & self.rejected.keys())
        return Rate(both, len(self.rejected)), Rate(both, len(self.planted))

    def missed(self) -> list[str]:
        """Errors that no check found."""
        return [f"  {one.reason}: {one.text}" for place, one in self.planted.items() if place not in self.rejected]

    def lines(self) -> Iterator[str]:
        """A row for each reason."""
        yield f"{'':<32}{'recall':<28}{'precision':<28}"
        for reason in sorted({*(one.reason for one in self.planted.values()), *self.rejected.values()}):
            yield f"{reason:<32}{told(self.recall(reason)):<28}{told(self.precision(reason)):<28}".rstrip()
        precision, recall = self.total
        yield f"{'all entries':<32}{told(recall):<28}{told(precision):<28}".rstrip()
        yield f"{BROKEN:<32}{told(Rate(self.repeated, self.broken))}, asked for again"


def told(rate: Rate) -> str:
    return f"{rate.successes}/{rate.trials} {rate}" if rate.trials else "–"


def findings(log: Path, rejections: Path) -> Findings:
    """Compares what the oracle planted with what was rejected."""
    answers = {(line["episode"], line["ask"]): [Planted(**one) for one in line["planted"]] for line in json_lines(log)}
    last: dict[int, int] = {}
    for episode, ask in answers:
        last[episode] = max(ask, last.get(episode, 0))
    is_broken = {place: any(one.reason == BROKEN for one in planted) for place, planted in answers.items()}
    return Findings(
        planted={
            (episode, one.kind, one.number): one
            for episode, ask in last.items()
            for one in answers[episode, ask]
            if one.reason != BROKEN
        },
        rejected={(one["episode"], one["kind"], one["number"]): one["reason"] for one in json_lines(rejections)},
        broken=sum(is_broken.values()),
        repeated=sum(is_broken[episode, ask] and ask < last[episode] for episode, ask in answers),
    )


def json_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def false_alarms(rejections: Iterable[Mapping[str, Any]], found: Findings) -> Iterator[str]:
    """True entries that were rejected, with what they were rejected for."""
    for one in rejections:
        if (one["episode"], one["kind"], one["number"]) not in found.planted:
            text = " | ".join(one["text"].splitlines())
            yield f"  {one['reason']} ({one['evidence']}): {text}"


def without_annotation(episode: Episode) -> Episode:
    return replace(episode, annotation=None)


def proof(output: Path, episodes: int, seed: int, noise: float) -> Findings:
    """Episodes → oracle → checks, in a folder.

    Raises:
        ValueError: the folder holds something, or a value is out of range.
    """
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} holds something; give a new folder.")
    output.mkdir(parents=True, exist_ok=True)
    source = TabletopEpisodes(episodes, seed=seed)
    known = [source[number] for number in range(episodes)]
    oracle = Oracle(truths(known), noise, seed, output / LOG)
    prepare(source, output / SOURCE, transforms=[without_annotation])
    with running_oracle(oracle) as url:
        annotate_command.main(str(output / SOURCE), url, MODEL, output / ANNOTATED, language=list(LANGUAGES), asks=ASKS)
    return findings(output / LOG, output / ANNOTATED / REJECTIONS)


def stage_2_lines(output: Path) -> list[str]:
    """What stage 2 draws from the annotated episodes."""
    found = sample_shares(open_episodes(output / ANNOTATED / EPISODES), STAGES[2], frames=STAGE_2_FRAMES, show=0)
    return found.table()


@app.command()
def main(
    output: Annotated[Path, typer.Option(help="New folder for episodes, answers and results.")],
    episodes: Annotated[int, typer.Option(min=1, help="Of the scripted expert.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the episodes, and of the errors.")] = 0,
    noise: Annotated[float, typer.Option(help="Probability of an error in an entry, and of a broken answer.")] = 0.3,
    show: Annotated[int, typer.Option(min=0, help="Missed errors, and rejected true entries, to print.")] = 5,
) -> None:
    """Annotate simulated episodes with known errors, and print what the checks find of them."""
    with errors_on_stderr():
        found = proof(output, episodes, seed, noise)
        alarms = list(false_alarms(json_lines(output / ANNOTATED / REJECTIONS), found))
        typer.echo(f"\n{episodes} episodes, {len(found.planted)} errors planted, {found.broken} answers broken")
        typer.echo("\n".join(found.lines()))
        for what, entries in (("errors were missed", found.missed()), ("true entries were rejected", alarms)):
            if entries[:show]:
                typer.echo("\n".join([f"{len(entries)} {what}, such as:", *entries[:show]]))
        typer.echo("\n".join(["stage 2 draws from what was kept:", *stage_2_lines(output)]))


if __name__ == "__main__":
    app()

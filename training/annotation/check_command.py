"""`instructvla check-annotations`: which entries of annotations can't be trained on, by rules and by a judge."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.ledger import Ledger
from instructvla.training.annotation.annotation_check import AnnotationCheck
from instructvla.training.annotation.annotation_judge import VERSION, JudgedEpisode, Verdicts, judge_all
from instructvla.training.annotation.chat_endpoint import KEY_VARIABLE, ChatEndpoint, judging_endpoint
from instructvla.training.annotation.checked_source import CheckedSource, open_source
from instructvla.training.annotation.entry_checks import CheckSettings, Rejection, without
from instructvla.training.annotation.mark_rates import errors_table, rates_table
from instructvla.training.annotation.sample_sheet import ShownSample, drawn, sheet_page
from instructvla.training.data.episodes import Annotation
from instructvla.training.data.prepare import source_name
from instructvla.training.data.vla_it import staged_file

SAMPLE = 100  # episodes on a sheet, as in appendix C.3
CONCURRENCY = 8
VERDICTS = Path("outputs/annotation_verdicts")

app = typer.Typer(add_completion=False)


def check_source(source: CheckedSource, settings: CheckSettings) -> tuple[AnnotationCheck, list[dict[str, Any]]]:
    """The checks of a whole source, and all rejections as JSON.

    Raises:
        ValueError: nothing in it is annotated.
    """
    check = AnnotationCheck()
    texts = tqdm(source.texts(), total=source.count, unit="episode", disable=None)
    rejected = [rejection_record(*found) for found in check.run(texts, settings)]
    if not check.annotated:
        reasons = "".join(f" Episode {number}: {why}" for number, why in list(check.unreadable.items())[:1])
        raise ValueError(f"none of the {check.episodes:,} episodes has an annotation that can be read.{reasons}")
    return check, rejected


def rejection_record(number: int, rejection: Rejection) -> dict[str, Any]:
    return {"episode": number, **rejection.record()}


def judged(
    source: CheckedSource, check: AnnotationCheck, endpoint: ChatEndpoint, ledger: Ledger[Verdicts], sample: int | None
) -> tuple[list[Verdicts], dict[int, str]]:
    """What a judge says of each episode, or of some by chance; asked for as far as the ledger lacks it.

    Number → why of those that got no answer comes second.

    Args:
        source: of the episodes.
        check: whose rejected entries are not judged.
        endpoint: the judge.
        ledger: of its verdicts.
        sample: how many episodes; None is all.

    Raises:
        EndpointError, FailedRequestError: the judge can't be asked.
    """
    numbers = check.usable if sample is None else drawn(check.usable, sample, seed=0)
    asked: list[tuple[int, str]] = []

    def episodes() -> Iterator[JudgedEpisode]:
        for one in source.shown(numbers):
            left_out = check.left_out.get(one.episode, frozenset())
            episode = JudgedEpisode(one.episode, one.instruction, one.annotation, left_out, one.pictures)
            asked.append(episode.key)
            yield episode

    async def run() -> dict[int, str]:
        with tqdm(total=len(numbers), unit="episode", desc="judge", disable=None) as bar:
            try:
                return await judge_all(endpoint, episodes(), ledger, CONCURRENCY, bar.update)
            finally:
                await endpoint.close()

    failed = asyncio.run(run())
    return [ledger.outcomes[key] for key in asked if key in ledger.outcomes], failed


def apply(found: list[Verdicts], failed: dict[int, str], check: AnnotationCheck, rejected: list[dict[str, Any]]) -> str:
    """Rejects what the judge finds completely wrong; its rates for a person."""
    for verdicts in found:
        check.reject(verdicts.episode, verdicts.rejections)
        rejected += (rejection_record(verdicts.episode, rejection) for rejection in verdicts.rejections)
    marks = [mark for verdicts in found for mark in verdicts.marks]
    unusable = sum(verdicts.problem is not None for verdicts in found)
    tokens = [sum(getattr(one, name) for one in found) for name in ("prompt_tokens", "completion_tokens")]
    told = f"The judge's marks on {len(found):,} episodes, for {tokens[0]:,} tokens in and {tokens[1]:,} out"
    if unusable:
        told += f"; its answers on {unusable:,} can't be used, run again to ask again"
    if failed:
        told += f"; {len(failed):,} got no answer ({next(iter(failed.values()))}), run again to ask again"
    return "\n\n".join([f"{told}:", rates_table(marks), errors_table(marks)])


def sheet_samples(source: CheckedSource, check: AnnotationCheck, count: int, seed: int) -> Iterator[ShownSample]:
    """Episodes by chance with the entries that passed."""
    numbers = drawn(check.usable, count, seed)
    shown = {one.episode: one for one in source.shown(numbers)}
    for one in (shown[number] for number in numbers if number in shown):
        kept = without(one.annotation, check.left_out.get(one.episode, frozenset()))
        if kept != Annotation():
            yield replace(one, annotation=kept)


def write_sheet(path: Path, source: str, samples: list[ShownSample]) -> str:
    """The page, and what to do with it."""
    with staged_file(path) as file:
        file.write(sheet_page(f"Annotations of {source_name(source)}", samples).encode())
    return f"{len(samples)} samples to mark: {path}; then `instructvla annotation-marks` on what it saves"


def write_json_lines(path: Path, records: list[dict[str, Any]]) -> None:
    with staged_file(path) as file:
        file.writelines(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def require_files(**options: Path | None) -> None:
    """Before anything is read: what is written must not be a folder."""
    for name, path in options.items():
        if path is not None and path.is_dir():
            raise ValueError(f"--{name} {path} is a folder; give the file to write.")


@app.command()
def main(
    source: Annotated[str, typer.Argument(help="VLA-IT's annotation JSON, or a dataset as `prepare` reads it.")],
    mapping: Annotated[str | None, typer.Option(help="Of an RLDS or LeRobot dataset, as for `prepare`.")] = None,
    split: Annotated[str, typer.Option(help="Of the dataset.")] = "train",
    dataset: Annotated[str | None, typer.Option(help="Its name, instead of the mapping's.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a Hub dataset.")] = None,
    vla_it: Annotated[list[Path] | None, typer.Option(help="VLA-IT's annotation JSON, to join; repeatable.")] = None,
    camera: Annotated[str | None, typer.Option(help="Whose pictures are shown; default: the first.")] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Of all texts (en); repeated, others that commands may be in.")
    ] = None,
    most_entries: Annotated[int | None, typer.Option(help="Of each kind per episode; 0 is any number.")] = 3,
    most_copies: Annotated[int, typer.Option(help="Of an entry in the dataset.")] = 100,
    output: Annotated[
        Path | None, typer.Option(help="What is left: a VLA-IT file (.json), or a folder of prepared episodes.")
    ] = None,
    rejections: Annotated[Path | None, typer.Option(help="All rejected entries with their reasons, as JSONL.")] = None,
    report: Annotated[Path | None, typer.Option(help="The counts as JSON.")] = None,
    judge: Annotated[str | None, typer.Option(help="A second model, asked about what passed; sees pictures.")] = None,
    judge_endpoint: Annotated[str | None, typer.Option(help="Where it is, OpenAI-compatible.")] = None,
    judge_episodes: Annotated[int | None, typer.Option(min=1, help="By chance; default: all.")] = None,
    verdicts: Annotated[Path, typer.Option(help="Folder of the verdicts; another run goes on there.")] = VERDICTS,
    api_key_variable: Annotated[str, typer.Option(help="Environment variable with the judge's key.")] = KEY_VARIABLE,
    sheet: Annotated[Path | None, typer.Option(help="HTML page on which a person marks a sample.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="Episodes on the sheet.")] = SAMPLE,
    seed: Annotated[int, typer.Option(help="Of the sheet's sample.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read; 0 reads in this one.")] = 0,
) -> None:
    """Check annotations entry by entry; print what is rejected and why, write what is left, and a sheet to mark."""
    with errors_on_stderr():
        judging = judging_endpoint(judge, judge_endpoint, api_key_variable)
        require_files(rejections=rejections, report=report, sheet=sheet)
        settings = CheckSettings(tuple(language or CheckSettings.languages), most_entries or None, most_copies)
        opened = open_source(source, mapping, split, dataset, revision, vla_it or (), camera, workers)
        check, rejected = check_source(opened, settings)
        lines = []
        if judging is not None:
            asked = {"source": source_name(source), "split": split, "model": judge, "prompt_version": VERSION}
            ledger = Ledger.open(verdicts, asked, Verdicts)
            lines.append(apply(*judged(opened, check, judging, ledger, judge_episodes), check, rejected))
        typer.echo("\n\n".join([check.summary(), *lines]))
        if rejections is not None:
            write_json_lines(rejections, rejected)
        if report is not None:
            write_json_lines(report, [check.record() | {"settings": asdict(settings)}])
        if output is not None:
            opened.write(output, check.left_out, asdict(settings))
            typer.echo(f"what is left: {output}")
        if sheet is not None:
            typer.echo(write_sheet(sheet, source, list(sheet_samples(opened, check, sample, seed))))
        if opened.problems:
            typer.echo(f"{len(opened.problems):,} episodes could not be shown, such as: {opened.problems[0]}", err=True)


if __name__ == "__main__":
    app()

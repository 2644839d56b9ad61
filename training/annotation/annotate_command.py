"""`instructvla annotate`: captions, questions, rewritten commands and contexts for anybody's episodes, by a VLM."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from instructvla.command_errors import errors_on_stderr
from instructvla.training.annotation.annotation_card import publish
from instructvla.training.annotation.annotation_estimate import Limits, estimate
from instructvla.training.annotation.annotation_journal import AnnotationJournal
from instructvla.training.annotation.annotation_output import OutputSettings, told_cost, write_output
from instructvla.training.annotation.annotation_prompt import prompt_version
from instructvla.training.annotation.annotation_run import (
    AnnotationRun,
    AskingSettings,
    Prices,
    RunOutcome,
    pending_episodes,
)
from instructvla.training.annotation.batch_api import BatchRun, BatchSettings
from instructvla.training.annotation.chat_endpoint import KEY_VARIABLE, ChatEndpoint
from instructvla.training.annotation.entry_checks import CheckSettings
from instructvla.training.annotation.episode_requests import parse_shard, shard_numbers
from instructvla.training.annotation.key_frames import chosen_camera
from instructvla.training.data.dataset_statistics import DescribedReader
from instructvla.training.data.message_groups import few
from instructvla.training.data.readers import open_episodes

SHOWN_OF_MAPPING = ("cameras", "instruction", "drop_steps")  # the rest, such as units, may be put right later

app = typer.Typer(add_completion=False)


def journal_settings(
    reader: DescribedReader, split: str, model: str, camera: str, parameters: dict[str, Any]
) -> dict[str, Any]:
    """What answers follow from: of other settings, a journal's answers can't be mixed with this run's."""
    origin = dict(reader.provenance)
    mapping = origin.pop("mapping", {})
    return {
        "split": split,
        "episodes": len(reader),
        **origin,
        "mapping": {key: mapping[key] for key in SHOWN_OF_MAPPING if key in mapping},
        "camera": camera,
        "model": model,
        "parameters": parameters,
        "prompt_version": prompt_version(),
    }


def parse_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """Parameters of "temperature=0.7": values are JSON, or else texts.

    Raises:
        ValueError: a text without "=".
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign):
            raise ValueError(f"--parameter {text!r} has no value; give NAME=VALUE, such as temperature=0.7.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def ask(
    endpoint: ChatEndpoint,
    journal: AnnotationJournal,
    reader: DescribedReader,
    numbers: Sequence[int],
    settings: AskingSettings,
    batches: BatchSettings | None,
) -> RunOutcome:
    """Ask about the episodes that are pending, with a progress bar that tells what it has cost."""
    pending = pending_episodes(journal, numbers, settings.asks)
    if batches is None and journal.open_batches():
        raise ValueError(f"{journal.folder} has a batch under way, which is paid for: collect it first, with --batch.")

    async def run() -> RunOutcome:
        with tqdm(total=len(numbers), initial=len(numbers) - len(pending), unit="episode", disable=None) as bar:

            def progress() -> None:
                bar.set_postfix_str(running_cost(journal), refresh=False)
                bar.update()

            if batches is not None:
                runner: AnnotationRun | BatchRun = BatchRun(endpoint, journal, settings, batches, progress)
            else:
                runner = AnnotationRun(endpoint, journal, settings, progress)
            try:
                return await runner.ask_all(reader, numbers if batches else pending)
            finally:
                await endpoint.close()

    return asyncio.run(run())


def running_cost(journal: AnnotationJournal) -> str:
    tokens = f"{(journal.prompt_tokens + journal.completion_tokens) / 1e6:.2f} M tokens"
    cost = f", ${journal.cost:,.2f}" if journal.cost else ""
    unusable = sum(journal.unusable.values())
    return tokens + cost + (f", {unusable:,} unusable" if unusable else "")


def summary(report: dict[str, Any], folder: Path) -> str:
    """A run in a few lines for a person."""
    entries = ", ".join(f"{count:,} {kind}" for kind, count in report["entries"].items())
    lines = [
        f"{report['annotated']:,} of {report['episodes']:,} episodes annotated: {entries}",
        f"  without an instruction, excluded  {report['without_instruction']:,}",
        f"  that can't be read, excluded      {report['unreadable']:,}",
        f"  whose answers can't be used       {report['unusable']:,}",
        f"  not asked about                   {report['not_asked']:,}",
        *(f"  rejected, {reason}: {count:,}" for reason, count in report["rejected"].items()),
        *(f"  answers that were unusable, as {reason}: {n:,}" for reason, n in report["answers_unusable"].items()),
        f"{report['answers_paid']:,} answers, {report['prompt_tokens']:,} tokens in, {report['completion_tokens']:,} "
        f"out, cost {told_cost(report['cost_usd'], report['answers_unpriced'], report['answers_paid'])}",
        f"written to {folder}",
    ]
    return "\n".join(lines)


def excluded_lines(journal: AnnotationJournal) -> list[str]:
    """Why episodes are not asked about, with examples."""
    numbers: dict[str, list[int]] = {}
    for number, reason in sorted(journal.excluded.items()):
        numbers.setdefault(reason.partition(":")[0], []).append(number)
    return [f"excluded, {reason}: {len(found):,} episodes ({few(found)})" for reason, found in numbers.items()]


def failure_lines(outcome: RunOutcome) -> list[str]:
    """Why questions failed, with examples; another run asks them again."""
    numbers: dict[str, list[int]] = {}
    for number, reason in sorted(outcome.failed.items()):
        numbers.setdefault(reason, []).append(number)
    lines = [f"failed: {len(found):,} episodes ({few(found)}): {reason}" for reason, found in numbers.items()]
    stopped = ["stopped before all episodes were asked about"] if outcome.stopped else []
    return [*stopped, *lines, "run the same command again to go on"] if stopped or lines else []


@app.command()
def main(
    source: Annotated[str, typer.Argument(help="RLDS or LeRobot folder, Hub dataset, or a prepared one.")],
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible, such as http://localhost:8000/v1.")],
    model: Annotated[str, typer.Option(help="Its name there; it must take pictures.")],
    output: Annotated[Path, typer.Option(help="Folder of the journal and of the results.")],
    mapping: Annotated[
        str | None, typer.Option(help="What the fields mean: bridge, fractal, libero, or your YAML file.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the source.")] = "train",
    dataset: Annotated[str | None, typer.Option(help="Key of its statistics; default: the mapping's.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a Hub dataset.")] = None,
    camera: Annotated[str | None, typer.Option(help="Whose pictures are shown; default: the first.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only estimate cost and time; ask nothing.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first episodes.")] = None,
    shard: Annotated[str, typer.Option(help="Part of the work for this machine: 2/8 is the second of eight.")] = "1/1",
    price_in: Annotated[float | None, typer.Option(min=0, help="Dollars per million tokens in.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="Dollars per million tokens out.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Most questions at once.")] = 16,
    requests_per_minute: Annotated[float | None, typer.Option(help="Limit to keep.")] = None,
    tokens_per_minute: Annotated[float | None, typer.Option(help="Limit to keep, by estimated tokens.")] = None,
    retries: Annotated[int, typer.Option(min=0, help="Of a request that fails, with growing delays.")] = 6,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for a request.")] = 180.0,
    asks: Annotated[int, typer.Option(min=1, help="Most answers that are paid for per episode.")] = 3,
    parameter: Annotated[list[str] | None, typer.Option(help="Of each request: temperature=0.7; repeatable.")] = None,
    schema: Annotated[bool, typer.Option(help="Structured output, where the endpoint has it.")] = True,
    answers_as: Annotated[str | None, typer.Option(help="Other name under which the model may answer.")] = None,
    api_key_variable: Annotated[str, typer.Option(help="Environment variable with the key.")] = KEY_VARIABLE,
    batch: Annotated[
        bool, typer.Option("--batch", help="By the provider's batch API: hours, at a lower price.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Most requests of a batch.")] = 50_000,
    poll: Annotated[float, typer.Option(min=0, help="Seconds between two looks at a batch.")] = 60.0,
    language: Annotated[list[str] | None, typer.Option(help="Of the entries (en); repeatable.")] = None,
    episodes: Annotated[bool, typer.Option(help="Write the episodes as Parquet too, for training.")] = True,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read; 0 reads in a thread.")] = 0,
    push_to_hub: Annotated[str | None, typer.Option(help="Dataset repository, owner/name.")] = None,
    licence: Annotated[str | None, typer.Option("--license", help="Of what is published, e.g. cc-by-4.0.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Annotate episodes with a vision-language model; run again, it goes on where it stopped and pays nothing twice."""
    with errors_on_stderr():
        part, parameters = parse_shard(shard), parse_parameters(parameter or ())
        checks = CheckSettings(tuple(language)) if language else CheckSettings()
        if push_to_hub and licence is None:
            raise ValueError("--push-to-hub needs --license, which the card names, such as --license cc-by-4.0.")
        reader = open_episodes(source, mapping, split, dataset, revision)
        shown = chosen_camera(reader.description.cameras, camera)
        asking = AskingSettings(asks, concurrency, Prices(price_in, price_out), answers_as, shown, workers)
        settings = journal_settings(reader, split, model, shown, parameters)
        numbers = shard_numbers(len(reader), part, limit)
        limits = Limits(requests_per_minute, tokens_per_minute)
        if dry_run:
            typer.echo("\n".join(forecast(reader, AnnotationJournal.read(output, settings), numbers, asking, limits)))
            return
        asked = ChatEndpoint(
            endpoint,
            model,
            key_variable=api_key_variable,
            retries=retries,
            timeout_s=timeout,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            parameters=parameters,
        )
        asked.takes_schema = None if schema else False
        with AnnotationJournal.open(output, settings, part) as journal:
            batches = BatchSettings(requests=batch_size, poll_s=poll) if batch else None
            outcome = ask(asked, journal, reader, numbers, asking, batches)
            lines = [*excluded_lines(journal), *failure_lines(outcome)]
            if lines:
                typer.echo("\n".join(lines), err=True)
            if part != (1, 1):
                typer.echo(
                    f"shard {shard}: {len(journal.answers):,} answers; gather all journals, then run without --shard"
                )
            elif not outcome.stopped:
                report = write_output(reader, journal, OutputSettings(source, split, checks, episodes, workers))
                typer.echo(summary(report, output))
                if push_to_hub:
                    typer.echo(f"published: {publish(output, report, push_to_hub, licence or '', private)}")
    if outcome.failed or outcome.stopped:
        raise typer.Exit(1)


def forecast(
    reader: DescribedReader,
    journal: AnnotationJournal,
    numbers: Sequence[int],
    settings: AskingSettings,
    limits: Limits,
) -> list[str]:
    """What is left to do, and what it would cost."""
    pending = pending_episodes(journal, numbers, settings.asks)
    done = f"{len(journal.answers):,} answered, {len(journal.excluded):,} excluded"
    head = f"{len(numbers):,} of {len(reader):,} episodes: {len(pending):,} to ask about, {done}"
    return [head, *estimate(reader, journal, pending, settings, limits).lines()] if pending else [head]


if __name__ == "__main__":
    app()

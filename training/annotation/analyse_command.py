"""`instructvla analyse`: what a dataset's annotations are made of, as numbers, plots and a page (appendix C.1)."""

import asyncio
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm import tqdm

from instructvla.command_errors import errors_on_stderr
from instructvla.training.annotation.analysis_page import record, render_page, summary_lines
from instructvla.training.annotation.analysis_plots import plots
from instructvla.training.annotation.annotation_census import Census
from instructvla.training.annotation.annotation_texts import Texts, open_texts
from instructvla.training.annotation.category_agreement import agreement_lines
from instructvla.training.annotation.category_judge import Judgement, judgement_text, label_texts
from instructvla.training.annotation.chat_endpoint import KEY_VARIABLE, ChatEndpoint, judging_endpoint
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.prepare import source_name

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.figure import Figure

PAGE, NUMBERS = "analysis.html", "analysis.json"

app = typer.Typer(add_completion=False)


def counted(texts: Texts, total: int | None, sample_size: int, skip_bad: bool) -> tuple[Census, list[str]]:
    """The census, and why episodes were left out.

    Raises:
        BadEpisodeError: the first episode that can't be read, without `skip_bad`.
    """
    census, skipped = Census(sample_size), []
    for one in tqdm(texts, total=total, unit="episode", disable=None):
        if not isinstance(one, BadEpisodeError):
            census.add(one)
        elif skip_bad:
            skipped.append(str(one))
        else:
            raise one.with_skip_bad()
    return census, skipped


def write_analysis(
    output: Path, title: str, census: Census, notes: list[str], judgement: Judgement | None, agreement: str
) -> None:
    """Page, numbers, and each plot as PNG and SVG."""
    output.mkdir(parents=True, exist_ok=True)
    drawn = plots(census)
    svgs = {name: picture(figure, "svg") for name, figure in drawn.items()}
    for name, figure in drawn.items():
        (output / f"{name}.svg").write_bytes(svgs[name])
        (output / f"{name}.png").write_bytes(picture(figure, "png"))
    numbers = record(census) | ({} if judgement is None else {"agreement": judgement.record()})
    (output / NUMBERS).write_text(json.dumps(numbers, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (output / PAGE).write_text(render_page(title, census, svgs, notes, agreement), encoding="utf-8")


def picture(figure: "Figure", kind: str) -> bytes:
    """The plot in a format, with the texts of an SVG as texts."""
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "analysis"}):
        figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def judged(census: Census, endpoint: ChatEndpoint) -> tuple[Judgement, str]:
    """A model's categories of the census' sample, and its agreement with the rules in lines.

    Raises:
        EndpointError: the endpoint can't be used.
    """

    async def ask() -> Judgement:
        try:
            return await label_texts(endpoint, census.sample)
        finally:
            await endpoint.close()

    found = asyncio.run(ask())
    told = [*agreement_lines(found.agreement, "rules", endpoint.model), judgement_text(found, endpoint.model)]
    return found, "\n".join(told)


def notes_on(census: Census, skipped: list[str]) -> list[str]:
    """What a reader must know of the numbers."""
    notes = []
    if not census.instructed:
        notes.append("The source has no original instructions: nothing is compared with them.")
    if skipped:
        notes.append(f"{len(skipped):,} episodes could not be read and are left out, such as: {skipped[0]}")
    return notes


@app.command()
def main(
    source: Annotated[str, typer.Argument(help="VLA-IT's annotation JSON, or a dataset as `prepare` reads it.")],
    output: Annotated[Path, typer.Option(help="Folder of the page, the plots and the numbers.")],
    mapping: Annotated[str | None, typer.Option(help="Of an RLDS or LeRobot dataset, as for `prepare`.")] = None,
    split: Annotated[str, typer.Option(help="Of the dataset.")] = "train",
    dataset: Annotated[str | None, typer.Option(help="Its name, instead of the mapping's.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a Hub dataset.")] = None,
    vla_it: Annotated[list[Path] | None, typer.Option(help="VLA-IT's annotation JSON, to join; repeatable.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out episodes that can't be read.")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read; 0 reads in this one.")] = 0,
    judge: Annotated[str | None, typer.Option(help="A language model that sorts texts beside the rules.")] = None,
    judge_endpoint: Annotated[str | None, typer.Option(help="Where it is, OpenAI-compatible.")] = None,
    judge_texts: Annotated[int, typer.Option(min=1, help="Texts by chance that it judges.")] = 400,
    api_key_variable: Annotated[str, typer.Option(help="Environment variable with the judge's key.")] = KEY_VARIABLE,
) -> None:
    """Count categories, verbs with nouns, and words of a dataset's annotations, and plot them."""
    with errors_on_stderr():
        judging = judging_endpoint(judge, judge_endpoint, api_key_variable)
        total, texts = open_texts(source, mapping, split, dataset, revision, vla_it or (), workers)
        census, skipped = counted(texts, total, 0 if judging is None else judge_texts, skip_bad)
        if not census.annotated:
            raise ValueError(f"{source} has no annotated episode among {census.episodes:,}; annotate it first.")
        judgement, agreement = None, ""
        if judging is not None:
            judgement, agreement = judged(census, judging)
        name = Path(source).name if Path(source).is_file() else source_name(source)
        notes = [note.replace(source, name) for note in notes_on(census, skipped)]
        write_analysis(output, f"Annotations of {name}", census, notes, judgement, agreement)
        typer.echo("\n".join([*summary_lines(census), *([agreement] if agreement else []), *notes]))
        typer.echo(f"written to {output / PAGE}")


if __name__ == "__main__":
    app()

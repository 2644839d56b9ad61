"""`instructvla preview`: a dataset's episodes as one self-contained HTML page, to look at before training on them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.training.data.dataset_checks import Problem, of_unreadable, problem_lines
from instructvla.training.data.dataset_overview import DatasetOverview, read_overview
from instructvla.training.data.dataset_statistics import DatasetStatistics, DescribedReader
from instructvla.training.data.episode_checks import check_episode
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.message_groups import ranges
from instructvla.training.data.parquet_reader import ParquetEpisodes
from instructvla.training.data.prepare import Transform, source_name, text_transforms, without_folder
from instructvla.training.data.preview_page import EpisodeView, PageNotes, curve_spans, render_page
from instructvla.training.data.preview_tracks import spread
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.validate import SHORTEST
from instructvla.training.data.vla_it import VlaItIndex, staged_file

SHOWN = 5  # episodes
SMALL = 200  # episodes of a dataset of which all are read, without pictures, to check it as a whole
MOST_TRIED = 1000  # episodes, in search of some that can be read
# Facts of a prepared split: key of its manifest → what the page calls it, and whether it counts episodes.
COUNTED = {
    "frames": ("Frames", False),
    "instructed": ("Episodes with an instruction", True),
    "with_motion": ("Episodes with language motion", True),
    "annotated": ("Episodes with annotation (VLA-IT)", True),
}
OF_THE_WHOLE = "constant dimensions, jumps, actions and grippers that move against the state, repeated ids"


@dataclass(frozen=True)
class Preview:
    """A page, the numbers of the episodes on it, and of those that were left out, as they can't be read."""

    page: Path
    shown: list[int]
    unreadable: list[int]


def preview(
    reader: DescribedReader,
    output: str | Path,
    episodes: int | Sequence[int] = SHOWN,
    *,
    source: str | Path = "",
    split: str = "train",
    transforms: Sequence[Transform] = (),
) -> Preview:
    """Write a page that shows some episodes of a dataset: frames, texts, curves, statistics and warnings.

    Per camera and episode it holds at most 40 thumbnails, at most 160 pixels high (about 0.3 MB), and a curve of at
    most 1,000 points per dimension. Of at most 200 episodes all are read, without pictures, for statistics and warnings
    of the dataset as a whole.

    Args:
        reader: with a `description`, as `open_episodes` gives them.
        output: the page; an earlier one is replaced.
        episodes: how many to show, evenly spread among those that can be read; or the numbers, from 0, of those to
            show, of which one that can't be read becomes a warning.
        source: folder or Hub dataset that they come from, for the page.
        split: of the dataset, for the page.
        transforms: what is done with each episode before it is shown.

    Raises:
        ValueError: none of the episodes can be read, there is no such episode, or `output` is a folder.
    """
    output = Path(output)
    if output.is_dir():
        raise ValueError(f"{output} is a folder; give the file to write, e.g. {output / 'preview.html'}")
    overview = read_overview(reader) if len(reader) <= SMALL else None

    def view(index: int) -> EpisodeView:
        return episode_view(reader, index, transforms)

    if isinstance(episodes, int):
        views, left_out = readable_views(view, episodes, len(reader), overview)
    else:
        views, left_out = named_views(view, check_episodes(episodes, len(reader))), []
    page = page_of(reader, views, left_out, overview, source, split)
    with staged_file(output) as file:
        file.write(page.encode("utf-8", "replace"))
    shown = [view.index for view in views if view.episode is not None]
    return Preview(output, shown, [problem.number for problem in left_out])


def page_of(
    reader: DescribedReader,
    views: Sequence[EpisodeView],
    left_out: Sequence[Problem],
    overview: DatasetOverview | None,
    source: str | Path,
    split: str,
) -> str:
    """The page of these views, with what is known of the dataset as a whole."""
    statistics = overview.statistics if overview else statistics_of(reader, views)
    views = [replace(view, spans=curve_spans(statistics)) for view in with_problems(views, overview)]
    # the page may be shown to others
    views = [replace(view, warnings=[without_folder(text, source) for text in view.warnings]) for view in views]
    problems = dataset_problems(views, left_out, overview)
    notes = PageNotes(
        warnings=[without_folder(line, source) for line in problem_lines(problems)],
        checked=checked(len(reader), overview),
        statistics_of=scope(len(reader), statistics, overview),
    )
    facts = dataset_facts(reader, views, source, split)
    return render_page(reader.description.dataset, facts, views, statistics, notes)


def episode_view(reader: DescribedReader, index: int, transforms: Sequence[Transform]) -> EpisodeView:
    """An episode and what is wrong with it."""
    description = reader.description
    try:
        episode = reader[index]
        for transform in transforms:
            episode = transform(episode)
    except BadEpisodeError as error:
        return EpisodeView(index, None, description, [str(error)], error=error)
    findings = check_episode(episode, description, shortest=SHORTEST, frames=len(episode))
    return EpisodeView(index, episode, description, [f"{finding.check}: {finding.message}" for finding in findings])


def named_views(view: Callable[[int], EpisodeView], numbers: Sequence[int]) -> list[EpisodeView]:
    views = [view(index) for index in numbers]
    if all(view.episode is None for view in views):
        raise ValueError(
            f"none of the {len(views)} episodes can be read, so there is nothing to show. {views[0].warnings[0]}"
        )
    return views


def readable_views(
    view: Callable[[int], EpisodeView], count: int, total: int, overview: DatasetOverview | None
) -> tuple[list[EpisodeView], list[Problem]]:
    """As many episodes as asked for, if there are, and what is wrong with those that were met and can't be read."""
    known = {} if overview is None else overview.unreadable
    views: list[EpisodeView] = []
    left_out = dict(known)
    tried = 0
    for index in islice(candidates(count, total), MOST_TRIED):
        if len(views) == min(count, total):
            break
        tried += 1
        if index in known:
            continue
        found = view(index)
        if found.error is None:
            views.append(found)
        else:
            left_out[index] = of_unreadable(found.error, index)
    problems = [left_out[index] for index in sorted(left_out)]
    if not views:
        raise ValueError(
            f"none of {tried:,} of the {total:,} episodes can be read, so there is nothing to show; --episodes names "
            f"others. {problems[0].message if problems else 'The dataset is empty'}"
        )
    return sorted(views, key=lambda view: view.index), problems


def candidates(count: int, total: int) -> Iterator[int]:
    """All numbers: `count` of them evenly spread, then ever more between these."""
    seen: set[int] = set()
    while len(seen) < total:
        fresh = [place for place in spread(count, total) if place not in seen]
        yield from fresh
        seen.update(fresh)
        count *= 2


def check_episodes(episodes: Sequence[int], total: int) -> Sequence[int]:
    beyond = [index for index in episodes if not 0 <= index < total]
    if beyond or not episodes:
        asked = f"there is no episode {beyond[0]}" if beyond else "no episode is asked for"
        raise ValueError(f"{asked}; this dataset has {total}, give numbers from 0 to {total - 1}")
    return list(dict.fromkeys(episodes))


def parse_episodes(text: str) -> int | list[int]:
    """Episode numbers of "0,5,7"; of "3" how many; of "3," only number 3.

    Raises:
        ValueError: another text, or a number that is too small.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts) or (parts == ["0"] and "," not in text):
        raise ValueError(
            f"--episodes is {text!r}; give how many (e.g. 5), or their numbers (e.g. 0,5,7, or 0, for the first only)"
        )
    return [int(part) for part in parts] if "," in text else int(parts[0])


def statistics_of(reader: DescribedReader, views: Sequence[EpisodeView]) -> DatasetStatistics:
    """Of the episodes shown; one of another size, or with a value that is not finite, has its own warning."""
    statistics = DatasetStatistics(reader.description)
    for view in views:
        try:
            if view.episode is not None:
                statistics.add(view.episode)
        except BadEpisodeError:
            continue
    return statistics


def scope(total: int, statistics: DatasetStatistics, overview: DatasetOverview | None) -> str:
    """Whose the statistics are."""
    if overview is None:
        return f"the {statistics.episodes:,} episodes shown, of {total:,}"
    known = statistics.episodes
    return f"all {total:,} episodes" if known == total else f"the {known:,} of {total:,} episodes that can be used"


def with_problems(views: Sequence[EpisodeView], overview: DatasetOverview | None) -> list[EpisodeView]:
    """The same, warning of what shows only beside the other episodes too."""
    problems = overview.problems if overview else []
    return [
        replace(
            view,
            warnings=[
                *view.warnings,
                *(f"{found.check}: {found.message}" for found in problems if found.number == view.index),
            ],
        )
        for view in views
    ]


def dataset_problems(
    views: Sequence[EpisodeView], left_out: Sequence[Problem], overview: DatasetOverview | None
) -> list[Problem]:
    """What is wrong with the dataset as a whole, and with episodes that are not shown."""
    shown = {view.index for view in views}
    unreadable = {problem.number: problem for problem in left_out} | (overview.unreadable if overview else {})
    found = [*(overview.problems if overview else []), *(unreadable[number] for number in sorted(unreadable))]
    return [problem for problem in found if problem.number not in shown]


def checked(total: int, overview: DatasetOverview | None) -> str:
    """What was looked for in the dataset as a whole, or was not."""
    if overview is None:
        return f"Not looked for, as only a few of the {total:,} episodes were read: {OF_THE_WHOLE}"
    known = total - len(overview.unreadable)
    count = f"all {total:,} episodes" if known == total else f"the {known:,} of {total:,} episodes that can be read"
    return f"Looked for in {count}: {OF_THE_WHOLE}. Pictures and texts were checked only of the episodes shown"


def dataset_facts(
    reader: DescribedReader, views: Sequence[EpisodeView], source: str | Path, split: str
) -> dict[str, str]:
    """What is known of the whole dataset without reading it, and of the cameras of the episodes shown."""
    shown = [view for view in views if view.episode is not None]
    rates = {f"{view.episode.control_rate_hz:g} Hz" for view in shown}
    facts = {"Source": source_name(source), "Split": split, "Episodes": f"{len(reader):,}"}
    facts |= manifest_counts(reader)
    frames = sum(len(view.episode) for view in shown)
    facts["Shown"] = f"{len(shown):,} episodes ({frames:,} frames)"
    facts["Control rate"] = ", ".join(sorted(rates))
    for camera in shown[0].episode.images:
        sizes = {strip.size: None for view in shown for strip in view.strips if strip.camera == camera}
        facts[f"Camera {camera}"] = ", ".join(sizes)
    facts["Action, state"] = f"{len(reader.description.action_names)}, {len(reader.description.state_names)} dimensions"
    return {name: value for name, value in facts.items() if value}


def manifest_counts(reader: DescribedReader) -> dict[str, str]:
    """What the manifest of prepared episodes counts; other formats would have to be read whole."""
    if not isinstance(reader, ParquetEpisodes):
        return {}
    split: dict[str, Any] = reader.manifest["splits"][reader.split]
    known = {key: named for key, named in COUNTED.items() if key in split}
    return {
        name: f"{split[key]:,} of {len(reader):,}" if of_episodes else f"{split[key]:,}"
        for key, (name, of_episodes) in known.items()
    }


app = typer.Typer(add_completion=False)


@app.command()
def main(
    source: Annotated[str, typer.Argument(help="RLDS or LeRobot folder, Hub dataset, or a prepared one.")],
    mapping: Annotated[
        str | None, typer.Option(help="What the fields mean: bridge, fractal, libero, or your YAML file.")
    ] = None,
    episodes: Annotated[
        str,
        typer.Option(
            help="How many of those that can be read, evenly spread (5), or numbers (0,5,7; with a comma: 3, is number "
            "3)."
        ),
    ] = str(SHOWN),
    output: Annotated[Path, typer.Option(help="The page.")] = Path("preview.html"),
    split: Annotated[str, typer.Option(help="Of the source.")] = "train",
    revision: Annotated[str | None, typer.Option(help="Of a Hub dataset.")] = None,
    vla_it: Annotated[list[Path] | None, typer.Option(help="VLA-IT's annotation JSON, to join; repeatable.")] = None,
    motion: Annotated[bool, typer.Option("--motion", help="Compute language motion where it is missing.")] = False,
) -> None:
    """Show episodes of a dataset as one HTML page: frames, texts, curves, statistics and warnings."""
    with errors_on_stderr():
        asked = parse_episodes(episodes)
        reader = open_episodes(source, mapping, split, revision=revision)
        annotations = VlaItIndex.read(vla_it) if vla_it else None
        transforms = text_transforms(reader.description, annotations, motion)
        found = preview(reader, output, asked, source=source, split=split, transforms=transforms)
    size = found.page.stat().st_size / 1e6
    typer.echo(f"{len(found.shown)} of {len(reader):,} episodes -> {found.page} ({size:.1f} MB)")
    if found.unreadable:
        told = f"{len(found.unreadable):,} episodes can't be read ({ranges(found.unreadable)}) and are left out"
        typer.echo(f"{told}; --episodes names those to show, e.g. --episodes {found.shown[0]},")


if __name__ == "__main__":
    app()

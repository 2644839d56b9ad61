"""`instructvla preview`: a dataset's episodes as one self-contained HTML page, to look at before training on them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.training.data.dataset_statistics import DatasetStatistics, DescribedReader
from instructvla.training.data.episode_checks import check_episode
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.parquet_reader import ParquetEpisodes
from instructvla.training.data.prepare import source_name, without_folder
from instructvla.training.data.preview_page import EpisodeView, render_page
from instructvla.training.data.preview_tracks import spread
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.validate import SHORTEST
from instructvla.training.data.vla_it import staged_file

# Facts of a prepared split: key of its manifest → what the page calls it.
COUNTED = {
    "frames": "Frames",
    "instructed": "With an instruction",
    "with_motion": "With language motion",
    "annotated": "Annotated (VLA-IT)",
}


def preview(
    reader: DescribedReader,
    output: str | Path,
    episodes: Sequence[int],
    *,
    source: str | Path = "",
    split: str = "train",
) -> Path:
    """Write a page that shows some episodes of a dataset: frames, texts, curves, statistics and warnings.

    Per camera and episode it holds at most 40 thumbnails, at most 160 pixels high (about 0.3 MB), and a curve of at
    most 1,000 points per dimension. An episode that can't be read becomes a warning.

    Args:
        reader: with a `description`, as `open_episodes` gives them.
        output: the page; an earlier one is replaced.
        episodes: numbers of those to show, 0 or more.
        source: folder or Hub dataset that they come from, for the page.
        split: of the dataset, for the page.

    Raises:
        ValueError: none of the episodes can be read, there is no such episode, or `output` is a folder.
    """
    output = Path(output)
    if output.is_dir():
        raise ValueError(f"{output} is a folder; give the file to write, e.g. {output / 'preview.html'}")
    statistics = DatasetStatistics(reader.description)
    views = [episode_view(reader, index, statistics) for index in check_episodes(episodes, len(reader))]
    # the page may be shown to others
    views = [replace(view, warnings=[without_folder(text, source) for text in view.warnings]) for view in views]
    if all(view.episode is None for view in views):
        raise ValueError(
            f"none of the {len(views)} episodes can be read, so there is nothing to show. {views[0].warnings[0]}"
        )
    page = render_page(reader.description.dataset, dataset_facts(reader, views, source, split), views, statistics)
    with staged_file(output) as file:
        file.write(page.encode("utf-8", "replace"))
    return output


def episode_view(reader: DescribedReader, index: int, statistics: DatasetStatistics) -> EpisodeView:
    """An episode and what is wrong with it; a whole one is counted in the statistics."""
    description = reader.description
    try:
        episode = reader[index]
    except BadEpisodeError as error:
        return EpisodeView(index, None, description, [str(error)])
    findings = check_episode(episode, description, shortest=SHORTEST, frames=len(episode))
    warnings = [f"{finding.check}: {finding.message}" for finding in findings]
    try:
        statistics.add(episode)
    except BadEpisodeError as error:
        warnings.append(f"not in the statistics: {error}")
    return EpisodeView(index, episode, description, warnings)


def check_episodes(episodes: Sequence[int], total: int) -> Sequence[int]:
    beyond = [index for index in episodes if not 0 <= index < total]
    if beyond or not episodes:
        asked = f"there is no episode {beyond[0]}" if beyond else "no episode is asked for"
        raise ValueError(f"{asked}; this dataset has {total}, give numbers from 0 to {total - 1}")
    return list(dict.fromkeys(episodes))


def parse_episodes(text: str, total: int) -> list[int]:
    """Episode numbers of "0,5,7"; of "3" three of all, evenly spread; of "3," only number 3.

    Raises:
        ValueError: another text, or a number that is too small.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts) or (parts == ["0"] and "," not in text):
        raise ValueError(
            f"--episodes is {text!r}; give how many (e.g. 5), or their numbers (e.g. 0,5,7, or 0, for the first only)"
        )
    return [int(part) for part in parts] if "," in text else spread(int(parts[0]), total)


def dataset_facts(
    reader: DescribedReader, views: Sequence[EpisodeView], source: str | Path, split: str
) -> dict[str, str]:
    """What is known of the whole dataset without reading it, and of the cameras of the episodes shown."""
    shown = [view for view in views if view.episode is not None]
    rates = {f"{view.episode.control_rate_hz:g} Hz" for view in shown}
    facts = {"Source": source_name(source), "Split": split, "Episodes": f"{len(reader):,}"}
    facts |= {COUNTED[key]: f"{value:,}" for key, value in manifest_counts(reader).items()}
    facts["Shown"] = f"{len(shown):,} ({sum(len(view.episode) for view in shown):,} frames)"
    facts["Control rate"] = ", ".join(sorted(rates))
    for camera in shown[0].episode.images:
        sizes = {strip.size: None for view in shown for strip in view.strips if strip.camera == camera}
        facts[f"Camera {camera}"] = ", ".join(sizes)
    facts["Action, state"] = f"{len(reader.description.action_names)}, {len(reader.description.state_names)} dimensions"
    return {name: value for name, value in facts.items() if value}


def manifest_counts(reader: DescribedReader) -> dict[str, Any]:
    """What the manifest of prepared episodes counts; other formats would have to be read whole."""
    if not isinstance(reader, ParquetEpisodes):
        return {}
    return {key: value for key, value in reader.manifest["splits"][reader.split].items() if key in COUNTED}


app = typer.Typer(add_completion=False)


@app.command()
def main(
    source: Annotated[str, typer.Argument(help="RLDS or LeRobot folder, Hub dataset, or a prepared one.")],
    mapping: Annotated[
        str | None, typer.Option(help="What the fields mean: bridge, fractal, libero, or your YAML file.")
    ] = None,
    episodes: Annotated[
        str, typer.Option(help="How many, evenly spread (5), or their numbers (0,5,7; with a comma: 3, is number 3).")
    ] = "5",
    output: Annotated[Path, typer.Option(help="The page.")] = Path("preview.html"),
    split: Annotated[str, typer.Option(help="Of the source.")] = "train",
    revision: Annotated[str | None, typer.Option(help="Of a Hub dataset.")] = None,
) -> None:
    """Show episodes of a dataset as one HTML page: frames, texts, curves, statistics and warnings."""
    with errors_on_stderr():
        reader = open_episodes(source, mapping, split, revision=revision)
        numbers = parse_episodes(episodes, len(reader))
        page = preview(reader, output, numbers, source=source, split=split)
    typer.echo(f"{len(numbers)} of {len(reader):,} episodes -> {page} ({page.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    app()

"""Instructions and annotations of a dataset, one episode after the other: from VLA-IT's JSON, or from any episodes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from instructvla.training.data.episodes import Annotation, BadEpisodeError, Episode, EpisodeReader
from instructvla.training.data.json_records import scan_records
from instructvla.training.data.ordered_reading import read_in_order
from instructvla.training.data.parquet_reader import ParquetEpisodes
from instructvla.training.data.prepare import text_transforms
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.vla_it import LAYOUT, Place, VlaItIndex, read_record


@dataclass(frozen=True)
class EpisodeTexts:
    """What is said of an episode.

    Args:
        instruction: of the recording; None where it has none, as in VLA-IT's JSON.
        annotation: VLA-IT's, or None.
    """

    instruction: str | None
    annotation: Annotation | None


Texts = Iterator[EpisodeTexts | BadEpisodeError]


def open_texts(
    source: str,
    mapping: str | None = None,
    split: str = "train",
    dataset: str | None = None,
    revision: str | None = None,
    vla_it: Sequence[Path] = (),
    workers: int = 0,
) -> tuple[int | None, Texts]:
    """The number of episodes, None where it isn't known before, and what is said of each.

    Args:
        source: VLA-IT's annotation JSON, or what `open_episodes` opens.
        mapping, split, dataset, revision: as for `open_episodes`.
        vla_it: annotation files to join to episodes.
        workers: processes that read episodes; 0 reads in this one.

    Raises:
        ValueError: as `open_episodes`; options that don't fit the source.
    """
    if Path(source).suffix == ".json":
        if not Path(source).is_file():
            raise ValueError(f"there is no file {source}; give a VLA-IT annotation file or a dataset.")
        if mapping or dataset or revision or vla_it:
            raise ValueError(
                f"{source} is an annotation file; leave out --mapping, --dataset, --revision and --vla-it."
            )
        return None, recorded_texts(Path(source))
    reader = open_episodes(source, mapping, split, dataset, revision)
    index = VlaItIndex.read(vla_it) if vla_it else None
    return len(reader), episode_texts(reader, index, workers)


def recorded_texts(path: Path) -> Texts:
    """Of an annotation file in VLA-IT's layout; only one record is in memory at a time.

    Raises:
        ValueError: the file is not such JSON.
    """
    for file_path, episode_id, offset, length in scan_records(path, LAYOUT):
        try:
            record = read_record(Place(path, file_path, offset, length), episode_id)
            yield EpisodeTexts(None, record.annotation())
        except BadEpisodeError as error:
            yield error


def episode_texts(reader: EpisodeReader, index: VlaItIndex | None = None, workers: int = 0) -> Texts:
    """Of episodes in their order; those that prepared files hold are read without their pictures."""
    transforms = text_transforms(reader.description, index, motion=False)
    reader = reader.without_pictures() if isinstance(reader, ParquetEpisodes) else reader
    for _, episode in read_in_order(reader, range(len(reader)), workers):
        try:
            if isinstance(episode, BadEpisodeError):
                raise episode
            for transform in transforms:
                episode = transform(episode)
            yield texts_of(episode)
        except BadEpisodeError as error:
            yield error


def texts_of(episode: Episode) -> EpisodeTexts:
    """Its first instruction, and its annotation."""
    return EpisodeTexts(next(filter(None, episode.instructions), None), episode.annotation)

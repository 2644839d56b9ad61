"""Where annotations to be checked come from: VLA-IT's JSON, without pictures and instructions, or any episodes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from instructvla.training.annotation.annotation_check import Places
from instructvla.training.annotation.annotation_texts import Texts, episode_texts, recorded_texts
from instructvla.training.annotation.checked_output import (
    JSON,
    CheckedEpisodes,
    write_checked_episodes,
    write_checked_records,
)
from instructvla.training.annotation.episode_requests import episode_instruction
from instructvla.training.annotation.key_frames import chosen_camera, key_frames
from instructvla.training.annotation.sample_sheet import ShownSample
from instructvla.training.data.dataset_statistics import DescribedReader
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.prepare import text_transforms
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.vla_it import VlaItIndex


class CheckedSource(Protocol):
    """Annotations in an order that doesn't change.

    Attributes:
        count: of episodes; None where it isn't known before.
        problems: why episodes could not be shown.
    """

    count: int | None
    problems: list[str]

    def texts(self) -> Texts:
        """What is said of each episode."""
        ...

    def shown(self, numbers: Sequence[int]) -> Iterator[ShownSample]:
        """Episodes with these numbers, in ascending order; one that can't be read becomes a problem."""
        ...

    def write(self, output: Path, left_out: Mapping[int, Places], origin: Mapping[str, Any]) -> None:
        """Everything again, without the entries that are left out."""
        ...


class RecordedSource:
    """An annotation file in VLA-IT's layout."""

    def __init__(self, path: Path):
        self.path, self.count = path, None
        self.problems: list[str] = []

    def texts(self) -> Texts:
        return recorded_texts(self.path)

    def shown(self, numbers: Sequence[int]) -> Iterator[ShownSample]:
        wanted = frozenset(numbers)
        for number, one in enumerate(self.texts()):
            if number in wanted and not isinstance(one, BadEpisodeError) and one.annotation is not None:
                yield ShownSample(number, one.instruction, one.annotation)

    def write(self, output: Path, left_out: Mapping[int, Places], origin: Mapping[str, Any]) -> None:
        write_checked_records(self.path, output, left_out)


class EpisodeSource:
    """Annotated episodes of any format.

    Args:
        source: folder or Hub dataset, for the manifest of what is written.
        reader: of its episodes.
        split: of it.
        annotations: to join to them, instead of their own.
        camera: whose pictures are shown; None is the first.
        workers: processes that read episodes.
    """

    def __init__(
        self,
        source: str,
        reader: DescribedReader,
        split: str = "train",
        annotations: VlaItIndex | None = None,
        camera: str | None = None,
        workers: int = 0,
    ):
        self.source, self.reader, self.split, self.annotations = source, reader, split, annotations
        self.camera, self.workers, self.count = camera, workers, len(reader)
        self.transforms = text_transforms(reader.description, annotations, motion=False)
        self.problems: list[str] = []

    def texts(self) -> Texts:
        return episode_texts(self.reader, self.annotations, self.workers)

    def shown(self, numbers: Sequence[int]) -> Iterator[ShownSample]:
        for number in sorted(numbers):
            try:
                episode = self.reader[number]
                for transform in self.transforms:
                    episode = transform(episode)
                pictures = key_frames(episode, self.camera)
            except BadEpisodeError as error:
                self.problems.append(str(error))
                continue
            if episode.annotation is not None:
                yield ShownSample(number, episode_instruction(episode), episode.annotation, pictures)

    def write(self, output: Path, left_out: Mapping[int, Places], origin: Mapping[str, Any]) -> None:
        episodes = CheckedEpisodes(self.reader, self.transforms, left_out, origin)
        write_checked_episodes(episodes, output, self.source, self.split, self.workers)


def open_source(
    source: str,
    mapping: str | None = None,
    split: str = "train",
    dataset: str | None = None,
    revision: str | None = None,
    vla_it: Sequence[Path] = (),
    camera: str | None = None,
    workers: int = 0,
) -> RecordedSource | EpisodeSource:
    """A VLA-IT annotation file (.json), or what `open_episodes` opens.

    Raises:
        ValueError: as `open_episodes`; options that don't fit the source; no such camera.
    """
    if Path(source).suffix == JSON:
        if not Path(source).is_file():
            raise ValueError(f"there is no file {source}; give a VLA-IT annotation file or a dataset.")
        if mapping or dataset or revision or vla_it or camera:
            raise ValueError(
                f"{source} is an annotation file, without episodes: for their instructions and pictures give the "
                f"dataset with --vla-it {source}, else leave out the other options."
            )
        return RecordedSource(Path(source))
    reader = open_episodes(source, mapping, split, dataset, revision)
    shown = None if camera is None else chosen_camera(list(reader.description.cameras), camera)
    annotations = VlaItIndex.read(vla_it) if vla_it else None
    return EpisodeSource(source, reader, split, annotations, shown, workers)

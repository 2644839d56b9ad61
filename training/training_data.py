"""From a run's settings to its data: readers, held-out episodes, statistics, and the batches of each data worker."""

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.processing import InstructVLAProcessor
from instructvla.training.collator import ActionCollator, CollatedBatches
from instructvla.training.data.augmentation import augment_frame
from instructvla.training.data.chat_json import ChatRecords
from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.dataset_statistics import (
    FILE_NAME,
    DescribedReader,
    compute_statistics,
    load_statistics,
    write_statistics,
)
from instructvla.training.data.episodes import Episode
from instructvla.training.data.interleave import ChatStream, InterleavedBatches
from instructvla.training.data.mixture import MixtureStream
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.samples import ConversationStream, FrameConversations
from instructvla.training.run_config import (
    ChatSource,
    DatasetSource,
    DataSettings,
    EvaluationSettings,
    RetentionSettings,
)

LOOKED_AT = 1000  # conversations whose pictures are looked for at the start

logger = logging.get_logger(__name__)


class EpisodeSubset:
    """Some of a reader's episodes, by number.

    Args:
        reader: of all.
        numbers: of those that remain, in their order.
        annotated: numbers (of the reader) whose VLA-IT annotation stays; None for all.
    """

    def __init__(self, reader: DescribedReader, numbers: Sequence[int], annotated: frozenset[int] | None = None):
        self.reader, self.numbers, self.annotated = reader, list(numbers), annotated

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Episode:
        number = self.numbers[index]
        episode = self.reader[number]
        if self.annotated is None or number in self.annotated or episode.annotation is None:
            return episode
        return without_annotation(episode)

    @property
    def description(self) -> DatasetDescription:
        return self.reader.description

    @property
    def fingerprint(self) -> str:
        """Of the reader and of what is taken of it."""
        annotated = None if self.annotated is None else sorted(self.annotated)
        taken = json.dumps([self.reader.fingerprint, self.numbers, annotated])
        return hashlib.sha256(taken.encode()).hexdigest()


def without_annotation(episode: Episode) -> Episode:
    return replace(episode, annotation=None)


@dataclass(frozen=True)
class Datasets:
    """The opened datasets of a run.

    Args:
        training: key of its statistics → reader of the episodes that are trained on.
        held_out: key → reader of those that are not.
        statistics: key → statistics.
        frames: key → number of frames that are trained on.
        weights: key → share in the mixture.
        control_rates: key → steps per second.
    """

    training: dict[str, EpisodeSubset]
    held_out: dict[str, EpisodeSubset]
    statistics: dict[str, Any]
    frames: dict[str, int]
    weights: dict[str, float]
    control_rates: dict[str, float]

    @property
    def description(self) -> DatasetDescription:
        """Of the first dataset: what an action is, is the same in all."""
        return self.descriptions[0]

    @property
    def descriptions(self) -> list[DatasetDescription]:
        """Of every dataset."""
        return [reader.description for reader in self.training.values()]


def open_datasets(settings: DataSettings, evaluation: EvaluationSettings, output_dir: Path, seed: int) -> Datasets:
    """Open the datasets of a run, hold episodes out, and find or compute their statistics.

    Raises:
        ValueError: a library that is missing, a dataset that can't be opened, two of one name, actions that differ, too
            few episodes, or statistics that are not of these data.
    """
    if evaluation.episodes:
        require_plots()
    training, held_out, sources = {}, {}, {}
    for source in settings.datasets:
        reader = open_source(source, source.split)
        key = reader.description.dataset
        if key in training:
            raise ValueError(f"two datasets are called {key!r}, by which their statistics go; give one another name:.")
        training[key], held_out[key] = hold_out(source, reader, settings, evaluation, seed)
        sources[key] = source
    check_same_actions([subset.description for subset in training.values()])
    statistics, frames, weights, rates = {}, {}, {}, {}
    for key, subset in training.items():
        statistics |= statistics_of(subset.reader, settings, output_dir)
        frames[key] = frames_of(subset, statistics[key])
        weights[key] = float(frames[key]) if sources[key].weight is None else sources[key].weight
        rates[key] = control_rate_of(subset, statistics[key])
    return Datasets(training, held_out, statistics, frames, weights, rates)


def require_plots() -> None:
    """Refuse to start what would end at its first evaluation (ValueError)."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError(
            "evaluation draws plots, for which matplotlib is missing: pip install 'instructvla[train]', or give "
            "evaluation.episodes: 0."
        )


def check_pictures(records: ChatRecords, on_bad: str) -> None:
    """Look for the pictures of `LOOKED_AT` conversations, evenly chosen; with "skip", some may be missing.

    Raises:
        ValueError: a picture is missing, or with "skip" all conversations with pictures lack them.
    """
    numbers = np.unique(np.linspace(0, len(records) - 1, LOOKED_AT).astype(int)).tolist()
    pictures = {number: records.picture_files(number) for number in numbers}
    missing = {
        number: absent[0]
        for number, files in pictures.items()
        if (absent := [file for file in files if not file.is_file()])
    }
    if not missing:
        return
    found = f"{records.path}: {len(missing)} of {len(numbers)} conversations looked at lack a picture, such as"
    first = next(iter(missing.values()))
    if on_bad == "raise" or len(missing) == sum(map(bool, pictures.values())):
        raise ValueError(f"{found} {first}. Correct data.chat.image_folder, or skip them by data.on_bad: skip.")
    logger.warning("%s %s; such conversations are skipped.", found, first)


def frames_of(subset: EpisodeSubset, statistics: Mapping[str, Any]) -> int:
    """Frames of a subset: those of all, which the statistics counted, less those of the few that are left out."""
    reader = subset.reader
    left_out = set(range(len(reader))) - set(subset.numbers) - skipped_of(statistics)
    numbers = reader.without_pictures() if hasattr(reader, "without_pictures") else reader
    return statistics["num_transitions"] - sum(len(numbers[number]) for number in left_out)


def control_rate_of(subset: EpisodeSubset, statistics: Mapping[str, Any]) -> float:
    """Steps per second, as the first episode that can be used tells."""
    usable = [number for number in subset.numbers if number not in skipped_of(statistics)]
    if not usable:
        raise ValueError(f"{subset.description.dataset} has no usable episode to train on; look at its files.")
    return subset.reader[usable[0]].control_rate_hz


def skipped_of(statistics: Mapping[str, Any]) -> set[int]:
    """Numbers of the episodes that the statistics don't count, as they can't be used."""
    return set(statistics.get("skipped", ()))


def open_source(source: DatasetSource, split: str) -> DescribedReader:
    return open_episodes(source.source, source.mapping, split, source.name, source.revision)


def hold_out(
    source: DatasetSource, reader: DescribedReader, data: DataSettings, evaluation: EvaluationSettings, seed: int
) -> tuple[EpisodeSubset, EpisodeSubset]:
    """The episodes to train on and those to evaluate on, drawn by the seed."""
    order = np.random.default_rng([seed, len(reader)]).permutation(len(reader)).tolist()
    annotated = None if data.annotated_share == 1 else frozenset(order[: round(data.annotated_share * len(reader))])
    if evaluation.split is not None:
        other = open_source(source, evaluation.split)
        chosen = np.random.default_rng([seed, len(other)]).permutation(len(other))[: evaluation.episodes].tolist()
        return EpisodeSubset(reader, range(len(reader)), annotated), EpisodeSubset(other, sorted(chosen))
    chosen = set(order[len(order) - evaluation.episodes :]) if evaluation.episodes else set()
    remaining = [number for number in range(len(reader)) if number not in chosen]
    if not remaining:
        raise ValueError(
            f"{source.source} has {len(reader)} episodes, of which evaluation.episodes={evaluation.episodes} are held "
            "out, so that none is left to train on; hold out fewer."
        )
    return EpisodeSubset(reader, remaining, annotated), EpisodeSubset(reader, sorted(chosen))


def statistics_of(reader: DescribedReader, settings: DataSettings, output_dir: Path) -> dict[str, Any]:
    """From the file that is given, from an earlier start of this run, or by a pass over the dataset."""
    if settings.statistics is not None:
        return load_statistics(settings.statistics, reader)
    path = output_dir / FILE_NAME
    if path.is_file():
        with suppress(ValueError):  # of an earlier start with other data
            return load_statistics(path, reader)
    statistics = compute_statistics(reader, skip_bad=settings.on_bad == "skip", show_progress=True)
    write_statistics(path, statistics)
    return statistics


def check_same_actions(descriptions: Sequence[DatasetDescription]) -> None:
    first = descriptions[0]
    for other in descriptions[1:]:
        for name in ("action_names", "action_units", "gripper_dims"):
            if getattr(first, name) != getattr(other, name):
                raise ValueError(
                    f"{first.dataset} and {other.dataset} have different {name}: {getattr(first, name)} and "
                    f"{getattr(other, name)}; a mixture needs one kind of action, so correct a mapping."
                )


def make_stream(
    worker: int,
    num_workers: int,
    *,
    rank: int,
    world_size: int,
    datasets: Datasets,
    settings: DataSettings,
    shares: Mapping[str, float],
    config: InstructVLAConfig,
    processor: InstructVLAProcessor,
    batch_size: int,
    seed: int,
) -> CollatedBatches:
    """The batches of one data worker of one rank, from their start."""
    place = {"rank": rank, "world_size": world_size, "worker": worker, "num_workers": num_workers}
    augmentation = settings.make_augmentation()
    augment = None if augmentation is None else partial(augment_frame, augmentation=augmentation, seed=seed)
    collator = ActionCollator(processor, max_length=settings.max_length, augment=augment)
    frames = MixtureStream(
        datasets.training,
        datasets.weights,
        horizon=config.horizon,
        shuffle_window=settings.shuffle_window,
        seed=seed,
        on_bad=settings.on_bad,
        **place,
    )
    conversations = FrameConversations(
        shares,
        num_action_queries=config.num_action_queries,
        special_tokens=processor.tokenizer.all_special_tokens,
        seed=seed,
        check=collator.check_fit,
    )
    robot = ConversationStream(frames, conversations, processor.cameras, settings.on_bad)
    chat, options = None, {}
    if settings.chat is not None:
        records = open_chat(settings.chat)
        chat = ChatStream(records, seed=seed, on_bad=settings.on_bad, check=collator.check_fit, **place)
        options = {
            "chat_batch_size": settings.chat.batch_size,
            "robot_share": settings.chat.robot_share,
            "chat_share": settings.chat.chat_share,
        }
    batches = InterleavedBatches(
        robot, chat, batch_size=batch_size, seed=seed, worker=worker, num_workers=num_workers, **options
    )
    shard = rank * num_workers + worker
    return CollatedBatches(batches, collator, config.flow_config, seed=seed, shard=shard)


def open_chat(source: ChatSource | RetentionSettings) -> ChatRecords:
    return ChatRecords(source.file, source.image_folder)

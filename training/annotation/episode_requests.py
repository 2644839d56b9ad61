"""What is asked about each episode, read ahead of the answers; and which episodes nothing can be asked about."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from instructvla.training.annotation.annotation_prompt import episode_messages
from instructvla.training.annotation.key_frames import key_frames
from instructvla.training.data.episodes import BadEpisodeError, Episode, EpisodeReader
from instructvla.training.data.ordered_reading import read_in_order

NO_INSTRUCTION = "no instruction"


@dataclass(frozen=True)
class EpisodeRequest:
    """
    Args:
        episode: its number in the dataset.
        instruction: empty where `excluded` is set.
        messages: for the model.
        excluded: why nothing is asked about the episode, or None.
    """

    episode: int
    instruction: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list, repr=False)
    excluded: str | None = None


def episode_requests(
    reader: EpisodeReader, numbers: Sequence[int], camera: str | None = None, workers: int = 0
) -> Iterator[EpisodeRequest]:
    """Requests about the episodes with these numbers, in order; `workers` processes read ahead."""
    for number, episode in read_in_order(reader, numbers, workers):
        try:
            yield episode_request(number, episode, camera)
        except BadEpisodeError as error:
            yield EpisodeRequest(number, excluded=f"it can't be read: {error}")


def episode_request(number: int, episode: Episode | BadEpisodeError, camera: str | None) -> EpisodeRequest:
    if isinstance(episode, BadEpisodeError):
        raise episode
    if (instruction := episode_instruction(episode)) is None:
        return EpisodeRequest(number, excluded=NO_INSTRUCTION)
    return EpisodeRequest(number, instruction, episode_messages(instruction, key_frames(episode, camera)))


def episode_instruction(episode: Episode) -> str | None:
    """The first that a step has."""
    texts = (text.strip() for text in episode.instructions if text)
    return next(filter(None, texts), None)


class RequestFeed:
    """Hands requests to several tasks; episodes are read in a thread of their own, one after the other."""

    def __init__(self, requests: Iterator[EpisodeRequest]):
        self._requests, self._lock = requests, asyncio.Lock()

    async def next(self) -> EpisodeRequest | None:
        """None once there is no other."""
        async with self._lock:
            return await asyncio.to_thread(next, self._requests, None)


def shard_numbers(episodes: int, shard: tuple[int, int] = (1, 1), limit: int | None = None) -> range:
    """Numbers of a shard's episodes: every `count`-th, so that the shards of a sorted dataset are alike.

    Args:
        episodes: of the dataset.
        shard: which, from 1, of how many.
        limit: of episodes, counted over all shards; None is all.
    """
    number, count = shard
    return range(number - 1, episodes if limit is None else min(limit, episodes), count)


def parse_shard(text: str) -> tuple[int, int]:
    """(2, 8) of "2/8".

    Raises:
        ValueError: another text, or a number out of range.
    """
    parts = text.split("/")
    if len(parts) == 2 and all(part.isdecimal() for part in parts) and 1 <= int(parts[0]) <= int(parts[1]):
        return int(parts[0]), int(parts[1])
    raise ValueError(f"--shard is {text!r}; give which of how many, from 1/8 to 8/8.")

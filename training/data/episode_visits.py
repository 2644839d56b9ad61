"""Which episodes of a dataset a worker reads, and in what order."""

import zlib

import numpy as np

from instructvla.training.data.episodes import BadEpisodeError, Episode, EpisodeReader


class EpisodeVisits:
    """One shard's share of an endless walk through a dataset.

    The walk goes through all episodes in a seeded random order, then through all of them again in another order, and so
    on. Its visits are dealt to the shards in turn, so that over all shards every epoch holds every episode once, and
    that a shard never runs dry, even with more shards than episodes.

    Args:
        name: of the dataset; part of the seed.
        reader: of the episodes.
        seed: of the order.
        shard: this shard's number.
        num_shards: how many there are.
        epochs: stop after as many; None never stops.
    """

    def __init__(
        self, name: str, reader: EpisodeReader, *, seed: int, shard: int, num_shards: int, epochs: int | None = None
    ):
        self.name = name
        self.reader = reader
        self.unreadable: dict[int, str] = {}
        self._seed = [seed, zlib.crc32(name.encode())]
        self._shard, self._num_shards = shard, num_shards
        self._end = None if epochs is None else epochs * len(reader)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def is_over(self, visit: int) -> bool:
        """Whether this shard has fewer visits than that."""
        return self._end is not None and self._number(visit) >= self._end

    def epoch(self, visit: int) -> int:
        """The epoch, over all shards, that this shard's visit belongs to."""
        return self._number(visit) // len(self.reader)

    def index(self, visit: int) -> int:
        """The episode, by its number in the reader, that this shard reads at its visit."""
        epoch, place = divmod(self._number(visit), len(self.reader))
        if self._order[0] != epoch:
            order = np.random.default_rng([*self._seed, epoch]).permutation(len(self.reader))
            self._order = (epoch, order)
        return int(self._order[1][place])

    def read(self, visit: int) -> Episode:
        """
        Raises:
            BadEpisodeError: the episode can't be read; it is noted in `unreadable` and not tried again.
            ValueError: no episode of the dataset can be read.
        """
        index = self.index(visit)
        try:
            if index in self.unreadable:
                raise BadEpisodeError(self.unreadable[index])
            return self.reader[index]
        except BadEpisodeError as error:
            self.unreadable[index] = str(error)
            if len(self.unreadable) == len(self.reader):
                raise ValueError(
                    f"none of the {len(self.reader)} episodes of {self.name!r} can be read; the last: {error}"
                ) from error
            raise

    def _number(self, visit: int) -> int:
        return visit * self._num_shards + self._shard

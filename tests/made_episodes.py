"""Episodes made in memory for tests and benches of what reads them."""

from dataclasses import dataclass

import numpy as np

from instructvla.training.data.episodes import BadEpisodeError, Episode


@dataclass
class MadeEpisodes:
    """A reader of episodes whose every number says where it comes from: action [t, 0] is the episode's index, [t, 1] t.

    Args:
        dataset: their name.
        lengths: steps of each episode.
        action_dim: of the actions.
        bad: indices that can't be read.
        picture_bytes: size of a frame's picture, which is noise.
    """

    dataset: str
    lengths: list[int]
    action_dim: int = 7
    bad: tuple[int, ...] = ()
    picture_bytes: int = 8

    def __post_init__(self):
        self.reads = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Episode:
        self.reads += 1
        if index in self.bad:
            raise BadEpisodeError(f"{self.dataset}.tfrecord: episode {index} is truncated; copy the file again")
        steps = self.lengths[index]
        actions = np.zeros((steps, self.action_dim), np.float32)
        actions[:, 0], actions[:, 1] = index, np.arange(steps)
        generator = np.random.default_rng(index)
        return Episode(
            dataset=self.dataset,
            episode_id=str(index),
            images={"primary": [generator.bytes(self.picture_bytes) for _ in range(steps)]},
            actions=actions,
            states=actions + 0.5,
            instructions=["put the spoon on the towel"] * steps,
            control_rate_hz=5.0,
            language_motions=[f"move {step}" for step in range(steps)],
        )

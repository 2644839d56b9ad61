"""Open-loop action error on held-out episodes: what the model would do at recorded steps, against what was done.

In physical units, and as a share of the range q99 − q01 that actions are normalised with, so that dimensions compare.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from PIL import Image

from instructvla.processing import InstructVLAProcessor
from instructvla.training.data.episodes import BadEpisodeError, Episode, EpisodeReader
from instructvla.training.data.mixture import FrameSample, frame_sample
from instructvla.training.data.samples import decoded_views
from instructvla.training.probing import batched_numbers, evaluating, rank_share, require_counts

ERROR = "eval_action_error"  # alone: mean over dimensions; with /NAME: of a dimension; both as shares of the range
DISTANCE = "eval_action_mae"  # with /NAME: in the dimension's unit


@dataclass(frozen=True)
class OpenLoopSums:
    """Sums over the recorded steps of chunks, per action dimension; those of ranks and of datasets can be added.

    Args:
        steps: (action_dim,) steps counted.
        distance: (action_dim,) sum of |predicted − recorded|, physical units.
        shares: (action_dim,) sum of distance / (q99 − q01); of grippers, how often open and closed were mixed up.
        share_steps: (action_dim,) steps in `shares`: none where q01 = q99, as then there is no range to share.
    """

    steps: np.ndarray
    distance: np.ndarray
    shares: np.ndarray
    share_steps: np.ndarray

    @classmethod
    def zeros(cls, action_dim: int) -> Self:
        return cls(*np.zeros((4, action_dim)))

    @classmethod
    def of_chunk(cls, predicted: np.ndarray, frame: FrameSample, span: np.ndarray, gripper_dims: Sequence[int]) -> Self:
        """
        Args:
            predicted: (horizon, action_dim), physical units.
            frame: with the recorded chunk; steps beyond the episode's end do not count.
            span: (action_dim,) q99 − q01.
            gripper_dims: 1 open, 0 closed; recorded values between them are open from 0.5 on.
        """
        predicted, recorded = (chunk[frame.action_mask].astype(np.float64) for chunk in (predicted, frame.actions))
        distance = np.abs(predicted - recorded)
        is_gripper = np.isin(np.arange(len(span)), gripper_dims)
        has_share = is_gripper | (span > 0)
        shares = np.where(is_gripper, (predicted >= 0.5) != (recorded >= 0.5), distance / np.where(span > 0, span, 1.0))
        steps = np.full(len(span), float(len(recorded)))
        return cls(steps, distance.sum(axis=0), np.where(has_share, shares.sum(axis=0), 0.0), steps * has_share)

    def __add__(self, other: Self) -> Self:
        """
        Raises:
            ValueError: of other action dimensions.
        """
        if self.steps.shape != other.steps.shape:
            raise ValueError(f"errors of {len(self.steps)} and of {len(other.steps)} action dimensions can't be added")
        return type(self).from_tensor(self.to_tensor() + other.to_tensor())

    def to_tensor(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """(4, action_dim) float64, to be summed over ranks."""
        rows = np.stack([self.steps, self.distance, self.shares, self.share_steps])
        return torch.from_numpy(rows).to(device)

    @classmethod
    def from_tensor(cls, rows: torch.Tensor) -> Self:
        return cls(*rows.cpu().double().numpy())

    def metrics(self, names: Sequence[str]) -> dict[str, float]:
        """What a logger takes: `eval_action_error`, the mean of `eval_action_error/NAME` (shares of the range), and
        `eval_action_mae/NAME` (units of the dimension).

        Args:
            names: of the action dimensions, one each; repeated ones get their dimension's number.

        Raises:
            ValueError: nothing was counted, or another number of names.
        """
        if not self.steps.all():
            raise ValueError("no recorded step was compared; give held-out episodes with steps")
        names = distinct(names)
        shares = {
            name: float(total / steps)
            for name, total, steps in zip(names, self.shares, self.share_steps, strict=True)
            if steps
        }
        distances = zip(names, self.distance / self.steps, strict=True)
        return {
            ERROR: float(np.mean(list(shares.values()))) if shares else float("nan"),
            **{f"{ERROR}/{name}": share for name, share in shares.items()},
            **{f"{DISTANCE}/{name}": float(distance) for name, distance in distances},
        }


@dataclass(frozen=True)
class OpenLoopResult:
    """What `OpenLoopProbe.measure` found.

    Args:
        sums: of this rank's chunks, or of all ranks' where a `reduce` was given.
        predictions: number of a chunk of this rank → (horizon, action_dim), physical units. The first chunks are always
            rank 0's.
    """

    sums: OpenLoopSums
    predictions: dict[int, np.ndarray]


class OpenLoopProbe:
    """Fixed steps of held-out episodes, picked once, at which models are asked to act.

    The first chunks are of different episodes. The flow starts from the same noise each time, which depends on the seed
    and the chunk alone, and the model does not think first: results of two steps of a run differ by the weights alone,
    those of other batch sizes by rounding, and those of other numbers of ranks by the order of a sum.

    Args:
        reader: of held-out episodes; their `dataset` is the key of their statistics.
        processor: the model's.
        horizon: H, the model's.
        episodes: how many are drawn, or all if there are fewer. Those without an instruction are passed over.
        chunks_per_episode: steps drawn of each.
        seed: of the draws and of the noise.
        on_bad: "raise" stops at an episode that can't be read, "skip" draws another and notes it in `skipped`.

    Attributes:
        chunks: the steps, with encoded pictures of the model's cameras.
        skipped: number of an episode that couldn't be read → why.

    Raises:
        ValueError: no episode with an instruction, or one that does not fit the model: actions of another size, a
            camera or state that is missing, statistics that the processor lacks; the message names the episode.
    """

    def __init__(
        self,
        reader: EpisodeReader,
        processor: InstructVLAProcessor,
        *,
        horizon: int,
        episodes: int = 16,
        chunks_per_episode: int = 4,
        seed: int = 0,
        on_bad: Literal["raise", "skip"] = "raise",
    ):
        require_counts(1, horizon=horizon, episodes=episodes, chunks_per_episode=chunks_per_episode)
        require_counts(0, seed=seed)
        if on_bad not in ("raise", "skip"):
            raise ValueError(f"on_bad is {on_bad!r}; give 'raise' or 'skip'")
        self.processor, self.horizon, self.seed = processor, horizon, seed
        self.skipped: dict[int, str] = {}
        drawn = self._draw(reader, episodes, chunks_per_episode, on_bad)
        if not drawn:
            raise ValueError(
                f"none of the {len(reader)} held-out episodes has an instruction, so the model can't be asked to act "
                f"({len(self.skipped)} can't be read); check the instruction field of the mapping, or hold out others"
            )
        self.chunks = [frames[turn] for turn in range(chunks_per_episode) for frames in drawn if turn < len(frames)]
        for frame in self.chunks:
            self._check(frame)

    def measure(
        self,
        model: Any,
        *,
        batch_size: int = 8,
        rank: int = 0,
        world_size: int = 1,
        reduce: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> OpenLoopResult:
        """Act at this rank's share of the steps; the model's modes and the random state stay as they were.

        Args:
            model: `InstructVLAForConditionalGeneration`, not wrapped. One sharded by FSDP2 needs
                `register_fsdp_forward_method(model, "generate_action")` first.
            batch_size: chunks at once.
            rank: of this process.
            world_size: processes, all of which must call this.
            reduce: sums a tensor over the ranks, e.g. `accelerator.reduce`.

        Raises:
            ValueError: a model of another horizon, or a rank or batch size out of range.
        """
        if model.config.horizon != self.horizon:
            raise ValueError(f"the model's horizon is {model.config.horizon}, but the probe's is {self.horizon}")
        sums, predictions = OpenLoopSums.zeros(self.processor.action_dim), {}
        with evaluating(model):
            for numbers, counts in rank_share(self._batches(batch_size), rank, world_size):
                chunks = self._act(model, numbers)
                if counts:
                    predictions |= dict(zip(numbers, chunks, strict=True))
        for number, predicted in predictions.items():
            sums += self._compared(predicted, self.chunks[number])
        if reduce is not None:
            sums = OpenLoopSums.from_tensor(reduce(sums.to_tensor(model.device)))
        return OpenLoopResult(sums, predictions)

    def metrics(self, result: OpenLoopResult) -> dict[str, float]:
        """As `OpenLoopSums.metrics`, under the processor's names."""
        return result.sums.metrics(self.processor.action_names)

    def noise(self, number: int) -> torch.Tensor:
        """ε of a chunk, (horizon, action_dim) float32."""
        generator = np.random.default_rng([self.seed, number])
        return torch.from_numpy(generator.standard_normal((self.horizon, self.processor.action_dim), np.float32))

    def span(self, dataset: str) -> np.ndarray:
        """q99 − q01 of a dataset's actions, (action_dim,)."""
        statistics = self.processor.statistics[dataset]["action"]
        return np.subtract(statistics["q99"], statistics["q01"])

    def _draw(self, reader: EpisodeReader, episodes: int, chunks: int, on_bad: str) -> list[list[FrameSample]]:
        """Frames of each episode drawn, in random order."""
        draws, drawn = np.random.default_rng(self.seed), []
        for index in draws.permutation(len(reader)).tolist():
            if len(drawn) == episodes:
                break
            try:
                episode = reader[index]
            except BadEpisodeError as error:
                if on_bad == "raise":
                    raise
                self.skipped[index] = str(error)
                continue
            asked = [step for step, text in enumerate(episode.instructions) if text and text.strip()]
            if asked:
                steps = draws.choice(asked, min(chunks, len(asked)), replace=False).tolist()
                drawn.append([self._frame(episode, step) for step in steps])
        return drawn

    def _frame(self, episode: Episode, step: int) -> FrameSample:
        frame = frame_sample(episode, step, self.horizon)
        views = {camera: frame.images[camera] for camera in self.processor.cameras if camera in frame.images}
        instruction = frame.instruction.strip().lower()  # as in training, see `FrameConversations`
        return replace(frame, images=views, instruction=instruction, annotation=None)

    def _check(self, frame: FrameSample) -> None:
        if frame.actions.shape[1] != self.processor.action_dim:
            raise ValueError(
                f"{frame.name} has actions of {frame.actions.shape[1]} dimensions, but the model's have "
                f"{self.processor.action_dim}; choose those of the model in the field mapping"
            )
        try:
            self.processor.action_prompt(frame.instruction)
            self.processor.action_inputs(self._views([frame]), self._states([frame]), frame.dataset)
        except BadEpisodeError:
            raise
        except ValueError as error:
            raise BadEpisodeError(f"{frame.name}: {error}") from error

    def _views(self, frames: Iterable[FrameSample]) -> list[dict[str, Image.Image]]:
        return [decoded_views(frame.images, self.processor.cameras, frame.name) for frame in frames]

    def _states(self, frames: Sequence[FrameSample]) -> np.ndarray | None:
        """(batch, state_dim), or None where the model or the recording has none."""
        is_used = self.processor.state_dim is not None and frames[0].state is not None
        return np.stack([frame.state for frame in frames]) if is_used else None

    def _batches(self, batch_size: int) -> list[list[int]]:
        """Numbers of chunks that are run together: of one dataset, as statistics are."""
        numbers: dict[str, list[int]] = {}
        for number, frame in enumerate(self.chunks):
            numbers.setdefault(frame.dataset, []).append(number)
        return [batch for group in numbers.values() for batch in batched_numbers(group, batch_size)]

    def _act(self, model: Any, numbers: Sequence[int]) -> list[np.ndarray]:
        frames = [self.chunks[number] for number in numbers]
        return list(
            model.generate_action(
                self._views(frames),
                [frame.instruction for frame in frames],
                self._states(frames),
                unnorm_key=frames[0].dataset,
                think=False,
                noise=torch.stack([self.noise(number) for number in numbers]),
            ).actions.numpy()
        )

    def _compared(self, predicted: np.ndarray, frame: FrameSample) -> OpenLoopSums:
        return OpenLoopSums.of_chunk(predicted, frame, self.span(frame.dataset), self.processor.gripper_dims)


def distinct(names: Sequence[str]) -> list[str]:
    """The names; one that occurs several times gets its dimension's number."""
    return [f"{name} ({dim})" if list(names).count(name) > 1 else name for dim, name in enumerate(names)]

"""What a run measures on held-out data at each evaluation: the open-loop action error, and what the VLM still knows."""

from collections.abc import Mapping
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import reduce

from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.processing import InstructVLAProcessor
from instructvla.training.data.chat_json import ChatRecords
from instructvla.training.open_loop import OpenLoopProbe, OpenLoopSums
from instructvla.training.open_loop_plot import plot_overlay
from instructvla.training.retention import RetentionProbe
from instructvla.training.run_config import RetentionSettings
from instructvla.training.training_data import EpisodeSubset

PLOTS = "open_loop"  # folder of the overlay plots, in the run's output folder


class OpenLoopEvaluation:
    """Action errors over all datasets' held-out episodes, and per dataset a plot of predicted and recorded chunks.

    Args:
        held_out: key of the statistics → reader.
        processor: the model's.
        horizon: H, the model's.
        chunks: action chunks compared per episode.
        batch_size: chunks predicted at once.
        plots: folder of the plots.
        on_bad: "raise" or "skip" an episode that can't be read.

    Raises:
        ValueError: episodes that do not fit the model.
    """

    def __init__(
        self,
        held_out: Mapping[str, EpisodeSubset],
        processor: InstructVLAProcessor,
        *,
        horizon: int,
        chunks: int,
        batch_size: int,
        plots: Path,
        on_bad: str = "raise",
    ):
        self.names, self.plots, self.batch_size = processor.action_names, plots, batch_size
        self.probes = {
            key: OpenLoopProbe(
                reader, processor, horizon=horizon, episodes=len(reader), chunks_per_episode=chunks, on_bad=on_bad
            )
            for key, reader in held_out.items()
        }

    def __call__(self, model: InstructVLAForConditionalGeneration, step: int) -> dict[str, float]:
        """The errors, the same on every rank."""
        processes = PartialState()
        sums = OpenLoopSums.zeros(len(self.names))
        for key, probe in self.probes.items():
            result = probe.measure(
                model,
                batch_size=self.batch_size,
                rank=processes.process_index,
                world_size=processes.num_processes,
                reduce=reduce,
            )
            sums += result.sums
            if processes.is_main_process:
                plot_overlay(self.plots / f"{key}_step_{step}.png", probe, result, title=f"{key}, step {step}")
        return sums.metrics(self.names)


class RetentionEvaluation:
    """What the VLM still knows, against the base model without adapters.

    Args:
        settings: which conversations, and how many.
        processor: the model's.
        max_length: tokens of the longest conversation.
        batch_size: conversations at once.

    Raises:
        ValueError: conversations that can't be used.
    """

    def __init__(
        self, settings: RetentionSettings, processor: InstructVLAProcessor, *, max_length: int, batch_size: int
    ):
        self.batch_size = batch_size
        self.probe = RetentionProbe(
            ChatRecords(settings.file, settings.image_folder),
            processor,
            count=settings.records,
            vqa_count=settings.answers,
            max_length=max_length,
        )

    def __call__(self, model: InstructVLAForConditionalGeneration, step: int) -> dict[str, float]:
        """The scores, the same on every rank."""
        processes = PartialState()
        return self.probe.measure(
            model,
            batch_size=self.batch_size,
            rank=processes.process_index,
            world_size=processes.num_processes,
            reduce=reduce,
        )

"""Datasets, models and streams for tests of training runs."""

from functools import partial
from pathlib import Path

from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.nano import nano_processor, untrained_nano
from instructvla.training.collator import CollatedBatches
from instructvla.training.run_config import DatasetSource, DataSettings, EvaluationSettings
from instructvla.training.training_data import Datasets, make_stream, open_datasets
from tests.reaching_episodes import write_reaching


def reaching_datasets(folder: Path, count: int = 8, held_out: int = 2) -> tuple[Datasets, DataSettings]:
    """The reaching episodes, prepared and opened."""
    source = write_reaching(folder / "reaching", count)
    settings = DataSettings(datasets=[DatasetSource(str(source))], shuffle_window=16)
    return open_datasets(settings, EvaluationSettings(episodes=held_out), folder / "statistics", 0), settings


def nano_for(datasets: Datasets, **fields) -> InstructVLAForConditionalGeneration:
    """An untrained stage-1 model with the data's statistics; `fields` are of `InstructVLAConfig.nano`."""
    adapters = {"experts": 1, "rank": 4, "alpha": 8} | fields.pop("adapter_config", {})
    model = untrained_nano(adapter_config=adapters, **fields)
    model.processor = nano_processor(
        model.config, statistics=datasets.statistics, control_rate_hz=datasets.control_rates
    )
    return model


def stream_maker(
    model: InstructVLAForConditionalGeneration,
    datasets: Datasets,
    settings: DataSettings,
    shares: dict[str, float] | None = None,
    batch_size: int = 2,
    **places: int,
) -> partial[CollatedBatches]:
    return partial(
        make_stream,
        **({"rank": 0, "world_size": 1} | places),
        datasets=datasets,
        settings=settings,
        shares=shares or {"action": 0.8, "motion": 0.2},
        config=model.config,
        processor=model.processor,
        batch_size=batch_size,
        seed=0,
    )

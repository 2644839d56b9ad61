"""`make train-tabletop` in miniature: all its pieces, interrupted and called again."""

from dataclasses import asdict
from pathlib import Path

import pytest

from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.training.run_config import read_run_config
from instructvla.training.train_tabletop import (
    ABLATIONS,
    CONFIGS,
    TabletopData,
    chosen_ablations,
    generate,
    places,
    train,
)

TINY = TabletopData(pictures=4, held_out_pictures=3, episodes=6, image_size=32, workers=0)
TRAINER = ["trainer.per_device_train_batch_size=2", "trainer.disable_tqdm=true", "trainer.dataloader_num_workers=0"]
STEPS = ["trainer.max_steps=2", "trainer.save_steps=1"]
SIZES = [
    "model.set.vision_config.image_size=32",
    "model.set.vision_config.num_hidden_layers=1",
    "model.set.text_config.num_hidden_layers=1",
    "model.set.action_vision_config.image_size=32",
    "model.set.action_expert_config.num_hidden_layers=1",
]
EVALUATION = ["evaluation.episodes=1", "evaluation.chunks=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tabletop")
    generate(TINY, folder)
    return folder


def test_all_stages_follow_each_other_and_act(folder):
    stage0 = train(0, folder, overrides=[*TRAINER, *STEPS, *SIZES])
    stage1 = train(1, folder, stage0, [*TRAINER, *STEPS, *EVALUATION])
    retention = ["retention.records=2", "retention.answers=1", "data.chat.batch_size=2"]
    stage2 = train(2, folder, stage1, [*TRAINER, *STEPS, *EVALUATION, *retention])
    model = InstructVLAForConditionalGeneration.from_pretrained(stage2)
    assert model.config.adapter_config.experts == 2 and list(model.processor.statistics) == ["tabletop"]
    before = stage2.stat().st_mtime_ns
    assert train(2, folder, stage1, [*TRAINER, *STEPS, *EVALUATION, *retention]) == stage2
    assert stage2.stat().st_mtime_ns == before


@pytest.mark.parametrize("chat", ["data.chat=null", "data.chat.robot_share=7"])
def test_stage_0_learns_from_conversations_alone(folder, tmp_path, chat):
    """Robot batches would reach the loss half-made."""
    with pytest.raises(ValueError, match="Stage 0 learns from conversations alone"):
        train(0, folder, overrides=[*STEPS, *SIZES, f"output_dir={tmp_path / 'run'}", chat])


def test_generating_again_changes_nothing(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.glob("[ce]*/**/*") if path.suffix in (".json", ".jpg")}
    generate(TINY, folder)
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_starts_from_stage_0_and_acts(folder, ablation):
    stage0 = train(0, folder, overrides=[*TRAINER, *STEPS, *SIZES])
    checkpoint = train(1, folder, stage0, [*TRAINER, *STEPS, *EVALUATION], ablation)
    assert checkpoint.parent == folder / "ablations" / ablation
    model = InstructVLAForConditionalGeneration.from_pretrained(checkpoint)
    expected = {"queries_4": 4, "queries_16": 16}.get(ablation, 8)
    assert model.config.num_action_queries == expected
    assert (model.config.action_vision_config is None) == (ablation == "no_dino")
    assert model.config.adapter_config.experts == (ablation != "full_fine_tuning")


def test_unknown_ablations_are_refused():
    assert chosen_ablations(["all"]) == ABLATIONS and chosen_ablations(["no_film"]) == ["no_film"]
    with pytest.raises(ValueError, match="there is no ablation 'no_flim'; there are full_fine_tuning, no_dino, "):
        chosen_ablations(["no_flim"])


@pytest.mark.parametrize("name", ["stage0", "stage1", "stage2", "ablations/no_dino", "ablations/full_fine_tuning"])
def test_the_configured_places_are_those_of_the_default_folder(name):
    """Each file can also be run by itself, with `accelerate launch`."""
    file = CONFIGS / f"{name}.yaml"
    config = asdict(read_run_config(file))
    for setting in places(name, file, Path("outputs/tabletop"), None):
        key, _, value = setting.partition("=")
        place = config
        for part in key.split("."):
            place = place[int(part)] if isinstance(place, list) else place[part]
        assert place == value

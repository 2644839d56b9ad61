"""`make train-tabletop` in miniature: all its pieces, interrupted and called again."""

from pathlib import Path

import pytest
import yaml

from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.training.train_tabletop import CONFIGS, TabletopData, generate, places, train

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


def test_the_configured_places_are_those_of_the_default_folder():
    """Each stage's file can also be run by itself, with `accelerate launch`."""
    for stage in (0, 1, 2):
        config = yaml.safe_load((CONFIGS / f"stage{stage}.yaml").read_text())
        for setting in places(stage, Path("outputs/tabletop"), None):
            name, _, value = setting.partition("=")
            place = config
            for key in name.split("."):
                place = place[int(key)] if isinstance(place, list) else place[key]
            assert place == value

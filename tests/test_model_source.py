"""Claims about the model a run starts from: it fits the data, or the run says why not."""

from dataclasses import replace

import pytest
import torch

from instructvla.nano import nano_processor
from instructvla.training.model_source import start_model
from instructvla.training.run_config import ModelSource
from tests.lively_experts import lively
from tests.tiny_sources import eagle2_weights, write_dinov2, write_eagle2, write_weights
from tests.training_inputs import nano_for, reaching_datasets


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    return reaching_datasets(tmp_path_factory.mktemp("data"))[0]


def start(datasets, stage=1, folder=None, **source):
    return start_model(stage, ModelSource(**source), datasets, folder, seed=0)


def test_a_nano_model_has_the_datas_dimensions_and_statistics(datasets):
    model = start(datasets, source="nano", use_state=True, set={"horizon": 8, "adapter_config": {"rank": 4}})
    config, processor = model.config, model.processor
    assert (config.action_dim, config.state_dim, config.horizon, config.cameras) == (7, 3, 8, ["primary"])
    assert config.adapter_config.experts == 1 and config.adapter_config.rank == 4
    assert list(processor.statistics) == ["reaching"] and processor.gripper_dims == [6]
    assert processor.control_rate_hz == {"reaching": 5.0}
    assert model.dtype == torch.float32


def test_a_checkpoint_gets_the_datas_statistics(datasets, tmp_path):
    old = lively(1)
    old.save_pretrained(tmp_path / "old")
    model = start(datasets, source=str(tmp_path / "old"))
    assert list(model.processor.statistics) == ["reaching"]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), old.parameters(), strict=True))


def test_a_fresh_model_is_made_once_in_the_output_folder(datasets, tmp_path):
    write_weights(write_eagle2(tmp_path / "eagle2"), eagle2_weights())
    write_dinov2(tmp_path / "dinov2")
    source = {"source": str(tmp_path / "eagle2"), "action_vision": str(tmp_path / "dinov2"), "folder": tmp_path / "out"}
    expert = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {
        "num_action_queries": 8,
        "action_vision_config": {"image_size": 28},
        "adapter_config": {"rank": 4},
        "action_expert_config": expert,
    }
    model = start(datasets, set=sizes, **source)
    assert model.config.num_action_queries == 8 and model.processor.statistics.keys() == {"reaching"}
    written = (tmp_path / "out" / "initial" / "model.safetensors").stat().st_mtime_ns
    start(datasets, set=sizes, **source)
    assert (tmp_path / "out" / "initial" / "model.safetensors").stat().st_mtime_ns == written


def test_stage_2_keeps_stage_1s_statistics(datasets, tmp_path):
    nano_for(datasets).save_pretrained(tmp_path / "stage1")
    model = start(datasets, 2, source=str(tmp_path / "stage1"))
    assert model.config.adapter_config.experts == 2
    assert model.processor.statistics["reaching"] == datasets.statistics["reaching"]


def scaled(datasets, factor):
    statistics = {**datasets.statistics["reaching"]}
    statistics["action"] = statistics["action"] | {"q99": [factor * high for high in statistics["action"]["q99"]]}
    return replace(datasets, statistics={"reaching": statistics})


def test_stage_2_refuses_data_of_other_ranges(datasets, tmp_path):
    nano_for(datasets).save_pretrained(tmp_path / "stage1")
    start(scaled(datasets, 1.001), 2, source=str(tmp_path / "stage1"))
    with pytest.raises(ValueError, match="'reaching' in .*stage1 are not those of the data: action dimension 0 ranges"):
        start(scaled(datasets, 2), 2, source=str(tmp_path / "stage1"))


def test_stage_2_refuses_data_that_stage_1_never_saw(datasets, tmp_path):
    other = lively(1)
    other.save_pretrained(tmp_path / "stage1")
    with pytest.raises(ValueError, match="has no statistics of 'reaching', only of untrained"):
        start(datasets, 2, source=str(tmp_path / "stage1"))


@pytest.mark.parametrize(
    ("stage", "source", "message"),
    [
        (2, {"source": "nano"}, "Stage 2 starts from a stage-1 model, so model.source can't be 'nano'"),
        (2, {"source": "somewhere", "set": {"horizon": 8}}, "in stage 2 model.set, decide a fresh model"),
        (1, {"source": "somewhere", "use_state": True}, "model.use_state, and in stage 2 model.set, decide a fresh"),
        (1, {"source": "nano", "set": {"horizen": 8}}, "horizen"),
        (1, {"source": "nano", "set": {"cameras": ["wrist"]}}, "no camera 'wrist', which the model takes"),
        (1, {"source": "nano", "set": {"state_dim": 5}}, r"state_dim is 5, but the data have 3 state dim.* \(x, y, gr"),
        (1, {"source": "nano", "set": {"adapter_config": 3}}, "adapter_config is 3, but it must be KEY: VALUE pairs"),
        (1, {"source": "nano", "set": {"action_dim": 9}}, "action_dim is 9, but the data have 7 action dimensions"),
        (1, {"source": "out/none/checkpoint-5"}, "'out/none/checkpoint-5' is no folder here, and no Hub repository"),
        (2, {"source": "out/none/checkpoint-5"}, "'out/none/checkpoint-5' is no folder here, and no Hub repository"),
    ],
)
def test_sources_that_can_not_be_used_are_refused(stage, source, message, datasets, tmp_path):
    with pytest.raises(ValueError, match=message):
        start(datasets, stage, tmp_path, **source)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no checkpoint, as it has no config.json; give the folder of a checkpoint"),
        ("{", "config.json is no JSON"),
        ('{"model_type": "llama"}', "is a checkpoint of 'llama', not of InstructVLA"),
        ('{"model_type": "instructvla"}', "is no whole checkpoint, as it has no model.safetensors"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_refused(stage, content, message, datasets, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        start(datasets, stage, source=str(tmp_path))


def test_stage_1_refuses_a_stage_2_model(datasets, tmp_path):
    model = lively(2)
    model.processor = nano_processor(model.config)
    model.save_pretrained(tmp_path / "stage2")
    with pytest.raises(ValueError, match="has 2: it is a stage-2 model"):
        start(datasets, source=str(tmp_path / "stage2"))


def test_actions_of_another_size_are_refused(datasets, tmp_path):
    description = replace(datasets.description, action_names=("x", "y"), action_units=("m", "m"), gripper_dims=())
    lively(1).save_pretrained(tmp_path / "old")

    class Reader:
        pass

    reader = Reader()
    reader.description = description
    with pytest.raises(ValueError, match="has actions of 2 dimensions, the model of 7"):
        start(replace(datasets, training={"reaching": reader}), source=str(tmp_path / "old"))


def test_every_dataset_of_a_mixture_must_fit(datasets):
    class Reader:
        description = replace(datasets.description, dataset="second", cameras=("wrist",))

    mixture = replace(datasets, training={**datasets.training, "second": Reader()})
    with pytest.raises(ValueError, match="second has no camera 'primary', which the model takes; it has wrist"):
        start(mixture, source="nano")


def test_stage_1_starts_from_a_checkpoint_with_changed_settings(datasets, tmp_path):
    nano_for(datasets).save_pretrained(tmp_path / "stage0")
    model = start(datasets, source=str(tmp_path / "stage0"), set={"num_action_queries": 4})
    assert model.config.num_action_queries == model.processor.num_action_queries == 4

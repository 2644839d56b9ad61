"""The model's ablations of the paper's Fig. 6: each trains, acts, and is the same after saving and loading."""

import pytest
import torch
from transformers import AutoModel

from instructvla import InstructVLAConfig, InstructVLAForConditionalGeneration
from instructvla.evaluation.doctor import diagnose
from instructvla.evaluation.doctor_senses import measure, unchanged
from instructvla.nano import nano_processor, untrained_nano
from instructvla.training.collator import ActionCollator
from instructvla.training.data.samples import FrameConversations
from tests.robot_frames import robot_frame
from tests.training_batch import picture, training_batch

ABLATIONS = {
    "no DINO tower": {"action_vision_config": None},
    "no DINO tower, state": {"action_vision_config": None, "state_dim": 3},
    "no DINO tower, two cameras": {"action_vision_config": None, "cameras": ["primary", "wrist"]},
    "no FiLM": {"action_vision_config": {"embed_dim": 64, "depth": 3, "num_heads": 2, "image_size": 56, "film": False}},
    "4 queries": {"num_action_queries": 4},
    "128 queries": {"num_action_queries": 128},
    "state": {"state_dim": 3},
    "stage 1": {"adapter_config": {"experts": 1, "rank": 4}},
}


def views(model, seed: int):
    pictures = {camera: picture(seed + i) for i, camera in enumerate(model.config.cameras)}
    return pictures if len(pictures) > 1 else pictures["primary"]


def state_of(model, rows: int):
    return None if model.config.state_dim is None else [[0.5] * model.config.state_dim] * rows


def act(model, **options):
    noise = torch.zeros(1, model.config.horizon, model.config.action_dim)
    state = None if model.config.state_dim is None else [0.5] * model.config.state_dim
    return model.generate_action(views(model, 7), "lift it", state, noise=noise, max_new_tokens=4, **options)


@pytest.mark.parametrize("name", ABLATIONS)
def test_it_trains_acts_and_survives_saving(name, tmp_path):
    model = untrained_nano(**ABLATIONS[name])
    if len(model.config.cameras) == 1:
        loss = model(**training_batch(model, state=state_of(model, 2))).loss
        loss.backward()
        assert loss.isfinite()
        assert all(parameter.grad is not None for parameter in model.action_expert.parameters())
        model.zero_grad(set_to_none=True)
    expected = act(model)
    assert expected.actions.shape == (1, 16, 7)
    assert torch.equal(act(model, context=expected.context, reuse_latent=True).actions, expected.actions)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(act(loaded).actions, expected.actions)
    assert loaded.config.action_vision_config == model.config.action_vision_config or name == "no FiLM"


@pytest.mark.parametrize("name", ["no DINO tower, state", "no FiLM", "128 queries"])
def test_the_doctor_finds_nothing_wrong_with_it(name, tmp_path):
    untrained_nano(**ABLATIONS[name]).save_pretrained(tmp_path)
    lines = [str(line) for line in diagnose(str(tmp_path), device="cpu")]
    assert not [line for line in lines if line.startswith("FINDING")]
    semantics = next(line for line in lines if "attention block_causal" in line)
    words = {"no DINO tower, state": "no vision tower", "no FiLM": ", no FiLM", "128 queries": "feature_layer 2 of 4"}
    assert words[name] in semantics


def test_without_a_tower_the_expert_has_no_eyes_and_the_processor_makes_none_of_its_pixels():
    model = untrained_nano(action_vision_config=None)
    names = list(model.state_dict())
    assert not [name for name in names if name.startswith(("action_expert.vision.", "action_expert.visual_projector."))]
    assert model.processor.action_image_size is None
    assert set(model.processor(images=picture(), text="go")) == {"input_ids", "attention_mask", "pixel_values"}
    assert list(measure(model).action) == ["instruction"]


def test_without_a_tower_the_picture_reaches_the_action_through_the_vlm():
    model, noise = untrained_nano(action_vision_config=None), torch.zeros(1, 16, 7)
    first, second = (model.generate_action(picture(seed), "go", noise=noise, think=False).actions for seed in (0, 1))
    assert not torch.equal(first, second)


def test_without_a_tower_the_collator_makes_no_pixels_for_it_and_the_model_learns_from_the_batch():
    model = untrained_nano(action_vision_config=None)
    statistics = {robot_frame().dataset: model.processor.statistics["untrained"]}
    model.processor = nano_processor(model.config, statistics=statistics, control_rate_hz={})
    sample = FrameConversations({"action": 1.0}, num_action_queries=16)(robot_frame())
    batch = ActionCollator(model.processor)([sample, sample])
    assert "action_pixel_values" not in batch
    assert model(**batch).flow_loss > 0


def test_pixels_for_a_tower_that_is_not_there_are_refused():
    model = untrained_nano(action_vision_config=None)
    batch = training_batch(model) | {"action_pixel_values": torch.zeros(2, 1, 3, 112, 112)}
    with pytest.raises(ValueError, match="this model has none .action_vision_config is null.; leave them out"):
        model(**batch)


def test_a_processor_for_a_tower_does_not_fit_a_model_without():
    model = untrained_nano(action_vision_config=None)
    with pytest.raises(ValueError, match="action_image_size is 112, but the model needs None"):
        model.processor = untrained_nano().processor


def test_images_of_another_number_of_rows_than_the_context_are_refused_without_a_tower():
    model = untrained_nano(action_vision_config=None)
    context = act(model).context
    with pytest.raises(ValueError, match="Got images for 2 rows, but the context has 1"):
        model.decode_action(context, [picture(0), picture(1)])


def test_without_film_the_tower_ignores_the_latent_action():
    vision = untrained_nano(**ABLATIONS["no FiLM"]).action_expert.vision
    assert not [name for name, _ in vision.named_parameters() if "film" in name]
    pixels = torch.rand(1, 3, 56, 56)
    first, second = (vision(pixels, torch.full((1, 16, 192), value)) for value in (0.0, 1.0))
    assert torch.equal(first, second)


def test_with_film_the_tower_listens_once_it_has_learnt_to():
    model = untrained_nano()
    torch.nn.init.normal_(model.action_expert.vision.blocks[0].film_scale.weight)
    pixels = torch.rand(1, 3, 112, 112)
    first, second = (model.action_expert.vision(pixels, torch.full((1, 16, 192), value)) for value in (0.0, 1.0))
    assert not torch.equal(first, second)
    assert not unchanged(measure(model).action, 0)


@pytest.mark.parametrize("queries", [16, 64, 128])
def test_queries_are_the_last_entries_of_the_real_vocabulary(queries):
    with torch.device("meta"):
        model = InstructVLAForConditionalGeneration(InstructVLAConfig.instructvla_2b(num_action_queries=queries))
    assert model.language_model.embed_tokens.weight.shape == (151674 + queries, 1536)
    assert model.language_model.lm_head.weight.shape == (151674 + queries, 1536)
    assert model.action_expert.num_condition_tokens == queries


def test_more_queries_than_the_vocabulary_has_room_for_are_refused_with_the_field_to_raise():
    with pytest.raises(ValueError, match=r"128 queries follow it in a vocabulary of 151738 \(text_config.vocab_size\)"):
        InstructVLAConfig(num_action_queries=128)


def test_null_is_not_the_default_tower():
    assert InstructVLAConfig.nano(action_vision_config=None).to_dict()["action_vision_config"] is None
    assert InstructVLAConfig().action_vision_config.embed_dim == 1024
    with pytest.raises(ValueError, match="action_vision_config.film is 'no', but it must be true or false"):
        InstructVLAConfig.nano(action_vision_config={"film": "no"})

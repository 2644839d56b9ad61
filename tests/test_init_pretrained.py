"""A fresh stage-1 model: every weight is a source's or on the list of what is new, and it starts as its sources are."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from instructvla import InstructVLAForConditionalGeneration
from instructvla.init_pretrained import app, plan_fresh_model, write_fresh_model
from instructvla.official_names import UNREACHABLE_BLOCKS
from tests.tiny_processor import ACTION, SPECIAL_TOKENS, byte_tokenizer
from tests.tiny_sources import (
    PADDING_ROWS,
    eagle2_config,
    eagle2_weights,
    plain_language_model,
    write_dinov2,
    write_eagle2,
    write_weights,
)

VOCABULARY = len(byte_tokenizer(SPECIAL_TOKENS, num_queries=0))
QUERIES = 8
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
SMALL = {
    "num_action_queries": QUERIES,
    "action_vision_config": {"image_size": 28},
    "adapter_config": {"rank": 4, "alpha": 8},
    "action_expert_config": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
}
SETTINGS = [
    f"--set={section}.{name}={value}"
    for section, fields in SMALL.items()
    if isinstance(fields, dict)
    for name, value in fields.items()
] + [f"--set=num_action_queries={QUERIES}"]
EMBEDDING, HEAD = "language_model.embed_tokens.weight", "language_model.lm_head.weight"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Folders of both sources, and a model made from them."""
    root = tmp_path_factory.mktemp("sources")
    write_weights(write_eagle2(root / "vlm"), eagle2_weights())
    write_dinov2(root / "dino")
    made = SimpleNamespace(vlm=root / "vlm", dino=root / "dino", fresh=root / "fresh")
    made.report = write_fresh_model(plan_fresh_model(made.vlm, made.dino, SMALL), made.fresh)
    made.tensors = load_file(made.fresh / "model.safetensors")
    return made


@pytest.fixture
def fresh(sources):
    return InstructVLAForConditionalGeneration.from_pretrained(sources.fresh)


def vlm_with(folder, **changes):
    """A base VLM with other tensors; None takes one away."""
    tensors = {name: tensor for name, tensor in (eagle2_weights() | changes).items() if tensor is not None}
    write_weights(write_eagle2(folder), tensors)
    return folder


def tensors_of(vlm, dino, output, **arguments):
    write_fresh_model(plan_fresh_model(vlm, dino, SMALL, **arguments), output)
    return load_file(output / "model.safetensors")


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_text_logits_are_bit_equal_to_the_base_vlm(fresh):
    plain = plain_language_model()
    plain.resize_token_embeddings(VOCABULARY + QUERIES)  # products of one shape, so that kernels round alike
    ids = torch.randint(0, VOCABULARY, (2, 11), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, logits = plain(ids).logits, fresh(input_ids=ids).logits
    assert torch.equal(logits[..., :VOCABULARY], expected[..., :VOCABULARY])


def test_vision_tower_and_projector_are_the_base_vlms(sources):
    base = eagle2_weights()
    assert torch.equal(
        sources.tensors["vision_model.encoder.layers.1.mlp.fc2.weight"],
        base["vision_model.vision_model.encoder.layers.1.mlp.fc2.weight"],
    )
    assert torch.equal(sources.tensors["projector.linear_2.bias"], base["mlp1.3.bias"])


def test_fresh_film_vision_gives_timms_own_penultimate_features(sources, fresh):
    """timm loads the same files at the small image size, so its resampling of the positions is held to, too."""
    own = timm.create_model(f"local-dir:{sources.dino}", pretrained=True, img_size=28).eval()
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    latent = torch.randn(2, QUERIES, 64, generator=torch.Generator().manual_seed(1))
    assert fresh.config.action_vision_config.feature_layer == 2
    with torch.no_grad():
        (expected,) = own.get_intermediate_layers(pixels, n=[2], norm=False)
        features = fresh.action_expert.vision(pixels, latent)
    assert features.shape == (2, 4, 32)
    assert torch.equal(features, expected)


def test_a_fresh_model_loads_strictly_and_learns(fresh):
    inputs = fresh.processor(images=IMAGE, text="pick it up")
    queries = torch.tensor([fresh.processor.query_token_ids])
    ids = torch.cat([inputs["input_ids"], queries], dim=1)
    batch = {
        "input_ids": ids,
        "pixel_values": inputs["pixel_values"],
        "labels": ids,
        "actions": torch.zeros(1, 16, 7),
        "action_pixel_values": inputs["action_pixel_values"],
        "noise": torch.ones(1, 16, 7),
        "flow_time": torch.full((1,), 0.5),
    }
    optimizer = torch.optim.AdamW(fresh.parameters(), lr=1e-3)
    before = fresh(**batch).loss
    before.backward()
    assert fresh.language_model.layers[0].self_attn.q_proj.lora_B.grad.abs().max() > 0
    assert fresh.action_expert.vision.blocks[0].film_scale.weight.grad.abs().max() > 0
    optimizer.step()
    after = fresh(**batch).loss
    assert torch.isfinite(before)
    assert after < before


def test_vocabulary_is_the_tokenizers_rows_and_new_query_rows(sources):
    base = eagle2_weights()["language_model.model.embed_tokens.weight"]
    for name in (EMBEDDING, HEAD):
        assert sources.tensors[name].shape == (VOCABULARY + QUERIES, 64)
        assert 0.015 < sources.tensors[name][VOCABULARY:].std() < 0.025  # the base's initializer_range is 0.02
    assert torch.equal(sources.tensors[EMBEDDING][:VOCABULARY], base[:VOCABULARY])
    assert not torch.equal(sources.tensors[EMBEDDING][VOCABULARY:], sources.tensors[HEAD][VOCABULARY:])
    assert sources.report["padding_rows_dropped"] == PADDING_ROWS


def test_what_is_new_starts_as_training_needs_it(sources):
    config = json.loads((sources.fresh / "config.json").read_text())
    assert config["adapter_config"]["experts"] == 1
    assert config["action_expert_config"]["attention"] == "block_causal"
    assert json.loads((sources.fresh / "processor_config.json").read_text())["action_crop_pct"] == 1.0
    for name, tensor in sources.tensors.items():
        assert torch.isfinite(tensor).all(), name
        if "lora_B" in name or "film_" in name:
            assert not tensor.any(), name
        if "lora_A" in name:
            assert 0 < tensor.abs().max() <= tensor.shape[-1] ** -0.5, name
    weight = sources.tensors["action_expert.transformer.layers.1.mlp.up_proj.weight"]
    assert 0.017 < weight.std() < 0.023  # transformers' 0.02
    assert (sources.tensors["action_expert.transformer.norm.weight"] == 1).all()


def test_report_accounts_for_every_tensor(sources):
    report = json.loads((sources.fresh / "init_report.json").read_text())
    given = {name for names in (*report["used"].values(), *report["dropped"].values()) for name in names}
    prefix = "action_model.film_vision_model.vision_model."
    vision = {prefix + name for name in load_file(sources.dino / "model.safetensors")}
    assert given == eagle2_weights().keys() | vision
    new = {name for names in report["new"].values() for name in names}
    assert new | report["used"].keys() == sources.tensors.keys()
    assert not new & report["used"].keys()
    dropped = {rule: len(names) for rule, names in report["dropped"].items()}
    assert dropped == {
        "pooling head, which Eagle2 never uses": 11,
        UNREACHABLE_BLOCKS: 14,
        "final norm of DINOv2, which is not applied": 2,
    }


def test_tied_embeddings_become_two_equal_matrices(sources, tmp_path):
    config = eagle2_config()
    config["llm_config"]["tie_word_embeddings"] = True
    write_weights(write_eagle2(tmp_path / "vlm", config), eagle2_weights(tied=True))
    tensors = tensors_of(tmp_path / "vlm", sources.dino, tmp_path / "out")
    assert torch.equal(tensors[EMBEDDING][:VOCABULARY], tensors[HEAD][:VOCABULARY])
    assert InstructVLAForConditionalGeneration.from_pretrained(tmp_path / "out").config.tie_word_embeddings is False


def test_shards_and_any_file_name_give_the_same_model(sources, tmp_path):
    write_weights(write_eagle2(tmp_path / "sharded"), eagle2_weights(), shards=3)
    assert same(tensors_of(tmp_path / "sharded", sources.dino, tmp_path / "a"), sources.tensors)
    shutil.copytree(sources.vlm, tmp_path / "renamed")
    (tmp_path / "renamed" / "model.safetensors").rename(tmp_path / "renamed" / "weights.safetensors")
    assert same(tensors_of(tmp_path / "renamed", sources.dino, tmp_path / "b"), sources.tensors)


def test_seed_decides_what_is_new_and_nothing_else(sources, tmp_path):
    state = torch.get_rng_state()
    again = tensors_of(sources.vlm, sources.dino, tmp_path / "again")
    other = tensors_of(sources.vlm, sources.dino, tmp_path / "other", seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert same(again, sources.tensors)
    name = "language_model.layers.0.self_attn.q_proj"
    assert not torch.equal(other[f"{name}.lora_A"], again[f"{name}.lora_A"])
    assert not torch.equal(other[EMBEDDING][VOCABULARY:], again[EMBEDDING][VOCABULARY:])
    assert torch.equal(other[f"{name}.weight"], again[f"{name}.weight"])


@pytest.mark.parametrize(("wanted", "expected"), [(None, torch.bfloat16), ("float16", torch.float16)])
def test_dtype_is_the_vlms_unless_another_is_asked_for(sources, tmp_path, wanted, expected):
    vlm = vlm_with(tmp_path / "vlm", **{name: tensor.bfloat16() for name, tensor in eagle2_weights().items()})
    tensors = tensors_of(vlm, sources.dino, tmp_path / "out", dtype=wanted)
    assert {tensor.dtype for tensor in tensors.values()} == {expected}
    assert InstructVLAForConditionalGeneration.from_pretrained(tmp_path / "out").dtype == expected


def test_without_statistics_a_fresh_model_refuses_to_act_until_it_has_some(fresh, tmp_path):
    with pytest.raises(ValueError, match="this checkpoint has no statistics"):
        fresh.generate_action(IMAGE, "pick it up")
    with pytest.raises(ValueError, match="not saved without statistics"):
        fresh.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    fresh.processor.statistics = {"bridge": {"action": ACTION}}
    assert fresh.generate_action(IMAGE, "pick it up").actions.shape == (1, 16, 7)
    fresh.save_pretrained(tmp_path / "again")


def test_statistics_state_and_cameras_make_a_model_that_acts(sources, tmp_path):
    proprio = {"q01": [0.0] * 3, "q99": [1.0] * 3}
    path = tmp_path / "dataset_statistics.json"
    path.write_text(json.dumps({"bridge": {"action": ACTION, "proprio": proprio}}))
    overrides = SMALL | {"horizon": 4, "state_dim": 3, "cameras": ["primary", "wrist"]}
    write_fresh_model(plan_fresh_model(sources.vlm, sources.dino, overrides, path), tmp_path / "out")
    model = InstructVLAForConditionalGeneration.from_pretrained(tmp_path / "out")
    out = model.generate_action({"primary": IMAGE, "wrist": IMAGE}, "pick it up", state=[0.5] * 3)
    assert out.actions.shape == (1, 4, 7)


def test_model_on_top_of_an_old_one_replaces_it(sources, tmp_path):
    first = tensors_of(sources.vlm, sources.dino, tmp_path / "out", seed=1)
    second = tensors_of(sources.vlm, sources.dino, tmp_path / "out")
    assert not same(first, second)
    assert same(second, sources.tensors)


FC1 = "vision_model.vision_model.encoder.layers.0.mlp.fc1.weight"
UP_PROJ = "language_model.model.layers.1.mlp.up_proj.weight"
TOKENS = "language_model.model.embed_tokens.weight"
WEIGHT_PROBLEMS = {
    r"left random, as no source has them: language_model\.layers\.1\.mlp\.up_proj\.weight\.": {UP_PROJ: None},
    r"left random.*: language_model\.embed_tokens\.weight": {TOKENS: None},
    r"left random.*: language_model\.lm_head\.weight": {"language_model.lm_head.weight": None},
    r"doesn't know: audio_tower\.weight": {"audio_tower.weight": torch.ones(1)},
    r"without a place in this model: mlp1\.1\.gate": {"mlp1.1.gate": torch.ones(1)},
    rf"{FC1} is \(3, 32\), not \(48, 32\)": {FC1: torch.ones(3, 32)},
    rf"embed_tokens\.weight is \(20, 64\), not \({VOCABULARY}, 64\)": {TOKENS: torch.ones(20, 64)},
    rf"{FC1} is torch\.int8, but weights must be float32": {FC1: torch.ones(48, 32, dtype=torch.int8)},
}


@pytest.mark.parametrize("message", WEIGHT_PROBLEMS)
def test_weights_that_make_no_whole_model_are_named(sources, tmp_path, message):
    vlm = vlm_with(tmp_path / "vlm", **WEIGHT_PROBLEMS[message])
    with pytest.raises(ValueError, match=message):
        plan_fresh_model(vlm, sources.dino, SMALL)


def test_many_missing_tensors_make_one_short_message(sources, tmp_path):
    vlm = vlm_with(tmp_path / "vlm", **dict.fromkeys(name for name in eagle2_weights() if "layers.1." in name))
    with pytest.raises(ValueError, match="left random, as no source has them: .* and 20 more") as raised:
        plan_fresh_model(vlm, sources.dino, SMALL)
    assert len(str(raised.value)) < 1000


def test_missing_vision_tensor_is_named(sources, tmp_path):
    shutil.copytree(sources.dino, tmp_path / "dino")
    tensors = load_file(sources.dino / "model.safetensors")
    del tensors["blocks.1.ls1.gamma"]
    save_file(tensors, tmp_path / "dino" / "model.safetensors")
    with pytest.raises(ValueError, match=r"left random.*: action_expert\.vision\.blocks\.1\.ls1\.gamma"):
        plan_fresh_model(sources.vlm, tmp_path / "dino", SMALL)


def test_sizes_that_the_weights_decide_can_not_be_set(sources):
    with pytest.raises(ValueError, match=r"input_layernorm\.weight is \(64,\), not \(128,\)"):
        plan_fresh_model(sources.vlm, sources.dino, SMALL | {"text_config": {"hidden_size": 128}})
    with pytest.raises(ValueError, match="processor's image_token_id is 5, but the model needs 200"):
        plan_fresh_model(sources.vlm, sources.dino, SMALL | {"image_token_id": 200})
    with pytest.raises(ValueError, match="num_action_queries is 'many', but it must be an integer above 0"):
        plan_fresh_model(sources.vlm, sources.dino, SMALL | {"num_action_queries": "many"})


@pytest.mark.parametrize("setting", ["depth=3", "depth=5", "num_heads=4", "layer_norm_eps=0.001", "mlp_ratio=2.0"])
def test_settings_that_make_another_dinov2_than_the_weights_are_refused(sources, tmp_path, setting):
    """Depth 3 once dropped the real penultimate block of 4, and the saved depth was wrong."""
    name, value = setting.split("=")
    result = call(sources, tmp_path / "out", f"--set=action_vision_config.{setting}")
    assert result.exit_code == 2
    assert f"error: action_vision_config.{name} is {value}, but it must be " in result.stderr
    assert not (tmp_path / "out").exists()


def test_other_action_dimensions_need_their_names(sources, tmp_path):
    overrides = SMALL | {"action_dim": 2}
    with pytest.raises(ValueError, match="action_names must name 2 action dimensions"):
        plan_fresh_model(sources.vlm, sources.dino, overrides)
    options = ["--set=action_dim=2", "--action-names=x,grip", "--action-units=m,0 to 1", "--gripper-dims=1"]
    result = call(sources, tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    processor = InstructVLAForConditionalGeneration.from_pretrained(tmp_path / "out").processor
    assert (processor.action_names, processor.gripper_dims) == (["x", "grip"], [1])


def test_an_expert_without_a_vision_tower_needs_no_dinov2(sources, tmp_path):
    settings = [setting for setting in SETTINGS if "action_vision_config" not in setting]
    arguments = ["--vlm", sources.vlm, "--output", tmp_path / "out", *settings, "--set", "action_vision_config=null"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    model = InstructVLAForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert model.action_expert.vision is None
    towerless = {name for name in sources.tensors if not name.startswith("action_expert.vis")}
    assert model.state_dict().keys() == towerless


@pytest.mark.parametrize(("vision", "message"), [(True, "leaves the vision tower out"), (False, "is missing: give")])
def test_dinov2_is_given_exactly_where_there_is_a_tower(sources, vision, message):
    overrides = {"action_vision_config": None} if vision else {}
    with pytest.raises(ValueError, match=message):
        plan_fresh_model(sources.vlm, sources.dino if vision else None, overrides)


def test_a_tower_without_film_is_dinov2_alone(sources, tmp_path):
    result = call(sources, tmp_path / "out", "--set=action_vision_config.film=false")
    assert result.exit_code == 0, result.stderr
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert tensors.keys() == {name for name in sources.tensors if "film" not in name}


@pytest.mark.parametrize("queries", [16, 128])
def test_any_number_of_queries_makes_rows_of_their_own(sources, tmp_path, queries):
    plan = plan_fresh_model(sources.vlm, sources.dino, SMALL | {"num_action_queries": queries})
    write_fresh_model(plan, tmp_path)
    model = InstructVLAForConditionalGeneration.from_pretrained(tmp_path)
    assert len(model.language_model.lm_head.weight) == len(model.processor.tokenizer) == VOCABULARY + queries
    rows = model.language_model.embed_tokens.weight
    assert torch.equal(rows[:VOCABULARY], sources.tensors[EMBEDDING][:VOCABULARY])


def test_output_that_holds_a_source_is_refused(sources):
    for folder in (sources.vlm, sources.dino):
        with pytest.raises(ValueError, match="holds the files that the checkpoint is made from"):
            write_fresh_model(plan_fresh_model(sources.vlm, sources.dino, SMALL), folder)
        assert (folder / "model.safetensors").is_file()


def call(sources, output, *options):
    arguments = ["--vlm", sources.vlm, "--action-vision", sources.dino, "--output", output, *SETTINGS, *options]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command_writes_the_model_and_says_what_it_is(sources, tmp_path):
    result = call(sources, tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert same(load_file(tmp_path / "out" / "model.safetensors"), sources.tensors)
    for line in ("float32", "pooling head", f"{PADDING_ROWS} padding rows", f"{QUERIES} rows", "no statistics yet"):
        assert line in result.stdout


BAD_OPTIONS = {
    "--dtype is 'int4', but it must be one of": ["--dtype", "int4"],
    "horizons is not a field": ["--set", "horizons=8"],
    "horizon is 0, but it must be an integer above 0": ["--set", "horizon=0"],
    "nothing.json": ["--statistics", "nothing.json"],
    "--gripper-dims a is no list of dimensions": ["--gripper-dims", "a"],
    "is no folder here": ["--vlm", "/nowhere/at/all"],
    "has no config.json": ["--action-vision", "{empty}"],
    "'resnet18' is resnet18, not a DINOv2 with registers": ["--action-vision", "resnet18"],
    "is a file; a checkpoint needs a folder": ["--output", "{file}"],
    "--max-shard-size huge is no size": ["--max-shard-size", "huge"],
}


@pytest.mark.parametrize("message", BAD_OPTIONS)
def test_bad_input_is_one_message_and_writes_nothing(sources, tmp_path, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    options = [option.format(empty=tmp_path / "empty", file=tmp_path / "file") for option in BAD_OPTIONS[message]]
    result = call(sources, tmp_path / "out", *options)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()

"""Claims about the converter: golden numbers through the folder that it writes, a full account, and wrong input."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModel

from instructvla.config_overrides import parse_overrides
from instructvla.convert_official import convert, plan_conversion
from tests.hub_server import HubServer, run_with_endpoint
from tests.official_run_folder import (
    TOLD_BY_NO_TENSOR,
    arguments,
    command,
    full_size_tensors,
    published_tensors,
    write_base_vlm,
    write_full_size_base_vlm,
    write_run,
)
from tests.parity import load_fixture, relative_error

STAGE_1, STAGE_2 = "predict_action_stage1", "predict_action_stage2_generate"
INSTRUCTION, KEY = "put the spoon on the towel", "bridge_dataset"


@pytest.fixture(scope="module")
def base_vlm(tmp_path_factory) -> Path:
    return write_base_vlm(tmp_path_factory.mktemp("base"))


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture(scope="module")
def converted(tmp_path_factory, base_vlm):
    """Folder of the converted checkpoint of a fixture, made once."""
    made: dict[str, Path] = {}

    def folder_of(fixture: str) -> Path:
        if fixture not in made:
            folder = tmp_path_factory.mktemp(fixture)
            cameras = ["--set", "cameras=primary,wrist"] if fixture.endswith("wrist") else []
            code, output = command(*arguments(write_run(folder / "run", fixture), base_vlm, folder / "out", *cameras))
            assert code == 0, output
            made[fixture] = folder / "out"
        return made[fixture]

    return folder_of


def load(folder: Path, rounded: bool = True):
    """The converted model; `rounded` casts its VLM pixels and state to bfloat16 and back, as the authors' code does."""
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    if rounded:
        processor = model.processor
        for method in ("prompt_inputs", "action_inputs"):
            setattr(processor, method, rounding(getattr(processor, method)))
    return model


def rounding(method):
    def call(*args, **kwargs):
        features = method(*args, **kwargs)
        for name in {"pixel_values", "state"} & features.keys():
            features[name] = features[name].bfloat16().float()
        return features

    return call


def picture(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.numpy())


def inputs_of(tensors: dict[str, torch.Tensor], call: int = 0) -> dict:
    """Arguments of `generate_action` for one recorded call."""
    images = picture(tensors[f"call{call}.in.image" if call else "in.image"])
    if "in.wrist_image" in tensors:
        images = {"primary": images, "wrist": picture(tensors["in.wrist_image"])}
    inputs = {"images": images, "text": INSTRUCTION, "unnorm_key": KEY, "noise": tensors[f"call{call}.in.noise"]}
    return inputs | ({"state": tensors["in.proprio"]} if "in.proprio" in tensors else {})


def assert_same_actions(out, tensors: dict[str, torch.Tensor], call: str, tolerance: float = 1e-4):
    assert relative_error(out.latent_actions, tensors[f"{call}.out.latent"]) <= tolerance
    assert relative_error(out.normalized_actions, tensors[f"{call}.out.normalized_actions"][None]) <= tolerance
    assert relative_error(out.actions, tensors[f"{call}.out.actions"][None]) <= tolerance


VARIANTS = [STAGE_1, "predict_action_stage1_state", "predict_action_stage1_wrist", "predict_action_stage2"]


@pytest.mark.parametrize("fixture", VARIANTS)
def test_actions_are_the_authors(converted, fixture):
    tensors, _ = load_fixture(fixture)
    out = load(converted(fixture)).generate_action(think=False, **inputs_of(tensors))
    assert_same_actions(out, tensors, "call0")


@pytest.mark.parametrize("fixture", VARIANTS)
def test_actions_from_the_raw_image_stay_within_two_percent_without_the_authors_casts(converted, fixture):
    tensors, _ = load_fixture(fixture)
    out = load(converted(fixture), rounded=False).generate_action(think=False, **inputs_of(tensors))
    assert relative_error(out.actions, tensors["call0.out.actions"][None]) <= 2e-2


@pytest.mark.parametrize("fixture", VARIANTS)
def test_prompt_ids_are_the_authors(converted, fixture):
    tensors, _ = load_fixture(fixture)
    inputs = inputs_of(tensors)
    processor = load(converted(fixture)).processor
    prompt = processor.prompt_inputs([inputs["images"]], INSTRUCTION)["input_ids"][0].tolist()
    ids = tensors["call0.out.input_ids"][0].tolist()
    assert prompt + processor.query_token_ids == ids[: len(prompt) + len(processor.query_token_ids)]


def test_a_cached_latent_gives_the_authors_next_actions(converted):
    tensors, _ = load_fixture("predict_action_stage2")
    model = load(converted("predict_action_stage2"))
    first = model.generate_action(think=False, **inputs_of(tensors))
    second = model.generate_action(context=first.context, reuse_latent=True, **inputs_of(tensors, call=1))
    third = model.generate_action(think=False, **inputs_of(tensors, call=2))
    assert_same_actions(second, tensors, "call1")
    assert_same_actions(third, tensors, "call2")


def test_thinking_gives_the_authors_words_and_actions(converted):
    tensors, description = load_fixture(STAGE_2)
    model = load(converted(STAGE_2))
    out = model.generate_action(**inputs_of(tensors))
    assert out.response == [description["clean_call0"]["last_response"]]
    prompt = model.processor.prompt_inputs([inputs_of(tensors)["images"]], INSTRUCTION, "answer")["input_ids"][0]
    assert prompt.tolist() == tensors["clean_call0.out.gen_input_ids"][0].tolist()
    assert list(out.context.response_ids[0]) == tensors["clean_call0.out.gen_tokens"].tolist()
    assert_same_actions(out, tensors, "clean_call0")


def test_the_released_semantics_and_the_sizes_are_in_the_configuration(converted):
    config = json.loads((converted(STAGE_2) / "config.json").read_text())
    processor = json.loads((converted(STAGE_2) / "processor_config.json").read_text())
    assert config["action_expert_config"]["attention"] == "additive_bias"
    assert config["action_vision_config"]["feature_layer"] == 2
    assert processor["action_crop_pct"] == 0.875
    assert (
        config["adapter_config"] | {"experts": 2, "rank": 4, "alpha": 8, "scale_head_size": 24}
        == config["adapter_config"]
    )
    assert (config["horizon"], config["num_action_queries"], config["state_dim"]) == (16, 16, None)
    assert set(processor["statistics"]) == {"bridge_dataset", "fractal20220817_data"}
    assert processor["control_rate_hz"] == {"bridge_dataset": 5.0, "fractal20220817_data": 3.0}


def test_the_report_accounts_for_every_source_tensor(converted):
    report = json.loads((converted(STAGE_2) / "conversion_report.json").read_text())
    source = {f"{module}.{name}" for module, names in published_tensors(STAGE_2).items() for name in names}
    used = [name for names in report["used"].values() for name in names]
    dropped = [name for names in report["dropped"].values() for name in names]
    assert sorted(used + dropped) == sorted(source)
    assert report["dropped_vision_blocks"] == 1
    assert report["assumed"] == {"adapter_config.alpha": 8, "cameras": ["primary"]}


def test_a_converted_folder_holds_all_that_a_saved_one_does(converted, tmp_path):
    folder = converted(STAGE_1)
    load(folder, rounded=False).save_pretrained(tmp_path / "again")
    names = {path.name for path in (tmp_path / "again").iterdir()}
    assert {path.name for path in folder.iterdir()} == names | {"conversion_report.json"}
    for name in ("config.json", "processor_config.json", "tokenizer.json"):
        written, again = (json.loads((place / name).read_text()) for place in (folder, tmp_path / "again"))
        for part in ("vision_config", "text_config"):  # loading notes the dtype there, too
            written.get(part, {}).pop("dtype", None), again.get(part, {}).pop("dtype", None)
        assert written == again, name


@pytest.mark.parametrize(
    ("kind", "experts", "state_dim", "horizon"),
    [
        ("stage1_expert", 1, None, 16),
        ("stage1_expert_state", 1, 8, 16),
        ("stage1_libero_wrist", 1, None, 8),
        ("stage2_generalist", 2, None, 16),
        ("stage2_generalist_state", 2, 8, 16),
    ],
)
def test_every_kind_of_published_checkpoint_passes_at_full_size(tmp_path, kind, experts, state_dim, horizon):
    run = write_run(tmp_path / "run", model=full_size_tensors(kind))
    settings = {"stage": f"stage{experts}", "num_of_meta_query": "64", "future_action_window_size": horizon - 1}
    (run / "config.json").write_text(json.dumps(settings))
    if kind == "stage1_libero_wrist":
        statistics = json.loads((run / "dataset_statistics.json").read_text())
        (run / "dataset_statistics.json").write_text(json.dumps({"libero_10_no_noops": statistics["bridge_dataset"]}))
    plan = plan_conversion(run, write_full_size_base_vlm(tmp_path / "base"))
    config, report = plan.model.config, plan.report()
    assert (config.adapter_config.experts, config.state_dim, config.horizon) == (experts, state_dim, horizon)
    assert (config.adapter_config.rank, config.adapter_config.alpha) == (128, 256)
    assert (config.action_expert_config.num_attention_heads, config.action_vision_config.num_heads) == (12, 16)
    is_libero = kind == "stage1_libero_wrist"
    assert config.cameras == (["primary", "wrist"] if is_libero else ["primary"])
    assert plan.model.processor.action_units[0] == ("0.05 m" if is_libero else "m")
    assert report["dropped_vision_blocks"] == 21
    assert sum(map(len, report["dropped"].values())) == 11 + 21 * len(block_parts(kind)) + 2
    assert all(parameter.is_meta for parameter in plan.model.parameters())


def block_parts(kind: str) -> list[str]:
    return [name for name in full_size_tensors(kind)["action_model"] if ".blocks.3." in name]


def change(run: Path, module: str, **changes) -> None:
    """Set tensors of the checkpoint; None removes one. Dots in names are written as two underscores."""
    path = run / "checkpoints" / "step-000001.pt"
    content = torch.load(path)
    for name, tensor in changes.items():
        name = name.replace("__", ".")
        if tensor is None:
            del content["model"][module][name]
        else:
            content["model"][module][name] = tensor
    torch.save(content, path)


def test_an_unknown_tensor_stops_the_conversion_with_its_name(tmp_path, run, base_vlm):
    change(run, "action_model", mystery__weight=torch.zeros(2))
    code, output = command(*arguments(run, base_vlm, tmp_path / "out"))
    assert code == 2 and "action_model.mystery.weight" in output
    assert not (tmp_path / "out").exists()


def test_an_optimizer_is_dropped_and_counted(run, base_vlm):
    path = run / "checkpoints" / "step-000001.pt"
    torch.save(torch.load(path) | {"optimizer": {"state": {}}}, path)
    report = plan_conversion(run, base_vlm, parse_overrides(TOLD_BY_NO_TENSOR)).report()
    assert (report["used_tensors"], report["dropped_tensors"], report["source_tensors"]) == (194, 32, 226)


def test_tied_embeddings_are_written_apart(tmp_path, run, base_vlm):
    path = run / "checkpoints" / "step-000001.pt"
    content = torch.load(path)
    language, prefix = content["model"]["language_model"], "base_model.model"
    language[f"{prefix}.lm_head.weight"] = language[f"{prefix}.model.embed_tokens.weight"]
    torch.save(content, path)
    code, output = command(*arguments(run, base_vlm, tmp_path / "out"))
    assert code == 0, output
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)


def test_nan_in_the_source_is_refused_by_name(tmp_path, run, base_vlm):
    change(run, "mlp1", **{"3__bias": torch.full((48,), float("nan"))})
    code, output = command(*arguments(run, base_vlm, tmp_path / "out"))
    assert code == 2 and "projector.linear_2.bias holds NaN" in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_quantised_tensors_are_refused_by_name(tmp_path, run, base_vlm, dtype):
    change(run, "mlp1", **{"3__bias": torch.zeros(48).to(dtype)})
    code, output = command(*arguments(run, base_vlm, tmp_path / "out"))
    assert code == 2 and f"mlp1.3.bias is {dtype}" in output


@pytest.mark.parametrize("value", ["foo", "-1", "9"])
def test_a_feature_layer_that_is_no_block_is_refused(tmp_path, run, base_vlm, value):
    setting = f"action_vision_config.feature_layer={value}"
    code, output = command(*arguments(run, base_vlm, tmp_path / "out", "--set", setting))
    assert code == 2 and "must be a block index from 0 to 3" in output


def test_sizes_without_data_can_be_planned_but_not_written(tmp_path, run, base_vlm):
    meta = {
        module: {name: tensor.to("meta") for name, tensor in tensors.items()}
        for module, tensors in published_tensors(STAGE_1).items()
    }
    write_run(run, model=meta)
    code, output = command(*arguments(run, base_vlm, tmp_path / "out", "--dry-run"))
    assert code == 0 and "194 used, 31 dropped" in output
    code, output = command(*arguments(run, base_vlm, tmp_path / "out"))
    assert code == 2 and "sizes without data" in output
    assert not (tmp_path / "out").exists()


def test_rows_beyond_the_queries_are_padding(run, base_vlm):
    rows = torch.zeros(279 + 7, 48)
    tables = ("base_model__model__model__embed_tokens__weight", "base_model__model__lm_head__weight")
    change(run, "language_model", **dict.fromkeys(tables, rows))
    plan = plan_conversion(run, base_vlm, parse_overrides(TOLD_BY_NO_TENSOR))
    assert (plan.model.config.num_action_queries, plan.model.config.text_config.vocab_size) == (16, 286)


def test_a_folder_with_an_adapter_is_no_place_for_a_model(tmp_path, run, base_vlm):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "adapter_config.json").write_text("{}")
    code, output = command(*arguments(run, base_vlm, tmp_path / "out"))
    assert code == 2 and "holds a PEFT adapter" in output


def test_actions_can_be_named(tmp_path, run, base_vlm):
    names = "dx,dy,dz,droll,dpitch,dyaw,grip"
    code, output = command(*arguments(run, base_vlm, tmp_path / "out", "--action-names", names))
    assert code == 0, output
    processor = json.loads((tmp_path / "out" / "processor_config.json").read_text())
    assert processor["action_names"] == names.split(",")


def test_a_depth_that_is_not_the_checkpoints_is_refused(tmp_path, run, base_vlm):
    code, output = command(*arguments(run, base_vlm, tmp_path / "out", "--set", "action_vision_config.depth=24"))
    assert code == 2 and "4, the number of blocks in the checkpoint" in output


def test_a_known_leftover_is_dropped_by_its_rule(run, base_vlm):
    change(run, "action_model", future_queries=torch.zeros(1, 16, 32))
    plan = plan_conversion(run, base_vlm, parse_overrides(TOLD_BY_NO_TENSOR))
    assert any(
        rule.startswith("future_queries") and names == ["action_model.future_queries"]
        for rule, names in plan.account.dropped.items()
    )


def test_a_missing_tensor_is_named(tmp_path, run, base_vlm):
    change(run, "language_model", **{"base_model__model__model__layers__1__self_attn__q_proj__base_layer__bias": None})
    code, output = command(*arguments(run, base_vlm, tmp_path / "out"))
    assert code == 2 and "language_model.layers.1.self_attn.q_proj.bias is missing" in output


def test_a_tensor_of_another_size_is_named(tmp_path, run, base_vlm):
    change(run, "mlp1", **{"3__bias": torch.zeros(7)})
    code, output = command(*arguments(run, base_vlm, tmp_path / "out"))
    assert code == 2 and "mlp1.3.bias is (7,), not (48,)" in output


def test_a_setting_that_the_tensors_contradict_is_refused(tmp_path, run, base_vlm):
    code, output = command(*arguments(run, base_vlm, tmp_path / "out", "--set", "horizon=8"))
    assert code == 2 and "action_model.action_head.0.weight is (128, 512), not (128, 256)" in output
    assert not (tmp_path / "out").exists()


def test_what_no_tensor_tells_is_asked_for(tmp_path, run, base_vlm):
    code, output = command(run, "--base-vlm", base_vlm, "--output", tmp_path / "out")
    assert code == 2 and "--set action_expert_config.num_attention_heads=" in output


def test_a_base_vlm_of_another_size_is_refused_with_all_its_differences(tmp_path, run, base_vlm):
    other = shutil.copytree(base_vlm, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["llm_config"] |= {"hidden_size": 64, "num_hidden_layers": 3}
    (other / "config.json").write_text(json.dumps(config))
    code, output = command(*arguments(run, other, tmp_path / "out"))
    assert code == 2
    assert "llm_config.hidden_size 64 (checkpoint: 48)" in output and "llm_config.num_hidden_layers 3" in output


def test_a_base_vlm_with_a_longer_vocabulary_is_refused(tmp_path, run, base_vlm):
    other = shutil.copytree(base_vlm, tmp_path / "other")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens([f"<extra_{index}>" for index in range(20)])
    tokenizer.save_pretrained(other)
    code, output = command(*arguments(run, other, tmp_path / "out"))
    assert code == 2 and "leaves no room for 16 action queries" in output


def test_the_run_of_another_checkpoint_is_refused(tmp_path, run, base_vlm):
    settings = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(settings | {"stage": "stage2", "future_action_window_size": 7}))
    code, output = command(*arguments(run, base_vlm, tmp_path / "out"))
    assert code == 2 and "stage stage2 (tensors: stage1)" in output and "future_action_window_size 7" in output


def test_statistics_that_lack_the_state_are_refused(tmp_path, base_vlm):
    run = write_run(tmp_path / "run", "predict_action_stage1_state")
    statistics = json.loads((run / "dataset_statistics.json").read_text())
    del statistics["bridge_dataset"]["proprio"]
    (run / "dataset_statistics.json").write_text(json.dumps(statistics))
    code, output = command(*arguments(run, base_vlm, tmp_path / "out"))
    assert code == 2 and "bridge_dataset" in output and "state" in output
    assert not (tmp_path / "out").exists()


def test_a_dry_run_reports_and_writes_nothing(tmp_path, run, base_vlm):
    code, output = command(*arguments(run, base_vlm, tmp_path / "out", "--dry-run"))
    assert code == 0 and "194 used, 31 dropped" in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", [".", "checkpoints"])
def test_the_source_is_never_overwritten(run, base_vlm, place):
    code, output = command(*arguments(run, base_vlm, run / place))
    assert code == 2 and "give another folder" in output
    assert json.loads((run / "config.json").read_text())["stage"] == "stage1"


def test_an_interrupted_conversion_leaves_nothing_that_loads(tmp_path, run, base_vlm, monkeypatch):
    plan = plan_conversion(run, base_vlm, parse_overrides(TOLD_BY_NO_TENSOR))
    calls = iter(range(10))

    def load_until_stopped(names):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return type(plan).load(plan, names)

    monkeypatch.setattr(plan, "load", load_until_stopped)
    with pytest.raises(KeyboardInterrupt):
        convert(plan, tmp_path / "out", max_shard_size="100KB")
    assert next(calls) == 3 and not (tmp_path / "out").exists()


def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path, run, base_vlm, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("instructvla.streamed_checkpoint.save_file", full)
    code, output = command(*arguments(run, base_vlm, tmp_path / "out"))
    assert code == 2 and "No space left on device" in output
    assert not (tmp_path / "out").exists()


def test_a_disk_without_enough_space_is_refused_before_writing(tmp_path, run, base_vlm, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    code, output = command(*arguments(run, base_vlm, tmp_path / "out"))
    assert code == 2 and "needs" in output and "free" in output
    assert not (tmp_path / "out").exists()


def test_another_dtype_and_shard_size_are_kept_to(tmp_path, run, base_vlm):
    more = ["--dtype", "bfloat16", "--max-shard-size", "200KB"]
    code, output = command(*arguments(run, base_vlm, tmp_path / "out", *more))
    assert code == 0, output
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    shards = sorted((tmp_path / "out").glob("model-*.safetensors"))
    assert len(shards) > 2 and all(path.stat().st_size < 220_000 for path in shards)


def test_mixed_dtypes_become_the_widest(run, base_vlm):
    change(run, "mlp1", **{"3__bias": torch.zeros(48, dtype=torch.bfloat16)})
    plan = plan_conversion(run, base_vlm, parse_overrides(TOLD_BY_NO_TENSOR))
    assert plan.model.dtype == torch.float32
    assert plan.load(["projector.linear_2.bias"])["projector.linear_2.bias"].dtype == torch.float32


def test_an_unknown_dtype_is_refused(tmp_path, run, base_vlm):
    code, output = command(*arguments(run, base_vlm, tmp_path / "out", "--dtype", "int8"))
    assert code == 2 and "float32, bfloat16, float16" in output


def test_a_run_on_the_hub_is_downloaded_and_converted(tmp_path, run, base_vlm):
    script = f"""
        from pathlib import Path
        from huggingface_hub import HfApi
        from instructvla.convert_official import convert, plan_conversion
        from instructvla.config_overrides import parse_overrides

        api = HfApi()
        for name, folder in [("org/run", {str(run)!r}), ("org/base", {str(base_vlm)!r})]:
            api.create_repo(name)
            api.upload_folder(repo_id=name, folder_path=folder)
        plan = plan_conversion("org/run", "org/base", parse_overrides({TOLD_BY_NO_TENSOR!r}))
        convert(plan, {str(tmp_path / "out")!r})
    """
    with HubServer() as server:
        run_with_endpoint(server, script, tmp_path)
    assert AutoModel.from_pretrained(tmp_path / "out").config.horizon == 16

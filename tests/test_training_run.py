"""Claims about whole runs: settings decide them, both stages follow each other, and every end is clear."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from transformers import AutoModel
from typer.testing import CliRunner

from instructvla.compiled_layers import compile_layers
from instructvla.training import training_run
from instructvla.training.run_config import read_run_config
from instructvla.training.stage1 import app as stage1
from instructvla.training.stage2 import app as stage2
from instructvla.training.training_data import open_datasets
from instructvla.training.training_run import check_settings, prepare_run, run, run_arguments
from tests.hub_server import HubServer, run_with_endpoint
from tests.reaching_episodes import write_chat, write_reaching

CONFIGS = Path(__file__).parents[1] / "training" / "configs"
NANO = {"adapter_config": {"rank": 4, "alpha": 8}}
TRAINER = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "save_steps": 2,
    "logging_steps": 1,
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A dataset, conversations, and a stage-1 run of two steps."""
    folder = tmp_path_factory.mktemp("world")
    write_reaching(folder / "reaching", 8)
    write_chat(folder / "chat.json", 8)
    run(1, settings(folder, {"model": {"source": "nano", "set": NANO}, "output_dir": str(folder / "stage1")}))
    return folder


def settings(folder, changes=None):
    """A run of two steps on the small data."""
    return read_run_config(written(folder, changes))


def written(folder, changes=None) -> Path:
    given = {
        "model": {"source": "nano", "set": NANO},
        "data": {"datasets": [{"source": str(folder / "reaching")}], "shuffle_window": 8},
        "output_dir": str(folder / "run"),
        "evaluation": {"episodes": 1, "chunks": 1, "every": 2},
        "trainer": TRAINER,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(given | (changes or {})))
    return path


def invoke(app, folder, changes=None, *arguments):
    return CliRunner().invoke(app, ["--config", str(written(folder, changes)), *arguments])


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_stage_1_prints_what_it_trains_and_where_the_checkpoint_is(world, tmp_path):
    result = invoke(stage1, world, {"output_dir": str(tmp_path / "run")})
    assert result.exit_code == 0, result.output
    checkpoint = tmp_path / "run" / "checkpoint-2"
    assert "action_expert" in result.output and "together" in result.output
    last = result.output.strip().splitlines()[-2:]
    assert last == [f"trained: {checkpoint}", f"evaluate it: instructvla open-loop {checkpoint} {world / 'reaching'}"]
    assert (tmp_path / "run" / "open_loop" / "reaching_step_2.png").is_file()
    assert AutoModel.from_pretrained(checkpoint, trust_remote_code=True).config.adapter_config.experts == 1
    card = (checkpoint / "README.md").read_text()
    tables = json.loads((checkpoint / "training_report.json").read_text())["tables"]
    (data,) = [table["rows"] for table in tables if table["title"] == "Data"]
    assert data == [["reaching", 56.0, 7, 56]]  # one of 8 episodes of 8 frames is held out
    assert "max_steps" in card and "reaching" in card and "query_rows" in card and str(tmp_path) not in card


def test_stage_2_follows_stage_1_and_leaves_the_action_expert(world, tmp_path):
    changes = {
        "model": {"source": str(world / "stage1" / "checkpoint-2")},
        "data": {
            "datasets": [{"source": str(world / "reaching")}],
            "chat": {"file": str(world / "chat.json"), "robot_share": 1, "chat_share": 1},
            "shuffle_window": 8,
        },
        "retention": {"file": str(world / "chat.json"), "records": 2, "answers": 1},
        "output_dir": str(tmp_path / "run"),
    }
    result = invoke(stage2, world, changes)
    assert result.exit_code == 0, result.output
    before, after = weights(world / "stage1" / "checkpoint-2"), weights(tmp_path / "run" / "checkpoint-2")
    moved = [name for name in after if name not in before or not torch.equal(after[name], before[name])]
    assert moved and all(".lora_" in name or "scale_head" in name for name in moved)
    log = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    logged = set().union(*log)
    assert {"lm_loss", "flow_loss", "chat_loss", "eval_action_error", "eval_retention/text_loss"} <= logged
    assert {"eval_action_error/x", "eval_action_mae/gripper", "eval_retention/base_text_loss"} <= logged


def test_a_gate_that_is_violated_stops_the_run_and_says_so(world, tmp_path):
    """What is trained makes words unlikely that nobody says."""
    turns = [{"from": "human", "value": "Name a colour."}, {"from": "gpt", "value": "Zqxj vwkq, zzqx!"}]
    (tmp_path / "odd.json").write_text(json.dumps([{"id": "0", "conversations": turns}]))
    retention = {"file": str(tmp_path / "odd.json"), "records": 1, "answers": 0, "max_loss_increase": 0.0}
    changes = {
        "model": {"source": str(world / "stage1" / "checkpoint-2")},
        "retention": retention | {"grace_steps": 0},
        "output_dir": str(tmp_path / "run"),
        "trainer": {"max_steps": 40, "learning_rate": 0.01, "per_device_train_batch_size": 2, "disable_tqdm": True},
    }
    result = invoke(stage2, world, changes)
    assert result.exit_code == 0, result.output
    assert "stopped by the retention gate: the text loss is" in result.output
    assert not (tmp_path / "run" / "checkpoint-40").exists()


def test_a_stopped_run_goes_on_from_its_last_checkpoint(world, tmp_path):
    changes = {"output_dir": str(tmp_path / "run")}
    assert invoke(stage1, world, changes, "--resume_from_checkpoint", "last").exit_code == 0
    refused = invoke(stage1, world, changes, "--set", "trainer.max_steps=4")
    assert refused.exit_code == 2 and "holds the run that wrote checkpoint-2" in refused.output
    again = invoke(stage1, world, changes, "--set", "trainer.max_steps=4", "--resume_from_checkpoint", "last")
    assert again.exit_code == 0 and (tmp_path / "run" / "checkpoint-4").is_dir()


def test_a_finished_run_that_is_started_again_says_where_its_checkpoint_is(world, tmp_path):
    changes = {"output_dir": str(tmp_path / "run")}
    invoke(stage1, world, changes)
    again = invoke(stage1, world, changes, "--resume_from_checkpoint", "last")
    assert again.exit_code == 0 and f"trained: {tmp_path / 'run' / 'checkpoint-2'}" in again.output
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]


def test_a_checkpoint_of_the_other_stage_is_not_gone_on_with(world, no_data):
    checkpoint = str(world / "stage1" / "checkpoint-2")
    more = ("--set", "trainer.max_steps=4", "--resume_from_checkpoint", checkpoint)
    result = invoke(stage2, world, {"output_dir": str(world / "other")}, *more)
    assert result.exit_code == 2 and "is a checkpoint of an earlier stage, this is stage 2" in result.output


@pytest.mark.parametrize("stage", [1, 2])
def test_the_shipped_dtypes_train_and_are_evaluated(stage, world, tmp_path):
    """Frozen tensors in bfloat16, trained ones in float32, bf16 autocast: also where the model acts."""
    source = "nano" if stage == 1 else str(world / "stage1" / "checkpoint-2")
    model = {"source": source, "frozen_dtype": "bfloat16"} | ({"set": NANO} if stage == 1 else {})
    retention = None if stage == 1 else {"file": str(world / "chat.json"), "records": 2, "answers": 1}
    changes = {"model": model, "retention": retention, "output_dir": str(tmp_path / "run")}
    trainer = run(stage, settings(world, changes | {"trainer": TRAINER | {"bf16": True}}))
    assert any("eval_action_error" in entry for entry in trainer.state.log_history)
    dtypes = {parameter.requires_grad: parameter.dtype for parameter in trainer.model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    loaded = AutoModel.from_pretrained(tmp_path / "run" / "checkpoint-2", trust_remote_code=True)
    assert loaded.processor.statistics.keys() == {"reaching"}


@pytest.mark.parametrize(
    ("app", "changes", "arguments", "message"),
    [
        (stage1, {"modle": {}}, (), "Did you mean 'model'"),
        (stage1, {}, ("--resume_from_checkpoint", "nowhere"), "nowhere is no folder; give"),
        (stage1, {"model": {"source": "nano", "frozen_dtype": "bfloat16"}}, (), "needs trainer.bf16: true"),
        (stage1, {"train": ["action_exprt"]}, (), "nearest is 'action_expert'"),
        (stage1, {"data": {"datasets": [{"source": "nowhere"}]}}, (), "nowhere"),
        (stage2, {}, (), "Stage 2 starts from a stage-1 model"),
        (
            stage2,
            {"retention": {"file": "none.json"}, "evaluation": {"episodes": 0}},
            (),
            "hold out evaluation.episodes",
        ),
        (stage2, {"model": {"source": "out/none/checkpoint-5"}}, (), "is no folder here, and no Hub repository"),
    ],
)
def test_a_wrong_run_ends_in_one_message_and_leaves_no_folder(world, app, changes, arguments, message, tmp_path):
    result = invoke(app, world, {"output_dir": str(tmp_path / "run")} | changes, *arguments)
    assert message in only_error(result)
    assert not list(tmp_path.glob("run/checkpoint-*"))


def only_error(result) -> str:
    """The one line that a run ends in which is refused."""
    assert result.exit_code == 2 and "Traceback" not in result.output
    (error,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    return error


@pytest.fixture
def no_data(monkeypatch):
    """Fails a run that opens data: statistics of a large dataset take hours."""

    def open_data(*_):
        raise AssertionError("the data were opened first")

    monkeypatch.setattr(training_run, "open_datasets", open_data)


CHAT = {"data": {"datasets": [{"source": "nowhere"}], "chat": {"file": "none.json"}}}
EARLY = {
    "retention.file": (stage2, {"retention": {"file": "none.json"}}, "there is no chat file none.json"),
    "data.chat.file": (stage1, CHAT, "there is no chat file none.json"),
    "model.source": (stage2, {"model": {"source": "./none"}}, "'./none' is no folder here"),
    "train": (stage1, {"train": ["action_exprt"]}, "nearest is 'action_expert'"),
    "train and retention": (
        stage1,
        {"train": ["projector"], "retention": {"file": "none.json"}},
        "retention compares with the base model, but train moves the base itself: projector",
    ),
}


@pytest.mark.parametrize("name", EARLY)
def test_what_is_needed_late_is_looked_for_before_data_and_model(name, world, tmp_path, no_data):
    app, changes, message = EARLY[name]
    assert message in only_error(invoke(app, world, {"output_dir": str(tmp_path / "run")} | changes))


def test_a_launch_that_can_not_train_together_is_refused_before_the_data(world, tmp_path, no_data, monkeypatch):
    changes = {"output_dir": str(tmp_path / "run")}
    with monkeypatch.context() as launched:
        launched.setenv("ACCELERATE_USE_FSDP", "true")
        assert "FSDP on accelerators only, not on the CPU" in only_error(invoke(stage1, world, changes))
    alone = {"trainer": TRAINER | {"use_cpu": False}}
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "2 processes were launched, but each would train alone" in only_error(invoke(stage1, world, changes | alone))


def test_deepspeed_is_told_the_precision_of_the_run_and_when_it_moves_a_resting_expert(world, monkeypatch, caplog):
    config = settings(world, {"data": {"datasets": [{"source": "any"}], "chat": {"file": "any.json"}}})
    parts = ("action_expert",)
    arguments = run_arguments(config, parts)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(logging.getLogger("instructvla"), "propagate", True)
    check_settings(config, parts, arguments)
    assert "DeepSpeed moves the action expert also in steps of chat batches" in caplog.text
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match="launched with mixed_precision: bf16, which needs trainer.bf16: true"):
        check_settings(config, parts, arguments)


RUNS = [path for path in sorted(CONFIGS.glob("**/*.yaml")) if path.parent.name != "accelerate"]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_shipped_run_is_valid(path):
    read_run_config(path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("accelerate/*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_every_shipped_launch_configuration(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 8 and config.mixed_precision == "bf16"


def test_a_trained_checkpoint_is_published_with_its_card(world, tmp_path):
    path = written(world, {"output_dir": str(tmp_path / "run")})
    script = f"""
        from instructvla.training.stage1 import app

        app(["--config", {str(path)!r}, "--push_to_hub", "org/trained"], standalone_mode=False)
    """
    with HubServer() as hub:
        run_with_endpoint(hub, script, tmp_path)
        files = hub.repos["models", "org/trained"].resolve("main").files
    card = files["README.md"].content.decode()
    assert "1, action pre-training" in card and "max_steps" in card and 'from_pretrained("org/trained"' in card
    assert {"model.safetensors", "processor_config.json", "training_report.json"} <= set(files)
    assert not {"optimizer.pt", "trainer_state.json"} & set(files)


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "lm_loss" in entry]


def test_compiled_layers_give_the_same_losses(world, tmp_path, monkeypatch):
    """With dynamo's own backend, as machines without a compiler run the tests."""
    compiling = []

    def compile_eagerly(model):
        compiling.append(model)
        compile_layers(model, backend="eager")

    monkeypatch.setattr(training_run, "compile_layers", compile_eagerly)
    expected, found = (
        losses(run(1, settings(world, {"output_dir": str(tmp_path / str(on)), "compile": on}))) for on in (False, True)
    )
    assert len(compiling) == 1
    assert found == pytest.approx(expected, rel=1e-5)


def annotated(datasets):
    reader = datasets.training["reaching"]
    return sum(reader[number].annotation is not None for number in range(len(reader)))


ABLATIONS = {
    "no_language_motion": lambda model, datasets: model.config.adapter_config.experts == 1,
    "queries_16": lambda model, datasets: model.config.num_action_queries == 16,
    "queries_128": lambda model, datasets: model.config.num_action_queries == 128,
    "no_dino": lambda model, datasets: model.config.action_vision_config is None,
    "no_film": lambda model, datasets: not model.config.action_vision_config.film,
    "full_fine_tuning": lambda model, datasets: model.vision_model.post_layernorm.weight.requires_grad,
    "joint_action_expert": lambda model, datasets: model.action_expert.action_head[0].weight.requires_grad,
    "vla_it_25": lambda model, datasets: annotated(datasets) == 2,  # of 8
    "with_state": lambda model, datasets: model.config.state_dim == 3,
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_what_it_says_and_trains(name, world, tmp_path, monkeypatch):
    """The shipped file, with the nano model and the small data in the places of the large ones."""
    shipped = read_run_config(CONFIGS / "ablations" / f"{name}.yaml")
    stage = 2 if shipped.model.action_vision is None else 1
    given = asdict(shipped)
    sizes = given["model"]["set"] if stage == 2 else nano_sizes(given["model"]["set"])
    source = str(world / "stage1" / "checkpoint-2") if stage == 2 else "nano"
    given["model"] |= {"source": source, "action_vision": None, "set": sizes, "frozen_dtype": "float32"}
    given["data"] |= {"datasets": [{"source": str(world / "reaching")}], "shuffle_window": 8}
    if given["data"]["chat"]:
        given["data"]["chat"]["file"] = str(world / "chat.json")
    given |= {"retention": None, "output_dir": str(tmp_path / "run")}
    given["evaluation"] |= {"episodes": 1, "chunks": 1}
    given["trainer"] = {"max_steps": 1, "per_device_train_batch_size": 2, "disable_tqdm": True, "logging_steps": 1}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(given))
    opened = []
    monkeypatch.setattr(training_run, "open_datasets", lambda *given: opened.append(open_datasets(*given)) or opened[0])
    trainer = prepare_run(stage, read_run_config(tmp_path / "run.yaml"), None)
    assert ABLATIONS[name](trainer.model, opened[0])
    before = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
    trainer.train()
    assert any(not torch.equal(tensor, before[key]) for key, tensor in trainer.model.state_dict().items())
    assert (tmp_path / "run" / "checkpoint-1" / "config.json").is_file()


def nano_sizes(ablation):
    adapters = NANO["adapter_config"] | ablation.get("adapter_config", {})
    return ablation | {"adapter_config": adapters}

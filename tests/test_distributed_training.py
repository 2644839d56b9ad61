"""Claims about runs on two CPU processes: the single process's loss curve, and checkpoints that anything loads."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel

from tests.reaching_episodes import write_chat, write_reaching

ROOT = Path(__file__).parents[1]
ACCELERATE = ROOT / "training" / "configs" / "accelerate"
STEPS = 3
NEEDS_DEEPSPEED = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="needs DeepSpeed: DS_BUILD_OPS=0 pip install --no-build-isolation deepspeed",
)
ZERO2 = "deepspeed_zero2"
NO_DROPOUT = {
    "adapter_config": {"rank": 4, "alpha": 8, "dropout": 0.0},
    "action_expert_config": {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "attention_dropout": 0.0,
    },
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_reaching(folder / "reaching", 8)
    write_chat(folder / "chat.json", 8)
    return folder


def run_file(world, name, **trainer) -> Path:
    config = {
        "model": {"source": "nano", "set": NO_DROPOUT},
        "data": {"datasets": [{"source": str(world / "reaching")}], "shuffle_window": 8},
        "output_dir": str(world / name),
        "evaluation": {"episodes": 2, "chunks": 2, "every": STEPS},
        "trainer": {
            "max_steps": STEPS,
            "per_device_train_batch_size": 2,
            "save_steps": STEPS,
            "logging_steps": 1,
            "disable_tqdm": True,
            "use_cpu": True,
            **trainer,
        },
    }
    path = world / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def command(world, launcher: str | None, path: Path, *arguments: str, precision: str = "no") -> list[str]:
    """What launches stage 1 on one process, or on two by a shipped configuration of Accelerate."""
    if launcher is None:
        return [sys.executable, str(ROOT / "training" / "stage1.py"), "--config", str(path), *arguments]
    given = yaml.safe_load((ACCELERATE / f"{launcher}.yaml").read_text())
    own = world / f"accelerate_{launcher}.yaml"
    own.write_text(
        yaml.safe_dump(
            given | {"use_cpu": True, "num_processes": 2, "mixed_precision": precision, "main_process_port": 0}
        )
    )
    script = (
        [str(ROOT / "tests" / "fsdp_on_cpu.py"), "1"] if launcher == "fsdp2" else [str(ROOT / "training/stage1.py")]
    )
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(own), "--main_process_port", "0"]
    return [*launch, str(ROOT / script[0]), *script[1:], "--config", str(path), *arguments]


def environment() -> dict[str, str]:
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "HF_HUB_DISABLE_TELEMETRY": "1", "DS_ACCELERATOR": "cpu"}
    return os.environ | own


def launched(world, launcher, name, *arguments, **trainer) -> Path:
    """The last checkpoint of a run."""
    path = run_file(world, name, **trainer)
    precision = "bf16" if trainer.get("bf16") else "no"
    finished(command(world, launcher, path, *arguments, precision=precision))
    return newest(world / name)


def finished(words: list[str]) -> str:
    """What a command that must succeed has said."""
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def newest(folder: Path) -> Path:
    return max(folder.glob("checkpoint-*"), key=lambda found: int(found.name.rpartition("-")[2]))


def log(checkpoint: Path) -> list[dict]:
    return json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]


def curve(checkpoint: Path) -> list[list[float]]:
    entries = [entry for entry in log(checkpoint) if "lm_loss" in entry]
    return [[entry[name] for name in ("loss", "lm_loss", "flow_loss", "grad_norm")] for entry in entries]


@pytest.fixture(scope="module")
def single(world):
    """One process that accumulates the batches of two data workers: what two processes see, one batch each."""
    return launched(world, None, "single", gradient_accumulation_steps=2, dataloader_num_workers=2)


@pytest.mark.parametrize("launcher", ["ddp", "fsdp2", pytest.param(ZERO2, marks=NEEDS_DEEPSPEED)])
def test_two_processes_give_the_loss_curve_and_weights_of_one(launcher, single, world):
    """Float error alone: gradients are summed in another order, and AdamW's first steps are sensitive to tiny ones."""
    checkpoint = launched(world, launcher, launcher)
    assert torch.tensor(curve(checkpoint)) == pytest.approx(torch.tensor(curve(single)), rel=1e-4)
    own, other = (load_file(folder / "model.safetensors") for folder in (checkpoint, single))
    assert own.keys() == other.keys()
    for name in own:
        torch.testing.assert_close(own[name], other[name], rtol=0, atol=2e-4)  # four learning rates
    errors = [[entry for entry in log(folder) if "eval_action_error" in entry][-1] for folder in (checkpoint, single)]
    assert errors[0]["eval_action_error"] == pytest.approx(errors[1]["eval_action_error"], rel=1e-2)
    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)
    assert model.processor.statistics.keys() == {"reaching"}


@pytest.mark.parametrize(
    ("launcher", "settings"), [("fsdp2", {}), pytest.param(ZERO2, {"bf16": True}, marks=NEEDS_DEEPSPEED)]
)
def test_sharded_runs_are_resumed_exactly(launcher, settings, world):
    settings = {"max_steps": 2, "save_steps": 1} | settings
    whole = launched(world, launcher, f"{launcher}_whole", **settings)
    first, parts = whole.with_name("checkpoint-1"), world / f"{launcher}_parts"
    parts.mkdir()
    first.rename(parts / first.name)
    again = launched(world, launcher, parts.name, "--resume_from_checkpoint", "last", **settings)
    assert curve(again) == curve(whole)
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@NEEDS_DEEPSPEED
def test_zero2_in_bfloat16_saves_what_is_trained_in_float32(single, world):
    """DeepSpeed trains float32 copies of the model's rounded tensors; losses differ by the rounding (0.1 %)."""
    checkpoint = launched(world, ZERO2, "zero2_bf16", bf16=True)
    assert torch.tensor(curve(checkpoint)) == pytest.approx(torch.tensor(curve(single)), rel=1e-2)
    weights = load_file(checkpoint / "model.safetensors")
    trained = [tensor for name, tensor in weights.items() if name.startswith("action_expert.") or ".lora_" in name]
    assert {tensor.dtype for tensor in trained} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in trained)
    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)
    assert model.processor.statistics.keys() == {"reaching"}


def test_chat_batches_rest_the_expert_on_two_processes_and_a_missing_picture_is_told_of_once(world):
    """DDP waits for no gradients of the action expert where none come."""
    path = run_file(world, "with_chat", max_steps=4, save_steps=4)
    config = yaml.safe_load(path.read_text())
    chat = write_chat(world / "holes" / "chat.json", 8)
    (chat.parent / "images" / "4.png").unlink()
    config["data"] |= {"chat": {"file": str(chat), "robot_share": 1, "chat_share": 1}, "on_bad": "skip"}
    path.write_text(yaml.safe_dump(config | {"evaluation": {"episodes": 0}}))
    said = finished(command(world, "ddp", path))
    assert said.count("1 of 8 conversations looked at lack a picture") == 1
    assert {"lm_loss", "chat_loss"} <= set().union(*log(newest(world / "with_chat")))


@pytest.mark.parametrize("launcher", ["ddp", pytest.param(ZERO2, marks=NEEDS_DEEPSPEED)])
def test_sigterm_to_the_launcher_saves_on_both_processes(launcher, world):
    folder = world / f"{launcher}_stopped"
    path = run_file(world, folder.name, max_steps=10_000, save_steps=10_000)
    process = subprocess.Popen(
        command(world, launcher, path), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        if "lm_loss" in line:
            process.send_signal(signal.SIGTERM)
            break
    output = process.communicate(timeout=120)[0]
    deadline = time.monotonic() + 60
    while not list(folder.glob("checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    (checkpoint,) = folder.glob("checkpoint-*")
    assert (checkpoint / "data_state_0.json").is_file() and (checkpoint / "data_state_1.json").is_file()
    assert f"go on with --resume_from_checkpoint {checkpoint}" in output

"""The commands of docs/fine_tune.md do what the page says, from a recording to a policy that answers."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from instructvla.evaluation.policy_client import PolicyClient
from instructvla.evaluation.policy_messages import PolicyError
from instructvla.training.run_config import read_run_config

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "fine_tune.md").read_text(encoding="utf-8")
G1 = ROOT.parent / "shared" / "data" / "lerobot_v21_g1"
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines() if line.strip()
]
PROBLEMS_FOUND = 1  # exit code of `validate`


def environment() -> dict[str, str]:
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": commands, "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def test_the_guides_configuration_is_valid():
    assert read_run_config(ROOT / "training" / "configs" / "fine_tune.yaml").model.use_state
    for command in re.findall(r"--config (training/configs/\S+\.yaml)", GUIDE):
        read_run_config(ROOT / command)
    for command in re.findall(r"--config_file (\S+)", GUIDE):
        assert (ROOT / command).is_file()


@pytest.mark.slow
@pytest.mark.skipif(not G1.exists(), reason="needs the sample data beside the repository")
def test_every_command_of_the_guide_runs_on_a_real_26_dimensional_robot(tmp_path):
    (tmp_path / "my_robot").symlink_to(G1)
    (tmp_path / "training").symlink_to(ROOT / "training")
    *commands, serve = COMMANDS
    assert serve.startswith("instructvla serve")
    for command in commands:
        done = subprocess.run(
            shlex.split(command), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
        )
        allowed = (0, PROBLEMS_FOUND) if "validate" in command else (0,)
        assert done.returncode in allowed, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    actions = served_actions(tmp_path, serve)
    assert actions.shape == (16, 26) and np.isfinite(actions).all()


def served_actions(folder: Path, serve: str) -> np.ndarray:
    """What the guide's last command answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        shlex.split(re.sub(r"--port \d+", f"--port {port}", serve)), cwd=folder, env=environment()
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with PolicyClient(f"ws://127.0.0.1:{port}") as policy:
                    frame = np.zeros((48, 64, 3), np.uint8)
                    state = np.zeros(26, np.float32)
                    return policy.infer({"images": {"primary": frame}, "prompt": "pick up", "state": state})["actions"]
            except PolicyError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.5)
    finally:
        process.terminate()
        process.wait(timeout=30)

"""The command that runs VLMEvalKit: where the kit's run script is, what a missing kit says, and a tiny local run."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from instructvla.evaluation.multimodal import vlmevalkit
from tests.tiny_benchmarks import COLOURS, write_vlmevalkit_table


@pytest.mark.parametrize("place", ["vlmeval/run.py", "run.py"])
def test_the_run_script_is_found_in_the_package_or_beside_it(tmp_path, place):
    (tmp_path / "vlmeval").mkdir()
    (tmp_path / place).touch()
    assert vlmevalkit.kit_run(tmp_path / "vlmeval") == tmp_path / place


def test_a_kit_without_its_run_script_is_named(tmp_path):
    with pytest.raises(ValueError, match="without its run.py; pip install ms-vlmeval"):
        vlmevalkit.kit_run(tmp_path / "vlmeval")


def test_a_missing_kit_is_named_with_its_installation(monkeypatch):
    monkeypatch.setattr(vlmevalkit, "find_spec", lambda name: None)
    result = CliRunner().invoke(vlmevalkit.app, ["--model", "nano", "--data", "MME", "MMStar"])
    assert result.exit_code == 2 and "VLMEvalKit is not installed: pip install ms-vlmeval" in result.stderr


def test_the_kits_options_are_handed_on_as_they_are(monkeypatch):
    calls = []
    monkeypatch.setattr(
        vlmevalkit, "run_kit", lambda name, arguments, **options: calls.append((name, arguments, options))
    )
    arguments = ["--data", "MME", "MMStar", "--model", "M", "--work-dir", "out", "--max-tiles", "2", "--reuse"]
    assert CliRunner().invoke(vlmevalkit.app, arguments).exit_code == 0
    ((name, handed_on, options),) = calls
    assert (name, handed_on) == ("InstructVLA", ["--data", "MME", "MMStar", "--work-dir", "out", "--reuse"])
    assert options == {"model_path": "M", "device": None, "dtype": None, "max_tiles": 2, "adapters": True}


@pytest.mark.slow
def test_the_kit_runs_a_tiny_data_set(tmp_path):
    pytest.importorskip("vlmeval.config", reason="needs the kit: pip install ms-vlmeval", exc_type=ImportError)
    write_vlmevalkit_table(tmp_path, "TinyColours")
    command = [sys.executable, "-m", vlmevalkit.__name__, "--model", "nano", "--device", "cpu", "--name", "Nano"]
    options = ["--data", "TinyColours", "--judge", "exact_matching", "--work-dir", str(tmp_path / "out")]
    subprocess.run([*command, *options], check=True, env=os.environ | {"LMUData": str(tmp_path)})
    status = json.loads((tmp_path / "out" / "Nano" / "status.json").read_text())["datasets"]["TinyColours"]
    assert status["status"] == "done" and status["metrics"]["split=val|Overall"] * len(COLOURS) in range(5)

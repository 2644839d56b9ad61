"""The proof without trained weights: on the tabletop, in every simulator that is installed, and where it must fail."""

import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instructvla.evaluation.benchmarks import find_benchmark
from instructvla.evaluation.policy_server import PolicyServer, running_server
from instructvla.evaluation.scripted_policies import scripted_policy
from instructvla.evaluation.simulators.installation import FOLDER_VARIABLE, simulator_python
from instructvla.evaluation.simulators.proof import PLANS, app, prove, section
from tests.tabletop_policies import CLOSE

PATIENCE = {"start_s": 3600.0, "step_s": 3600.0, "answer_s": 600.0}  # a busy CPU renders slowly
TABLETOP = replace(PLANS["tabletop"], tasks=(CLOSE,))
DEVIATING_LOOP = """
import sys
import numpy as np
trial, commands, outcome = sys.argv[1:]
with np.load({honest!r}) as honest:
    seen = dict(honest)
seen["states"][3, 1] = np.nextafter(seen["states"][3, 1], 9)
seen["successes"][-1] = False
np.savez(outcome, **seen)
"""


@contextmanager
def served_here(policy):
    """The same server without a process of its own, which takes long to start."""
    with running_server(PolicyServer(scripted_policy(policy))) as url:
        yield url


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proof") / "tabletop"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("instructvla.evaluation.simulators.proof.served", served_here)
        return folder, prove(TABLETOP, folder, PATIENCE)


def nothing_starts(monkeypatch):
    def start(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen", start)


def test_on_the_tabletop_the_replay_succeeds_chance_fails_and_the_bare_loop_is_equal(proven):
    (row,) = proven[1].rows
    assert (row.replayed, row.random, row.differences) == (True, False, ()) and row.proven
    assert row.trial.task == CLOSE and 0 < row.steps < row.trial.max_steps


def test_what_is_done_is_not_done_again(proven, monkeypatch):
    folder, proof = proven
    nothing_starts(monkeypatch)
    assert prove(TABLETOP, folder, PATIENCE) == proof


def test_a_bare_loop_that_deviates_is_found_and_told(proven, tmp_path):
    folder = shutil.copytree(proven[0], tmp_path / "tabletop")
    (honest,) = proven[0].glob("bare_loop/*.npz")
    shutil.rmtree(folder / "bare_loop")
    loop = tmp_path / "deviating_loop.py"
    loop.write_text(DEVIATING_LOOP.format(honest=str(honest)), encoding="utf-8")
    proof = prove(replace(TABLETOP, bare_loop=loop), folder, PATIENCE)
    (row,) = proof.rows
    assert not row.proven
    assert row.differences == ("states from step 3 on", f"successes from step {row.steps} on")
    assert "| differs in states from step 3 on; differs in successes from" in section(TABLETOP, proof)


@pytest.mark.parametrize("changed", [{"replayed": False}, {"replayed": None}, {"random": True}, {"random": None}])
def test_other_outcomes_prove_nothing(proven, changed):
    assert not replace(proven[1].rows[0], **changed).proven


def test_a_bare_loop_that_breaks_is_told(proven, tmp_path):
    folder = shutil.copytree(proven[0], tmp_path / "tabletop", ignore=shutil.ignore_patterns("bare_loop"))
    with pytest.raises(ValueError, match="the bare loop of tabletop ended with 2; what it printed stands above"):
        prove(replace(TABLETOP, bare_loop=tmp_path / "missing.py"), folder, PATIENCE)


def test_a_bare_loop_that_hangs_is_ended(proven, tmp_path, monkeypatch):
    monkeypatch.setattr("instructvla.evaluation.simulators.proof.RUN_S", 0.5)
    folder = shutil.copytree(proven[0], tmp_path / "tabletop", ignore=shutil.ignore_patterns("bare_loop"))
    loop = tmp_path / "hanging_loop.py"
    loop.write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    with pytest.raises(ValueError, match="the bare loop of tabletop took longer than 0.5 s"):
        prove(replace(TABLETOP, bare_loop=loop), folder, PATIENCE)


def test_the_command_writes_a_summary_and_says_what_is_not_installed(proven, tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "none"))
    monkeypatch.setenv("MS2_REAL2SIM_ASSET_DIR", str(tmp_path))
    monkeypatch.setattr("instructvla.evaluation.simulators.proof.PLANS", {**PLANS, "tabletop": TABLETOP})
    output = proven[0].parent
    result = CliRunner().invoke(app, ["--output", str(output)])
    assert result.exit_code == 0, result.output
    summary = (output / "summary.md").read_text(encoding="utf-8")
    assert f"| {CLOSE} | 0 | {proven[1].rows[0].steps} | success | failure | identical |" in summary
    assert summary.count("Not run: ") == 3 and "`instructvla install-simulator libero`" in summary
    asked = CliRunner().invoke(app, ["--output", str(tmp_path / "new"), "--benchmark", "libero"])
    assert asked.exit_code == 2 and "install-simulator libero" in asked.stderr
    unknown = CliRunner().invoke(app, ["--benchmark", "chess"])
    assert (
        unknown.exit_code == 2 and "nothing is planned for 'chess'; there are tabletop, simpler_env" in unknown.stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PLANS if name != "tabletop"])
def test_in_the_other_simulators_too(name, tmp_path):
    try:
        simulator_python(find_benchmark(name))
    except ValueError as error:
        pytest.skip(str(error))
    plan = replace(PLANS[name], tasks=PLANS[name].tasks[:1])
    (row,) = prove(plan, Path(tmp_path), PATIENCE).rows
    assert row.proven, row

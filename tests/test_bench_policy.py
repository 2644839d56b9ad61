"""Claims about the policy's speed on the tabletop."""

import pytest
from typer.testing import CliRunner

from instructvla.evaluation.tabletop.bench_policy import app, decision_milliseconds, moments_of, run_model
from instructvla.evaluation.tabletop.policies import ModelPolicy
from tests.tabletop_policies import shared_model, tabletop_model


def test_every_way_to_decide_is_timed():
    times = decision_milliseconds(shared_model(), batch=2, repeats=1)
    assert list(times) == ["think, then act", "act, words reused", "act without words", "action expert alone"]
    assert all(value > 0 for value in times.values())


def test_moments_are_of_different_trials():
    moments = moments_of(ModelPolicy(shared_model()), 3)
    assert len({one.instruction for one in moments}) == 3 and all(one.pictures["front"].any() for one in moments)


def test_work_counts_the_timed_episodes(tmp_path):
    tabletop_model().save_pretrained(tmp_path)
    work = run_model(str(tmp_path), environments=2, episodes=2)
    assert work.episodes == 2 and 0 < work.steps <= 160 and work.seconds > 0


@pytest.mark.slow
def test_bench_prints_decisions_and_rollouts_by_both_numbers_of_processes(tmp_path):
    tabletop_model().save_pretrained(tmp_path)
    printed = CliRunner().invoke(app, ["--model", str(tmp_path), "--episodes", "1", "--repeats", "1"])
    assert printed.exit_code == 0, printed.output
    assert "batch 8" in printed.stdout and "2 processes" in printed.stdout and "episodes/min" in printed.stdout


def test_a_missing_checkpoint_is_one_line_on_stderr():
    result = CliRunner().invoke(app, ["--model", "outputs/no/such/folder"])
    assert result.exit_code == 2 and result.stderr.startswith("error: there is no checkpoint")

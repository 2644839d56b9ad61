"""The world's speed."""

import pytest
from typer.testing import CliRunner

from instructvla.evaluation.tabletop.bench_world import app, run_expert


@pytest.mark.slow
def test_bench_prints_both_numbers_of_processes():
    printed = CliRunner().invoke(app, ["--episodes", "1", "--image-size", "32"])
    assert printed.exit_code == 0, printed.output
    assert "1 process " in printed.stdout and "2 processes" in printed.stdout and "episodes/min" in printed.stdout


def test_work_counts_the_timed_episodes():
    work = run_expert(image_size=32, episodes=2)
    assert work.episodes == 2 and work.steps > 10 and work.seconds > 0

"""The expert's success table."""

import gymnasium
from typer.testing import CliRunner

from instructvla.evaluation.tabletop import ENVIRONMENT
from instructvla.evaluation.tabletop.measure_expert import app, expert_episode
from instructvla.evaluation.tabletop.scene import Skill


def test_table_has_a_row_with_interval_per_split_and_skill():
    printed = CliRunner().invoke(app, ["--seeds", "1"])
    rows = printed.stdout.splitlines()
    assert printed.exit_code == 0 and len(rows) == 1 + 2 * len(Skill)
    assert all("1/1" in row and "20.7%–100.0%" in row for row in rows[1:])


def test_an_episode_repeats_exactly():
    env = gymnasium.make(ENVIRONMENT, cameras=())
    one, two = (expert_episode(env, 5, "train", Skill.PUT_IN, noise=0.01) for _ in range(2))
    assert one == two and one.success and one.instruction.startswith("put the")

"""Claims about `instructvla rollout`."""

import av
import pytest
from typer.testing import CliRunner

from instructvla.evaluation.tabletop import rollout_command
from instructvla.evaluation.tabletop.rollout_command import app
from tests.tabletop_policies import THIRSTY, shared_model


@pytest.fixture(autouse=True)
def checkpoint(monkeypatch):
    monkeypatch.setattr(rollout_command, "load_checkpoint", lambda name: shared_model())


def command(*arguments: str):
    return CliRunner().invoke(app, ["--max-steps", "4", *arguments])


def test_it_says_what_stands_there_what_the_robot_says_and_how_it_ends():
    result = command("--instruction", "pick up the apple", "--think")
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.replace("on the table", "table").splitlines())
    assert "apple" in lines["table"] and lines["you"] == "pick up the apple"
    assert lines["robot"] and lines["result"] == "no success after 4 steps"
    assert lines["time"].endswith("ms per decision")


def test_a_free_instruction_runs_without_a_rule():
    result = command("--instruction", "dance", "--no-think", "--scene-of", THIRSTY)
    assert result.exit_code == 0, result.output
    assert "4 steps; no success rule for a free instruction" in result.stdout
    assert "water bottle" in result.stdout and "robot" not in result.stdout


def test_episodes_have_scenes_of_their_own_and_a_rate():
    result = command("--instruction", "pick up the apple", "--no-think", "--episodes", "2", "--ratio", "2")
    assert result.exit_code == 0, result.output
    tables = {line for line in result.stdout.splitlines() if line.startswith("on the table")}
    assert len(tables) == 2 and "success       0 of 2 (95 % interval 0% to 66%)" in result.stdout


def test_a_film_is_saved(tmp_path):
    film = tmp_path / "new" / "film.mp4"
    result = command("--instruction", "open the drawer", "--no-think", "--save-video", str(film))
    assert result.exit_code == 0, result.output
    assert str(film) in result.stdout
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--instruction", ""], "instruction is empty"),
        (["--instruction", "dance", "--scene-of", "no-such-task"], "unknown task 'no-such-task'"),
        (["--instruction", "dance", "--save-video", "film.avi"], "must end in .mp4 or .gif"),
    ],
)
def test_bad_input_is_one_line_on_stderr(arguments, message):
    result = command(*arguments)
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and message in result.stderr

"""Claims about the demo: three instructions in closed loop, and a film of them."""

import av
import pytest
from typer.testing import CliRunner

from instructvla.evaluation import demo
from instructvla.evaluation.demo import SHOWS, app
from instructvla.evaluation.tabletop.own_instruction import meant_task
from instructvla.evaluation.tabletop.rollout import rollouts
from tests.tabletop_policies import TalkingExpert, tabletop_model


def test_every_show_can_be_done():
    outcomes = list(rollouts(TalkingExpert(), [show.assignment() for show in SHOWS], environments=1))
    assert [outcome.success for outcome in outcomes] == [True] * 3
    assert outcomes[-1].responses == ("I will pick up the water bottle.",)


def test_the_last_show_has_sodas_that_are_not_wanted():
    assert SHOWS[-1].kind == "situated" and "no soda" in SHOWS[-1].instruction
    assert {"cola can", "lemonade can", "water bottle"} <= {item for item, _ in SHOWS[-1].things}


@pytest.mark.parametrize("show", SHOWS[:2], ids=lambda show: show.kind)
def test_instructions_mean_their_tasks(show):
    assert meant_task(show.instruction, show.assignment().trial.scene) == show.task


def test_a_checkpoint_drives_the_arm_and_the_film_can_be_played(tmp_path):
    tabletop_model().save_pretrained(tmp_path / "tiny")
    film = tmp_path / "demo.mp4"
    arguments = ["--model", str(tmp_path / "tiny"), "--output", str(film), "--max-steps", "2", "--think"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for show in SHOWS:
        assert f"[{show.kind}]" in result.stdout and show.instruction in result.stdout
    assert result.stdout.count("robot  ") == 3 and "0 of 3 succeeded" in result.stdout
    assert "ms per decision" in result.stdout and str(film) in result.stdout
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "demo.txt"], "must end in .mp4 or .gif"),
        (["--model", "outputs/no/such/folder"], "there is no checkpoint outputs/no/such/folder"),
    ],
)
def test_bad_input_is_one_line_on_stderr(arguments, message):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and message in result.stderr


def test_without_an_opengl_library_the_package_to_install_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr("instructvla.evaluation.tabletop.rendering._context", None)
    monkeypatch.setattr("instructvla.evaluation.tabletop.rendering.import_module", _no_library)
    monkeypatch.setattr(demo, "load_checkpoint", lambda name: tabletop_model())
    result = CliRunner().invoke(app, ["--output", str(tmp_path / "demo.mp4")])
    assert result.exit_code == 2 and "apt-get install libegl1" in result.stderr
    assert not list(tmp_path.iterdir())


def _no_library(name: str):
    raise ImportError("libEGL.so.1: cannot open shared object file")

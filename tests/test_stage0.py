"""The script of stage 0 names itself and its configuration; what it does is in test_tower_pretraining.py."""

from typer.testing import CliRunner

from instructvla.training.stage0 import app


def test_help_says_which_stage_it_is_and_how_to_go_on():
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "160"})
    assert result.exit_code == 0 and "Train stage 0" in result.output and "stage0.yaml" in result.output
    assert "--resume_from_checkpoint" in result.output

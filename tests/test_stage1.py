"""The script of stage 1 names itself and its configuration; what it does is in test_training_run.py."""

from typer.testing import CliRunner

from instructvla.training.stage1 import app


def test_help_says_which_stage_it_is_and_how_to_go_on():
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "160"})
    assert result.exit_code == 0 and "Train stage 1" in result.output and "stage1.yaml" in result.output
    assert "--resume_from_checkpoint" in result.output and "--push_to_hub" in result.output

"""Claims about `instructvla open-loop`."""

import pytest
from typer.testing import CliRunner

from instructvla.training.open_loop_command import app, table
from tests.reaching_episodes import write_reaching
from tests.training_inputs import nano_for, reaching_datasets


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    datasets, _ = reaching_datasets(folder)
    nano_for(datasets).save_pretrained(folder / "model")
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_prints_each_dimensions_error_and_draws_a_plot(world, tmp_path):
    few = ["--episodes", 2, "--chunks", 1, "--output", tmp_path / "plot.png", "--device", "cpu"]
    result = invoke(world / "model", world / "reaching", *few)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert ["x", "m"] in [[line[0], line[2]] for line in lines if len(line) == 4]
    assert any(line[:1] == ["z"] and line[-1] == "constant" for line in lines)
    assert (tmp_path / "plot.png").is_file() and "2 chunks" in result.output


def test_long_names_keep_the_columns_in_line():
    names = ["x", "right_hand_thumb_rotation_of_the_robot"]
    metrics = {"eval_action_error": 0.5, **{f"eval_action_mae/{name}": 0.1 for name in names}}
    lines = table(metrics | {"eval_action_error/x": 0.5}, names, ["m", "rad"])
    assert len({len(line.rstrip()) for line in lines[:2]}) == 1 and lines[2].split()[-1] == "constant"


@pytest.mark.parametrize(
    ("data", "message"),
    [("nowhere", "nowhere"), ("other", "reaching")],
)
def test_data_that_do_not_fit_end_in_one_message(world, data, message, tmp_path):
    if data == "other":
        (world / "other").exists() or write_reaching(world / "other", 2)
        (tmp_path / "model").mkdir()
        from tests.lively_experts import lively

        lively(1).save_pretrained(tmp_path / "model")
        result = invoke(tmp_path / "model", world / "other", "--output", tmp_path / "plot.png")
    else:
        result = invoke(world / "model", tmp_path / data, "--output", tmp_path / "plot.png")
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert not (tmp_path / "plot.png").exists()

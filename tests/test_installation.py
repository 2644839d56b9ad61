"""Claims about simulators in virtual environments of their own."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instructvla.evaluation.simulators.benchmark_definition import Installation, Source
from instructvla.evaluation.simulators.installation import (
    app,
    install,
    install_commands,
    parse_sources,
    simulator_python,
)
from tests.stand_in_benchmark import BENCHMARK

OWN = replace(
    BENCHMARK,
    installation=Installation(
        ("numpy==1.26.4",), (Source("points", "https://example.org/points", "abc123"),), ("old-one==1.0",)
    ),
)


def test_a_benchmark_without_an_installation_runs_here():
    assert simulator_python(BENCHMARK) == Path(sys.executable)


def test_a_simulator_that_is_not_installed_says_how(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCTVLA_SIMULATORS", str(tmp_path))
    with pytest.raises(ValueError, match="is not at .*points; `instructvla install-simulator points` puts it there"):
        simulator_python(OWN)
    python = tmp_path / "points" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert simulator_python(OWN) == python


def test_assets_that_are_not_named_are_asked_for(monkeypatch):
    monkeypatch.delenv("POINT_ASSETS", raising=False)
    with pytest.raises(ValueError, match="needs the folder of points; name it with .* POINT_ASSETS"):
        simulator_python(replace(BENCHMARK, needs={"POINT_ASSETS": "the folder of points"}))


def test_pins_come_first_and_sources_and_this_package_bring_nothing_else(tmp_path):
    commands = install_commands(OWN.installation, tmp_path, "instructvla==1", {})
    given = [command[5:] for command in commands]
    assert all(command[0] == str(tmp_path / "bin" / "python") for command in commands)
    assert given == [
        ["numpy==1.26.4", "msgpack>=1.0.5"],
        ["--no-deps", "old-one==1.0"],
        ["--no-deps", "--no-build-isolation", "points @ git+https://example.org/points@abc123"],
        ["--no-deps", "instructvla==1"],
    ]
    assert "/my/points" in install_commands(OWN.installation, tmp_path, "x", {"points": "/my/points"})[2]
    with pytest.raises(ValueError, match="no source 'lines'; there are points"):
        install_commands(OWN.installation, tmp_path, "x", {"lines": "/"})


def test_an_interpreter_of_another_version_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCTVLA_SIMULATORS", str(tmp_path))
    for_old_python = replace(BENCHMARK, installation=Installation((), python="2.7"))
    with pytest.raises(ValueError, match=r"Points needs Python 2.7, .* is 3.1\d; give one: --python python2.7"):
        install(for_old_python, sys.executable, "x", {})
    with pytest.raises(ValueError, match="interpreter python-none can't be started"):
        install(for_old_python, "python-none", "x", {})
    assert not list(tmp_path.iterdir())


def test_bad_input_is_one_line():
    assert parse_sources(["a=/b", "c=/d=e"]) == {"a": "/b", "c": "/d=e"}
    with pytest.raises(ValueError, match="--source points must be NAME=FOLDER"):
        parse_sources(["points"])
    result = CliRunner().invoke(app, ["tests.stand_in_benchmark"])
    assert result.exit_code == 2 and "Points runs in this environment" in result.stderr

"""Claims about the `instructvla` command."""

import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from instructvla import cli
from instructvla.evaluation import one_picture


def command(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments), prog_name="instructvla")


def test_help_lists_every_command():
    result = command("--help")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in cli.COMMANDS)


def test_finding_a_command_imports_nothing_heavy():
    tree = ast.parse(Path(cli.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"re", "collections.abc", "importlib", "importlib.metadata", "typer"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_is_the_help_of_its_module(name):
    result = command(name, "--help")
    assert result.exit_code == 0
    assert f"Usage: instructvla {name} [OPTIONS]" in result.stdout


def test_arguments_and_exit_codes_pass_through(tmp_path):
    arguments = ["--image", str(tmp_path / "none.png")]
    through, direct = command("ask", *arguments), CliRunner().invoke(one_picture.app, arguments)
    assert (through.exit_code, through.stderr) == (direct.exit_code, direct.stderr) == (2, direct.stderr)
    assert "does not exist" in through.stderr


def test_an_unknown_command_is_refused():
    result = command("fly")
    assert result.exit_code == 2 and "fly" in result.stderr


def test_a_missing_extra_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    monkeypatch.setattr(cli, "import_module", lambda module: __import__("mujoco"))
    result = command("tabletop", "--help")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: instructvla tabletop needs mujoco, which is not installed: pip install 'instructvla[sim]'\n"
    )


def test_an_extra_that_is_missed_only_while_a_command_runs_is_named_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    late = SimpleNamespace(app=lambda **_: __import__("mujoco"))
    monkeypatch.setattr(cli, "import_module", lambda module: late)
    result = command("tabletop")
    assert result.exit_code == 2 and "pip install 'instructvla[sim]'" in result.stderr


def test_another_missing_module_is_no_matter_of_extras(monkeypatch):
    monkeypatch.setattr(cli, "import_module", lambda module: __import__("no_such_module"))
    assert isinstance(command("tabletop", "--help").exception, ModuleNotFoundError)

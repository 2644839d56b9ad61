"""Claims about the errors of commands."""

import pytest
import typer

from instructvla.command_errors import errors_on_stderr


def test_a_value_error_is_one_line_and_exit_code_2(capsys):
    with pytest.raises(typer.Exit) as stop, errors_on_stderr():
        raise ValueError("--size is 3,\n  but it must be 4.")
    assert stop.value.exit_code == 2
    assert capsys.readouterr().err == "error: --size is 3, but it must be 4.\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(KeyError), errors_on_stderr():
        raise KeyError("bug")

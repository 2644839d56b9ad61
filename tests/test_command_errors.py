"""Claims about the errors of commands."""

import pytest
import typer

from instructvla.command_errors import errors_on_stderr, writing_to


def test_a_value_error_is_one_line_and_exit_code_2(capsys):
    with pytest.raises(typer.Exit) as stop, errors_on_stderr():
        raise ValueError("--size is 3,\n  but it must be 4.")
    assert stop.value.exit_code == 2
    assert capsys.readouterr().err == "error: --size is 3, but it must be 4.\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(KeyError), errors_on_stderr():
        raise KeyError("bug")


def test_a_full_disk_names_the_folder_and_the_remedy(tmp_path):
    message = r"--output .*out can't be written: .*No space.*give another folder"
    with pytest.raises(ValueError, match=message), writing_to(tmp_path / "out"):
        raise OSError(28, "No space left on device")

"""Claims about the lock of an output folder."""

import os

import pytest

from instructvla.training.run_lock import only_run


def test_a_second_run_into_a_folder_is_refused_until_the_first_has_ended(tmp_path):
    refusal = pytest.raises(ValueError, match="another run writes into .*run; wait")
    with only_run(tmp_path / "run"), refusal, only_run(tmp_path / "run"):
        pass
    with only_run(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()  # as it was made for nothing


def test_a_killed_run_leaves_the_folder_free(tmp_path):
    if (child := os.fork()) == 0:
        with only_run(tmp_path):
            os._exit(0)
    os.waitpid(child, 0)
    with only_run(tmp_path):
        pass


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="output_dir .*file can't be written"), only_run(tmp_path / "file"):
        pass

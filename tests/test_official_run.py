"""Claims about finding and reading a published run."""

import json
import shutil

import pytest

from instructvla.official_run import find_run, read_statistics
from tests.official_run_folder import write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def test_a_run_folder_and_its_file_are_the_same_run(run):
    by_folder, by_file = find_run(run), find_run(run / "checkpoints" / "step-000001.pt")
    assert by_folder == by_file
    assert by_folder.settings["num_of_meta_query"] == 16
    assert set(by_folder.statistics["bridge_dataset"]) == {"action", "state"}


def test_a_file_that_lies_beside_its_statistics_is_a_run_without_settings(run, tmp_path):
    (tmp_path / "flat").mkdir()
    shutil.copy(run / "checkpoints" / "step-000001.pt", tmp_path / "flat" / "unloaded.pt")
    shutil.copy(run / "dataset_statistics.json", tmp_path / "flat")
    found = find_run(tmp_path / "flat" / "unloaded.pt")
    assert found.settings == {} and found.statistics == find_run(run).statistics


def test_control_rates_are_given_for_the_datasets_that_are_known(run):
    statistics = json.loads((run / "dataset_statistics.json").read_text())
    parts = statistics["bridge_dataset"]
    keys = ["bridge_orig", "fractal20220817_data", "libero_10_no_noops", "my_robot"]
    (run / "dataset_statistics.json").write_text(json.dumps(dict.fromkeys(keys, parts)))
    assert find_run(run).control_rates() == {keys[0]: 5.0, keys[1]: 3.0, keys[2]: 20.0}


def test_several_checkpoints_are_listed_and_one_can_be_chosen(run):
    shutil.copy(run / "checkpoints" / "step-000001.pt", run / "checkpoints" / "step-000002.pt")
    with pytest.raises(ValueError, match="has 2 .checkpoints/step-000001.pt, checkpoints/step-000002.pt.*--checkpoint"):
        find_run(run)
    assert find_run(run, checkpoint="checkpoints/step-000002.pt").checkpoint.name == "step-000002.pt"
    with pytest.raises(ValueError, match="--checkpoint last.pt is not a file"):
        find_run(run, checkpoint="last.pt")


def test_a_folder_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has 0 .none.*give a published run"):
        find_run(tmp_path)


def test_what_is_no_checkpoint_file_is_refused(run):
    with pytest.raises(ValueError, match="is no .pt file"):
        find_run(run / "config.json")


def test_missing_statistics_are_asked_for_and_can_be_given(run, tmp_path):
    elsewhere = shutil.move(run / "dataset_statistics.json", tmp_path / "statistics.json")
    with pytest.raises(ValueError, match="--statistics FILE"):
        find_run(run)
    assert "bridge_dataset" in find_run(run, statistics=elsewhere).statistics


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"bridge": 1}'])
def test_unreadable_statistics_are_refused_by_their_path(tmp_path, text):
    path = tmp_path / "dataset_statistics.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"dataset_statistics\.json"):
        read_statistics(path)


def test_options_that_would_be_ignored_are_refused(run):
    path = run / "checkpoints" / "step-000001.pt"
    with pytest.raises(ValueError, match="--checkpoint other.pt chooses a file of a run"):
        find_run(path, checkpoint="other.pt")
    with pytest.raises(ValueError, match="--revision main is of a Hub repository"):
        find_run(run, revision="main")

"""Claims about `instructvla validate`: every problem with its episode, a table, exit codes, a JSON report."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from instructvla.training.data.episodes import Annotation, Episode
from instructvla.training.data.field_mapping import read_mapping
from instructvla.training.data.prepare import prepare
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.validate import CHECKS, app, validate
from instructvla.training.data.vla_it import VlaItIndex, write_vla_it
from tests.memory_episodes import SHARED, bridge_episodes


class Episodes:
    """A described reader of prepared-like episodes; `changes` replace columns of some."""

    def __init__(self, count=6, changes=None, bad=()):
        self.reader, self.changes = bridge_episodes(count, bad), changes or {}
        self.description = self.reader.description
        self.provenance, self.fingerprint = self.reader.provenance, self.reader.fingerprint

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, index) -> Episode:
        return replace(self.reader[index], **self.changes.get(index, {}))


def checks_of(reader, **options):
    return [(found.check, found.number) for found in validate(reader, **options).problems]


def test_a_good_dataset_has_no_problems():
    report = validate(Episodes())
    assert report.problems == [] and report.episodes == 6 and report.frames == 24
    assert set(report.counts()) == set(CHECKS) and not any(report.counts().values())


def test_each_problem_is_listed_with_its_episode_and_the_others_are_read_on():
    black = io.BytesIO()
    Image.new("RGB", (16, 16)).save(black, "PNG")
    changes = {
        1: {"instructions": [None] * 4},
        3: {"images": {"primary": [black.getvalue()] * 4}},
        4: {"states": np.full((4, 8), np.nan, np.float32)},
    }
    told = []
    report = validate(Episodes(changes=changes, bad=[2]), on_problem=told.append)
    found = [(problem.check, problem.number) for problem in report.problems]
    assert found == [("instruction", 1), ("unreadable", 2), ("blank frames", 3), ("finite", 4)]
    assert told == report.problems
    assert str(report.problems[0]) == "episode 1 (3): instruction: 4 of its 4 steps have no instruction"
    assert "record 2 is truncated; copy the file again" in str(report.problems[1])


def test_only_the_first_episodes_are_looked_at_if_asked():
    reader = Episodes(bad=[4])
    assert checks_of(reader, max_episodes=4) == []
    assert checks_of(reader, max_episodes=100) == [("unreadable", 4)]


def test_a_minimum_of_steps_can_be_set():
    assert checks_of(Episodes(2), shortest=5) == [("length", 0), ("length", 1)]


def test_annotations_and_episodes_that_do_not_meet_are_found(tmp_path):
    reader = Episodes(3)
    annotated = [replace(reader[number], annotation=Annotation(caption="A table.")) for number in (0, 2)]
    stranger = replace(annotated[0], file_path="/robot/other/out.npy")
    write_vla_it(tmp_path / "all.json", [*annotated, stranger])
    report = validate(reader, annotations=VlaItIndex.read([tmp_path / "all.json"]))
    assert [str(problem) for problem in report.problems] == [
        "episode 1 (3): annotation: no annotation is of this episode (/robot/1/out.npy)",
        "dataset: annotation: 1 of 3 annotated episodes are not in the dataset",
    ]
    # of a part of the dataset it is not known which annotations are left over
    assert checks_of(reader, annotations=VlaItIndex.read([tmp_path / "all.json"]), max_episodes=1) == []


def test_what_can_not_be_checked_is_said():
    reader = Episodes(2)
    reader.description = replace(reader.description, gripper_dims=(), action_names=tuple("abcdefg"))
    report = validate(reader)
    assert report.unchecked == {
        "gripper": "no action dimension is a gripper",
        "opposed action": "no action dimension is named as one of the state",
    }
    assert any("[not checked: no action dimension is a gripper]" in line for line in report.table())
    assert validate(Episodes(2)).unchecked == {}


@pytest.fixture
def prepared(tmp_path):
    prepare(Episodes(3, {1: {"instructions": [None] * 4}}), tmp_path / "prepared")
    return tmp_path / "prepared"


def test_the_command_lists_problems_then_a_table_and_fails(prepared, tmp_path):
    result = CliRunner().invoke(app, [str(prepared), "--json", str(tmp_path / "report.json")])
    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert lines[0] == "episode 1 (3): instruction: 4 of its 4 steps have no instruction"
    assert lines[2] == "bridge_dataset: 3 episodes, 12 frames"
    assert "      1  instruction     steps without instruction in 1 episodes" in lines
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["counts"]["instruction"] == 1 and report["problems"][0]["number"] == 1


def test_the_command_succeeds_when_nothing_is_wrong(prepared):
    result = CliRunner().invoke(app, [str(prepared), "--max-episodes", "1"])
    assert result.exit_code == 0 and result.stdout.startswith("bridge_dataset: 1 episodes, 4 frames")


@pytest.mark.parametrize("arguments", [["--split", "other"], ["--json", "."], ["--vla-it", "none.json"]])
def test_the_command_says_what_it_can_not_use(prepared, arguments):
    result = CliRunner().invoke(app, [str(prepared), *arguments])
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and not result.stdout


def test_a_camera_that_is_blank_in_real_recordings_is_found():
    source = SHARED / "bridge_rlds_debug" / "bridge_dataset" / "1.0.0"
    if not source.is_dir():
        pytest.skip(f"the real episodes are not at {source}")
    assert checks_of(open_episodes(source, "bridge")) == []
    given = dict(read_mapping("bridge").given) | {"cameras": {"primary": "observation/image_3"}}
    found = checks_of(open_episodes(source, read_mapping(given)))
    assert {number for check, number in found if check == "blank frames"} == set(range(25))


def test_a_real_gripper_is_found_only_when_the_mapping_is_inverted():
    source = SHARED / "bridge_rlds_debug" / "bridge_dataset" / "1.0.0"
    if not source.is_dir():
        pytest.skip(f"the real episodes are not at {source}")
    reader = open_episodes(source, "bridge")
    closing = [number for number in range(len(reader)) if np.ptp(reader[number].actions[:, 6]) > 0]
    assert closing, "some of the recordings move the gripper"
    inverted = {number: {"actions": invert_gripper(reader[number].actions)} for number in closing}
    wrong = Changed(reader, inverted)
    assert any(check == "gripper" for check, _ in checks_of(wrong, frames=0))


class Changed:
    def __init__(self, reader, changes):
        self.reader, self.changes, self.description = reader, changes, reader.description

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, index):
        return replace(self.reader[index], **self.changes.get(index, {}))


def invert_gripper(actions):
    inverted = actions.copy()
    inverted[:, 6] = 1 - inverted[:, 6]
    return inverted

"""Claims about `instructvla validate`: every problem with its episode, a table, exit codes, a JSON report."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from instructvla.training.data.dataset_checks import problem_lines
from instructvla.training.data.episodes import Annotation, Episode
from instructvla.training.data.field_mapping import read_mapping
from instructvla.training.data.prepare import prepare
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.validate import CHECKS, app, validate
from instructvla.training.data.vla_it import VlaItIndex, write_vla_it
from tests.lerobot_writer import FRONT, LerobotDataset
from tests.memory_episodes import SHARED, bridge_episodes
from tests.rlds_writer import bridge_record, write_rlds


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
    report = validate(Episodes(changes=changes, bad=[2]))
    found = [(problem.check, problem.number) for problem in report.problems]
    assert found == [("instruction", 1), ("unreadable", 2), ("blank frames", 3), ("finite", 4)]
    assert str(report.problems[0]) == "episode 1 (3): instruction: 4 of its 4 steps have no instruction"
    assert "record 2 is truncated; copy the file again" in str(report.problems[1])


def test_a_problem_of_many_episodes_is_one_line_and_one_by_one_in_json():
    count = 40
    changes = {number: {"instructions": [None] * 4} for number in (1, 2, 3)}
    changes |= {number: {"images": {"primary": [b"no picture"] * 4}} for number in range(10, count)}
    report = validate(Episodes(count, changes))
    assert problem_lines(report.problems) == [
        *(f"episode {n} (3): instruction: 4 of its 4 steps have no instruction" for n in (1, 2, 3)),
        "30 episodes (10, 11, 12 and 27 more): images: primary: frame 0 can't be decoded: its 10 bytes are of no known "
        "format; others that can't be: 1, 2, 3",
    ]
    assert [problem["number"] for problem in report.to_dict()["problems"]] == [1, 2, 3, *range(10, count)]


@pytest.fixture
def truncated(tmp_path):
    """Two files of ten recordings, the first one cut within its third."""
    folder = write_rlds(tmp_path / "bridge", [bridge_record(number, 6) for number in range(20)], shards=2)
    first, second = sorted(folder.glob("*.tfrecord*"))
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 4])
    return folder, first, second


def unreadable(folder):
    return [line for line in problem_lines(validate(open_episodes(folder, "bridge")).problems) if "unreadable" in line]


def test_a_damaged_file_is_one_line(truncated):
    folder, first, _ = truncated
    (line,) = unreadable(folder)
    assert re.match(
        r"8 episodes \(2, 3, 4 and 5 more\): unreadable: .*, record 2: the file breaks off at record 2", line
    )
    assert line.count(str(first)) == 1


def test_damaged_files_are_told_apart(truncated):
    folder, *files = truncated
    files[1].write_bytes(files[1].read_bytes()[:100])
    lines = unreadable(folder)
    assert len(lines) == len(files) and all(str(file) in line for file, line in zip(files, lines, strict=True))


def test_damaged_files_of_a_prepared_dataset_are_a_line_each(tmp_path):
    prepare(Episodes(18), tmp_path / "prepared", shard_size=20_000)
    files = sorted((tmp_path / "prepared").glob("data/*"))
    assert len(files) > 1
    for file in files:
        file.write_bytes(file.read_bytes()[:-100])
    lines = [
        line for line in problem_lines(validate(open_episodes(tmp_path / "prepared")).problems) if "unreada" in line
    ]
    assert len(lines) == len(files) and all(str(file) in line for file, line in zip(files, lines, strict=True))


def test_missing_files_of_single_episodes_are_one_line(tmp_path):
    folder = LerobotDataset("v2.1", lengths=(4,) * 6, tasks=("a",) * 6).write(tmp_path / "robot")
    for path in sorted(folder.rglob("*.parquet"))[1:]:
        path.unlink()
    mapping = {
        "dataset": "made",
        "cameras": {"primary": FRONT},
        "action": {"parts": [{"field": "action"}], "names": ["a", "b"], "units": ["rad", "rad"]},
    }
    lines = problem_lines(validate(open_episodes(folder, mapping)).problems)
    place = f"{folder}, episode_index 1: data/chunk-000/episode_000001.parquet"
    assert f"5 episodes (1, 2, 3 and 2 more): unreadable: {place} is missing; copy it again" in lines


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
    write_vla_it(tmp_path / "all.json", [*annotated, stranger], first_step=1, dropped_steps=2)
    report = validate(reader, annotations=VlaItIndex.read([tmp_path / "all.json"]))
    assert [str(problem) for problem in report.problems] == [
        "episode 1 (3): annotation: no annotation is of this episode (/robot/1/out.npy)",
        "dataset: annotation: 1 of 3 annotated episodes are not in the dataset",
    ]
    many = validate(Episodes(30), annotations=VlaItIndex.read([tmp_path / "all.json"]))
    assert problem_lines(many.problems)[0] == (
        "28 episodes (1, 3, 4 and 25 more): annotation: no annotation is of this episode (/robot/1/out.npy)"
    )
    # of a part of the dataset it is not known which annotations are left over
    assert checks_of(reader, annotations=VlaItIndex.read([tmp_path / "all.json"]), max_episodes=1) == []


@pytest.mark.parametrize(
    ("motions", "problems"),
    [
        (6, []),
        (0, []),
        (9, ["its record does not fit (9 motions, 6 recorded steps); it is joined as far as it goes"]),
        (1, ["1 records hold a single motion, of the first step; the other steps have none"]),
    ],
)
def test_motions_that_are_not_one_per_recorded_step_are_found(tmp_path, motions, problems):
    reader = Episodes(1)
    record = {"features": {"move_primitive": ["stop"] * motions}}
    (tmp_path / "all.json").write_text(json.dumps({reader[0].file_path: {reader[0].episode_id: record}}))
    found = validate(reader, annotations=VlaItIndex.read([tmp_path / "all.json"])).problems
    assert [(problem.check, problem.message) for problem in found] == [("annotation", text) for text in problems]


def test_many_malformed_records_are_one_line(tmp_path):
    reader = Episodes(5)
    content = {reader[number].file_path: {"3": {"features": f"text {number}"}} for number in range(5)}
    (tmp_path / "all.json").write_text(json.dumps(content))
    lines = problem_lines(validate(reader, annotations=VlaItIndex.read([tmp_path / "all.json"])).problems)
    assert len(lines) == 1 and lines[0].startswith("5 episodes (0, 1, 2 and 2 more): annotation: ")
    assert "/robot/0/out.npy, episode 3: features is" in lines[0]


def test_a_flipped_byte_of_a_prepared_file_is_found_though_every_episode_can_be_read(tmp_path):
    prepare(Episodes(4), tmp_path / "prepared")
    reader = open_episodes(tmp_path / "prepared")
    assert checks_of(reader) == [] and "checksum" not in validate(reader).unchecked
    path = tmp_path / "prepared" / reader.files[0]["path"]
    content = path.read_bytes()
    path.write_bytes(content.replace(b"parquet-cpp-arrow", b"parquet-cpp-arroW"))
    (problem,) = validate(open_episodes(tmp_path / "prepared")).problems
    assert str(problem).startswith(f"dataset: checksum: {path} (episodes 0 to 3) is not what was prepared; copy")


def test_files_without_checksums_are_said_to_be_unchecked(tmp_path):
    prepare(Episodes(2), tmp_path / "prepared")
    manifest = json.loads((tmp_path / "prepared" / "manifest.json").read_text())
    del manifest["splits"]["train"]["files"][0]["sha256"]
    (tmp_path / "prepared" / "manifest.json").write_text(json.dumps(manifest))
    assert "has no checksums" in validate(open_episodes(tmp_path / "prepared")).unchecked["checksum"]


def test_what_can_not_be_checked_is_said():
    reader = Episodes(2)
    reader.description = replace(reader.description, gripper_dims=(), action_names=tuple("abcdefg"))
    report = validate(reader)
    files = {"checksum": "only prepared datasets have checksums"}
    assert report.unchecked == files | {
        "gripper": "no action dimension is a gripper",
        "opposed action": "no action dimension is named as one of the state",
    }
    assert any("[not checked: no action dimension is a gripper]" in line for line in report.table())
    assert validate(Episodes(2)).unchecked == files


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


def test_a_real_gripper_that_is_inverted_is_found_in_the_dataset_as_a_whole():
    source = SHARED / "bridge_rlds_debug" / "bridge_dataset" / "1.0.0"
    if not source.is_dir():
        pytest.skip(f"the real episodes are not at {source}")
    reader = open_episodes(source, "bridge")
    wrong = Changed(reader, {n: {"actions": invert_gripper(reader[n].actions)} for n in range(len(reader))})
    assert ("gripper", None) in checks_of(wrong, frames=0) and ("gripper", None) not in checks_of(reader, frames=0)


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

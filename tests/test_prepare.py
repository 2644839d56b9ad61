"""Claims about `instructvla prepare`: interrupted anywhere, another run gives the same bytes; bad input is named."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import yaml
from typer.testing import CliRunner

from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.field_mapping import read_mapping
from instructvla.training.data.parquet_reader import ParquetEpisodes
from instructvla.training.data.prepare import (
    app,
    motion_transform,
    parse_size,
    prepare,
    source_name,
    summary,
    without_folder,
)
from instructvla.training.data.readers import open_episodes
from tests.memory_episodes import SHARED, bridge_episodes
from tests.rlds_writer import bridge_record, write_rlds

BRIDGE = SHARED / "bridge_rlds_debug" / "bridge_dataset"
COUNT, SHARD_SIZE = 9, 5000  # bytes: about two episodes


def hashes(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "bridge"
    prepare(bridge_episodes(COUNT), folder, shard_size=SHARD_SIZE)
    return hashes(folder)


def test_it_writes_numbered_files_and_a_manifest_and_nothing_else(uninterrupted):
    files = len(uninterrupted) - 1
    assert files > 3
    names = [f"data/train-{number:05d}-of-{files:05d}.parquet" for number in range(files)]
    assert sorted(uninterrupted) == [*names, "manifest.json"]


class Interrupted(BaseException):
    """As a kill: nothing catches it."""


def interrupt_after(monkeypatch, name, calls):
    """The call of `os.<name>` with this number does not return; how many there were before it."""
    original, made = getattr(os, name), []

    def call(*arguments):
        if len(made) >= calls:
            raise Interrupted
        made.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_interrupted_at_any_file_another_run_gives_the_same_bytes(tmp_path, monkeypatch, uninterrupted, name):
    for calls in range(100):
        output = tmp_path / str(calls)
        with monkeypatch.context() as patched:
            interrupt_after(patched, name, calls)
            try:
                prepare(bridge_episodes(COUNT), output, shard_size=SHARD_SIZE)
            except Interrupted:
                assert not (output / "manifest.json").exists()
            else:
                break
        prepare(bridge_episodes(COUNT), output, shard_size=SHARD_SIZE)
        assert hashes(output) == uninterrupted
    assert calls > 5


def test_killed_it_goes_on_and_gives_the_same_bytes(tmp_path, uninterrupted):
    output = tmp_path / "bridge"
    code = f"""
    from tests.memory_episodes import bridge_episodes
    from instructvla.training.data.prepare import prepare
    prepare(bridge_episodes({COUNT}, seconds=0.3), {str(output)!r}, shard_size={SHARD_SIZE})
    """.replace("\n    ", "\n")
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    try:
        while not list(output.glob(".prepare/train-00001.parquet")):
            assert child.poll() is None, "it ended before it was killed"
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
    assert not (output / "manifest.json").exists()
    read = []
    reader = bridge_episodes(COUNT)
    reader.mapping = ReadCounter(reader.mapping, read)
    prepare(reader, output, shard_size=SHARD_SIZE)
    assert hashes(output) == uninterrupted
    assert 0 < len(read) < COUNT and read[-1] == COUNT - 1  # finished shards were not read again


class ReadCounter:
    """A mapping that notes the numbers of the episodes it is asked for."""

    def __init__(self, mapping, read):
        self.mapping, self.read = mapping, read

    def __getattr__(self, name):
        return getattr(self.mapping, name)

    def episode(self, raw, number):
        self.read.append(number)
        return self.mapping.episode(raw, number)


def test_a_second_run_changes_nothing(tmp_path, uninterrupted):
    for _ in range(2):
        prepare(bridge_episodes(COUNT), tmp_path / "bridge", shard_size=SHARD_SIZE)
        assert hashes(tmp_path / "bridge") == uninterrupted


def test_other_settings_are_refused_before_and_after_it_has_finished(tmp_path):
    with pytest.raises(BadEpisodeError):
        prepare(bridge_episodes(COUNT, bad=(5,)), tmp_path / "begun", shard_size=SHARD_SIZE)
    with pytest.raises(ValueError, match=r"begun was begun with other settings: motion was –, is true; shard_size"):
        prepare(bridge_episodes(COUNT), tmp_path / "begun", shard_size=1, settings={"motion": True})
    prepare(bridge_episodes(2), tmp_path / "finished")
    reader = bridge_episodes(2)
    reader.mapping = reader.mapping.with_dataset("other")
    with pytest.raises(ValueError, match="was prepared with other settings: dataset was .*, is .*other"):
        prepare(reader, tmp_path / "finished")


def test_the_first_bad_episode_stops_it_and_skip_bad_goes_on_from_there(tmp_path):
    reader = bridge_episodes(COUNT, bad=(5,))
    with pytest.raises(BadEpisodeError, match="^memory: record 5 is truncated; copy the file again; --skip-bad goes"):
        prepare(reader, tmp_path / "stopped", shard_size=SHARD_SIZE)
    assert list((tmp_path / "stopped").glob(".prepare/train-*.parquet")) and not (tmp_path / "stopped/data").exists()
    entry = prepare(reader, tmp_path / "stopped", shard_size=SHARD_SIZE, skip_bad=True)
    assert entry["skipped"] == [{"episode": 5, "reason": "memory: record 5 is truncated; copy the file again"}]
    assert (entry["episodes"], len(ParquetEpisodes(tmp_path / "stopped"))) == (8, 8)
    prepare(reader, tmp_path / "at once", shard_size=SHARD_SIZE, skip_bad=True)
    assert hashes(tmp_path / "stopped") == hashes(tmp_path / "at once")


def test_a_source_without_a_good_episode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no episode that can be read. memory: record 0 is truncated"):
        prepare(bridge_episodes(2, bad=(0, 1)), tmp_path / "bridge", skip_bad=True)
    assert not (tmp_path / "bridge").exists()


def test_what_fails_before_the_first_file_leaves_nothing_so_that_other_settings_may_follow(tmp_path):
    with pytest.raises(BadEpisodeError, match="record 1 is truncated"):
        prepare(bridge_episodes(3, bad=(1,)), tmp_path / "bridge")
    assert not (tmp_path / "bridge").exists()
    reader = bridge_episodes(3)
    reader.mapping = reader.mapping.with_dataset("corrected")
    assert prepare(reader, tmp_path / "bridge")["episodes"] == 3


def test_it_stops_after_as_many_good_episodes_as_asked_for(tmp_path):
    reader = bridge_episodes(COUNT, bad=(0, 2))
    entry = prepare(reader, tmp_path / "few", max_episodes=3, skip_bad=True, shard_size=SHARD_SIZE)
    assert (entry["episodes"], entry["settings"]["max_episodes"]) == (3, 3)
    assert [episode["episode"] for episode in entry["skipped"]] == [0, 2]
    paths = [ParquetEpisodes(tmp_path / "few")[number].file_path for number in range(3)]
    assert paths == [f"/robot/{number}/out.npy" for number in (1, 3, 4)]
    with pytest.raises(ValueError, match="max_episodes was 3, is 4"):
        prepare(reader, tmp_path / "few", max_episodes=4, skip_bad=True, shard_size=SHARD_SIZE)


def test_more_episodes_than_there_are_are_all(tmp_path):
    assert prepare(bridge_episodes(2), tmp_path / "all", max_episodes=5)["episodes"] == 2


def test_many_episodes_that_were_skipped_for_one_reason_are_one_line(tmp_path):
    entry = prepare(bridge_episodes(12, bad=range(2, 11)), tmp_path / "bridge", skip_bad=True)
    lines = [line for line in summary(entry, tmp_path).splitlines() if "skipped" in line]
    assert lines == ["  skipped 2, 3, 4 and 6 more: such as memory: record 2 is truncated; copy the file again"]
    assert len(entry["skipped"]) == 9


def test_transforms_are_applied_in_order_and_may_find_an_episode_bad(tmp_path):
    def say(text):
        return lambda episode: replace(episode, instructions=[f"{line} {text}" for line in episode.instructions])

    def refuse(episode):
        if episode.file_path == "/robot/1/out.npy":
            raise BadEpisodeError("no")
        return episode

    prepare(bridge_episodes(3), tmp_path / "bridge", transforms=[say("a"), say("b"), refuse], skip_bad=True)
    reader = ParquetEpisodes(tmp_path / "bridge")
    assert [reader[number].instructions[0] for number in range(2)] == [
        f"put object {n} on the plate a b" for n in (0, 2)
    ]


def test_splits_share_a_folder_and_datasets_sees_both(tmp_path):
    prepare(bridge_episodes(3), tmp_path / "bridge")
    prepare(bridge_episodes(2), tmp_path / "bridge", split="val")
    assert [len(ParquetEpisodes(tmp_path / "bridge", split)) for split in ("train", "val")] == [3, 2]
    rows = datasets.load_dataset(str(tmp_path / "bridge"), cache_dir=tmp_path / "cache")
    assert {split: len(part) for split, part in rows.items()} == {"train": 12, "val": 8}


def test_the_manifest_tells_what_was_prepared_from_what(tmp_path):
    prepare(bridge_episodes(2), tmp_path / "bridge", source="org/bridge")
    manifest = json.loads((tmp_path / "bridge/manifest.json").read_text())
    entry = manifest["splits"]["train"]
    assert manifest["description"]["action_units"][:3] == ["m", "m", "m"]
    assert entry["source"] == "org/bridge" and entry["settings"]["mapping"]["drop_steps"] == {"first": 1, "last": 1}
    assert (entry["frames"], entry["control_rates_hz"], entry["camera_sizes"]) == (8, [5.0], {"primary": ["16x16"]})


def test_a_prepared_dataset_can_be_prepared_again(tmp_path):
    prepare(bridge_episodes(3), tmp_path / "first")
    prepare(open_episodes(tmp_path / "first"), tmp_path / "second", shard_size=1)
    first, second = ParquetEpisodes(tmp_path / "first"), ParquetEpisodes(tmp_path / "second")
    assert second.description == first.description and len(second.files) == 3
    assert second[2].images == first[2].images


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="holds files that are no prepared dataset; give a new folder"):
        prepare(bridge_episodes(1), tmp_path)
    with pytest.raises(ValueError, match="thesis.tex is a file; give a folder"):
        prepare(bridge_episodes(1), tmp_path / "thesis.tex")


def test_motion_needs_its_section_in_the_mapping():
    with pytest.raises(ValueError, match="--motion: the mapping of a has no `motion` section"):
        motion_transform(replace(bridge_episodes(1).description, dataset="a", motion=None))


@pytest.mark.parametrize(("text", "size"), [("500MB", 500_000_000), ("1.5gb", 1_500_000_000), ("3 k", 3000)])
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "0", "-1MB", "1TB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="--shard-size .*is no size, such as 500MB"):
        parse_size(text)


def test_a_source_is_named_without_the_folders_of_the_machine(tmp_path):
    (tmp_path / "bridge" / "1.0.0").mkdir(parents=True)
    assert source_name(str(tmp_path / "bridge" / "1.0.0")) == "bridge/1.0.0"
    assert source_name(str(tmp_path / "bridge")) == "bridge"
    assert source_name("org/bridge") == "org/bridge"


def test_messages_are_told_without_the_folders_of_the_machine(tmp_path, monkeypatch):
    (tmp_path / "bridge" / "1.0.0").mkdir(parents=True)
    message = f"{tmp_path}/bridge/1.0.0/a.tfrecord, record 3"
    for source in (tmp_path / "bridge", f"{tmp_path}/bridge/"):
        assert without_folder(message, source) == "bridge/1.0.0/a.tfrecord, record 3"
    assert without_folder(message, tmp_path / "bridge" / "1.0.0") == "bridge/1.0.0/a.tfrecord, record 3"
    monkeypatch.chdir(tmp_path / "bridge")
    assert without_folder("1.0.0/a.tfrecord.", ".") == "1.0.0/a.tfrecord."


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mapping", "bridge"], "holds no dataset of a known format"),
        (["--mapping", "bridge", "--shard-size", "big"], "--shard-size big is no size"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, arguments, message):
    result = run(tmp_path, *arguments, "--output", tmp_path / "out")
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and message in result.stderr
    assert result.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_command_joins_vla_it_and_computes_the_motions_that_are_missing(tmp_path):
    prepare(bridge_episodes(2), tmp_path / "plain")
    texts = ["left out", "move up", "", "stop", "open gripper", "left out"]  # of all six recorded steps
    records = {
        "/robot/1/out.npy": {"3": {"features": {"move_primitive": texts}, "alt_instruction": {"Caption": "A cup"}}}
    }
    (tmp_path / "vla_it.json").write_text(json.dumps(records))
    given = (tmp_path / "plain", "--vla-it", tmp_path / "vla_it.json")
    result = run(*given, "--output", tmp_path / "joined")
    assert result.exit_code == 0, result.stderr
    assert "1 episodes matched, 1 not found" in result.stdout and "annotated (VLA-IT)   1" in result.stdout
    plain, annotated = open_episodes(tmp_path / "joined")
    assert (plain.language_motions, plain.annotation) == (None, None)
    assert annotated.language_motions == ["move up", None, "stop", "open gripper"]
    assert annotated.annotation.caption == "A cup"
    assert "another number of motions" not in result.stdout
    assert run(*given, "--motion", "--output", tmp_path / "moving").exit_code == 0
    plain, annotated = open_episodes(tmp_path / "moving")
    assert all(plain.language_motions) and annotated.language_motions[2] == "stop" and annotated.language_motions[1]


def rlds_without_instruction(tmp_path, field):
    """Two recordings, and a mapping whose instruction is another field, or none."""
    given = dict(read_mapping("bridge").given) | {"instruction": field}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(given))
    records = [bridge_record(number, 6) | {"steps/language_instruction": [""] * 6} for number in range(2)]
    return write_rlds(tmp_path / "bridge", records), "--mapping", tmp_path / "mine.yaml", "--output", tmp_path / "out"


def test_the_command_warns_before_and_after_where_no_instruction_is_mapped(tmp_path):
    result = run(*rlds_without_instruction(tmp_path, None))
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("warning: the mapping has no `instruction:`") and result.stderr.count("\n") == 1
    assert "  warning: no `instruction:` is mapped; training leaves out frames" in result.stdout


def test_the_command_warns_where_all_instructions_are_empty(tmp_path):
    result = run(*rlds_without_instruction(tmp_path, "language_instruction"))
    assert result.exit_code == 0, result.stderr
    assert (
        "  warning: all texts of `instruction: language_instruction` are empty" in result.stdout and not result.stderr
    )


@pytest.mark.parametrize("options", [(), ("--skip-bad",)])
def test_an_instruction_that_is_no_text_stops_it_whatever_is_skipped(tmp_path, options):
    result = run(*rlds_without_instruction(tmp_path, "observation/state"), *options)
    assert (
        result.exit_code == 2 and "`instruction: observation/state` of the mapping is a field of texts" in result.stderr
    )
    assert not (tmp_path / "out").exists()


def test_the_command_tells_which_motions_do_not_fit_the_recording(tmp_path):
    prepare(bridge_episodes(2), tmp_path / "plain")
    records = {
        f"/robot/{number}/out.npy": {"3": {"features": {"move_primitive": ["stop"] * count}}}
        for number, count in enumerate((5, 1))
    }
    (tmp_path / "vla_it.json").write_text(json.dumps(records))
    result = run(tmp_path / "plain", "--vla-it", tmp_path / "vla_it.json", "--output", tmp_path / "joined")
    assert result.exit_code == 0 and result.stdout.rstrip().endswith(
        "1 with another number of motions than steps (such as /robot/0/out.npy, episode 3: 5 motions, 6 recorded "
        "steps), 1 with the first step's motion alone"
    )


@pytest.mark.skipif(not BRIDGE.is_dir(), reason=f"real Bridge episodes are not at {BRIDGE}")
def test_the_command_prepares_real_episodes_and_skips_a_truncated_record(tmp_path):
    shutil.copytree(BRIDGE, tmp_path / "bridge", copy_function=shutil.copyfile)
    file = next((tmp_path / "bridge").glob("*/*train*"))
    os.truncate(file, file.stat().st_size - 1000)
    given = (tmp_path / "bridge", "--mapping", "bridge", "--output", tmp_path / "out", "--shard-size", "200KB")
    stopped = run(*given)
    assert stopped.exit_code == 2 and "record 24" in stopped.stderr and "--skip-bad" in stopped.stderr
    finished = run(*given, "--skip-bad")
    assert finished.exit_code == 0, finished.stderr
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    assert "record 24" in manifest and str(tmp_path) not in manifest
    assert "24 episodes, 192 frames in 4 files" in finished.stdout and "skipped 24: " in finished.stdout
    assert len(open_episodes(tmp_path / "out")) == 24

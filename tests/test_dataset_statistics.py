"""Claims about dataset statistics: one pass, the numbers of numpy and of Bridge, refused when the data change."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from instructvla.processing.action_normalization import check_statistics
from instructvla.training.data.dataset_statistics import (
    ColumnStatistics,
    DatasetStatistics,
    app,
    compute_statistics,
    load_statistics,
    read_statistics,
    write_statistics,
)
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.field_mapping import FieldMapping, MappedEpisodes
from instructvla.training.data.prepare import prepare
from instructvla.training.data.readers import open_episodes
from tests.lerobot_writer import FRONT, LerobotDataset
from tests.memory_episodes import SHARED, BridgeRecordings, bridge_episodes

COLUMNS = ("mean", "std", "min", "max", "q01", "q99")


def expected(values):
    values = values.astype(np.float64)
    return {
        "mean": values.mean(0),
        "std": values.std(0),
        "min": values.min(0),
        "max": values.max(0),
        "q01": np.quantile(values, 0.01, axis=0),
        "q99": np.quantile(values, 0.99, axis=0),
    }


def test_statistics_of_a_dataset_are_those_of_numpy():
    reader = bridge_episodes(12)
    found, episodes = compute_statistics(reader)["bridge_dataset"], [reader[number] for number in range(12)]
    for part, column in (("action", "actions"), ("state", "states")):
        wanted = expected(np.concatenate([getattr(episode, column) for episode in episodes]))
        for name in COLUMNS:
            np.testing.assert_allclose(found[part][name], wanted[name], rtol=1e-9, atol=1e-12)
        assert found[part]["quantile_relative_error"] == 0
    assert found["num_trajectories"] == 12 and found["num_transitions"] == 48 and found["skipped"] == []


def test_the_processor_takes_them_and_leaves_the_gripper_alone():
    statistics = compute_statistics(bridge_episodes(3))
    checked = check_statistics(statistics, action_dim=7, state_dim=8)
    assert checked["bridge_dataset"]["action"]["mask"] == [True] * 6 + [False]
    assert "mask" not in checked["bridge_dataset"]["state"]


def test_the_layout_in_memory_which_workers_change_does_not_change_a_digit():
    values = np.random.default_rng(0).normal(size=(1000, 7)).astype(np.float32)
    rows, columns = ColumnStatistics(7), ColumnStatistics(7)
    rows.add(values)
    columns.add(np.asfortranarray(values))
    assert rows.summary() == columns.summary()


def test_merged_shards_are_the_whole():
    values = np.random.default_rng(0).normal([0, 5, -300], [1, 1e-3, 80], (200_000, 3)).astype(np.float32)
    shards = [ColumnStatistics(3, max_bins=1 << 12) for _ in range(3)]
    for shard, rows in zip(shards, np.array_split(values, 3), strict=True):
        for part in np.array_split(rows, 40):
            shard.add(part)
    whole = shards.pop(0)
    for shard in shards:
        whole.merge(shard)
    found, wanted = whole.summary(), expected(values)
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9, atol=1e-9)
    for name in ("q01", "q99"):
        error = found["quantile_relative_error"]
        np.testing.assert_allclose(found[name], wanted[name], rtol=error)
        assert 0 < error < 0.01


def test_datasets_of_other_columns_are_not_merged():
    description = bridge_episodes(1).description
    with pytest.raises(ValueError, match="can't be merged"):
        DatasetStatistics(description).merge(DatasetStatistics(replace(description, action_names=("x",))))
    both = [DatasetStatistics(description), DatasetStatistics(description)]
    for number, statistics in enumerate(both):
        statistics.add(bridge_episodes(2)[number])
    both[0].merge(both[1])
    assert both[0].summary()["num_trajectories"] == 2


@pytest.mark.parametrize("part", ["action", "proprio"])
def test_data_with_the_quantiles_of_bridge_give_the_quantiles_of_bridge(part):
    path = SHARED / "stats" / "bridge_statistics.json"
    if not path.is_file():
        pytest.skip(f"the real statistics are not at {path.parent}")
    bridge = json.loads(path.read_text())[part]
    # uniform between the published quantiles, 1 % of the steps on each side between them and the extremes
    knots = np.array([bridge["min"], bridge["p01"], bridge["p99"], bridge["max"]])  # (4, 7)
    ranks = np.random.default_rng(0).permuted(np.tile((np.arange(300_000) + 0.5) / 300_000, (7, 1)), axis=1)
    values = np.stack([np.interp(ranks[dim], [0, 0.01, 0.99, 1], knots[:, dim]) for dim in range(7)], axis=1)
    columns = ColumnStatistics(7)
    for rows in np.array_split(values.astype(np.float32), 1000):
        columns.add(rows)
    found = columns.summary()
    span = knots[2] - knots[1]
    # the stated error, and the drawing's own: a step of 1/300,000 in rank
    tolerance = found["quantile_relative_error"] * np.abs(knots).max(0) + 1e-4 * span + 1e-5
    for name, row in (("q01", 1), ("q99", 2)):
        assert (np.abs(np.array(found[name]) - knots[row]) <= tolerance).all()
    assert found["quantile_relative_error"] <= 2**-9


def test_no_picture_of_prepared_episodes_is_read(tmp_path):
    prepare(bridge_episodes(3), tmp_path / "bridge")
    reader = open_episodes(tmp_path / "bridge")
    numbers = reader.without_pictures()
    assert numbers[1].images == {} and list(reader[1].images) == ["primary"]
    np.testing.assert_array_equal(numbers[1].states, reader[1].states)
    assert numbers.fingerprint == reader.fingerprint
    assert compute_statistics(reader)["bridge_dataset"]["num_transitions"] == 12


def test_no_video_of_a_lerobot_dataset_is_decoded(tmp_path):
    mapping = {
        "dataset": "made",
        "cameras": {"primary": FRONT},
        "action": {"parts": [{"field": "action"}], "names": ["a", "b"], "units": ["rad", "rad"]},
    }
    source = LerobotDataset("v2.1").write(tmp_path)
    reader = open_episodes(source, FieldMapping.from_dict(mapping))
    assert reader[0].images["primary"]
    for video in source.rglob("*.mp4"):
        video.write_bytes(b"no video")
    with pytest.raises(BadEpisodeError):
        reader[0]
    assert compute_statistics(reader)["made"]["num_trajectories"] == len(reader)


def test_a_bad_episode_stops_unless_it_may_be_skipped():
    reader = bridge_episodes(5, bad=[2])
    with pytest.raises(
        BadEpisodeError, match="^memory: record 2 is truncated; copy the file again; --skip-bad goes on"
    ):
        compute_statistics(reader)
    found = compute_statistics(reader, skip_bad=True)["bridge_dataset"]
    assert found["skipped"] == [2] and found["num_trajectories"] == 4
    with pytest.raises(ValueError, match="bridge_dataset has no episode that can be read"):
        compute_statistics(bridge_episodes(2, bad=[0, 1]), skip_bad=True)


def test_an_episode_with_nan_or_other_columns_is_named_and_not_counted():
    reader = bridge_episodes(2)
    statistics, good = DatasetStatistics(reader.description), reader[0]
    broken = good.states.copy()
    broken[1, 3] = np.nan
    cases = [
        (replace(good, states=broken), "its state can't be used: step 1 has nan in dimension 3"),
        (replace(good, actions=good.actions[:, :5]), r"its action can't be used: its shape is \(4, 5\), .* 7"),
        (replace(good, states=None), "its state can't be used: it is missing"),
    ]
    for episode, message in cases:
        with pytest.raises(BadEpisodeError, match=f"bridge_dataset/3: {message}"):
            statistics.add(episode)
    statistics.add(good)
    assert statistics.summary()["num_trajectories"] == 1 and statistics.parts["action"].count == len(good)


def test_a_file_keeps_the_other_datasets_and_gives_the_same_numbers_back(tmp_path):
    path, reader = tmp_path / "dataset_statistics.json", bridge_episodes(3)
    bridge = compute_statistics(reader)
    write_statistics(path, bridge)
    write_statistics(path, {"other": bridge["bridge_dataset"]})
    assert list(read_statistics(path)) == ["bridge_dataset", "other"]
    assert load_statistics(path, reader) == bridge
    assert [file.name for file in tmp_path.iterdir()] == ["dataset_statistics.json"]


def test_statistics_of_changed_files_or_another_mapping_are_refused(tmp_path):
    path, raw = tmp_path / "statistics.json", BridgeRecordings(2)
    mapping = bridge_episodes(1).mapping
    before = MappedEpisodes(raw, mapping, lambda: "files of Monday")
    write_statistics(path, compute_statistics(before))
    assert load_statistics(path, before)
    other = replace(mapping, given={**mapping.given, "control_rate_hz": 10})
    for reader, changed in (
        (MappedEpisodes(raw, mapping, lambda: "files of Tuesday"), "the files changed"),
        (MappedEpisodes(raw, other, lambda: "files of Monday"), "the mapping changed"),
    ):
        with pytest.raises(ValueError, match=f"'bridge_dataset' are stale: {changed} since; run `instructvla stat"):
            load_statistics(path, reader)


def test_of_prepared_data_the_cause_of_stale_statistics_is_told(tmp_path):
    raw, mapping = BridgeRecordings(2), bridge_episodes(1).mapping

    def prepared(name, mapping=mapping, files="files of Monday", **options):
        prepare(MappedEpisodes(raw, mapping, lambda: files), tmp_path / name, **options)
        return open_episodes(tmp_path / name)

    path, first = tmp_path / "statistics.json", prepared("first")
    write_statistics(path, compute_statistics(first))
    assert load_statistics(path, prepared("again"))
    twice = replace(mapping.action.parts[0], scale=2.0)
    other = replace(
        mapping,
        action=replace(mapping.action, parts=(twice, *mapping.action.parts[1:])),
        given={**mapping.given, "action": "twice as much"},
    )
    for reader, changed in (
        (prepared("mapping", mapping=other), "the mapping"),
        (prepared("files", files="files of Tuesday"), "the files"),
        (prepared("shards", shard_size=1), "what `prepare` was told"),
    ):
        with pytest.raises(ValueError, match=f"'bridge_dataset' are stale: {changed} changed since; run"):
            load_statistics(path, reader)
    first.files[0]["sha256"] = "of another content"
    with pytest.raises(ValueError, match="are stale: the prepared files changed since; run"):
        load_statistics(path, first)


def test_statistics_that_are_not_there_are_refused(tmp_path):
    path, reader = tmp_path / "statistics.json", bridge_episodes(2)
    with pytest.raises(ValueError, match="holds no dataset statistics"):
        load_statistics(path, reader)
    write_statistics(path, {"bridge": compute_statistics(reader)["bridge_dataset"]})
    with pytest.raises(ValueError, match="no statistics of 'bridge_dataset'; the nearest .* is 'bridge'"):
        load_statistics(path, reader)
    for content in ("[]", "{", '{"bridge_dataset": {"action": {"q01": [1]}}}', '{"bridge_dataset": 1}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"statistics.json holds no dataset statistics \(.*statistics` on the"):
            load_statistics(path, reader)


def test_the_command_writes_beside_prepared_data_what_training_can_load(tmp_path):
    folder = tmp_path / "bridge"
    prepare(bridge_episodes(4), folder)
    path = folder / "dataset_statistics.json"
    result = CliRunner().invoke(app, [str(folder), "--output", str(path)])
    assert result.exit_code == 0 and "bridge_dataset: 4 episodes, 16 steps" in result.stdout
    assert "gripper [open fraction]" in result.stdout
    loaded = load_statistics(path, open_episodes(folder))["bridge_dataset"]
    assert loaded["num_transitions"] == 16


def test_the_command_refuses_a_place_that_it_can_not_write_to(tmp_path):
    (tmp_path / "prepared").mkdir()
    prepare(bridge_episodes(1), tmp_path / "prepared")
    (tmp_path / "notes.json").write_text("[1]")
    for output, message in ((tmp_path, "is a folder"), (tmp_path / "notes.json", "holds no dataset statistics")):
        result = CliRunner().invoke(app, [str(tmp_path / "prepared"), "--output", str(output)])
        assert result.exit_code == 2 and message in result.stderr and result.stderr.startswith("error: ")
    assert (tmp_path / "notes.json").read_text() == "[1]"


def test_real_bridge_episodes_give_numbers_of_bridge_size(tmp_path):
    source = SHARED / "bridge_rlds_debug" / "bridge_dataset" / "1.0.0"
    if not source.is_dir():
        pytest.skip(f"the real episodes are not at {source}")
    reader = open_episodes(source, "bridge")
    found = compute_statistics(reader)["bridge_dataset"]
    published = json.loads((SHARED / "stats" / "bridge_statistics.json").read_text())
    # 25 episodes of one kitchen: within the range of all of Bridge, and of the same order
    for part, other in (("action", "action"), ("state", "proprio")):
        dims = [0, 1, 2, 3, 4, 5, 6] if part == "action" else [0, 1, 2, 3, 4, 5, 7]
        low, high = (np.array(found[part][name])[dims] for name in ("min", "max"))
        assert (low >= np.array(published[other]["min"]) - 1e-6).all()
        assert (high <= np.array(published[other]["max"]) + 1e-6).all()
        ratio = np.array(found[part]["std"])[dims] / published[other]["std"]
        assert ((ratio > 0.2) & (ratio < 5)).all()
    result = CliRunner().invoke(app, [str(source), "--mapping", "bridge", "--output", str(source / "s.json")])
    assert result.exit_code == 2 and "would change the fingerprint" in result.stderr

"""Claims about published statistics beside our own."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from instructvla.training.data.dataset_statistics import app, compute_statistics
from instructvla.training.data.prepare import prepare
from instructvla.training.data.published_statistics import comparison, fitting_dims, read_published
from tests.memory_episodes import SHARED, bridge_episodes

ACTION = {"mean": [0.0] * 7, "std": [1.0] * 7, "min": [-3.0] * 7, "max": [3.0] * 7}
OCTO = {"action": ACTION | {"p01": [-2.0] * 7, "p99": [2.0] * 7}, "proprio": {"mean": [1.0] * 7}, "num_transitions": 9}
OPENVLA = {"bridge_orig": {"action": ACTION | {"q01": [-2.0] * 7, "q99": [2.0] * 7, "mask": [True] * 7}}}
LEROBOT = {"action": ACTION | {"count": [5]}, "observation.state": {"mean": [1.0] * 7}, "timestamp": {"mean": [0.5]}}
DESCRIPTION = bridge_episodes(1).description


def write(tmp_path, content):
    (path := tmp_path / "published.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "parts", "columns"),
    [
        (OCTO, {"action", "state"}, {"mean", "std", "min", "max", "q01", "q99"}),
        (OPENVLA, {"action"}, {"mean", "std", "min", "max", "q01", "q99"}),
        (LEROBOT, {"action", "state"}, {"mean", "std", "min", "max"}),
    ],
)
def test_the_published_forms_are_read_under_our_names(tmp_path, content, parts, columns):
    published = read_published(write(tmp_path, content))
    assert set(published) == parts and set(published["action"]) == columns
    assert published["action"].get("q99", [2.0] * 7) == [2.0] * 7


def test_of_several_datasets_the_one_of_our_name_or_the_key_is_taken(tmp_path):
    path = write(tmp_path, {"bridge_dataset": OCTO, "other": {"action": {"mean": [5.0]}}})
    assert len(read_published(path, dataset="bridge_dataset")["action"]["mean"]) == 7
    assert read_published(path, key="other", dataset="bridge_dataset")["action"]["mean"] == [5.0]
    with pytest.raises(ValueError, match="several datasets, bridge_dataset, other: choose with --compare-key"):
        read_published(path, dataset="fractal")
    with pytest.raises(ValueError, match="has no 'othre', only bridge_dataset, other; the nearest is 'other'"):
        read_published(path, key="othre")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "holds no statistics: it must be an object"),
        ({"a": 1}, "holds no statistics: it has a"),
        ({"action": {"sum": [1]}}, "holds no statistics of an action: it has action"),
        ({"action": {"mean": [1, 2], "std": [1]}}, r"the columns of its action have different lengths: \[1, 2\]"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"--compare .*published.json.*{message}"):
        read_published(write(tmp_path, content))
    with pytest.raises(ValueError, match="--compare .*none.json is no JSON file that can be read"):
        read_published(tmp_path / "none.json")


def test_the_padding_of_our_state_is_left_out_where_theirs_has_none(tmp_path):
    published = read_published(write(tmp_path, OCTO))
    assert fitting_dims(published, DESCRIPTION) == {"action": [*range(7)], "state": [0, 1, 2, 3, 4, 5, 7]}
    published["state"] = {"mean": [0.0] * 8}
    assert fitting_dims(published, DESCRIPTION)["state"] == [*range(8)]


def test_sizes_that_differ_are_one_error(tmp_path):
    published = read_published(write(tmp_path, OCTO))
    with pytest.raises(ValueError, match=r"published state has 7 dimensions, that of bridge_dataset has 8 \(x, y, z"):
        fitting_dims(published, replace(DESCRIPTION, state_padding=()))
    with pytest.raises(ValueError, match=r"published action has 7 dimensions, that of bridge_dataset has 2 \(a, b\)"):
        fitting_dims(published, replace(DESCRIPTION, action_names=("a", "b")))
    assert "state" not in fitting_dims(published, replace(DESCRIPTION, state_names=()))


def rows(lines):
    return [line.split() for line in lines if line.strip()]


def test_differences_are_shares_of_the_published_range(tmp_path):
    published = read_published(write(tmp_path, OCTO))
    columns = ("mean", "std", "min", "max", "q01", "q99")
    summary = {part: {column: [1.0] * 8 for column in columns} for part in ("action", "state")}
    lines = rows(comparison(summary, published, DESCRIPTION))
    assert ["x", "mean", "1", "0", "+25.0", "%"] in lines  # of a range of 4
    assert ["q01", "1", "-2", "+75.0", "%"] in lines and ["q99", "1", "2", "-25.0", "%"] in lines
    assert ["x", "mean", "1", "1", "–"] in lines  # no range of the state is published
    assert not any("padding" in line for line in lines)


def test_the_command_compares_after_its_table_and_refuses_before_reading(tmp_path):
    prepare(bridge_episodes(3), tmp_path / "bridge")
    path = write(tmp_path, OCTO)
    arguments = [str(tmp_path / "bridge"), "--output", str(tmp_path / "statistics.json"), "--compare", str(path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and "share of the published q99 − q01" in result.stdout
    own = compute_statistics(bridge_episodes(3))["bridge_dataset"]["action"]["mean"][0]
    assert ["x", "mean", f"{own:.4g}", "0", f"{25 * own:+.1f}", "%"] in rows(result.stdout.splitlines())
    (tmp_path / "statistics.json").unlink()
    path.write_text(json.dumps({"action": {"mean": [1.0]}}))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "published action has 1 dimensions" in result.stderr
    assert not (tmp_path / "statistics.json").exists()


@pytest.mark.skipif(not (SHARED / "stats").is_dir(), reason=f"the real statistics are not at {SHARED / 'stats'}")
@pytest.mark.parametrize(("name", "size"), [("bridge", 7), ("fractal", 8)])
def test_the_published_files_are_read(name, size):
    published = read_published(SHARED / "stats" / f"{name}_statistics.json")
    assert {part: len(columns["q01"]) for part, columns in published.items()} == {"action": 7, "state": size}
    assert all(len(columns) == 6 for columns in published.values())

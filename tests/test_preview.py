"""Claims about `instructvla preview`."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from instructvla.training.data.prepare import prepare
from instructvla.training.data.preview import SMALL, app, candidates, parse_episodes, preview
from instructvla.training.data.readers import open_episodes
from tests.lerobot_writer import FRONT, LerobotDataset
from tests.memory_episodes import SHARED, bridge_episodes
from tests.rlds_writer import bridge_record, write_rlds


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def page_of(reader, tmp_path, episodes, **options):
    return preview(reader, tmp_path / "page.html", episodes, **options).page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rlds(tmp_path_factory):
    return write_rlds(tmp_path_factory.mktemp("source") / "bridge", [bridge_record(number, 6) for number in range(4)])


def test_the_command_writes_one_page_with_the_episodes_asked_for(rlds, tmp_path):
    result = run(rlds, "--mapping", "bridge", "--episodes", "0,2", "--output", tmp_path / "new" / "page.html")
    assert result.exit_code == 0 and "2 of 4 episodes" in result.stdout
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "put object 0 into the sink" in page and "put object 2 into the sink" in page
    assert "put object 1 into the sink" not in page
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_the_same_data_give_the_same_page(rlds, tmp_path):
    pages = [preview(open_episodes(rlds, "bridge"), tmp_path / name, [0, 1]).page for name in ("a", "b")]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_the_manifest_of_prepared_episodes_tells_what_is_in_all_of_them(rlds, tmp_path):
    prepare(open_episodes(rlds, "bridge"), tmp_path / "prepared")
    page = page_of(open_episodes(tmp_path / "prepared"), tmp_path, [0])
    assert "<dt>Frames</dt><dd>16</dd>" in page
    assert "<dt>Episodes with an instruction</dt><dd>4 of 4</dd>" in page
    assert "<dt>Episodes with annotation (VLA-IT)</dt><dd>0 of 4</dd>" in page


def test_a_bad_episode_is_a_warning_beside_the_others(tmp_path):
    page = page_of(bridge_episodes(3, bad=[1]), tmp_path, [0, 1, 2])
    assert "record 1 is truncated" in page and "put object 2 on the plate" in page


class Unlabelled:
    """Readable episodes without any instruction."""

    def __init__(self, count):
        self.reader = bridge_episodes(count)
        self.description = self.reader.description

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, index):
        return replace(self.reader[index], instructions=[None] * 4)


def test_what_validate_finds_in_an_episode_is_a_warning(tmp_path):
    text = "instruction: 4 of its 4 steps have no instruction"
    assert text in page_of(Unlabelled(1), tmp_path, [0]) and text not in page_of(bridge_episodes(1), tmp_path, [0])


def test_the_page_names_no_folder_of_this_machine(rlds, tmp_path):
    shard = next(rlds.glob("*.tfrecord*"))
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in rlds.iterdir():
        data = path.read_bytes()
        (broken / path.name).write_bytes(data[:-100] if path == shard else data)
    reader = open_episodes(broken, "bridge")
    page = page_of(reader, tmp_path, [0, 3], source=broken)
    assert str(tmp_path) not in page and "<dd>broken</dd>" in page and 'class="warnings"' in page


@pytest.mark.parametrize("text, numbers", [("0,5,7", [0, 5, 7]), ("3", 3), ("3,", [3]), ("0,", [0]), ("99", 99)])
def test_episodes_are_a_list_of_numbers_or_how_many(text, numbers):
    assert parse_episodes(text) == numbers


@pytest.mark.parametrize("text", ["", "all", "-1", "1.5", "0", ","])
def test_another_list_of_episodes_is_refused(text):
    with pytest.raises(ValueError, match="give how many"):
        parse_episodes(text)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--mapping", "bridge", "--episodes", "0,9"], "there is no episode 9; this dataset has 4"),
        (["--mapping", "bridge", "--split", "val"], "has no split 'val'"),
        ([], "give a mapping"),
        (["--mapping", "bridge", "--output", "."], "is a folder; give the file to write"),
    ],
)
def test_wrong_input_is_one_line_on_stderr_and_writes_nothing(rlds, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = run(rlds, *arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and message in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_where_no_episode_can_be_read(tmp_path):
    with pytest.raises(ValueError, match="none of the 2 episodes can be read.*record 0 is truncated"):
        preview(bridge_episodes(2, bad=[0, 1]), tmp_path / "page.html", [0, 1])
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"real material is not at {SHARED}")
def test_real_bridge_episodes_are_shown(tmp_path):
    source = SHARED / "bridge_rlds_debug/bridge_dataset/1.0.0"
    page = page_of(open_episodes(source, "bridge"), tmp_path, [0], source=source)
    assert "<dd>64 × 64</dd>" in page and "Warnings" not in page


# Which episodes are shown


def test_without_numbers_those_that_can_be_read_are_shown_and_the_others_counted(tmp_path):
    found = preview(bridge_episodes(100, bad=set(range(100)) - {2, 57, 58}), tmp_path / "page.html", 5)
    assert found.shown == [2, 57, 58] and len(found.unreadable) == 97
    page = found.page.read_text(encoding="utf-8")
    assert "97 episodes (0, 1, 3 and 94 more): unreadable: memory: record 0 is truncated" in page


def test_of_a_large_dataset_no_more_is_read_than_needed(tmp_path):
    bad = set(range(0, 10_000, 2))
    found = preview(bridge_episodes(10_000, bad), tmp_path / "page.html", 3)
    assert len(found.shown) == 3 and not set(found.shown) & bad and len(found.unreadable) < 50
    assert found.shown[0] < 4000 and found.shown[-1] > 6000


def test_a_large_dataset_that_can_not_be_read_ends_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("instructvla.training.data.preview.MOST_TRIED", 40)
    message = "none of 40 of the 1,000 episodes can be read.*--episodes names others. memory: record 1 is truncated"
    with pytest.raises(ValueError, match=message.replace("record 1 ", r"record \d+ ")):
        preview(bridge_episodes(1000, range(1000)), tmp_path / "page.html", 5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("count", "total"), [(3, 9), (5, 5), (7, 4), (1, 100)])
def test_candidates_are_all_numbers_once_the_spread_ones_first(count, total):
    order = list(candidates(count, total))
    assert sorted(order) == list(range(total))
    first = sorted(islice(order, count))
    assert max(np.diff([-1, *first, total])) <= total / min(count, total) + 1


LEROBOT = {
    "dataset": "made",
    "cameras": {"primary": FRONT},
    "action": {"parts": [{"field": "action"}], "names": ["a", "b"], "units": ["rad", "rad"]},
}


def test_a_partly_downloaded_dataset_is_shown_by_default_without_its_missing_videos_too(tmp_path):
    folder = LerobotDataset("v2.1", lengths=(4,) * 9, tasks=("a",) * 9).write(tmp_path / "robot")
    for path in [*sorted(folder.rglob("*.parquet"))[3:], *sorted(folder.rglob("*.mp4"))[:2]]:
        path.unlink()
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(LEROBOT))
    result = run(folder, "--mapping", tmp_path / "mine.yaml", "--output", tmp_path / "page.html")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0].startswith("1 of 9 episodes -> ")
    assert result.stdout.splitlines()[1] == (
        "8 episodes can't be read (0–1, 3–8) and are left out; --episodes names those to show, e.g. --episodes 2,"
    )
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'id="episode-2"' in page and "missing; copy it again" in page


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"real material is not at {SHARED}")
def test_the_real_partly_downloaded_dataset_is_shown_by_default(tmp_path):
    numbers = {"parts": [{"field": "action"}], "names": [f"a{n}" for n in range(26)], "units": ["rad"] * 26}
    mapping = LEROBOT | {"cameras": {}, "action": numbers} | {"cameras": {"primary": "observation.images.cam_high"}}
    found = preview(open_episodes(SHARED / "lerobot_v21_g1", mapping), tmp_path / "page.html", 1)
    assert len(found.shown) == 1 and len(found.unreadable) >= 98


# What is known of the dataset as a whole


class Opposed:
    """Readable episodes whose first action dimension moves against the state, and one with a jump."""

    def __init__(self, count):
        self.reader = bridge_episodes(count)
        self.description = self.reader.description

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, index):
        episode = self.reader[index]
        states = episode.states.copy()
        moves = episode.actions[:, 0]
        states[:, 0] = moves - np.cumsum(moves)
        states[:, 1] += 1000 * (np.arange(len(episode)) > 1) * (index == 7)
        return replace(episode, states=states, episode_id=str(index))


def test_what_is_wrong_with_a_small_dataset_as_a_whole_is_on_its_page_whichever_episodes_are_shown(tmp_path):
    page = page_of(Opposed(40), tmp_path, [3])
    assert "dataset: opposed action: action dimension 0 (x) moves against the state&#39;s x" in page
    assert "episode 7 (7): jump: state dimension 1" in page
    assert "Looked for in all 40 episodes: constant dimensions" in page and "Statistics of all 40 episodes" in page


def test_a_jump_is_a_warning_of_its_episode_where_that_is_shown(tmp_path):
    page = page_of(Opposed(40), tmp_path, [7])
    assert '<a href="#episode-7">Episode 7</a>: jump: state dimension 1' in page
    assert "episode 7 (7): jump" not in page


def test_of_a_large_dataset_the_page_says_what_was_not_looked_for(tmp_path):
    page = page_of(bridge_episodes(SMALL + 1), tmp_path, 2)
    assert f"Not looked for, as only a few of the {SMALL + 1} episodes were read: constant dimensions" in page
    assert "instructvla validate" in page and f"Statistics of the 2 episodes shown, of {SMALL + 1}" in page


def test_curves_share_the_range_of_all_episodes(tmp_path):
    class Quiet(Opposed):
        def __getitem__(self, index):
            episode = super().__getitem__(index)
            return episode if index else replace(episode, actions=episode.actions * np.float32(1e-3))

    page = page_of(Quiet(40), tmp_path, [0])
    top, bottom = page.split('class="range"><span>')[1].split("</span></div>")[0].split("</span><span>")
    low, high = float(bottom), float(top)
    statistics = np.concatenate([Opposed(40)[number].actions[:, 0] for number in range(1, 40)])
    assert low < -0.5 * statistics.std() and high > 0.5 * statistics.std()


def test_motion_is_computed_and_annotations_are_joined_as_prepare_does(rlds, tmp_path):
    plain = run(rlds, "--mapping", "bridge", "--episodes", "1,", "--output", tmp_path / "plain.html")
    records = {"/data/1/out.npy": {"1": {"features": {}, "alt_instruction": {"Caption": "A cup on a tray."}}}}
    (tmp_path / "vla_it.json").write_text(json.dumps(records))
    given = (rlds, "--mapping", "bridge", "--episodes", "1,", "--motion", "--vla-it", tmp_path / "vla_it.json")
    joined = run(*given, "--output", tmp_path / "joined.html")
    assert (plain.exit_code, joined.exit_code) == (0, 0), joined.stderr
    pages = [(tmp_path / f"{name}.html").read_text(encoding="utf-8") for name in ("plain", "joined")]
    assert ["A cup on a tray." in page for page in pages] == [False, True]
    assert ["Language motion: " in page for page in pages] == [False, True]


def test_chips_headings_and_links_tell_number_and_recorded_id(tmp_path):
    page = page_of(Unlabelled(6), tmp_path, range(6))
    assert '<a href="#episode-3">3</a>' in page  # of which the two are the same
    for number in (0, 1, 2, 4, 5):
        assert f'<a href="#episode-{number}">Episode {number} <span class="dim">id 3</span></a>: instruction' in page
        assert f'<a href="#episode-{number}">{number} <span class="dim">id 3</span></a>' in page
        assert f'<h2>Episode {number} <span class="dim">id 3</span>' in page

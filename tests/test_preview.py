"""Claims about `instructvla preview`."""

import pytest
from typer.testing import CliRunner

from instructvla.training.data.prepare import prepare
from instructvla.training.data.preview import app, parse_episodes, preview
from instructvla.training.data.readers import open_episodes
from tests.memory_episodes import SHARED, bridge_episodes
from tests.rlds_writer import bridge_record, write_rlds


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


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
    pages = [preview(open_episodes(rlds, "bridge"), tmp_path / name, [0, 1]) for name in ("a", "b")]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_the_manifest_of_prepared_episodes_tells_what_is_in_all_of_them(rlds, tmp_path):
    prepare(open_episodes(rlds, "bridge"), tmp_path / "prepared")
    page = preview(open_episodes(tmp_path / "prepared"), tmp_path / "page.html", [0]).read_text(encoding="utf-8")
    assert "<dt>Frames</dt><dd>16</dd>" in page and "<dt>Annotated (VLA-IT)</dt><dd>0</dd>" in page


def test_a_bad_episode_is_a_warning_beside_the_others(tmp_path):
    page = preview(bridge_episodes(3, bad=[1]), tmp_path / "page.html", [0, 1, 2]).read_text(encoding="utf-8")
    assert "record 1 is truncated" in page and "put object 2 on the plate" in page


def test_what_validate_finds_in_an_episode_is_a_warning(tmp_path):
    page = preview(bridge_episodes(1), tmp_path / "page.html", [0]).read_text(encoding="utf-8")
    assert "gripper: " in page  # the made gripper state is noise, some of it beyond 0 to 1


def test_the_page_names_no_folder_of_this_machine(rlds, tmp_path):
    shard = next(rlds.glob("*.tfrecord*"))
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in rlds.iterdir():
        data = path.read_bytes()
        (broken / path.name).write_bytes(data[:-100] if path == shard else data)
    reader = open_episodes(broken, "bridge")
    page = preview(reader, tmp_path / "page.html", [0, 3], source=broken).read_text(encoding="utf-8")
    assert str(tmp_path) not in page and "<dd>broken</dd>" in page and 'class="warnings"' in page


@pytest.mark.parametrize(
    "text, numbers", [("0,5,7", [0, 5, 7]), ("3", [1, 5, 8]), ("3,", [3]), ("0,", [0]), ("99", list(range(10)))]
)
def test_episodes_are_a_list_of_numbers_or_how_many(text, numbers):
    assert parse_episodes(text, 10) == numbers


@pytest.mark.parametrize("text", ["", "all", "-1", "1.5", "0", ","])
def test_another_list_of_episodes_is_refused(text):
    with pytest.raises(ValueError, match="give how many"):
        parse_episodes(text, 10)


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
    page = preview(open_episodes(source, "bridge"), tmp_path / "page.html", [0], source=source)
    assert "<dd>64 × 64</dd>" in page.read_text(encoding="utf-8")

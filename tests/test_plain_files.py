"""Claims about reading small files and listing names."""

import pytest

from instructvla.plain_files import check_output_file, listed, read_json


def test_an_object_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize(("text", "message"), [("{", "can't be read as JSON"), ("[1]", "not list"), ("", "as JSON")])
def test_what_is_no_object_is_refused_by_its_path(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.json.*{message}"):
        read_json(tmp_path / "a.json")


def test_a_missing_file_is_named_with_its_folder(tmp_path):
    with pytest.raises(ValueError, match=r"has no a\.json"):
        read_json(tmp_path / "a.json")


def test_long_lists_end_with_how_many_more():
    assert listed(["a", "b"]) == "a, b"
    assert listed("abcdef", most=2) == "a, b and 4 more"


def test_a_file_that_can_not_be_written_is_refused_with_its_option(tmp_path):
    check_output_file(None)
    check_output_file(tmp_path / "new.json")
    for file in (tmp_path, tmp_path / "no" / "where.json"):
        with pytest.raises(ValueError, match=f"--plot {file} can't be written; give a file in a folder that exists"):
            check_output_file(file, "--plot")

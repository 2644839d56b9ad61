"""Claims about writing films."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from instructvla.evaluation import film_writer
from instructvla.evaluation.film_writer import FilmWriter, check_film, wrapped, write_verdict

SIZE = 224


def test_pictures_last_as_long_as_asked(tmp_path):
    with FilmWriter(tmp_path / "new" / "film.gif") as film:
        for grey in (0, 200):
            film.add(Image.fromarray(np.full((16, 16, 3), grey, np.uint8)), repeats=3)
    with Image.open(tmp_path / "new" / "film.gif") as picture:
        assert picture.n_frames == 2 and picture.info["duration"] == 200


def test_success_failure_and_an_end_without_a_rule_are_told_apart():
    def colour_of(verdict: bool | None) -> tuple[int, ...]:
        frame = Image.new("RGB", (SIZE, SIZE))
        write_verdict(frame, SIZE, verdict)
        return max(frame.getcolors(SIZE * SIZE), key=lambda one: sum(one[1]))[1]

    success, failure, end = map(colour_of, (True, False, None))
    assert success[1] == max(success) and failure[0] == max(failure) and len(set(end)) == 1


def test_what_can_not_become_a_film_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must end in .mp4 or .gif"):
        check_film(tmp_path / "film.avi")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        check_film(tmp_path / "folder.mp4")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="not a folder that you may write to"):
        check_film(tmp_path / "file" / "film.mp4")
    monkeypatch.setattr(film_writer, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"instructvla\[eval\]"):
        check_film(tmp_path / "film.mp4")
    check_film(tmp_path / "film.gif")


@pytest.mark.parametrize("text", ["word " * 200, "x" * 500, "prends la cuillère à l'évier 🤖\x1b[31m", "", "a\nb"])
def test_any_text_fits_its_lines(text):
    font = ImageFont.load_default(15)
    lines = wrapped(text, 200, font)
    assert len(lines) <= 3 and all(font.getlength(line) <= 200 and line.isprintable() for line in lines)


def test_a_short_text_stays_as_it_is():
    assert wrapped("pick up the apple", 300, ImageFont.load_default(15)) == ["pick up the apple"]

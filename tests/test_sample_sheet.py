"""Claims about the page on which a person marks."""

import json
import re

import pytest

from instructvla.training.annotation.sample_sheet import ShownSample, drawn, sheet_page
from instructvla.training.data.episodes import Annotation, Turn
from tests.annotated_episodes import ANNOTATIONS, INSTRUCTIONS
from tests.test_preview_page import Page

PICTURES = ("data:image/png;base64,AAAA", "data:image/png;base64,BBBB", "data:image/png;base64,CCCC")
EVIL = "</script><script>alert(1)</script> \"'<img src=http://evil.example/x>"
SAMPLES = [
    ShownSample(7, INSTRUCTIONS[0], ANNOTATIONS[0], PICTURES),
    ShownSample(2, None, ANNOTATIONS[3]),
]


def facts(page: Page) -> dict:
    return json.loads(page.scripts[0])


def test_every_entry_and_the_whole_sample_can_be_marked_with_three_scores():
    page = Page(sheet_page("Annotations", SAMPLES))
    rows = [one["data-entry"] for one in page.named("div") if "data-entry" in one]
    assert rows == ["caption/0", "qa/0", "cr/0", "cr/1", "cc/0", "sample", "caption/0", "cr/0", "cc/0", "sample"]
    radios = [one for one in page.named("input") if one.get("type") == "radio"]
    assert len(radios) == 3 * len(rows) and [one["value"] for one in radios[:3]] == ["1", "0.5", "0"]
    assert len({one["name"] for one in radios}) == len(rows)
    assert len(page.named("select")) == len(rows)


def test_pictures_are_in_the_page_and_nothing_else_is_loaded():
    text = sheet_page("Annotations", SAMPLES)
    page = Page(text)
    assert [image["src"] for image in page.named("img")] == list(PICTURES)
    assert not re.search(r"https?://", text) and not page.named("link")
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert "The source has no pictures" in text


def test_texts_can_not_become_markup():
    evil = Annotation(EVIL, (Turn(EVIL, EVIL),))
    page = Page(sheet_page(EVIL, [ShownSample(0, EVIL, evil)]))
    assert len(page.named("script")) == 2 and not page.named("img")


def test_a_sheet_has_a_fingerprint_of_what_is_marked():
    first, again, other = (
        Page(sheet_page(title, SAMPLES[:number])) for title, number in (("a", 2), ("b", 2), ("a", 1))
    )
    assert facts(first) == facts(again)
    assert facts(first)["sheet"] != facts(other)["sheet"] and facts(other)["samples"] == 1


def test_a_sample_is_drawn_by_its_seed():
    assert drawn(range(1000), 5, seed=0) == drawn(range(1000), 5, seed=0) != drawn(range(1000), 5, seed=1)
    assert sorted(drawn([3, 1, 2], 10, seed=0)) == [1, 2, 3]
    with pytest.raises(ValueError, match="nothing to mark"):
        drawn([], 5, seed=0)

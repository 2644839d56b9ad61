"""Claims about the HTML of a preview."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.dataset_statistics import DatasetStatistics
from instructvla.training.data.episodes import Annotation, Episode, Turn
from instructvla.training.data.preview_page import EpisodeView, PageNotes, curve_spans, render_page
from tests.robot_frames import jpeg

DESCRIPTION = DatasetDescription("bridge", ("primary",), ("x", "gripper"), ("m", "open fraction"), (1,), ("x",), ("m",))
EVIL = "</script><script>alert(1)</script> \"'<img src=http://evil.example/x>"
VOID = {"meta", "img", "input", "path", "br"}


class Page(HTMLParser):
    """Elements, and the text of each script, of a page whose tags must close in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.scripts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)

    def named(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def episode(steps: int = 6, **fields) -> Episode:
    defaults = {
        "dataset": "bridge",
        "episode_id": "7",
        "images": {"primary": [jpeg(step) for step in range(steps)]},
        "actions": np.column_stack([np.arange(steps), np.arange(steps) % 2]).astype(np.float32),
        "states": np.arange(steps, dtype=np.float32)[:, None],
        "instructions": ["lift the lid"] * steps,
        "control_rate_hz": 5.0,
        "language_motions": ["move up"] * (steps - 1) + [None],
    }
    return Episode(**(defaults | fields))


def page_of(*episodes: Episode, warnings: tuple[str, ...] = (), description=DESCRIPTION) -> str:
    statistics = DatasetStatistics(description)
    for shown in episodes:
        statistics.add(shown)
    views = [EpisodeView(index, shown, description, warnings) for index, shown in enumerate(episodes)]
    return render_page("bridge", {"Episodes": "1"}, views, statistics, PageNotes())


def test_the_page_loads_nothing_from_elsewhere():
    page = Page(page_of(episode()))
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert links and all(link.startswith(("data:image/jpeg;base64,", "#episode-")) for link in links)
    (policy,) = (meta["content"] for meta in page.named("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_texts_of_the_data_are_never_markup():
    turns = (Turn(EVIL, EVIL),)
    annotation = Annotation(EVIL, turns, turns, turns)
    texts = {"instructions": [EVIL] * 6, "language_motions": [EVIL] * 6, "annotation": annotation}
    evil = episode(**texts, episode_id=EVIL, file_path=EVIL, images={EVIL: [jpeg()] * 6})
    names = DatasetDescription(EVIL, (EVIL,), (EVIL, EVIL), (EVIL, EVIL), (1,), (EVIL,), (EVIL,))
    page, plain = Page(page_of(evil, warnings=(EVIL,), description=names)), Page(page_of(episode()))
    assert len(page.named("script")) == len(plain.named("script")) == 2
    assert len(page.named("img")) == len(plain.named("img"))
    assert "alert(1)" not in "".join(page.scripts)


@pytest.mark.parametrize(
    "text", ["lift the lid", "move up", "A can.", "what?", "a can", "do it", "on it", "hot", "help"]
)
def test_every_text_of_an_episode_is_shown(text):
    annotation = Annotation("A can.", (Turn("what?", "a can"),), (Turn("do it", "on it"),), (Turn("hot", "help"),))
    assert text in re.sub("<[^>]*>", " ", page_of(episode(annotation=annotation)))


def test_what_is_missing_is_not_shown_as_the_text_none():
    shown = page_of(episode(language_motions=None, states=None, instructions=[None] * 6), description=without_state())
    assert "None" not in re.sub("<(style|script).*?</(style|script)>", "", shown, flags=re.S)
    assert "No VLA-IT annotation." in shown


def without_state() -> DatasetDescription:
    return DatasetDescription("bridge", ("primary",), ("x", "gripper"), ("m", "open fraction"), (1,))


def test_an_episode_that_cannot_be_read_is_shown_as_its_warning():
    views = [EpisodeView(3, None, DESCRIPTION, ["record 3 is truncated"])]
    page = render_page("bridge", {}, views, DatasetStatistics(DESCRIPTION), PageNotes())
    assert "record 3 is truncated" in page and 'id="episode-3"' in page and "Statistics" not in page


def test_the_script_gets_a_value_for_every_curve_and_step():
    cursor = json.loads(Page(page_of(episode(steps=6))).scripts[0])
    assert cursor["total"] == 6 and cursor["rate"] == 5.0 and cursor["steps"] == list(range(6))
    assert cursor["values"] == [["0", "1", "2", "3", "4", "5"], ["0", "1"] * 3, ["0", "1", "2", "3", "4", "5"]]
    assert cursor["frames"] == [list(range(6))]


def test_the_statistics_are_those_of_all_steps_shown():
    cells = re.findall("<td[^>]*>([^<]*)</td>", page_of(episode(steps=2), episode(steps=4)))
    assert cells[:8] == ["x", "m", "1.167", "1.067", "0", "0", "2.95", "3"]


def test_a_page_stays_small_however_long_its_episode_is():
    assert len(page_of(episode(steps=1500))) < 600_000


def test_what_is_wrong_with_the_dataset_is_told_and_never_markup():
    statistics = DatasetStatistics(DESCRIPTION)
    notes = PageNotes([EVIL, "x is constant"], checked="Looked for: constants", statistics_of="all 9 episodes")
    page = render_page("bridge", {}, [EpisodeView(0, episode(), DESCRIPTION)], statistics, notes)
    assert "Warnings about the dataset: 2" in page and "<li>x is constant</li>" in page
    assert "Looked for: constants" in page and len(Page(page).named("script")) == 2


def test_texts_that_change_are_listed_with_their_times():
    motions = ["move up", "move up", "stop", None, "stop", "stop"]
    page = page_of(episode(language_motions=motions))
    assert "Language motion: 4 stretches" in page and "Instruction: " not in page
    assert re.findall(r'data-step="(\d)">([\d.]+ s)', page) == [
        ("0", "0.0 s"),
        ("2", "0.4 s"),
        ("3", "0.6 s"),
        ("4", "0.8 s"),
    ]


def test_every_group_of_tracks_has_a_time_axis():
    assert page_of(episode()).count('<div class="axis"') == 3  # texts, actions, states
    assert '<span style="left: 8.33' in page_of(episode())  # the middle of the first of six steps


def test_a_curve_spans_at_least_the_quantiles_of_the_statistics():
    statistics = DatasetStatistics(DESCRIPTION)
    statistics.add(episode(steps=100))
    spans = curve_spans(statistics)
    assert spans["Actions"][1] == (0, 1) and 90 < spans["States"][0][1] < 100
    view = EpisodeView(0, episode(steps=3), DESCRIPTION, spans=spans)
    assert float(view.curves["States"][0].high) == pytest.approx(spans["States"][0][1], rel=1e-3)
    assert curve_spans(DatasetStatistics(DESCRIPTION)) == {}

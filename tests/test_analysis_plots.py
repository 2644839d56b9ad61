import io

import pytest
from PIL import Image

from instructvla.training.annotation.analysis_plots import FEWEST_DEGREES, plots
from instructvla.training.annotation.annotation_census import Census
from instructvla.training.annotation.annotation_texts import EpisodeTexts
from tests.annotated_texts import ANNOTATION, TEXTS


def census_of(*texts):
    census = Census()
    for one in texts:
        census.add(one)
    return census


def texts_in(figure):
    return {text.get_text() for axes in figure.axes for text in axes.texts}


def test_each_plot_shows_what_was_counted():
    drawn = plots(census_of(TEXTS, TEXTS, EpisodeTexts("open the drawer", ANNOTATION)))
    assert set(drawn) == {"categories", "verbs_and_nouns", "vocabulary"}
    shares = texts_in(drawn["categories"])
    assert {"50.0 %", "0.0 %"} <= shares
    assert {"pick", "open", "mug", "drawer", "fetch"} <= texts_in(drawn["verbs_and_nouns"])
    labels = drawn["vocabulary"].axes[0].get_legend_handles_labels()[1]
    assert [label.partition(":")[0] for label in labels] == [
        "original instructions",
        "annotated instructions",
        "all annotated texts",
    ]


def test_without_originals_there_is_one_sunburst():
    assert len(plots(census_of(EpisodeTexts(None, ANNOTATION)))["verbs_and_nouns"].axes) == 1


def test_what_is_rare_gets_no_word():
    rare = EpisodeTexts("wipe the table", None)
    enough = int(360 / FEWEST_DEGREES) + 1
    assert "wipe" not in texts_in(plots(census_of(rare, *[TEXTS] * enough))["verbs_and_nouns"])


@pytest.mark.parametrize("name", ["categories", "verbs_and_nouns", "vocabulary"])
def test_plots_become_pictures(name):
    file = io.BytesIO()
    plots(census_of(TEXTS))[name].savefig(file, format="png")
    assert Image.open(file).width > 500


def test_nothing_is_drawn_of_nothing():
    assert plots(Census()) == {}

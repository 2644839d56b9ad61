import re

from instructvla.training.annotation.analysis_page import record, render_page, sized_words, summary_lines
from instructvla.training.annotation.annotation_census import COMMANDS, ORIGINAL, Census
from instructvla.training.annotation.annotation_texts import EpisodeTexts
from tests.annotated_texts import ANNOTATION, TEXTS


def census_of(*texts):
    census = Census()
    for one in texts:
        census.add(one)
    return census


def test_the_page_needs_nothing_from_elsewhere_and_escapes_what_it_shows():
    page = render_page("<Toys>", census_of(TEXTS), {"categories": b"<svg/>"}, ["a <note>"], "rules & model")
    assert "&lt;Toys&gt;" in page and "a &lt;note&gt;" in page and "rules &amp; model" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "data:image/svg+xml;base64,PHN2Zy8+" in page


def test_words_are_sized_by_how_often_they_come_and_new_ones_are_marked():
    sized = {word.text: word for word in sized_words(census_of(TEXTS))}
    assert sized["mug"].size > sized["bowl"].size
    assert sized["bowl"].is_new and not sized["mug"].is_new
    assert "the" not in sized and "there" not in sized


def test_without_originals_no_word_is_called_new():
    census = census_of(EpisodeTexts(None, ANNOTATION))
    assert not any(word.is_new for word in sized_words(census))
    assert "annotated instructions: 8 words, 8 different, new: –" in "\n".join(summary_lines(census))


def test_the_summary_tells_shares_pairs_and_new_words():
    told = "\n".join(summary_lines(census_of(TEXTS)))
    assert re.search(r"questions +Spatial Identification +1 +50.0 %", told)
    assert "annotated instructions: verb found in 50.0 % of 2, 1 verb–noun pairs: fetch mug 1" in told
    assert re.search(r"all annotated texts: \d+ words, \d+ different, new: \d+\.\d % of the different words", told)


def test_the_record_holds_the_counts():
    found = record(census_of(TEXTS))
    assert found["verbs_and_nouns"] == {ORIGINAL: [["pick", "mug", 1]], COMMANDS: [["fetch", "mug", 1]]}
    assert found["entries"]["questions"] == 2
    assert found["vocabulary"][ORIGINAL] == {"tokens": 4, "types": 4, "curve": [(4, 4)]}

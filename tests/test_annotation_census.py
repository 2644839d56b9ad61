from dataclasses import replace

from instructvla.training.annotation.annotation_census import ALL, COMMANDS, ORIGINAL, Census, Vocabulary
from instructvla.training.annotation.annotation_texts import EpisodeTexts
from instructvla.training.annotation.categories import Category
from instructvla.training.data.episodes import Annotation, Turn
from tests.annotated_texts import ANNOTATION, TEXTS


def census_of(*texts, **options):
    census = Census(**options)
    for one in texts:
        census.add(one)
    return census


def test_a_census_counts_episodes_entries_categories_and_commands():
    census = census_of(TEXTS, EpisodeTexts("open the drawer", None), EpisodeTexts(None, ANNOTATION))
    assert (census.episodes, census.instructed, census.annotated) == (3, 2, 2)
    assert census.entries == {"captions": 2, "questions": 4, "rewritten": 2, "contexts": 2}
    assert census.question_categories == {
        Category.QUANTITATIVE_IDENTIFICATION: 2,
        Category.SPATIAL_IDENTIFICATION: 2,
    }
    assert census.instruction_categories == {
        Category.NOVEL_ACTION_REFERENCING: 2,
        Category.SITUATED_TASK_IDENTIFICATION: 2,
    }
    assert census.commands[ORIGINAL] == {("pick", "mug"): 1, ("open", "drawer"): 1}
    assert census.commands[COMMANDS] == {("fetch", "mug"): 2}
    assert census.without_command[COMMANDS] == 2


def test_without_an_instruction_the_answer_tells_the_original():
    fetch = Annotation(rewritten=(Turn("Fetch the mug.", "Okay, I will pick up the mug."),))
    silent = Annotation(rewritten=(Turn("Fetch the mug.", "Of course!"),))
    assert census_of(EpisodeTexts(None, fetch)).instruction_categories == {Category.NOVEL_ACTION_REFERENCING: 1}
    assert census_of(EpisodeTexts(None, silent)).instruction_categories == {Category.DIRECT_INSTRUCTION: 1}


def test_vocabulary_grows_and_tells_what_is_new():
    known, grown = Vocabulary(), Vocabulary()
    known.add("pick up the mug")
    for text in ("fetch the mug", "fetch the mug", "the bowl"):
        grown.add(text)
    assert grown.points()[0] == (3, 3) and grown.points()[-1] == (8, 4)
    assert grown.new_words(known) == (2 / 4, 3 / 8)


def test_a_curve_stays_short_however_long_the_corpus():
    vocabulary = Vocabulary()
    for number in range(20_000):
        vocabulary.add(f"word{'x' * (number % 7)} and more words to read")
    assert vocabulary.tokens == 120_000 and len(vocabulary.points()) < 120


def test_the_sample_has_its_size_and_is_drawn_evenly():
    turns = tuple(Turn(f"fetch mug {chr(97 + number)}", "I will pick up the mug.") for number in range(20))
    texts = replace(TEXTS, annotation=Annotation(rewritten=turns))
    drawn = [text.text for seed in range(200) for text in census_of(texts, sample_size=5, seed=seed).sample]
    counts = [drawn.count(turn.question) for turn in turns]
    assert sum(counts) == 1000 and min(counts) > 25 and max(counts) < 80  # 50 expected of each


def test_all_texts_of_an_annotation_are_read():
    assert census_of(TEXTS).vocabularies[ALL].counts["mug"] == 5

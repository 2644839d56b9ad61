"""Claims about texts that say the same."""

import numpy as np

from instructvla.training.annotation.near_duplicates import TextCounts, are_near_duplicates, normalised


def test_articles_and_politeness_make_no_difference():
    assert normalised("Could you please put the Spoon on a tray?") == ("put", "spoon", "on", "tray")
    assert are_near_duplicates("Put the spoon on the tray.", "please put spoon on tray")


def test_one_other_word_in_a_short_text_is_another_text():
    assert not are_near_duplicates("What colour is the left bowl?", "What colour is the right bowl?")
    assert not are_near_duplicates("Put the cup on the plate", "Put the plate on the cup")
    side = "On which side of the big round apple do you see the letter {}?"
    assert not are_near_duplicates(side.format("H"), side.format("L"))


def test_one_other_word_in_a_long_text_is_not():
    text = (
        "wooden table with two blue plates three forks one glass four lemons five limes six pears ten eggs near white "
        "sink beside stove and {}"
    )
    assert are_near_duplicates(text.format("fridge"), text.format("refrigerator"))


def test_copies_are_counted_across_a_dataset():
    counts = TextCounts()
    assert [counts.add("What is it?", "A cup.") for _ in range(3)] == [1, 2, 3]
    assert counts.add("what is it", "a cup") == 4
    assert counts.add("What is it?", "A plate.") == 1


def test_counts_are_exact_far_below_the_size_of_the_sketch_and_its_memory_is_bounded():
    counts = TextCounts()
    assert counts.counters.nbytes == 128 << 20
    assert all(counts.add(f"text {number}") == 1 for number in range(5000))


def test_a_count_stays_at_the_largest_number():
    counts = TextCounts()
    counts.counters[:] = np.iinfo(np.uint16).max
    assert counts.add("again") == np.iinfo(np.uint16).max

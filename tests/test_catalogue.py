"""The catalogue: every name stands for one thing that can be told from the others."""

from instructvla.evaluation.tabletop.catalogue import COLOURS, DRAWER, ITEMS, RECEPTACLES, Kind


def test_names_are_unique_over_things_receptacles_and_the_drawer():
    names = [*ITEMS, *RECEPTACLES, DRAWER]
    assert len(set(names)) == len(names)


def test_every_item_comes_in_known_colours():
    assert all(item.colours and set(item.colours) <= set(COLOURS) for item in (*ITEMS.values(), *RECEPTACLES.values()))


def test_each_kind_has_things_and_most_kinds_have_one_that_training_never_handles():
    for kind in set(Kind) - {Kind.RECEPTACLE}:
        assert sum(item.kind is kind and item.seen for item in ITEMS.values()) >= 2
    unseen = {item.kind for item in (*ITEMS.values(), *RECEPTACLES.values()) if not item.seen}
    assert len(unseen) >= 6


def test_everything_has_a_fact_that_language_may_rely_on():
    assert all(item.facts for item in ITEMS.values())

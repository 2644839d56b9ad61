import pytest

from instructvla.training.annotation.categories import Category
from instructvla.training.annotation.category_agreement import Agreement, agreement_lines

SPATIAL, VISUAL, STATE = (
    Category.SPATIAL_IDENTIFICATION,
    Category.VISUAL_IDENTIFICATION,
    Category.STATE_IDENTIFICATION,
)


def test_kappa_is_that_of_a_worked_example():
    """45 of 60 agree; by chance it would be half of them: kappa is (0.75 − 0.5) / (1 − 0.5)."""
    pairs = [(SPATIAL, SPATIAL)] * 25 + [(VISUAL, VISUAL)] * 20 + [(SPATIAL, VISUAL)] * 10 + [(VISUAL, SPATIAL)] * 5
    found = Agreement.of(pairs)
    chance = (35 * 30 + 25 * 30) / 60**2
    assert (found.rate.successes, found.rate.trials) == (45, 60)
    assert found.kappa == pytest.approx((0.75 - chance) / (1 - chance))


def test_kappa_is_not_defined_where_one_category_is_all():
    assert Agreement.of([(SPATIAL, SPATIAL)] * 3).kappa is None
    assert Agreement.of([]).kappa is None


def test_precision_and_recall_are_the_first_sides_against_the_second():
    found = Agreement.of([(SPATIAL, SPATIAL)] * 3 + [(SPATIAL, STATE)] + [(VISUAL, SPATIAL)] * 2)
    assert (found.precision(SPATIAL).successes, found.precision(SPATIAL).trials) == (3, 4)
    assert (found.recall(SPATIAL).successes, found.recall(SPATIAL).trials) == (3, 5)
    assert found.recall(STATE).value == 0


def test_lines_tell_agreement_and_a_row_per_category():
    lines = list(agreement_lines(Agreement.of([(SPATIAL, SPATIAL), (VISUAL, SPATIAL)]), "rules", "truth"))
    assert "1 of 2 agree" in lines[0] and "rules against truth" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["Spatial", "Visual"]

import pytest
from typer.testing import CliRunner

from instructvla.evaluation.tabletop.measure_categories import app, measured
from instructvla.training.annotation.categories import Category
from instructvla.training.annotation.category_agreement import Agreement


@pytest.mark.parametrize("split", ["train", "test"])
def test_rules_are_mostly_right_about_texts_whose_category_is_known(split):
    found = Agreement.of((given, true) for _, given, true in measured(30, split, seed=3))
    assert set(found.categories) == set(Category)
    assert found.rate.value > 0.9
    assert min(found.recall(category).value for category in Category) > 0.6


def test_the_command_prints_rates_and_mistakes():
    result = CliRunner().invoke(app, ["--scenes", "3", "--mistakes", "2"])
    assert result.exit_code == 0
    assert "train phrases, 3 scenes" in result.output and "test phrases, 3 scenes" in result.output
    assert "Cohen's kappa" in result.output

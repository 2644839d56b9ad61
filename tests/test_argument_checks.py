import numpy as np
import pytest

from instructvla.argument_checks import parse_counts, require_positive_integer


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_positive_integers_pass(value):
    require_positive_integer("steps", value)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, None, "3"])
def test_anything_else_is_refused_by_name(value):
    with pytest.raises(ValueError, match="steps is .* must be an integer of at least 1"):
        require_positive_integer("steps", value)


def test_counts_are_read_from_an_option():
    assert parse_counts("--clients", "1,2, 4", 4) == [1, 2, 4]


@pytest.mark.parametrize("text", ["", "0", "1,two", "5", "1;2", "1,,2"])
def test_what_is_no_list_of_counts_is_refused_by_the_name_of_its_option(text):
    with pytest.raises(ValueError, match=f"--clients {text} must be numbers from 1 to 4"):
        parse_counts("--clients", text, 4)

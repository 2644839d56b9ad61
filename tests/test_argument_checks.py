import numpy as np
import pytest

from instructvla.argument_checks import require_positive_integer


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_positive_integers_pass(value):
    require_positive_integer("steps", value)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, None, "3"])
def test_anything_else_is_refused_by_name(value):
    with pytest.raises(ValueError, match="steps is .* must be an integer of at least 1"):
        require_positive_integer("steps", value)

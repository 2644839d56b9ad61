"""Statistics: what is accepted, and what they do to actions and states. Arithmetic is float64, so 1e-12 is rounding."""

import copy
import re

import numpy as np
import pytest

from instructvla.processing.action_normalization import (
    check_statistics,
    clip_actions,
    nearest,
    normalize_actions,
    normalize_state,
    resolve_unnorm_key,
    unnormalize_actions,
)
from tests.parity import load_fixture

ACTION = {"q01": [-1.0, -2.0, 0.0], "q99": [1.0, 2.0, 1.0], "mask": [True, True, False]}
STATE = {"q01": [0.0, 5.0], "q99": [2.0, 5.0]}
STATISTICS = {"bridge": {"action": ACTION, "state": STATE}}


def broken(part: str, field: str, value) -> dict:
    statistics = copy.deepcopy(STATISTICS)
    statistics["bridge"][part][field] = value
    return statistics


@pytest.mark.parametrize("with_mask", [True, False])
def test_unnormalized_actions_equal_the_released_ones(with_mask):
    tensors, _ = load_fixture("postprocess_unnorm")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    statistics = {"q01": arrays["unnorm.in.q01"], "q99": arrays["unnorm.in.q99"]}
    if with_mask:
        statistics["mask"] = arrays["unnorm.in.mask"]
    actions = unnormalize_actions(arrays["unnorm.in.sampled"], statistics, gripper_dims=[6])
    expected = arrays["unnorm.out.actions" if with_mask else "unnorm.out.actions_no_mask_key"]
    np.testing.assert_allclose(actions, expected, rtol=1e-12, atol=1e-12)


def test_clipping_and_gripper_alone_give_the_released_normalized_actions():
    tensors, _ = load_fixture("postprocess_unnorm")
    unmasked = {"q01": np.zeros(7), "q99": np.ones(7), "mask": np.zeros(7, bool)}
    actions = unnormalize_actions(tensors["unnorm.in.sampled"].numpy(), unmasked, gripper_dims=[6])
    np.testing.assert_array_equal(actions, tensors["unnorm.out.normalized"].numpy())


def test_gripper_opens_from_one_half_up():
    normalized = np.array([[0.0, 0.0, 0.49], [0.0, 0.0, 0.5], [0.0, 0.0, -3.0], [0.0, 0.0, 3.0]])
    assert unnormalize_actions(normalized, ACTION, [2])[:, 2].tolist() == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("with_mask", [True, False])
def test_normalizing_undoes_unnormalizing(with_mask):
    statistics = ACTION if with_mask else {"q01": ACTION["q01"], "q99": ACTION["q99"]}
    normalized = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    normalized[:, 2] = normalized[:, 2] > 0
    physical = unnormalize_actions(normalized, statistics, gripper_dims=[2])
    np.testing.assert_allclose(normalize_actions(physical, statistics), normalized, rtol=0, atol=1e-12)


def test_normalized_actions_are_clipped_and_the_gripper_stays_as_it_is():
    actions = np.array([[9.0, -9.0, 0.3], [-1.0, 2.0, 1.7]])
    assert normalize_actions(actions, ACTION).tolist() == [[1.0, -1.0, 0.3], [-1.0, 1.0, 1.7]]


def test_normalized_actions_equal_the_authors_formula():
    low, high, mask = (np.asarray(ACTION[field]) for field in ("q01", "q99", "mask"))
    actions = np.random.default_rng(1).normal(0, 2, (50, 3))
    authors = np.where(mask, np.clip(2 * (actions - low) / (high - low + 1e-8) - 1, -1, 1), actions)
    np.testing.assert_allclose(normalize_actions(actions, ACTION), authors, rtol=0, atol=1e-7)  # their 1e-8


def test_an_action_that_was_constant_in_training_is_zero_but_a_constant_gripper_is_kept():
    statistics = {"q01": [0.5, 1.0], "q99": [0.5, 1.0], "mask": [True, False]}
    assert normalize_actions(np.array([[0.5, 1.0], [0.7, 1.0]]), statistics).tolist() == [[0.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize(("actions", "message"), [([[1.0, 2.0]], "3 values"), ([[1.0, 2.0, np.nan]], "finite")])
def test_actions_of_another_size_or_not_finite_are_not_normalized(actions, message):
    with pytest.raises(ValueError, match=message):
        normalize_actions(np.array(actions), ACTION)


def test_unnormalizing_does_not_change_its_input():
    normalized = np.array([[9.0, -9.0, 0.7]])
    unnormalize_actions(normalized, ACTION, [2])
    assert normalized.tolist() == [[9.0, -9.0, 0.7]]


def test_unnormalizing_keeps_leading_dimensions():
    assert unnormalize_actions(np.zeros((2, 5, 4, 3)), ACTION, []).shape == (2, 5, 4, 3)


def test_state_is_clipped_and_a_constant_dimension_gives_zero():
    states = np.array([[0.0, 5.0], [1.0, 7.0], [2.0, -1.0], [-9.0, 5.0], [9.0, 5.0]])
    normalized = normalize_state(states, STATE)
    # The 1e-8 in the released denominator moves the value by less than 1e-8.
    np.testing.assert_allclose(normalized[:, 0], [-1.0, 0.0, 1.0, -1.0, 1.0], atol=1e-8)
    assert (normalized[:, 1] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="state must be finite"):
        normalize_state(np.array([bad, 5.0]), STATE)
    with pytest.raises(ValueError, match="normalized actions must be finite"):
        unnormalize_actions(np.array([[0.0, bad, 0.0]]), ACTION, [2])


@pytest.mark.parametrize("shape", [(), (2,), (1, 4), (3, 1)])
def test_a_wrong_number_of_dimensions_names_both(shape):
    with pytest.raises(ValueError, match=re.escape(f"must have 3 values in the last dimension, got shape {shape}")):
        unnormalize_actions(np.zeros(shape), ACTION, [2])


def test_values_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="state must be numbers, got dtype"):
        normalize_state(np.array(["left", "right"]), STATE)


def test_statistics_come_back_as_plain_lists_and_keep_further_fields():
    given = {
        "bridge": {"action": {key: np.array(value) for key, value in ACTION.items()}, "num_transitions": np.int64(9)}
    }
    plain = check_statistics(given, 3, None)
    assert plain == {"bridge": {"action": ACTION, "num_transitions": 9}}
    assert type(plain["bridge"]["action"]["q01"]) is list
    assert type(plain["bridge"]["action"]["mask"][0]) is bool


def test_state_statistics_are_only_needed_by_a_model_with_state():
    assert check_statistics({"bridge": {"action": ACTION}}, 3, None)
    with pytest.raises(
        ValueError, match=r"statistics\['bridge'\]\['state'\] is missing .* keys given are \['action'\]"
    ):
        check_statistics({"bridge": {"action": ACTION}}, 3, 2)


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ([1], "must be a dict"),
        ({"bridge": [1]}, "must be a dict with the key 'action'"),
        ({"bridge": {"actions": ACTION}}, r"\['action'\] is missing .* keys given are \['actions'\]"),
        ({"bridge": {"action": {"p01": [0.0], "q99": [1.0]}}}, r"lacks \['q01'\]; the keys given are \['p01', 'q99'\]"),
        (broken("action", "q01", [0.0, 0.0]), r"\['q01'\] must have 3 values, one per dimension, got 2 values"),
        (broken("action", "q99", 1.0), r"\['q99'\] must have 3 values, one per dimension, got 1.0"),
        (broken("action", "std", [1.0]), r"\['std'\] must have 3 values"),
        (broken("action", "mask", [1, 1, 0]), "must hold only true and false"),
        (broken("action", "q01", [0.0, float("nan"), 0.0]), "must hold only finite numbers"),
        (broken("action", "q01", [0.0, "0", 0.0]), "must hold only finite numbers"),
        (broken("action", "q01", [0.0, 3.0, 0.0]), "q01 3.0 is above q99 2.0 in dimension 1"),
        (broken("state", "q99", [float("inf"), 5.0]), r"\['state'\]\['q99'\] must hold only finite numbers"),
    ],
)
def test_bad_statistics_are_refused_and_named(statistics, message):
    with pytest.raises(ValueError, match=message):
        check_statistics(statistics, action_dim=3, state_dim=2)


def test_the_only_key_is_found_without_naming_it():
    assert resolve_unnorm_key(["bridge"], None) == "bridge"
    assert resolve_unnorm_key(["bridge", "fractal"], "fractal") == "fractal"


def test_an_ambiguous_key_lists_the_choices():
    with pytest.raises(ValueError, match=r"unnorm_key is needed.*\['bridge', 'fractal'\]"):
        resolve_unnorm_key(["bridge", "fractal"], None)


def test_an_unknown_key_lists_the_choices_and_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown unnorm_key 'fratcal'.*\['bridge', 'fractal'\].*nearest is 'fractal'"
    ):
        resolve_unnorm_key(["bridge", "fractal"], "fratcal")


def test_there_is_a_nearest_name_even_without_a_common_letter():
    assert nearest("xyz", ["bridge"]) == "bridge"


def test_a_gripper_that_is_not_a_number_is_refused_and_not_closed():
    with pytest.raises(ValueError, match="must be finite, got nan"):
        clip_actions(np.array([0.0, 0.0, np.nan]), 3, [2])


def test_clipping_leaves_its_input_as_it_was():
    given = np.array([2.0, -2.0, 0.6])
    assert clip_actions(given, 3, [2]).tolist() == [1.0, -1.0, 1.0]
    assert given.tolist() == [2.0, -2.0, 0.6]

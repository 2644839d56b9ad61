"""FLOPs of an action: what is computed, counted operation by operation, is the least that it can be had for."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.decoding_session import DecodingSession, FixedSession
from instructvla.evaluation.action_flops import action_flops
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.nano import untrained_nano
from tests.action_stages import PROMPT, stages


@pytest.fixture(scope="module")
def full_size():
    """The released size, without any memory: shapes alone."""
    with torch.device("meta"):
        return InstructVLAForConditionalGeneration(InstructVLAConfig())


def counted(work) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("words", [None, 2])
def test_a_full_size_action_is_within_two_percent_of_the_minimum(full_size, words):
    """With fixed caches and a padded prompt, as on a GPU."""
    padded = -(-PROMPT // 8) * 8
    session = FixedSession(full_size.language_model, 1, padded + 128)
    found, least = stages(full_size, padded, words, session, counted), action_flops(full_size.config, PROMPT, words)
    assert list(found) == list(least)
    assert sum(least.values()) <= sum(found.values()) <= 1.02 * sum(least.values())


@pytest.mark.parametrize("words", [None, 3])
@pytest.mark.parametrize("experts", [1, 2])
def test_stages_without_padding_cost_exactly_what_is_counted(words, experts):
    model = untrained_nano(adapter_config={"experts": experts})
    found = stages(model, 40, words, DecodingSession(model.language_model), counted)
    least = action_flops(model.config, 40, words)
    assert found == pytest.approx(least, rel=1e-3)


def test_an_action_of_the_released_size_takes_more_than_three_teraflop():
    assert 3e12 < sum(action_flops(InstructVLAConfig(), PROMPT).values()) < 3.6e12


def test_stems_are_refused():
    config = untrained_nano().config
    config.stem_channels = [8]
    with pytest.raises(ValueError, match="stems are not counted"):
        action_flops(config, 40)

"""Decoding sessions: growing and fixed caches see the same tokens, however these are cut into passes."""

import pytest
import torch

from instructvla.decoding_session import DecodingSession, FixedSession
from instructvla.nano import untrained_nano


@pytest.fixture(scope="module", params=[1, 2])
def language_model(request):
    return untrained_nano(adapter_config={"experts": request.param}).language_model


def embeds(language_model, tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(tokens)
    return torch.randn(2, tokens, language_model.config.hidden_size, generator=generator)


def in_passes(session, inputs, mask, cuts) -> torch.Tensor:
    """Hidden states of each pass's last two tokens (or one)."""
    found, start = [], 0
    for end in cuts:
        last = min(2, end - start)
        found.append(session.append(inputs[:, start:end], mask[:, start:end], last=last).clone())
        start = end
    return torch.cat(found, dim=1)


@torch.no_grad()
def test_fixed_and_growing_caches_agree_with_padding_and_cuts(language_model):
    inputs, mask = embeds(language_model, 12), torch.ones(2, 12, dtype=torch.long)
    mask[1, :3] = 0  # left padding
    mask[0, 9] = 0  # a row that had stopped speaking
    fixed = FixedSession(language_model, rows=2, length=20)
    for _ in range(2):
        fixed.begin()
        cuts = (7, 8, 12)
        expected = in_passes(DecodingSession(language_model), inputs, mask, cuts)
        torch.testing.assert_close(in_passes(fixed, inputs, mask, cuts), expected, rtol=1e-4, atol=1e-4)
        assert fixed.filled == 12
        inputs = inputs.flip(0)  # another prompt in the same session
        mask = mask.flip(0)


@torch.no_grad()
def test_only_the_last_tokens_of_the_top_layer_are_the_same_as_all_of_them(language_model):
    inputs = embeds(language_model, 9)
    for mask in (torch.ones(2, 9, dtype=torch.long), torch.tensor([[0, 0] + [1] * 7, [1] * 9])):
        whole = language_model(inputs, mask)
        for last in (1, 4, 9):
            torch.testing.assert_close(language_model(inputs, mask, last=last), whole[:, -last:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_forgotten_tokens_change_nothing(language_model):
    start, wrong, rest = embeds(language_model, 6), embeds(language_model, 2), embeds(language_model, 3)
    ones = torch.ones(2, 6, dtype=torch.long)
    expected = in_passes(
        DecodingSession(language_model), torch.cat([start, rest], dim=1), torch.ones(2, 9, dtype=torch.long), (6, 9)
    )
    for session in (DecodingSession(language_model), FixedSession(language_model, 2, 16)):
        session.append(start, ones, last=1)
        session.append(wrong, ones[:, :2], last=1)
        for row in range(2):
            session.forget(row, 6)
        found = session.append(rest, ones[:, :3], last=2)
        torch.testing.assert_close(found, expected[:, -2:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_session_that_is_full_refuses_more(language_model):
    session = FixedSession(language_model, 2, 8)
    session.append(embeds(language_model, 6), torch.ones(2, 6, dtype=torch.long), last=1)
    with pytest.raises(ValueError, match="A session of 8 tokens can't take 9"):
        session.append(embeds(language_model, 3), torch.ones(2, 3, dtype=torch.long), last=1)


@torch.no_grad()
def test_a_single_pass_keeps_no_keys(language_model):
    session = DecodingSession(language_model, keep=False)
    session.append(embeds(language_model, 3), torch.ones(2, 3, dtype=torch.long), last=1)
    assert session.cache is None

"""One prompt under way: the language model's keys and values so far, and which of their tokens count."""

from collections.abc import Callable
from functools import partial

import torch

from .fixed_cache import FixedCache
from .mixture_language_model import MixtureLanguageModel


class DecodingSession:
    """Passes of any shape on KV caches that grow.

    Args:
        language_model: in evaluation mode.
        keep: False for a single pass that nothing follows; its keys and values are then not kept.
    """

    def __init__(self, language_model: MixtureLanguageModel, keep: bool = True):
        self.language_model = language_model
        self.cache = language_model.new_cache() if keep else None
        self.mask: torch.Tensor | None = None

    @property
    def filled(self) -> int:
        """Tokens so far, padding included."""
        return 0 if self.mask is None else self.mask.shape[1]

    def append(self, embeds: torch.Tensor, mask: torch.Tensor, last: int) -> torch.Tensor:
        """Hidden states of the last tokens, (batch, last, hidden_size).

        Args:
            embeds: (batch, seq, hidden_size), what comes next.
            mask: (batch, seq), 1 where it counts.
        """
        self.mask = mask if self.mask is None else torch.cat([self.mask, mask.to(self.mask.dtype)], dim=1)
        return self.language_model(embeds, self.mask, self.cache, last=last)

    def forget(self, row: int, first: int) -> None:
        """No later token of this row attends to its tokens from the `first` on."""
        self.mask[row, first:] = 0


class FixedSession:
    """Passes of few shapes on caches of a fixed length, reused from prompt to prompt: nothing is allocated, and what
    depends on how far a prompt has come is data, so that a pass can be compiled or captured once for its shape.

    Args:
        language_model: in evaluation mode.
        rows, length: of the caches.
        make_pass: of the model and the caches, makes what runs `decoder_pass` on them, e.g. captured.
    """

    def __init__(
        self,
        language_model: MixtureLanguageModel,
        rows: int,
        length: int,
        make_pass: Callable[[MixtureLanguageModel, FixedCache], Callable[..., torch.Tensor]] | None = None,
    ):
        weight, passes = language_model.embed_tokens.weight, 1 if language_model.scale_head is None else 2
        cache = FixedCache(language_model.config, rows, length, passes, weight.dtype, weight.device)
        self.run_pass = (make_pass or partial(partial, decoder_pass))(language_model, cache)
        self.mask = torch.zeros(rows, length, dtype=torch.long, device=weight.device)
        self.start = torch.zeros((), dtype=torch.long, device=weight.device)
        self.filled = 0

    def begin(self) -> None:
        """A new prompt."""
        self.mask.zero_()
        self.start.zero_()
        self.filled = 0

    def append(self, embeds: torch.Tensor, mask: torch.Tensor, last: int) -> torch.Tensor:
        """As `DecodingSession.append`; the result is valid until the next pass."""
        end, length = self.filled + embeds.shape[1], self.mask.shape[1]
        if end > length:
            raise ValueError(f"A session of {length} tokens can't take {end}.")
        self.mask[:, self.filled : end] = mask
        hidden = self.run_pass(embeds, self.mask, self.start, last=last)
        self.start += embeds.shape[1]
        self.filled = end
        return hidden

    def forget(self, row: int, first: int) -> None:
        """As `DecodingSession.forget`."""
        self.mask[row, first:] = 0


def decoder_pass(
    language_model: MixtureLanguageModel,
    cache: FixedCache,
    embeds: torch.Tensor,
    mask: torch.Tensor,
    start: torch.Tensor,
    last: int,
) -> torch.Tensor:
    """One pass on fixed caches, without a shape or a branch that depends on data.

    Args:
        embeds: (rows, seq, hidden_size).
        mask: (rows, length), 1 where a token counts, these tokens included.
        start: how many tokens are in the caches, () long.

    Returns:
        (rows, last, hidden_size).
    """
    slots = start + torch.arange(embeds.shape[1], device=embeds.device)
    everywhere = torch.arange(mask.shape[1], device=mask.device)
    earlier, own = everywhere <= slots.unsqueeze(1), everywhere == slots.unsqueeze(1)  # (seq, length)
    attends = (earlier & mask.bool()[:, None, None, :]) | own  # padding sees itself, as attention to nothing is NaN
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, slots]
    return language_model(embeds, attends, cache.at(slots), positions, last=last)

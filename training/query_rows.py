"""The action queries' rows of both embeddings as parameters of their own, so that only they are trained (section 3.2).

The rest of each embedding is frozen and stays as it was, bit for bit, and the optimiser keeps no state for it.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration

ROWS = ".query_rows"


class QueryRowsEmbedding(nn.Module):
    """An input embedding whose rows `first` … `first + count − 1` are the parameter `query_rows`."""

    def __init__(self, embedding: nn.Embedding, first: int, count: int):
        super().__init__()
        self.first, self.count = first, count
        self.weight = embedding.weight
        self.query_rows = nn.Parameter(embedding.weight.detach()[first : first + count].clone())

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        query = input_ids - self.first
        is_query = (query >= 0) & (query < self.count)
        own = F.embedding(query.clamp(0, self.count - 1), self.query_rows)
        return torch.where(is_query.unsqueeze(-1), own, F.embedding(input_ids, self.weight).to(own.dtype))


class QueryRowsHead(nn.Module):
    """An output embedding without bias whose rows `first` … `first + count − 1` are the parameter `query_rows`."""

    def __init__(self, head: nn.Linear, first: int, count: int):
        super().__init__()
        self.first, self.count = first, count
        self.weight = head.weight
        self.query_rows = nn.Parameter(head.weight.detach()[first : first + count].clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = (self.weight[: self.first], self.query_rows, self.weight[self.first + self.count :])
        return torch.cat([F.linear(x, part) for part in parts], dim=-1)


def add_query_rows(model: InstructVLAForConditionalGeneration) -> None:
    """Give both embeddings trainable query rows; the model computes what it did before."""
    first, count = model.config.query_token_id, model.config.num_action_queries
    language_model = model.language_model
    language_model.embed_tokens = QueryRowsEmbedding(language_model.embed_tokens, first, count)
    language_model.lm_head = QueryRowsHead(language_model.lm_head, first, count)


def fold_query_rows(state: Mapping[str, torch.Tensor], first: int) -> dict[str, torch.Tensor]:
    """A state dict as the model has it without `add_query_rows`: the rows are back in the embeddings' weights.

    Args:
        state: of a model with or without query rows; not changed.
        first: the first query's token id.
    """
    folded = {name: tensor for name, tensor in state.items() if not name.endswith(ROWS)}
    for name in state.keys() - folded.keys():
        weight = f"{name.removesuffix(ROWS)}.weight"
        folded[weight] = state[weight].clone()
        folded[weight][first : first + len(state[name])] = state[name]
    return folded


def unfold_query_rows(
    state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], first: int
) -> dict[str, torch.Tensor]:
    """The inverse: what `wanted`, the state dict of a model that may have query rows, needs of a plain state dict."""
    rows = [name for name in wanted if name.endswith(ROWS)]
    unfolded = dict(state)
    for name in rows:
        unfolded[name] = state[f"{name.removesuffix(ROWS)}.weight"][first : first + len(wanted[name])]
    return unfolded

"""The mixture of adaptation experts: gated LoRA on the language model's linear layers (paper section 3.1)."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init


class BaseLinear(nn.Linear):
    """A linear layer without adaptation, callable like `AdaptedLinear`."""

    def forward(self, x: torch.Tensor, gates: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x)


class AdaptedLinear(BaseLinear):
    """h = W₀ x + Σᵢ (α/r) Bᵢ Aᵢ (λᵢ x), with r = `rank` and one pair Aᵢ, Bᵢ per expert (paper section 3.1).

    The experts are stored side by side, A as (experts, rank, in) and B as (out, experts, rank), so that all of them
    cost two matrix products. Fresh experts change nothing: B starts at zero.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool, *, experts: int, rank: int, alpha: float, dropout: float
    ):
        super().__init__(in_features, out_features, bias=bias)
        self.scaling = alpha / rank
        self.dropout = dropout
        self.lora_A = nn.Parameter(torch.empty(experts, rank, in_features))
        self.lora_B = nn.Parameter(torch.empty(out_features, experts, rank))
        self.reset_experts()

    def reset_experts(self) -> None:
        """LoRA's start: A by Kaiming initialisation with a = √5, which is uniform within ± 1/√in; B zero."""
        bound = 1 / math.sqrt(self.in_features)
        init.uniform_(self.lora_A, -bound, bound)
        init.zeros_(self.lora_B)

    def forward(self, x: torch.Tensor, gates: torch.Tensor | None = None) -> torch.Tensor:
        """Args:
        x: (batch, seq, in_features).
        gates: λ, (batch, seq, experts) or broadcastable to it; None runs the base layer alone.
        """
        h = F.linear(x, self.weight, self.bias)
        if gates is None:
            return h
        low_rank = self.scaling * gates.unsqueeze(-1) * self.project_down(x)  # (batch, seq, experts, rank)
        return h + F.linear(low_rank.flatten(-2), self.lora_B.flatten(1))

    def project_down(self, x: torch.Tensor) -> torch.Tensor:
        """Aᵢ x of every expert, (batch, seq, experts, rank); in training each expert drops inputs of its own."""
        if self.training and self.dropout > 0:
            return torch.stack([F.linear(F.dropout(x, self.dropout), a) for a in self.lora_A], dim=-2)
        return F.linear(x, self.lora_A.flatten(0, 1)).unflatten(-1, self.lora_A.shape[:2])


class ScaleHead(nn.Sequential):
    """λ = softmax(MLP(h⁰)): per-token gates of the experts, the same for all layers (paper section 3.1, Table 12).

    h⁰ is the base model's final hidden state; (batch, seq, hidden_size) → (batch, seq, experts).
    """

    def __init__(self, hidden_size: int, experts: int, depth: int, size: int, dropout: float):
        layers: list[nn.Module] = []
        for width in [hidden_size] + [size] * (depth - 2) if depth > 1 else []:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear(size if depth > 1 else hidden_size, experts))
        super().__init__(*layers)

    def forward(self, base_hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(base_hidden).softmax(dim=-1)

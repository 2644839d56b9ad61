"""Linear layers that read the same input: each on its own, or side by side as one product, for inference."""

import torch
import torch.nn.functional as F
from torch import nn

from .adaptation_experts import AdaptedLinear, BaseLinear


class LinearGroup:
    """h_i = W_i x + (α/r) B_i (λ ⊙ A_i x), or W_i x, of several layers on one x; all of them have a bias, or none.

    Fused, every W_i x and A_i x is part of one product: adapted q, k and v take 6 operations instead of 18. A group is
    no module, so parameters keep their names.

    Args:
        linears: in the order of their outputs.
    """

    def __init__(self, *linears: BaseLinear):
        self.linears = linears
        self.sizes = [linear.out_features for linear in linears]
        self.adapted = [place for place, linear in enumerate(linears) if isinstance(linear, AdaptedLinear)]
        self.weight: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None
        self.first: nn.Parameter | None = None

    def __call__(self, x: torch.Tensor, gates: torch.Tensor | None) -> list[torch.Tensor]:
        """Each layer's output; fused, up to rounding.

        Args:
            x: (batch, seq, in_features).
            gates: as of `AdaptedLinear`.
        """
        if not self.is_fused():
            return [linear(x, gates) for linear in self.linears]
        width = sum(self.sizes)
        if gates is None or not self.adapted:
            bias = None if self.bias is None else self.bias[:width]
            return list(F.linear(x, self.weight[:width], bias).split(self.sizes, dim=-1))
        product = F.linear(x, self.weight, self.bias)
        outputs = list(product[..., :width].split(self.sizes, dim=-1))
        adapted = [self.linears[place] for place in self.adapted]
        low_rank = product[..., width:].unflatten(-1, (len(adapted), *adapted[0].lora_A.shape[:2]))
        low_rank = (adapted[0].scaling * gates[..., None, :, None] * low_rank).flatten(0, 1).flatten(2)
        for number, (place, linear) in enumerate(zip(self.adapted, adapted, strict=True)):
            base = outputs[place].flatten(0, 1)
            added = torch.addmm(base, low_rank[:, number], linear.lora_B.flatten(1).t())
            outputs[place] = added.unflatten(0, x.shape[:2])
        return outputs

    def is_fused(self) -> bool:
        """Not in training, and no longer once the weights were moved, cast or replaced after `fuse`."""
        weight = self.linears[0].weight
        if weight is not self.first or self.linears[0].training:
            return False
        return torch.compiler.is_compiling() or weight.data_ptr() == self.weight.data_ptr()

    @torch.no_grad()
    def fuse(self) -> None:
        """Lay the weights side by side. The parameters become views of them: nothing is kept twice, and what is copied
        into a parameter is used. Weights that are no plain tensors, such as quantised ones, stay on their own."""
        if any(type(linear.weight) is not nn.Parameter for linear in self.linears):
            return
        downs = [self.linears[place].lora_A for place in self.adapted]
        self.weight = side_by_side([*(linear.weight for linear in self.linears), *downs])
        if self.linears[0].bias is not None:
            zeros = self.weight.new_zeros(sum(down.shape[0] * down.shape[1] for down in downs))
            self.bias = side_by_side([linear.bias for linear in self.linears], zeros)
        self.first = self.linears[0].weight


def side_by_side(parameters: list[nn.Parameter], *others: torch.Tensor) -> torch.Tensor:
    """All rows in one tensor, of which the parameters become parts; (rows, in), (groups, rows, in) or (rows,) each."""
    matrices = [parameter.flatten(0, 1) if parameter.ndim == 3 else parameter for parameter in parameters]
    together, start = torch.cat([*matrices, *others]), 0
    for parameter, matrix in zip(parameters, matrices, strict=True):
        parameter.data = together[start : start + len(matrix)].view(parameter.shape)
        start += len(matrix)
    return together

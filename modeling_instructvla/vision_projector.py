"""From SigLIP patches to language-model tokens: pixel shuffle and a two-layer MLP (Eagle2, paper section 3.1)."""

import torch
from torch import nn


def pixel_shuffle(patches: torch.Tensor, factor: int) -> torch.Tensor:
    """Fold each factor x factor square of patches into one token, in the order (2i,2j), (2i,2j+1), (2i+1,2j), …

    Args:
        patches: (images, height, width, channels), height and width multiples of `factor`.

    Returns:
        (images, height / factor, width / factor, factor² · channels).
    """
    images, height, width, channels = patches.shape
    squares = patches.view(images, height // factor, factor, width // factor, factor, channels)
    return squares.transpose(2, 3).flatten(3)


class VisionProjector(nn.Module):
    """Pixel shuffle → LayerNorm → Linear → GELU → Linear."""

    def __init__(self, vision_size: int, text_size: int, downsample_ratio: float):
        super().__init__()
        self.factor = round(1 / downsample_ratio)
        shuffled_size = vision_size * self.factor**2
        self.norm = nn.LayerNorm(shuffled_size)
        self.linear_1 = nn.Linear(shuffled_size, text_size)
        self.linear_2 = nn.Linear(text_size, text_size)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(images, grid², vision_size) → (images, (grid / factor)², text_size)."""
        grid = round(patches.shape[1] ** 0.5)
        tokens = pixel_shuffle(patches.unflatten(1, (grid, grid)), self.factor).flatten(1, 2)
        return self.linear_2(nn.functional.gelu(self.linear_1(self.norm(tokens))))

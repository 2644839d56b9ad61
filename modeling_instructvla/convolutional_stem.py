"""A convolutional patch stem for towers that learn from nothing (Xiao et al. 2021, "Early convolutions help
transformers see better"), in the place of the one convolution that SigLIP and DINOv2 make patches with."""

from collections.abc import Sequence

import torch
from torch import nn


class StemConvolution(nn.Conv2d):
    """3 × 3 with stride 2. It starts by Kaiming's rule, so that signals keep their size on the way to the tokens."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=3, stride=2, padding=1)


class ConvolutionalStem(StemConvolution):
    """Stride-2 convolutions with GELU between them; 2^(number of convolutions) is the patch size.

    (images, 3, size, size) → (images, embed_dim, size / patch_size, size / patch_size). It is the last of its
    convolutions, as towers read the weight of what makes their patches.
    """

    def __init__(self, channels: Sequence[int], embed_dim: int):
        super().__init__(channels[-1], embed_dim)
        before = [3, *channels]
        self.early = nn.Sequential(
            *(
                layer
                for size_in, size_out in zip(before, before[1:], strict=False)
                for layer in (StemConvolution(size_in, size_out), nn.GELU())
            )
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return super().forward(self.early(pixel_values))

"""A small image network that trains from scratch on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CONV_WIDTH = 128
_CHANNELS = (16, 32, 64)


class ConvEncoder(nn.Module):
    """Pictures, uint8 ``[B, 3, S, S]`` -> float32 ``[B, 128]``.

    Three strided 3x3 convolutions, then mean and maximum over what is left of the plane. GroupNorm
    and not BatchNorm, so that an item's vector does not depend on the other items of its batch.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for channels in _CHANNELS:
            layers += [
                nn.Conv2d(before, channels, kernel_size=3, stride=2, padding=1),
                nn.GroupNorm(8, channels),
                nn.GELU(),
            ]
            before = channels
        self.layers = nn.Sequential(*layers)

    def forward(self, pictures: Tensor) -> Tensor:
        """One vector per picture, float32 ``[B, 128]``; an empty batch gives ``[0, 128]``."""
        states = self.layers(pictures.float() / 127.5 - 1.0)
        return torch.cat([states.mean(dim=(2, 3)), states.amax(dim=(2, 3))], dim=1)

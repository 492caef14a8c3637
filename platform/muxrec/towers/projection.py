"""First layers: every feature is projected by weights of its own."""

from __future__ import annotations

from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.towers.conv import CONV_WIDTH, ConvEncoder
from muxrec.towers.standardise import Standardise


def is_picture(feature: FeatureSpec) -> bool:
    """Whether the feature arrives as pixels and brings its own network."""
    return feature.kind == "image" and feature.encoder == "conv"


class FeatureProjection(nn.Module):
    """One feature's input, float32 ``[B, W]`` or uint8 ``[B, 3, S, S]`` -> float32 ``[B, out]``.

    Looked-up rows enter as they are, dense values standardised, pictures through a small network.
    The rows of a unified table mean something different to each of its features, so no two
    features ever share a first layer.

    Args:
        feature: The declared feature.
        width: Width of its input; ignored for pictures.
        out: Width of the projection.
        dropout: Dropout on the input numbers.
    """

    def __init__(self, feature: FeatureSpec, width: int, *, out: int, dropout: float) -> None:
        super().__init__()
        self.feature = feature.name
        self.prepare: nn.Module = nn.Identity()
        if is_picture(feature):
            self.prepare, width = ConvEncoder(), CONV_WIDTH
        elif not feature.is_sparse:
            self.prepare = Standardise(width)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, out)

    def forward(self, values: Tensor, present: Tensor) -> Tensor:
        """Projected values, exact zeros where ``present``, bool ``[B]``, is false."""
        projected = self.linear(self.dropout(self.prepare(values)))
        return projected.masked_fill(~present[:, None], 0.0)

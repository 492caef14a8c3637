"""All features of one modality become one vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from muxrec.features.arrays import ItemArrays
from muxrec.spec.features import FeatureSpec
from muxrec.towers.matryoshka import unit
from muxrec.towers.projection import FeatureProjection
from muxrec.towers.standardise import Standardise


def _key(feature: str) -> str:
    """Key of a feature in a ModuleDict, which refuses dots and names such as ``type``."""
    return "of:" + feature.replace(".", ":")


class ModalityEncoder(nn.Module):
    """Features of one modality -> float32 ``[B, D]``.

    The per-feature projections are added, which equals one layer over their concatenation. With
    ``hidden`` a GELU and a second layer follow.

    Args:
        features: The modality's features, at least one.
        widths: Feature name -> width of its input.
        out: Width D of the modality's vector.
        hidden: Width of the hidden layer; 0 for none.
        normalise: Whether the vector gets the length sqrt(D), as a standard normal one has.
        dropout: Dropout on the inputs of each layer.
    """

    def __init__(
        self,
        features: tuple[FeatureSpec, ...],
        widths: dict[str, int],
        *,
        out: int,
        hidden: int,
        normalise: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.length = math.sqrt(out) if normalise else None
        self.names = tuple(feature.name for feature in features)
        self.projections = nn.ModuleDict(
            {
                _key(feature.name): FeatureProjection(
                    feature, widths.get(feature.name, 0), out=hidden or out, dropout=dropout
                )
                for feature in features
            }
        )
        self.second: nn.Module = nn.Identity()
        if hidden:
            self.second = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, out))

    def fit_inputs(self, arrays: ItemArrays) -> None:
        """Take the standardisation of dense inputs from the items in ``arrays``."""
        for name in self.names:
            prepare = self.projections[_key(name)].prepare
            if isinstance(prepare, Standardise):
                prepare.fit(arrays.dense[name])

    def forward(
        self, inputs: dict[str, Tensor], present: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """``(vector, is_present)``: float32 ``[B, D]`` and bool ``[B]``.

        An item is present in the modality when any of its features is; otherwise its vector is 0.
        """
        projected = [
            self.projections[_key(name)](inputs[name], present[name]) for name in self.names
        ]
        is_present = torch.stack([present[name] for name in self.names]).any(dim=0)
        vector = self.second(torch.stack(projected).sum(dim=0))
        if self.length is not None:
            vector = unit(vector) * self.length
        return vector.masked_fill(~is_present[:, None], 0.0), is_present

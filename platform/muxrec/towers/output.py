"""What a tower emits."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

MODALITY_ORDER = ("text", "attributes", "image", "id")
"""The order in which modalities enter the fusion chain and stand in ``parts``."""


class TowerOutput(NamedTuple):
    """Vectors of B items from M modalities, width D.

    Attributes:
        vector: float32 ``[B, D]``, unit norm; zeros for an item without any modality.
        parts: float32 ``[B, M, D]`` with ``parts.sum(1) == vector``: what each modality added, so
            that a score against any vector splits exactly into one number per modality.
        modality_vectors: Modality -> float32 ``[B, D]``, its own vector through the common head,
            unit norm; zeros where the modality is missing or hidden.
        modality_present: bool ``[B, M]``, which modalities the vector was made of.
    """

    vector: Tensor
    parts: Tensor
    modality_vectors: dict[str, Tensor]
    modality_present: Tensor

    def first(self, items: int) -> TowerOutput:
        """The output of the first ``items`` items alone."""
        return TowerOutput(
            self.vector[:items],
            self.parts[:items],
            {name: vectors[:items] for name, vectors in self.modality_vectors.items()},
            self.modality_present[:items],
        )

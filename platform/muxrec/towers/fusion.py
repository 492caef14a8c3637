"""Late fusion: one vector per modality becomes additive parts of one vector.

Every fusion returns *parts* and not their sum. A part is an elementwise or linear function of one
modality's vector (the gates may depend on all of them), so that the head, which is linear and
without bias, can be applied to each part, and the parts of the final vector add up to it exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from muxrec_kernels.dispatch import Backend
from muxrec_kernels.fusion_gate import fusion_gate


class GateFusion(nn.Module):
    """A chain of NoteLLM-2 gates: ``fused = z * fused + (1 - z) * m``, elementwise.

    ``z = sigmoid(W_g [fused; m])``, one gate per step of the chain. Where only one side exists the
    result is that side, bit for bit, and the gate is not consulted.

    Source: NoteLLM-2 (arXiv 2405.16789), late fusion; Xavier-normal start as in its code.
    """

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(modalities - 1))
        for gate in self.gates:
            weight, bias = gate.parameters()
            nn.init.xavier_normal_(weight)
            nn.init.zeros_(bias)

    def forward(self, vectors: Tensor, present: Tensor) -> Tensor:
        """Parts, float32 ``[B, M, D]``.

        Args:
            vectors: float32 ``[B, M, D]``, zeros where a modality is missing.
            present: bool ``[B, M]``.
        """
        fused, is_fused = vectors[:, 0], present[:, 0]
        parts = vectors[:, :1]
        # A graph that is being exported consists of the reference's operations.
        backend = Backend.REFERENCE if torch.compiler.is_exporting() else None
        for step, gate in enumerate(self.gates, start=1):
            new, is_new = vectors[:, step], present[:, step]
            logits = gate(torch.cat([fused, new], dim=1))
            fused, parts = fusion_gate(logits, fused, new, parts, is_fused, is_new, backend=backend)
            is_fused = is_fused | is_new
        return parts


class ConcatFusion(nn.Module):
    """One linear layer over the concatenated modalities, kept apart by its blocks of columns."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(modalities))

    def forward(self, vectors: Tensor, present: Tensor) -> Tensor:  # noqa: ARG002 - one protocol
        """Parts, float32 ``[B, M, D]``; a missing modality's zeros give a part of zeros."""
        parts = [block(vectors[:, at]) for at, block in enumerate(self.blocks)]
        return torch.stack(parts, dim=1)


class MeanFusion(nn.Module):
    """The mean of the present modalities."""

    def __init__(self, modalities: int, width: int) -> None:  # noqa: ARG002 - one protocol
        super().__init__()

    def forward(self, vectors: Tensor, present: Tensor) -> Tensor:
        """Parts, float32 ``[B, M, D]``, each divided by the item's number of modalities."""
        count = present.sum(dim=1).clamp_min(1)
        return vectors / count[:, None, None]


FUSIONS: dict[Literal["gate", "concat", "mean"], Callable[[int, int], nn.Module]] = {
    "gate": GateFusion,
    "concat": ConcatFusion,
    "mean": MeanFusion,
}
"""``tower.fusion`` -> ``(number of modalities, width) -> module(vectors, present) -> parts``."""

"""Launches of the fusion gate, forward and backward, whole or of one output's gradient."""

from __future__ import annotations

import torch

from muxrec_kernels.fusion_gate import fusion_gate


def gate(
    batch: int,
    width: int,
    *,
    parts: int = 1,
    dtype: torch.dtype = torch.float32,
    gate_dtype: torch.dtype = torch.float32,
    outputs: tuple[int, ...] = (0, 1),
) -> None:
    there = torch.ones(batch, dtype=torch.bool)
    logits, fused, new, held = (
        torch.zeros(shape, dtype=kind, requires_grad=True)
        for shape, kind in (
            ((batch, width), gate_dtype),
            ((batch, width), dtype),
            ((batch, width), dtype),
            ((batch, parts, width), dtype),
        )
    )
    made = fusion_gate(logits, fused, new, held, there, there)
    sum(made[at].sum() for at in outputs).backward()  # type: ignore[union-attr]


CALLS = {
    "one of everything": lambda: gate(1, 1),
    "no items": lambda: gate(0, 8),
    "multiples of 16": lambda: gate(
        32, 64, parts=2, dtype=torch.float16, gate_dtype=torch.bfloat16
    ),
    "an odd batch of the parts alone": lambda: gate(
        37, 48, parts=3, dtype=torch.bfloat16, gate_dtype=torch.float32, outputs=(1,)
    ),
    "the total alone": lambda: gate(7, 12, outputs=(0,)),
}

"""The fusion gate, the maths: how much of the fused vector stays, and what of each part does.

``z = sigmoid(logits)`` where both sides exist, 0 where only the new one does, 1 elsewhere;
``total = z * fused + (1 - z) * new``; every part so far times ``z``, and ``(1 - z) * new`` beside.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fusion_gate(
    logits: Tensor,
    fused: Tensor,
    new: Tensor,
    parts: Tensor,
    is_fused: Tensor,
    is_new: Tensor,
) -> tuple[Tensor, Tensor]:
    """See :func:`muxrec_kernels.fusion_gate.fusion_gate`; runs on any device.

    The sigmoid is taken in the dtype of ``logits``: what it gives is what the layer gave.
    """
    z = torch.sigmoid(logits).to(fused.dtype)
    both = (is_fused & is_new)[:, None]
    only_new = (is_new & ~is_fused)[:, None]
    z = torch.where(both, z, torch.where(only_new, 0.0, 1.0))
    added = (1.0 - z) * new
    return z * fused + added, torch.cat([z[:, None] * parts, added[:, None]], dim=1)

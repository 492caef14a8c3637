"""Hiding modalities in training, so that each learns to stand without the others."""

from __future__ import annotations

import torch
from torch import Tensor


def hide_modalities(
    present: Tensor, *, id_at: int | None, id_dropout: float, modality_dropout: float
) -> Tensor:
    """Which modalities stay visible, bool ``[B, M]``; never hides an item's last one.

    First the id modality is hidden with ``id_dropout``, then one content modality, drawn evenly
    from those present, with ``modality_dropout``; either only where another stays visible.

    Args:
        present: bool ``[B, M]``.
        id_at: Column of the id modality; None where the tower has none.
        id_dropout: Probability in ``[0, 1]``.
        modality_dropout: Probability in ``[0, 1]``.
    """
    visible = present.clone()
    draws = torch.rand(len(present), present.shape[1] + 2, device=present.device)
    content = present.clone()
    if id_at is not None:
        content[:, id_at] = False
        hide = (draws[:, -1] < id_dropout) & content.any(dim=1)
        visible[:, id_at] &= ~hide
    picked = draws[:, :-2].masked_fill(~content, -1.0).argmax(dim=1, keepdim=True)
    hide = (draws[:, -2] < modality_dropout) & content.any(dim=1) & (visible.sum(dim=1) > 1)
    return visible.scatter(1, picked, visible.gather(1, picked) & ~hide[:, None])

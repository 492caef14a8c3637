"""Fusion gate: one step of late fusion after its linear layer, additive parts included."""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec_kernels.dispatch import Backend, choose_backend
from muxrec_kernels.fusion_gate import reference

__all__ = ["fusion_gate"]

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def fusion_gate(
    logits: Tensor,
    fused: Tensor,
    new: Tensor,
    parts: Tensor,
    is_fused: Tensor,
    is_new: Tensor,
    *,
    backend: Backend | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Mix of two vectors of every item by a gate, and the additive parts of the mix.

    ``z = sigmoid(logits)`` where both sides exist; where only one does the total is that side, bit
    for bit, and the gate has no gradient. ``total = z * fused + (1 - z) * new``. One pass over
    memory forward and one backward on Triton; gradients of ``logits``, ``fused``, ``new`` and
    ``parts``, once differentiable.

    Args:
        logits: Gate before its sigmoid, float16, bfloat16 or float32 ``[B, D]``.
        fused: Vector so far, float16, bfloat16 or float32 ``[B, D]``, finite, zeros where missing.
        new: The next modality's vector, dtype and shape of ``fused``, zeros where missing.
        parts: What each modality gave so far, dtype of ``fused``, ``[B, m, D]``, m at least 1.
        is_fused: Whether the vector so far exists, bool ``[B]``.
        is_new: Whether the next one exists, bool ``[B]``.
        backend: Implementation to force; None lets the device decide.

    Returns:
        ``(total, parts)``: dtype of ``fused``, ``[B, D]`` and ``[B, m + 1, D]``; the last part is
        ``(1 - z) * new``. Empty for an empty batch. Triton computes in float32 and rounds once;
        the reference computes in the inputs' own dtype, float64 among them.

    Raises:
        ValueError: A shape or dtype is not as described.
        BackendError: The forced backend cannot run on the tensors' device.

    Source: NoteLLM-2 (arXiv 2405.16789), late fusion.
    """
    _check(logits, fused, new, parts, is_fused, is_new)
    picked = choose_backend(fused.device, forced=backend)
    if picked is Backend.REFERENCE:
        return reference.fusion_gate(logits, fused, new, parts, is_fused, is_new)
    if fused.dtype not in DTYPES or logits.dtype not in DTYPES:
        raise ValueError(
            f"Triton gates float16, bfloat16 and float32, got {fused.dtype} and logits of "
            f"{logits.dtype}: cast them, or pass backend='reference'"
        )
    from muxrec_kernels.fusion_gate.autograd import fusion_gate as run

    return run(logits, fused, new, parts, is_fused, is_new)


def _check(
    logits: Tensor, fused: Tensor, new: Tensor, parts: Tensor, is_fused: Tensor, is_new: Tensor
) -> None:
    """Refuse what no backend could answer."""
    if fused.ndim != 2 or not fused.dtype.is_floating_point or fused.shape[1] == 0:
        raise ValueError(
            f"fused must be floating-point [B, D], D at least 1, got {fused.dtype} "
            f"{tuple(fused.shape)}"
        )
    if new.shape != fused.shape or new.dtype != fused.dtype:
        raise ValueError(
            f"new must be {fused.dtype} {tuple(fused.shape)} as fused is, got {new.dtype} "
            f"{tuple(new.shape)}"
        )
    if logits.shape != fused.shape or not logits.dtype.is_floating_point:
        raise ValueError(
            f"logits must be floating-point {tuple(fused.shape)}, got {logits.dtype} "
            f"{tuple(logits.shape)}"
        )
    batch, width = fused.shape
    if parts.ndim != 3 or parts.shape[::2] != (batch, width) or parts.shape[1] == 0:
        raise ValueError(
            f"parts must be [{batch}, m, {width}], m at least 1, got {tuple(parts.shape)}"
        )
    if parts.dtype != fused.dtype:
        raise ValueError(f"parts must be {fused.dtype} as fused is, got {parts.dtype}")
    for name, mask in {"is_fused": is_fused, "is_new": is_new}.items():
        if mask.shape != (batch,) or mask.dtype != torch.bool:
            raise ValueError(f"{name} must be bool [{batch}], got {mask.dtype} {tuple(mask.shape)}")

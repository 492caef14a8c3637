"""The fusion gate on Triton as an autograd function: launches and tiles."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from muxrec_kernels.fusion_gate import triton_kernel
from muxrec_kernels.tiles import TILE_NUMBERS, next_power_of_2

WARPS = 4
"""Eight numbers of each tensor in a thread: one load of 16 bytes for 16-bit numbers, two for 32."""
MOST_ROWS = 256
"""Rows of a number or two would have an address each, more than the registers hold."""


class Inputs(NamedTuple):
    """What the gate reads: see :func:`muxrec_kernels.fusion_gate.fusion_gate`."""

    logits: Tensor
    fused: Tensor
    new: Tensor
    parts: Tensor
    is_fused: Tensor
    is_new: Tensor


class _FusionGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        return launch_forward(triton_kernel, Inputs(*inputs))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor | None, grad_parts: Tensor | None) -> Any:  # type: ignore[override]
        inputs = Inputs(*ctx.saved_tensors)
        gradients = launch_backward(triton_kernel, inputs, grad_total, grad_parts)
        return *gradients, None, None


def rows_per_program(width: int) -> int:
    """Rows that a program holds; a power of two."""
    return max(1, min(MOST_ROWS, TILE_NUMBERS // next_power_of_2(width)))


def launch_forward(kernels: ModuleType, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Run the forward kernel of the module ``kernels``: total ``[B, D]``, parts ``[B, m + 1, D]``.

    The module is an argument so that a test can pass one with a seeded defect.
    """
    inputs = _unit_strides(inputs)
    batch, width = inputs.fused.shape
    count = inputs.parts.shape[1]
    kind = {"dtype": inputs.fused.dtype, "device": inputs.fused.device}
    total, parts = torch.empty(batch, width, **kind), torch.empty(batch, count + 1, width, **kind)
    if total.numel():
        rows = rows_per_program(width)
        kernels.forward_kernel[(triton.cdiv(batch, rows),)](
            *_as_read(inputs),
            as_bits(total),
            as_bits(parts),
            batch,
            *_strides(inputs),
            D=width,
            D_PADDED=next_power_of_2(width),
            ROWS=rows,
            PARTS=count,
            BF16=total.dtype == torch.bfloat16,
            num_warps=WARPS,
        )
    return total, parts


def launch_backward(
    kernels: ModuleType,
    inputs: Inputs,
    grad_total: Tensor | None,
    grad_parts: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Gradients of logits, fused, new and parts; None where no output's gradient leads there."""
    inputs = _unit_strides(inputs)
    batch, width = inputs.fused.shape
    count = inputs.parts.shape[1]
    grad_total = None if grad_total is None else grad_total.contiguous()
    grad_parts = None if grad_parts is None else grad_parts.contiguous()
    d_logits = torch.empty(batch, width, dtype=inputs.logits.dtype, device=inputs.logits.device)
    kind = {"dtype": inputs.fused.dtype, "device": inputs.fused.device}
    d_fused = None if grad_total is None else torch.empty(batch, width, **kind)
    d_new = torch.empty(batch, width, **kind)
    d_parts = None if grad_parts is None else torch.empty(batch, count, width, **kind)
    if d_new.numel():
        rows = rows_per_program(width)
        kernels.backward_kernel[(triton.cdiv(batch, rows),)](
            *_as_read(inputs),
            # A pointer that is not read or written still needs a tensor of the right kind.
            inputs.fused if grad_total is None else grad_total,
            inputs.fused if grad_parts is None else grad_parts,
            as_bits(d_logits),
            as_bits(d_new if d_fused is None else d_fused),
            as_bits(d_new),
            as_bits(d_new if d_parts is None else d_parts),
            batch,
            *_strides(inputs),
            D=width,
            D_PADDED=next_power_of_2(width),
            ROWS=rows,
            PARTS=count,
            HAS_TOTAL=grad_total is not None,
            HAS_PARTS=grad_parts is not None,
            LOGITS_BF16=d_logits.dtype == torch.bfloat16,
            BF16=d_new.dtype == torch.bfloat16,
            num_warps=WARPS,
        )
    return d_logits, d_fused, d_new, d_parts


def as_bits(tensor: Tensor) -> Tensor:
    """The tensor as the kernels write it: bfloat16 as int16, everything else as it is."""
    return tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor


def _unit_strides(inputs: Inputs) -> Inputs:
    """Inputs whose last dimension is dense; slices of a wider tensor are read where they are."""
    floats = [x if x.stride(-1) == 1 else x.contiguous() for x in inputs[:4]]
    return Inputs._make([*floats, inputs.is_fused, inputs.is_new])


def _as_read(inputs: Inputs) -> tuple[Tensor, ...]:
    masks = (inputs.is_fused.view(torch.uint8), inputs.is_new.view(torch.uint8))
    return *(tensor.detach() for tensor in inputs[:4]), *masks


def _strides(inputs: Inputs) -> tuple[int, ...]:
    masks = (inputs.is_fused.stride(0), inputs.is_new.stride(0))
    rows = tuple(tensor.stride(0) for tensor in inputs[:4])
    return *rows, inputs.parts.stride(1), *masks


def fusion_gate(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`muxrec_kernels.fusion_gate.fusion_gate`."""
    return _FusionGate.apply(*inputs)  # type: ignore[return-value]

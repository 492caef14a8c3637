"""Compositional lookups on Triton as autograd functions with sparse gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from muxrec_kernels.compositional_lookup import backward, launch, triton_kernel
from muxrec_kernels.compositional_lookup.gradient import sparse_rows


class _QuotientRemainder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, quotients: Tensor, remainders: Tensor, *rest: Any) -> Tensor:  # type: ignore[override]
        index, offsets, combine, weights, pooling = rest
        arguments = quotients.detach(), remainders.detach(), index, offsets
        ctx.save_for_backward(quotients, remainders, index, offsets, weights)
        ctx.options = {"combine": combine, "pooling": pooling}
        return launch.quotient_remainder_forward(
            triton_kernel, *arguments, weights=weights, **ctx.options
        )

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        *arguments, weights = ctx.saved_tensors
        high, low = backward.quotient_remainder_backward(
            triton_kernel, _direction(grad_out), *arguments, weights=weights, **ctx.options
        )
        given = sparse_rows(*high, arguments[0]), sparse_rows(*low, arguments[1])
        return *given, None, None, None, None, None


class _MultiHash(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pool: Tensor, factors: Tensor, *rest: Any) -> Tensor:  # type: ignore[override]
        ids, offsets, seeds, weights, pooling = rest
        arguments = pool.detach(), factors.detach(), ids, offsets, seeds
        ctx.save_for_backward(pool, factors, ids, offsets, seeds, weights)
        ctx.pooling = pooling
        return launch.multi_hash_forward(
            triton_kernel, *arguments, weights=weights, pooling=pooling
        )

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        *arguments, weights = ctx.saved_tensors
        rows, own = backward.multi_hash_backward(
            triton_kernel, _direction(grad_out), *arguments, weights=weights, pooling=ctx.pooling
        )
        given = sparse_rows(*rows, arguments[0]), sparse_rows(*own, arguments[1])
        return *given, None, None, None, None, None


class _Codebook(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, codes: Tensor, codebook: Tensor, *rest: Any) -> Tensor:  # type: ignore[override]
        index, offsets, weights, pooling = rest
        ctx.save_for_backward(codes, codebook, index, offsets, weights)
        ctx.pooling = pooling
        return launch.codebook_forward(
            triton_kernel,
            codes,
            codebook.detach(),
            index,
            offsets,
            weights=weights,
            pooling=pooling,
        )

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        *arguments, weights = ctx.saved_tensors
        entries = backward.codebook_backward(
            triton_kernel, _direction(grad_out), *arguments, weights=weights, pooling=ctx.pooling
        )
        return None, sparse_rows(*entries, arguments[1]), None, None, None, None


class _Robe(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, array: Tensor, *rest: Any) -> Tensor:  # type: ignore[override]
        ids, offsets, seeds, width, weights, pooling = rest
        ctx.save_for_backward(array, ids, offsets, seeds, weights)
        ctx.options = {"width": width, "pooling": pooling}
        return launch.robe_forward(
            triton_kernel, array.detach(), ids, offsets, seeds, weights=weights, **ctx.options
        )

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        *arguments, weights = ctx.saved_tensors
        rows = backward.robe_backward(
            triton_kernel, _direction(grad_out), *arguments, weights=weights, **ctx.options
        )
        return sparse_rows(*rows, arguments[0]), None, None, None, None, None, None


def _direction(grad_out: Tensor) -> Tensor:
    return grad_out.contiguous().float()


def quotient_remainder_lookup(
    quotients: Tensor,
    remainders: Tensor,
    index: Tensor,
    offsets: Tensor,
    *,
    combine: str,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """See :func:`muxrec_kernels.compositional_lookup.quotient_remainder_lookup`."""
    return _QuotientRemainder.apply(  # type: ignore[return-value]
        quotients, remainders, index, offsets, combine, weights, pooling
    )


def multi_hash_lookup(
    pool: Tensor,
    factors: Tensor,
    ids: Tensor,
    offsets: Tensor,
    seeds: Tensor,
    *,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """See :func:`muxrec_kernels.compositional_lookup.multi_hash_lookup`."""
    return _MultiHash.apply(pool, factors, ids, offsets, seeds, weights, pooling)  # type: ignore[return-value]


def codebook_lookup(
    codes: Tensor,
    codebook: Tensor,
    index: Tensor,
    offsets: Tensor,
    *,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """See :func:`muxrec_kernels.compositional_lookup.codebook_lookup`."""
    return _Codebook.apply(codes, codebook, index, offsets, weights, pooling)  # type: ignore[return-value]


def robe_lookup(
    array: Tensor,
    ids: Tensor,
    offsets: Tensor,
    seeds: Tensor,
    *,
    width: int,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """See :func:`muxrec_kernels.compositional_lookup.robe_lookup`."""
    return _Robe.apply(array, ids, offsets, seeds, width, weights, pooling)  # type: ignore[return-value]

"""The contrastive loss on Triton as an autograd function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from muxrec_kernels.contrastive_loss import triton_kernel
from muxrec_kernels.contrastive_loss.backward import launch_backward
from muxrec_kernels.contrastive_loss.launch import Passed, Problem, column_terms, launch_forward
from muxrec_kernels.contrastive_loss.rules import Rules
from muxrec_kernels.contrastive_loss.tiles import choose_tiles


class _ContrastiveLoss(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, queries: Tensor, candidates: Tensor, scale: Tensor, rules: Rules, precision: str
    ) -> Tensor:
        problem = Problem(
            queries.detach().contiguous(),
            candidates.detach().contiguous(),
            scale.detach().float().reshape(1),
            column_terms(rules, len(candidates)),
            rules,
            choose_tiles(queries.dtype, queries.shape[1]),
            precision,
        )
        passed = launch_forward(triton_kernel, problem)
        asking = passed.inverse.count_nonzero().clamp(min=1)
        ctx.save_for_backward(queries, candidates, scale, asking, problem.terms, *passed)
        ctx.settings = rules, problem.tiles, precision
        return passed.losses.sum() / asking

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        queries, candidates, scale, asking, terms, *passed = ctx.saved_tensors
        flat = scale.detach().float().reshape(1)
        vectors = (queries.detach().contiguous(), candidates.detach().contiguous())
        problem = Problem(*vectors, flat, terms, *ctx.settings)
        each = grad / asking
        found = launch_backward(triton_kernel, problem, Passed(*passed), flat * each)
        return (
            found[0].to(queries.dtype),
            found[1].to(candidates.dtype),
            (found[2].sum() * each).to(scale.dtype).reshape(scale.shape),
            None,
            None,
        )


def contrastive_loss(
    queries: Tensor, candidates: Tensor, rules: Rules, *, scale: Tensor, precision: str
) -> Tensor:
    """See :func:`muxrec_kernels.contrastive_loss.contrastive_loss`."""
    return _ContrastiveLoss.apply(queries, candidates, scale, rules, precision)  # type: ignore[return-value]

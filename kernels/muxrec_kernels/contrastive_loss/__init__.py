"""Contrastive cross-entropy of queries over candidates, without their matrix of scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from muxrec_kernels.contrastive_loss import reference
from muxrec_kernels.contrastive_loss.reference import dense_ignored, dense_weight
from muxrec_kernels.contrastive_loss.rules import Rules
from muxrec_kernels.dispatch import Backend, choose_backend

__all__ = ["Rules", "contrastive_loss", "dense_ignored", "dense_weight"]

PRECISIONS = {"highest": "ieee", "high": "tf32", "medium": "tf32"}
"""``torch.get_float32_matmul_precision()`` -> how float32 products are computed."""

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def contrastive_loss(
    queries: Tensor,
    candidates: Tensor,
    rules: Rules,
    *,
    scale: Tensor,
    backend: Backend | str | None = None,
) -> Tensor:
    """Mean cross-entropy of the asking queries against their positives, a scalar.

    With ``s_qc = scale * <q, c> + column_bias_c`` over the entries that ``rules`` do not ignore,
    the loss of a query is ``logsumexp_c s_qc - sum_p share_qp * s_qp``. Queries without a positive
    take no part; without any asking query the loss is 0 with zero gradients. Queries, candidates
    and scale have gradients. Missing queries and candidates are never read: whatever they hold,
    NaN included, reaches neither the loss nor a gradient. Vectors that are ignored entry by entry
    have to be finite, since a gradient multiplies them by 0.

    Products of 16-bit vectors are computed by matrix units with sums in float32; float32 products
    follow ``torch.set_float32_matmul_precision``. All runs give the same bits.

    Args:
        queries: float16, bfloat16 or float32 ``[Q, D]``.
        candidates: Of the same type, ``[C, D]``; Q, C below 2**31.
        rules: Positives and ignored entries of Q queries over C candidates.
        scale: Factor of all dot products (1 / temperature), a float tensor of one number.
        backend: Implementation to force; None lets the device decide.

    Returns:
        float32 scalar. The reference on float64 vectors returns float64.

    Raises:
        ValueError: A shape or dtype is not as described.
        BackendError: The forced backend cannot run on the vectors' device.
    """
    _check_vectors(queries, candidates, scale)
    _check_rules(rules, len(queries), len(candidates))
    picked = choose_backend(queries.device, forced=backend)
    queries = _without(queries, rules.query_missing)
    candidates = _without(candidates, rules.candidate_missing)
    # A grid of no programs cannot be launched, and there is nothing to compute.
    if picked is Backend.REFERENCE or not len(queries) or not len(candidates):
        return reference.contrastive_loss(queries, candidates, rules, scale=scale)
    if queries.dtype == torch.float64:
        raise ValueError("float64 vectors are for the reference; Triton takes 16 or 32 bits")
    from muxrec_kernels.contrastive_loss.autograd import contrastive_loss as run

    precision = PRECISIONS[torch.get_float32_matmul_precision()]
    queries, candidates = _aligned(queries), _aligned(candidates)
    return run(queries, candidates, rules, scale=scale, precision=precision)


def _without(vectors: Tensor, missing: Tensor | None) -> Tensor:
    return vectors if missing is None else vectors.masked_fill(missing[:, None], 0.0)


def _aligned(vectors: Tensor) -> Tensor:
    """The vectors with columns of 0 up to a multiple of 8: rows of other widths load by pieces."""
    missing = -vectors.shape[1] % 8
    return pad(vectors, (0, missing)) if missing else vectors


def _check_vectors(queries: Tensor, candidates: Tensor, scale: Tensor) -> None:
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            "queries and candidates must be [Q, D] and [C, D], got "
            f"{tuple(queries.shape)} and {tuple(candidates.shape)}"
        )
    if queries.dtype != candidates.dtype or queries.dtype not in _DTYPES:
        raise ValueError(
            "queries and candidates must be of one floating-point type, got "
            f"{queries.dtype} and {candidates.dtype}"
        )
    if scale.numel() != 1 or not scale.dtype.is_floating_point:
        raise ValueError(
            f"scale must be one floating-point number, got {scale.dtype} {tuple(scale.shape)}"
        )


def _check_rules(rules: Rules, queries: int, candidates: int) -> None:
    """Refuse what no backend could answer; values are trusted, since reading them would wait."""
    positives, whole = rules.columns.numel(), (torch.int64,)
    _check_tensor("offsets", rules.offsets, whole, queries + 1)
    _check_tensor("columns", rules.columns, whole, positives)
    _check_tensor("weights", rules.weights, (torch.float32,), positives)
    _check_pair(rules, "ignored_offsets", "ignored_columns")
    _check_pair(rules, "query_items", "candidate_items")
    if rules.ignored_offsets is not None and rules.ignored_columns is not None:
        _check_tensor("ignored_offsets", rules.ignored_offsets, whole, queries + 1)
        listed = rules.ignored_columns
        _check_tensor("ignored_columns", listed, whole, listed.numel())
    if rules.query_items is not None and rules.candidate_items is not None:
        _check_tensor("query_items", rules.query_items, (torch.int32, torch.int64), queries)
        same = (rules.query_items.dtype,)
        _check_tensor("candidate_items", rules.candidate_items, same, candidates)
    for name, value, dtype, size in (
        ("query_missing", rules.query_missing, torch.bool, queries),
        ("candidate_missing", rules.candidate_missing, torch.bool, candidates),
        ("column_bias", rules.column_bias, torch.float32, candidates),
    ):
        if value is not None:
            _check_tensor(name, value, (dtype,), size)


def _check_pair(rules: Rules, one: str, other: str) -> None:
    if (getattr(rules, one) is None) != (getattr(rules, other) is None):
        raise ValueError(f"rules.{one} and rules.{other} must be given together")


def _check_tensor(name: str, value: Tensor, dtypes: tuple[torch.dtype, ...], size: int) -> None:
    right = value.dtype in dtypes and value.shape == (size,) and value.is_contiguous()
    if not right or value.requires_grad:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(
            f"rules.{name} must be contiguous {wanted} [{size}] without gradient, got "
            f"{value.dtype} {tuple(value.shape)}"
        )

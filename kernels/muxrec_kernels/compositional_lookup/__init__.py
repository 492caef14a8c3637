"""Compositional lookups: vectors composed of small arrays' rows, and pooled, in one pass.

Four forms: quotient and remainder, weighted multi-hash, codes into codebooks, pieces of one array
(ROBE). Sums run in float32; gradients of all arrays are sparse tensors over the rows in use, and
the same bits on every run where Triton computes them.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from muxrec_kernels.compositional_lookup import reference
from muxrec_kernels.compositional_lookup.checks import (
    check_arrays,
    check_bags,
    check_codes,
    check_combine,
    check_hashes,
    check_pieces,
)
from muxrec_kernels.dispatch import Backend, choose_backend

__all__ = [
    "codebook_lookup",
    "multi_hash_lookup",
    "quotient_remainder_lookup",
    "robe_lookup",
]


def quotient_remainder_lookup(
    quotients: Tensor,
    remainders: Tensor,
    index: Tensor,
    offsets: Tensor,
    *,
    combine: str = "multiply",
    weights: Tensor | None = None,
    pooling: str = "sum",
    backend: Backend | str | None = None,
) -> Tensor:
    """Pooled compositions of two rows per id, found by quotient and remainder of its index.

    With C remainders, index i reads ``quotients[i // C]`` and ``remainders[i % C]``.

    Args:
        quotients: float16, bfloat16 or float32 ``[Q, d]``, contiguous.
        remainders: The same ``[C, d]``.
        index: Number of each id, int64 ``[N]`` in ``[0, Q * C)``.
        offsets: Bag starts, int64 ``[B + 1]``, B at least 1, rising from 0 to N.
        combine: ``multiply`` or ``add`` number by number, or ``concatenate``.
        weights: Factor of each id, float32 ``[N]``, without gradient; None for 1.
        pooling: ``sum``, ``mean`` (divided by the bag's length) or ``sqrt`` (by its square root).
        backend: Implementation to force; None lets the device decide.

    Returns:
        float32 ``[B, d]``, or ``[B, 2 * d]`` where concatenated; zeros where a bag is empty. The
        reference on float64 arrays returns float64.

    Raises:
        ValueError: A shape, dtype, combination or pooling is not as described.
        BackendError: The forced backend cannot run on the arrays' device.

    Source: Shi et al., KDD 2020.
    """
    check_arrays({"quotients": quotients, "remainders": remainders}, same_width=True)
    check_combine(combine)
    check_bags("index", index, offsets, weights, pooling)
    return _forms(quotients, backend).quotient_remainder_lookup(
        quotients,
        remainders,
        index,
        offsets,
        combine=combine,
        weights=weights,
        pooling=pooling,
    )


def multi_hash_lookup(
    pool: Tensor,
    factors: Tensor,
    ids: Tensor,
    offsets: Tensor,
    seeds: Tensor,
    *,
    weights: Tensor | None = None,
    pooling: str = "sum",
    backend: Backend | str | None = None,
) -> Tensor:
    """Pooled sums of k hashed rows per id, each times a factor that is learned per (hashed) id.

    Id i reads ``sum over p < k of factors[hash(i, seeds[k]), p] * pool[hash(i, seeds[p])]``.

    Args:
        pool: float16, bfloat16 or float32 ``[R, d]`` with R in ``[1, 2**31)``, contiguous.
        factors: The same ``[W, k]``.
        ids: Raw ids, int64 ``[N]``, any value.
        offsets: Bag starts, int64 ``[B + 1]``, B at least 1, rising from 0 to N.
        seeds: Hash seeds of the k rows and then of the factors, int64 ``[k + 1]``.
        weights: Factor of each id in its bag, float32 ``[N]``, without gradient; None for 1.
        pooling: ``sum``, ``mean`` (divided by the bag's length) or ``sqrt`` (by its square root).
        backend: Implementation to force; None lets the device decide.

    Returns:
        float32 ``[B, d]``; zeros where a bag is empty. The reference on float64 arrays returns
        float64.

    Raises:
        ValueError: A shape, dtype or pooling is not as described.
        BackendError: The forced backend cannot run on the arrays' device.

    Source: Svenstrup et al., NeurIPS 2017.
    """
    check_arrays({"pool": pool, "factors": factors})
    check_hashes(factors, seeds)
    check_bags("ids", ids, offsets, weights, pooling)
    return _forms(pool, backend).multi_hash_lookup(
        pool, factors, ids, offsets, seeds, weights=weights, pooling=pooling
    )


def codebook_lookup(
    codes: Tensor,
    codebook: Tensor,
    index: Tensor,
    offsets: Tensor,
    *,
    weights: Tensor | None = None,
    pooling: str = "sum",
    backend: Backend | str | None = None,
) -> Tensor:
    """Pooled vectors of product-quantised ids, decoded on the way and never written.

    Part p of index i is ``codebook[p * C + codes[i, p]]``.

    Args:
        codes: uint8 ``[V, P]``, each below C, contiguous.
        codebook: float16, bfloat16 or float32 ``[P * C, d / P]``, part after part, contiguous.
        index: Number of each id, int64 ``[N]`` in ``[0, V)``.
        offsets: Bag starts, int64 ``[B + 1]``, B at least 1, rising from 0 to N.
        weights: Factor of each id, float32 ``[N]``, without gradient; None for 1.
        pooling: ``sum``, ``mean`` (divided by the bag's length) or ``sqrt`` (by its square root).
        backend: Implementation to force; None lets the device decide.

    Returns:
        float32 ``[B, d]``; zeros where a bag is empty. The reference on a float64 codebook returns
        float64. The gradient goes to the codebook; codes are integers and have none.

    Raises:
        ValueError: A shape, dtype or pooling is not as described.
        BackendError: The forced backend cannot run on the codebook's device.

    Source: Chen, Li and Sun, ICML 2020 (DPQ), the form that is served.
    """
    check_arrays({"codebook": codebook})
    check_codes(codes, codebook)
    check_bags("index", index, offsets, weights, pooling)
    return _forms(codebook, backend).codebook_lookup(
        codes, codebook, index, offsets, weights=weights, pooling=pooling
    )


def robe_lookup(
    array: Tensor,
    ids: Tensor,
    offsets: Tensor,
    seeds: Tensor,
    *,
    width: int,
    weights: Tensor | None = None,
    pooling: str = "sum",
    backend: Backend | str | None = None,
) -> Tensor:
    """Pooled vectors of pieces that lie anywhere in one array, with signs by hash.

    Piece p of id i is the ``block`` numbers from ``start = (h >>> 32) * numbers >>> 32`` on, h
    being the hash of i under ``seeds[p]``; after the array's last number comes its first. The sign
    is minus where the lowest bit of h is 1.

    Args:
        array: float16, bfloat16 or float32 ``[R, block]``, read as R * block numbers, contiguous;
            fewer than ``2**31``. Its gradient has rows of ``block`` numbers.
        ids: Raw ids, int64 ``[N]``, any value.
        offsets: Bag starts, int64 ``[B + 1]``, B at least 1, rising from 0 to N.
        seeds: Hash seed of each piece, int64 ``[ceil(width / block)]``.
        width: Numbers per vector; what the last piece has beyond it is not used.
        weights: Factor of each id, float32 ``[N]``, without gradient; None for 1.
        pooling: ``sum``, ``mean`` (divided by the bag's length) or ``sqrt`` (by its square root).
        backend: Implementation to force; None lets the device decide.

    Returns:
        float32 ``[B, width]``; zeros where a bag is empty. The reference on a float64 array returns
        float64.

    Raises:
        ValueError: A shape, dtype or pooling is not as described.
        BackendError: The forced backend cannot run on the array's device.

    Source: Desai et al., MLSys 2022.
    """
    check_arrays({"array": array})
    check_pieces(array, seeds, width)
    check_bags("ids", ids, offsets, weights, pooling)
    return _forms(array, backend).robe_lookup(
        array, ids, offsets, seeds, width=width, weights=weights, pooling=pooling
    )


def _forms(array: Tensor, backend: Backend | str | None) -> ModuleType:
    """The module whose functions answer on ``array``'s device."""
    if choose_backend(array.device, forced=backend) is Backend.REFERENCE:
        return reference
    if array.dtype == torch.float64:
        raise ValueError("Triton sums in float32: pass float32 arrays, or backend='reference'")
    from muxrec_kernels.compositional_lookup import autograd

    return autograd

"""Scans of item codes, the maths: decode a block of items, multiply, keep the best.

The scores of a block exist at a time, never those of all items. Sums of whole numbers are exact; a
matrix product of floats may round equal codes differently at the edge of a tile, so that such ties
are only as equal as the product makes them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from muxrec_kernels.code_scan.packing import unpack_codes

BLOCK_NUMBERS = 2**22
"""Scores, or decoded numbers, that exist at a time: 16 MiB of float32."""
INT32_LEAST, INT32_MOST = -(2**31), 2**31 - 1

Best = tuple[Tensor, Tensor]
Score = Callable[[Tensor], Tensor]
"""Items, int64 ``[n]`` in one rising run -> scores ``[Q, n]``, higher is better."""


def scan_signs(queries: Tensor, codes: Tensor, k: int, *, exclude: Tensor | None) -> Best:
    """See :func:`muxrec_kernels.code_scan.scan_signs`; bytes on any device."""
    bits = 8 * codes.shape[1]
    signs = 2.0 * unpack_codes(queries, 1, bits).float() - 1.0

    def score(items: Tensor) -> Tensor:
        # Products of signs count agreements less disagreements; small whole floats are exact.
        others = 2.0 * unpack_codes(codes[items], 1, bits).float() - 1.0
        return (signs @ others.T - bits) / 2

    scores, items = keep_best(score, queries, codes, k=k, exclude=exclude, width=bits)
    return (-scores.double()).clamp(max=INT32_MOST).to(torch.int32), items


def scan_int8(
    queries: Tensor, codes: Tensor, k: int, *, scales: Tensor | None, exclude: Tensor | None
) -> Best:
    """See :func:`muxrec_kernels.code_scan.scan_int8`; runs on any device."""
    is_whole = queries.dtype == torch.int8
    # float64 holds every sum of products of bytes.
    vectors = queries.double() if is_whole else _wide(queries)

    def score(items: Tensor) -> Tensor:
        dots = vectors @ codes[items].to(vectors.dtype).T
        if scales is None:
            return dots
        dots = dots.float() if is_whole else dots
        return dots * scales[items].to(dots.dtype)

    scores, items = keep_best(score, queries, codes, k=k, exclude=exclude, width=codes.shape[1])
    if is_whole and scales is None:
        scores = scores.clamp(min=INT32_LEAST).to(torch.int32)
    return scores, items


def scan_packed(
    queries: Tensor,
    codes: Tensor,
    k: int,
    *,
    bits: int,
    steps: Tensor,
    offsets: Tensor,
    exclude: Tensor | None,
) -> Best:
    """See :func:`muxrec_kernels.code_scan.scan_packed`; runs on any device."""
    vectors = _wide(queries)
    sums = vectors.sum(dim=1, keepdim=True)
    steps, offsets = steps.to(vectors.dtype), offsets.to(vectors.dtype)

    def score(items: Tensor) -> Tensor:
        numbers = unpack_codes(codes[items], bits, vectors.shape[1])
        which = items if len(steps) > 1 else slice(None)
        return (vectors @ numbers.to(vectors.dtype).T) * steps[which] + sums * offsets[which]

    return keep_best(score, queries, codes, k=k, exclude=exclude, width=vectors.shape[1])


def keep_best(
    score: Score, queries: Tensor, codes: Tensor, *, k: int, exclude: Tensor | None, width: int
) -> Best:
    """Scores and items of the k best, best first, ties by item; -inf and -1 where there are fewer.

    Args:
        score: Scores of some items.
        queries: ``[Q, ...]``.
        codes: ``[N, ...]``.
        k: Results per query.
        exclude: An item per query that is left out, int64 ``[Q]``; None for none.
        width: Numbers of a decoded item.
    """
    count, device = len(queries), codes.device
    best = score(torch.arange(0, device=device))
    numbers = torch.empty(count, 0, dtype=torch.int64, device=device)
    block = max(1, BLOCK_NUMBERS // max(1, count, width))
    for start in range(0, len(codes), block):
        items = torch.arange(start, min(start + block, len(codes)), device=device)
        found = score(items)
        if exclude is not None:
            found = found.masked_fill(items == exclude[:, None], -torch.inf)
        # Kept items come before later ones, so that a stable sort leaves ties in order.
        best, places = torch.cat([best, found], dim=1).sort(dim=1, descending=True, stable=True)
        numbers = torch.cat([numbers, items.expand(count, -1)], dim=1).gather(1, places)
        best, numbers = best[:, :k], numbers[:, :k]
    return best, numbers.masked_fill(best == -torch.inf, -1)


def _wide(queries: Tensor) -> Tensor:
    return queries if queries.dtype == torch.float64 else queries.float()

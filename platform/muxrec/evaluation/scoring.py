"""Scorers: what a model or baseline says about every catalogue item, a block of queries a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from muxrec.errors import DataError

# A score that means "never recommended": not listed, not ranked, never a hit.
NEVER = np.float32(-np.inf)
BLOCK_BYTES = 64 * 2**20

Positions = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


class Scorer(Protocol):
    """Scores of every catalogue item for a block of query items.

    Attributes:
        count: Number of items in the catalogue, C.
    """

    @property
    def count(self) -> int:
        """Number of items in the catalogue."""
        ...

    def __call__(self, queries: Positions) -> Scores:
        """Float32 ``[B, C]`` for int64 ``[B]``; higher is better, ``NEVER`` for no opinion."""
        ...


@dataclass(frozen=True)
class VectorScorer:
    """Inner products of item vectors, exact.

    Equal vectors get equal scores for every query, bit for bit: a matrix product may round equal
    columns differently at the edge of a tile, and such noise would break ties by accident, so every
    distinct vector is multiplied once and its score copied.

    Attributes:
        vectors: Float32 ``[C, D]``.
        distinct: The distinct vectors, float32 ``[U, D]``.
        which: Row of ``distinct`` that each item has, int64 ``[C]``; None when all are distinct.
        present: Bool ``[C]``, items without a vector are never recommended; None for all present.
    """

    vectors: npt.NDArray[np.float32]
    distinct: npt.NDArray[np.float32]
    which: npt.NDArray[np.int64] | None
    present: npt.NDArray[np.bool_] | None = None

    @property
    def count(self) -> int:
        """Number of items."""
        return len(self.vectors)

    def __call__(self, queries: Positions) -> Scores:
        """Inner products, float32 ``[B, C]``."""
        scores = self.vectors[queries] @ self.distinct.T
        scores = scores if self.which is None else scores[:, self.which]
        if self.present is not None:
            scores[:, ~self.present] = NEVER
            scores[~self.present[queries]] = NEVER
        return scores


def vector_scorer(
    vectors: npt.NDArray[np.floating], present: npt.NDArray[np.bool_] | None = None
) -> VectorScorer:
    """A scorer by inner product.

    A vector of zeros is no vector: an ids-only tower gives one to every cold item. As a candidate
    it would come before everything that points away from the query: it is never recommended.

    Args:
        vectors: ``[C, D]``, finite. Normalise them first where the cosine is wanted.
        present: Bool ``[C]``; False for items that have no vector either. None for all others.

    Raises:
        DataError: The array is not two-dimensional or holds a number that is not finite.
    """
    if vectors.ndim != 2:
        raise DataError(f"vectors must have shape [items, width], got {list(vectors.shape)}")
    # Adding zero turns -0.0 into 0.0, so that equal numbers are equal bytes below.
    rows = np.ascontiguousarray(vectors, dtype=np.float32) + np.float32(0)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise DataError(
            f"{bad.size} of {len(rows)} vectors hold numbers that are not finite, "
            f"the first is item {bad[0]}: look at the loss curve of the run that made them"
        )
    if not rows.size:
        return VectorScorer(rows, rows, None)
    there = np.abs(rows).max(axis=1) > 0
    if present is not None:
        there &= present
    present = None if there.all() else there
    as_bytes = rows.view(np.dtype((np.void, rows.strides[0]))).ravel()
    _, first, which = np.unique(as_bytes, return_index=True, return_inverse=True)
    if first.size == len(rows):
        return VectorScorer(rows, rows, None, present)
    return VectorScorer(rows, rows[first], which.astype(np.int64), present)


def unit_rows(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Rows divided by their length, float32; rows of zeros stay zeros."""
    rows = np.asarray(vectors, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, np.float32(1)).astype(np.float32)


@dataclass(frozen=True)
class SparseScorer:
    """Scores stored for some pairs only; every other pair is never recommended.

    Attributes:
        matrix: Scores ``[C, C]``, query by item; a stored zero is a score, a missing entry is none.
    """

    matrix: sp.csr_array

    @property
    def count(self) -> int:
        """Number of items."""
        return int(self.matrix.indptr.size) - 1

    def __call__(self, queries: Positions) -> Scores:
        """Stored scores, float32 ``[B, C]``, ``NEVER`` elsewhere."""
        rows = self.matrix[queries]
        scores = np.full(rows.shape, NEVER, dtype=np.float32)
        scores[np.repeat(np.arange(len(queries)), np.diff(rows.indptr)), rows.indices] = rows.data
        return scores


def score_blocks(
    scorer: Scorer, queries: Positions, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, Scores]]:
    """``(start, scores)`` per block of ``queries``: fresh float32 ``[B, C]``, the query ``NEVER``.

    Memory stays near ``2 * block_bytes`` whatever the catalogue (one row at least).

    Raises:
        DataError: The scorer's block has another shape or holds NaN.
    """
    size = max(1, block_bytes // (4 * max(1, scorer.count)))
    for start in range(0, len(queries), size):
        block = queries[start : start + size]
        scores = np.array(scorer(block), dtype=np.float32)
        if scores.shape != (len(block), scorer.count):
            expected = (len(block), scorer.count)
            raise DataError(f"scores must have shape {expected}, got {scores.shape}")
        if np.isnan(scores).any():
            raise DataError(f"scores of query {block[np.isnan(scores).any(axis=1)][0]} hold NaN")
        scores[np.arange(len(block)), block] = NEVER
        yield start, scores

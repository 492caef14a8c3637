"""Exact neighbours of a whole catalogue, block by block."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muxrec.index import best_of

BLOCK_BYTES = 64 * 2**20
"""Size of one block's score matrix: large enough for BLAS, small enough for any machine."""


def exact_neighbours(
    vectors: npt.NDArray[np.float32], count: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The nearest other items of every item, by inner product.

    Args:
        vectors: float32 ``[C, D]``, finite.
        count: Neighbours per item, cut to C - 1.

    Returns:
        ``(positions, scores)``: int32 and float32 ``[C, N]``, best first, ties by position; N = 0
        for a catalogue of one item.
    """
    items = len(vectors)
    kept = min(count, items - 1)
    positions = np.empty((items, kept), dtype=np.int32)
    scores = np.empty((items, kept), dtype=np.float32)
    block = max(1, BLOCK_BYTES // (4 * items))
    for start in tqdm(range(0, items if kept else 0, block), desc="neighbours", disable=None):
        rows = np.arange(start, min(start + block, items))
        matrix = vectors[rows] @ vectors.T
        matrix[np.arange(len(rows)), rows] = -np.inf
        positions[rows], scores[rows] = best_of(matrix, kept)
    return positions, scores

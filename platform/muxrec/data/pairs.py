"""Training pairs in batches: shuffled, sharded over ranks, and resumable at the exact step.

The loader keeps no state of its own. Batch ``(epoch, step)`` is a pure function of the files, the
seed and the rank, so a resumed run reads what the uninterrupted run would have read.

An epoch: the row groups are permuted; the ranks cut the permuted rows into equal ranges; each rank
mixes a few consecutive pieces of its range at a time in memory and cuts the mixed stream into
batches of equal size (to one row), the last one too: no row is dropped and none is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from muxrec.data.keys import positions_of
from muxrec.data.row_groups import RowGroup, list_row_groups, read_row_group
from muxrec.errors import DataError

PAIR_COLUMNS = ["item_a", "item_b", "score"]


class PairBatch(NamedTuple):
    """Pairs of item positions.

    Attributes:
        a: Query positions, int64 ``[B]``.
        b: Partner positions, int64 ``[B]``.
        score: Pair scores, float32 ``[B]``.
    """

    a: npt.NDArray[np.int64]
    b: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]

    def take(self, rows: npt.NDArray[np.int64] | slice) -> PairBatch:
        """The pairs at ``rows``."""
        return PairBatch(self.a[rows], self.b[rows], self.score[rows])


@dataclass(frozen=True)
class _Piece:
    """Rows ``[start, stop)`` of one row group."""

    group: RowGroup
    start: int
    stop: int


def join_pairs(parts: Sequence[PairBatch]) -> PairBatch:
    """The pairs of ``parts`` one after another; no parts give an empty batch."""
    none = PairBatch(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    a, b, score = zip(none, *parts, strict=True)
    return PairBatch(np.concatenate(a), np.concatenate(b), np.concatenate(score))


def read_pairs(group: RowGroup, item_keys: npt.NDArray[np.int64]) -> PairBatch:
    """One row group with item keys mapped to positions.

    Args:
        group: The row group.
        item_keys: Keys of the catalogue, int64 ``[C]``, rising; an item's place is its position.

    Raises:
        DataError: The file is damaged, or a key is not in the catalogue.
    """
    table = read_row_group(group, PAIR_COLUMNS)
    a, b = (_positions(table[name].to_numpy(), item_keys, group) for name in PAIR_COLUMNS[:2])
    return PairBatch(a, b, table["score"].to_numpy().astype(np.float32))


def _positions(
    keys: npt.NDArray[np.int64], item_keys: npt.NDArray[np.int64], group: RowGroup
) -> npt.NDArray[np.int64]:
    found = positions_of(keys, item_keys)
    if (found < 0).any():
        raise DataError(
            f"{group.path} row group {group.index}: item key {keys[found < 0][0]} is not in the "
            "catalogue: build the dataset again"
        )
    return found


class PairLoader:
    """Batches of training pairs.

    Args:
        files: Parquet files with ``item_a``, ``item_b`` (int64 keys) and ``score``.
        item_keys: Keys of the catalogue, int64 ``[C]``, rising.
        batch_size: Most pairs per batch of this rank.
        seed: Seed of the order.
        rank: This rank, from 0.
        world_size: Number of ranks; all have the same number of steps.
        mix: Pieces of row groups mixed in memory at a time.
        by_score: Draw the rows of a mix with replacement, in proportion to their score, instead of
            each once.

    Raises:
        DataError: There are fewer pairs than ranks, or a file is damaged.
    """

    def __init__(
        self,
        files: Sequence[Path],
        item_keys: npt.NDArray[np.int64],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        mix: int = 8,
        by_score: bool = False,
    ) -> None:
        self._groups = list_row_groups(files)
        self._item_keys = item_keys
        self._seed, self._mix, self._by_score = seed, mix, by_score
        self.pairs = sum(group.rows for group in self._groups)
        if self.pairs < world_size:
            raise DataError(
                f"{self.pairs} training pairs for {world_size} ranks: mine more pairs or use "
                "fewer ranks"
            )
        bounds = [self.pairs * at // world_size for at in range(world_size + 1)]
        self._start, self._stop = bounds[rank], bounds[rank + 1]
        largest = max(np.diff(bounds))
        self.steps_per_epoch = int(-(-largest // batch_size))
        self._cache: tuple[tuple[int, int], PairBatch] | None = None
        self._order: tuple[int, list[list[_Piece]]] | None = None

    def batches(self, *, epoch: int, step: int = 0) -> Iterator[PairBatch]:
        """The batches of ``epoch`` from ``step`` on."""
        for at in range(step, self.steps_per_epoch):
            yield self.batch(epoch=epoch, step=at)

    def batch(self, *, epoch: int, step: int) -> PairBatch:
        """Batch ``step`` of ``epoch`` of this rank."""
        rows = self._stop - self._start
        first = rows * step // self.steps_per_epoch
        last = rows * (step + 1) // self.steps_per_epoch
        parts, offset = [], 0
        for number, block in enumerate(self._blocks(epoch)):
            size = sum(piece.stop - piece.start for piece in block)
            low, high = max(first - offset, 0), min(last - offset, size)
            if low < high:
                parts.append(self._mixed(epoch, number, block).take(slice(low, high)))
            offset += size
        return join_pairs(parts)

    def _blocks(self, epoch: int) -> list[list[_Piece]]:
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._permuted(epoch))
        return self._order[1]

    def _permuted(self, epoch: int) -> list[list[_Piece]]:
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._groups))
        pieces, offset = [], 0
        for group in (self._groups[at] for at in order):
            start = max(self._start - offset, 0)
            stop = min(self._stop - offset, group.rows)
            if start < stop:
                pieces.append(_Piece(group, start, stop))
            offset += group.rows
        return [pieces[at : at + self._mix] for at in range(0, len(pieces), self._mix)]

    def _mixed(self, epoch: int, number: int, block: list[_Piece]) -> PairBatch:
        if self._cache is not None and self._cache[0] == (epoch, number):
            return self._cache[1]
        joined = join_pairs(
            [
                read_pairs(piece.group, self._item_keys).take(slice(piece.start, piece.stop))
                for piece in block
            ]
        )
        rng = np.random.default_rng([self._seed, epoch, self._start, number])
        mixed = joined.take(self._draw(rng, joined.score))
        self._cache = ((epoch, number), mixed)
        return mixed

    def _draw(
        self, rng: np.random.Generator, score: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.int64]:
        weight = np.maximum(score.astype(np.float64), 0.0)
        if not self._by_score or not weight.sum():
            return rng.permutation(len(score))
        return rng.choice(len(score), size=len(score), p=weight / weight.sum())


def load_all_pairs(files: Sequence[Path], item_keys: npt.NDArray[np.int64]) -> PairBatch:
    """Every pair of ``files`` in file order.

    Raises:
        DataError: A file is damaged, or a key is not in the catalogue.
    """
    return join_pairs([read_pairs(group, item_keys) for group in list_row_groups(files)])

"""Relations: who is whose positive, who is nobody's business.

A relation edits nothing but the matrix R of the engine: ``weight`` above 0 for positives, 0 for
negatives, and ``ignored`` for entries that take no part at all. It is kept as lists, since nearly
all of its entries are plain negatives; ``dense()`` writes the matrices, ``rules()`` hands the lists
to the kernel that needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from muxrec.data.known_pairs import KnownPairs
from muxrec.data.pairs import PairBatch
from muxrec_kernels.contrastive_loss import Rules, dense_ignored, dense_weight

Positions = npt.NDArray[np.int64]


class Dense(NamedTuple):
    """A relation as matrices.

    Attributes:
        weight: Positive weights, float32 ``[Q, C]``; 0 for negatives and ignored entries.
        ignored: bool ``[Q, C]``; these entries are -inf before the softmax.
    """

    weight: Tensor
    ignored: Tensor


class Relation(NamedTuple):
    """Rows of queries over columns of candidates, as lists by query.

    A candidate of the query's own item is ignored: the query itself, and duplicates of it.

    Attributes:
        queries: Place of each query among the candidates, int64 ``[Q]``.
        items: Item of each candidate, int64 ``[C]``.
        offsets: Starts of each query's positives, int64 ``[Q + 1]``.
        columns: Their candidates, int64 ``[P]``, rising within a query.
        weights: Their weights, float32 ``[P]``, above 0.
        ignored_offsets: Starts of each query's ignored candidates, int64 ``[Q + 1]``.
        ignored_columns: The ignored candidates, int64 ``[n]``, rising within a query.
    """

    queries: Tensor
    items: Tensor
    offsets: Tensor
    columns: Tensor
    weights: Tensor
    ignored_offsets: Tensor
    ignored_columns: Tensor

    def to(self, device: torch.device | str) -> Relation:
        """The same relation on ``device``."""
        return Relation(*(value.to(device) for value in self))

    def rules(self, missing: Tensor | None = None) -> Rules:
        """The relation for the kernel.

        Args:
            missing: Candidates that neither ask nor are asked for, bool ``[C]``; None for none.
        """
        has_lists = self.ignored_columns.numel() > 0
        items = self.items.int()  # Positions; the kernel compares them once per score.
        return Rules(
            self.offsets,
            self.columns,
            self.weights,
            ignored_offsets=self.ignored_offsets if has_lists else None,
            ignored_columns=self.ignored_columns if has_lists else None,
            query_items=items[self.queries],
            candidate_items=items,
            query_missing=None if missing is None else missing[self.queries],
            candidate_missing=missing,
        )

    def dense(self, missing: Tensor | None = None) -> Dense:
        """The relation as matrices of Q times C entries.

        Args:
            missing: As for ``rules``.
        """
        rules, size = self.rules(missing), len(self.items)
        ignored = dense_ignored(rules, size)
        return Dense(dense_weight(rules, size).masked_fill(ignored, 0.0), ignored)


class Candidates(NamedTuple):
    """The distinct items of a batch of pairs.

    Attributes:
        items: Positions, int64 ``[C]``, rising.
        a: Place of each pair's query in ``items``, int64 ``[B]``.
        b: Place of each pair's partner in ``items``, int64 ``[B]``.
    """

    items: np.ndarray
    a: np.ndarray
    b: np.ndarray


def candidates_in_batch(pairs: PairBatch) -> Candidates:
    """Every distinct item of ``pairs`` once: encoded once, and never its own duplicate negative."""
    items, places = np.unique(np.concatenate([pairs.a, pairs.b]), return_inverse=True)
    return Candidates(items, places[: len(pairs.a)], places[len(pairs.a) :])


def multi_positive(candidates: Candidates, known: KnownPairs) -> Relation:
    """Every item asks once; all its known partners in the batch are positives, by pair score."""
    rows, columns, scores = known.among(candidates.items)
    size = len(candidates.items)
    none = np.zeros(0, dtype=np.int64)
    return _relation(
        np.arange(size),
        candidates.items,
        positives=_lists(rows, columns, size),
        weights=scores,
        ignored=_lists(none, none, size),
    )


def single_positive(candidates: Candidates, known: KnownPairs) -> Relation:
    """Each pair asks in both directions for its partner; other known partners are ignored."""
    queries = np.concatenate([candidates.a, candidates.b])
    partners = np.concatenate([candidates.b, candidates.a])
    rows, columns, _ = known.among(candidates.items)
    counts = np.bincount(rows, minlength=len(candidates.items))
    lengths = counts[queries]
    asking = np.repeat(np.arange(len(queries)), lengths)
    # Entry k of a query is known pair ``starts[query] + k`` of its item: rows come in order.
    first = np.repeat(np.cumsum(counts)[queries] - lengths, lengths)
    partner = columns[first + np.arange(len(asking)) - np.repeat(_ends(lengths)[:-1], lengths)]
    others = partner != partners[asking]
    asks = np.flatnonzero(queries != partners)
    return _relation(
        queries,
        candidates.items,
        positives=_lists(asks, partners[asks], len(queries)),
        weights=np.ones(len(asks), dtype=np.float32),
        ignored=_lists(asking[others], partner[others], len(queries)),
    )


def _relation(
    queries: Positions,
    items: Positions,
    *,
    positives: tuple[Positions, Positions],
    weights: npt.NDArray[np.float32],
    ignored: tuple[Positions, Positions],
) -> Relation:
    return Relation(*map(torch.from_numpy, (queries, items, *positives, weights, *ignored)))


def _lists(rows: Positions, columns: Positions, count: int) -> tuple[Positions, Positions]:
    """Starts of each row's columns, int64 ``[count + 1]``, and the columns.

    Nothing is sorted: items rise in ``Candidates``, and known pairs come ordered by both.
    """
    return _ends(np.bincount(rows, minlength=count)), columns


def _ends(lengths: Positions) -> Positions:
    return np.concatenate([[0], np.cumsum(lengths)])


RELATIONS: dict[Literal["multi", "single"], Callable[[Candidates, KnownPairs], Relation]] = {
    "multi": multi_positive,
    "single": single_positive,
}
"""``objective.positives`` -> the relation of a batch."""

"""Relations: who is whose positive, who is nobody's business.

A relation edits nothing but the matrix R of the engine: ``weight`` above 0 for positives, 0 for
negatives, and ``ignored`` for entries that take no part at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from muxrec.data.known_pairs import KnownPairs
from muxrec.data.pairs import PairBatch


class Relation(NamedTuple):
    """Rows of queries over columns of candidates.

    Attributes:
        queries: Place of each query among the candidates, int64 ``[Q]``.
        weight: Positive weights, float32 ``[Q, C]``; 0 for negatives and ignored entries.
        ignored: bool ``[Q, C]``; these entries are -inf before the softmax.
    """

    queries: Tensor
    weight: Tensor
    ignored: Tensor

    def to(self, device: torch.device | str) -> Relation:
        """The same relation on ``device``."""
        return Relation(*(value.to(device) for value in self))


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
    weight = torch.zeros(size, size)
    weight[torch.from_numpy(rows), torch.from_numpy(columns)] = torch.from_numpy(scores)
    return Relation(torch.arange(size), weight, torch.eye(size, dtype=torch.bool))


def single_positive(candidates: Candidates, known: KnownPairs) -> Relation:
    """Each pair asks in both directions for its partner; other known partners are ignored."""
    queries = torch.from_numpy(np.concatenate([candidates.a, candidates.b]))
    partners = torch.from_numpy(np.concatenate([candidates.b, candidates.a]))
    rows, columns, _ = known.among(candidates.items)
    size = len(candidates.items)
    related = torch.eye(size, dtype=torch.bool)
    related[torch.from_numpy(rows), torch.from_numpy(columns)] = True
    ignored = related[queries]
    each = torch.arange(len(queries))
    ignored[each, partners] = queries == partners
    weight = torch.zeros(len(queries), size)
    weight[each, partners] = 1.0
    return Relation(queries, weight.masked_fill(ignored, 0.0), ignored)


RELATIONS: dict[Literal["multi", "single"], Callable[[Candidates, KnownPairs], Relation]] = {
    "multi": multi_positive,
    "single": single_positive,
}
"""``objective.positives`` -> the relation of a batch."""

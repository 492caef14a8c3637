"""What a baseline may see: the catalogue and the training period, nothing later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from muxrec.data.keys import positions_of
from muxrec.errors import MuxrecError
from muxrec.evaluation.relevance import PeriodReader
from muxrec.evaluation.scoring import Scorer, SparseScorer
from muxrec.features.arrays import Dense
from muxrec.recipe.model import Recipe


class BaselineUnavailableError(MuxrecError):
    """Recipe or data have nothing that this baseline could work on; the message says what."""


@dataclass(frozen=True)
class TrainingView:
    """The catalogue and the training period.

    Attributes:
        items: Catalogue, sorted by ``item_key``, without any column counted on later events.
        keys: Item keys, int64 ``[C]``.
        events: Training events.
        pairs: Training pairs.
        recipe: The recipe.
        dense: Dense features prepared without training, by feature name; may be empty.
    """

    items: pa.Table
    keys: npt.NDArray[np.int64]
    events: pa.Table
    pairs: pa.Table
    recipe: Recipe
    dense: Mapping[str, Dense]

    def pair_scorer(self, column: str) -> SparseScorer:
        """Scores straight from a column of the training pairs."""
        a = positions_of(self.pairs["item_a"].to_numpy(), self.keys)
        b = positions_of(self.pairs["item_b"].to_numpy(), self.keys)
        values = self.pairs[column].to_numpy().astype(np.float32)
        count = self.keys.size
        return SparseScorer(sp.csr_array((values, (a, b)), shape=(count, count)))

    def user_items(self) -> sp.csr_matrix:
        """Training events as float32 ``[users, items]``, the number of events per cell.

        Events below ``data.pairs.min_weight`` are left out, as they are from the pairs.
        """
        enough = pc.call_function(
            "greater_equal", [self.events["weight"], self.recipe.data.pairs.min_weight]
        )
        events = self.events.filter(enough)
        users, row = np.unique(events["user_key"].to_numpy(), return_inverse=True)
        at = positions_of(events["item_key"].to_numpy(), self.keys)
        known = at >= 0
        ones = np.ones(int(known.sum()), dtype=np.float32)
        shape = (users.size, self.keys.size)
        return sp.csr_matrix((ones, (row[known], at[known])), shape=shape)


class Baseline(Protocol):
    """A way to rank without training a tower."""

    def __call__(self, view: TrainingView) -> Scorer:
        """A scorer over the view's catalogue.

        Raises:
            BaselineUnavailableError: The recipe or data lack what it needs.
        """
        ...


def training_view(
    snapshot: PeriodReader,
    items: pa.Table,
    *,
    recipe: Recipe,
    dense: Mapping[str, Dense] | None = None,
) -> TrainingView:
    """The view of a snapshot: only its ``train`` events and pairs are ever read."""
    later = [name for name in ("test_events", "validation_events") if name in items.column_names]
    return TrainingView(
        items=items.drop_columns(later),
        keys=items["item_key"].to_numpy().astype(np.int64),
        events=snapshot.events(split="train", columns=["user_key", "item_key", "weight"]),
        pairs=snapshot.pairs("train"),
        recipe=recipe,
        dense=dense or {},
    )

"""The validation metric that decides when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muxrec.evaluation.metrics import evaluate_vectors
from muxrec.evaluation.relevance import Relevance
from muxrec.features.arrays import ItemArrays
from muxrec.model import ItemModel
from muxrec.training.encode import encode_catalogue


@dataclass(frozen=True)
class Validation:
    """Ranks the whole catalogue for the validation period's queries.

    Attributes:
        arrays: Encoded items of the whole catalogue.
        relevance: Co-engagement of the validation period.
        ks: Cut-offs of the recipe.
    """

    arrays: ItemArrays
    relevance: Relevance
    ks: Sequence[int]

    @property
    def metric(self) -> str:
        """The deciding metric: ndcg at 10 where it is among the cut-offs, else at the first."""
        return f"ndcg_at_{10 if 10 in self.ks else self.ks[0]}"

    def __call__(self, model: ItemModel) -> dict[str, float]:
        """Every metric's mean, by name."""
        vectors, _ = encode_catalogue(model, self.arrays)
        return evaluate_vectors(vectors, self.relevance, ks=self.ks).means

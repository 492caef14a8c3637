"""Bodies of the POST and PUT routes, strict: unknown keys and coerced types are refused."""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from muxrec_serving.errors import invalid, too_large
from muxrec_serving.limits import DEFAULT_K, MAX_BATCH, MAX_FILTER_VALUES, MAX_ID_CHARS, MAX_K
from muxrec_serving.query import Wanted

ItemId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS)]
RawItemBody = dict[str, Any]
Values = Annotated[list[str], Field(min_length=1, max_length=MAX_FILTER_VALUES)]


class SimilarBody(BaseModel):
    """Neighbours of a batch: exactly one of ``item_ids``, ``vectors`` and ``items``."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={"examples": [{"item_ids": ["1", "2"], "k": 10}]},
    )

    item_ids: list[ItemId] | None = Field(None, description="Items of the catalogue.")
    vectors: list[list[float]] | None = Field(None, description="Vectors of the bundle's width.")
    items: list[RawItemBody] | None = Field(None, description="Raw items: columns and values.")
    k: int = Field(DEFAULT_K, description=f"Neighbours per query, 1..{MAX_K}.")
    filter: dict[str, Values] | None = Field(
        None, description="Column to accepted values; all columns must agree."
    )
    explain: bool = Field(default=False, description="Add each modality's share of the score.")
    display: bool = Field(default=False, description="Add the display fields of each neighbour.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [n for n in ("item_ids", "vectors", "items") if getattr(self, n) is not None]
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise ValueError(f"give exactly one of item_ids, vectors and items, got {found}")
        return self

    def size(self) -> int:
        """Queries in the batch.

        Raises:
            RequestError: There are none (422) or too many (413).
        """
        return check_batch(len(self.item_ids or self.vectors or self.items or []))

    def wanted(self) -> Wanted:
        """What each answer holds."""
        where = tuple((c, frozenset(v)) for c, v in (self.filter or {}).items())
        return Wanted(self.k, where, self.explain, self.display)

    def unit_vectors(self, width: int) -> np.ndarray | None:
        """``vectors`` scaled to unit norm, float32 ``[B, width]``; None when none were given.

        Raises:
            RequestError: A vector has another width, is zero, or holds NaN or infinity.
        """
        if self.vectors is None:
            return None
        for number, vector in enumerate(self.vectors):
            if len(vector) != width:
                raise invalid(
                    f"vector {number} has {len(vector)} numbers, the bundle's vectors {width}",
                    code="bad_vector",
                )
        values = np.asarray(self.vectors, dtype=np.float64)
        with np.errstate(over="ignore"):
            norms = np.linalg.norm(values, axis=1)
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if bad.size:
            message = f"vector {bad[0]} is zero or holds NaN, infinity or numbers too large"
            raise invalid(message, code="bad_vector")
        return (values / norms[:, None]).astype(np.float32)


class EmbedBody(BaseModel):
    """Raw items to encode."""

    model_config = ConfigDict(strict=True, extra="forbid")

    items: list[RawItemBody] = Field(description="Raw items: columns and values.")


def check_batch(size: int) -> int:
    """``size`` itself.

    Raises:
        RequestError: It is 0 (422) or above the limit (413).
    """
    if size > MAX_BATCH:
        raise too_large(f"a batch may have {MAX_BATCH} queries, got {size}")
    if size == 0:
        raise invalid("the batch is empty: give at least one query")
    return size

"""Who is whose positive and what takes no part, as lists and rules instead of matrices."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rules:
    """A relation of Q queries over C candidates, without any tensor of ``[Q, C]``.

    An entry is ignored where one of the rules says so; a positive that is ignored is none. Lists
    are compressed rows: query q's columns are ``columns[offsets[q]:offsets[q + 1]]``, each at most
    once and rising.

    Attributes:
        offsets: Starts of each query's positives, int64 ``[Q + 1]``, rising from 0 to P.
        columns: Their candidates, int64 ``[P]`` in ``[0, C)``.
        weights: Their weights, float32 ``[P]``, at least 0; a query's shares are its weights over
            their sum. 0 marks a negative.
        ignored_offsets: Starts of each query's ignored candidates, int64 ``[Q + 1]``; or None.
        ignored_columns: The ignored candidates, int64 ``[n]``; given with ``ignored_offsets``.
        query_items: Item of each query, int32 or int64 ``[Q]``; None where items do not matter.
        candidate_items: Item of each candidate, of the same type, ``[C]``; given with
            ``query_items``. A candidate of the query's own item is ignored: the query itself and
            its duplicates.
        query_missing: Queries that ask for nothing, bool ``[Q]``; None for none.
        candidate_missing: Candidates that every query ignores, bool ``[C]``; None for none.
        column_bias: Added to all scores of a candidate, float32 ``[C]``, finite, without gradient;
            ``-strength * log q`` for the logQ correction. None for 0.
    """

    offsets: Tensor
    columns: Tensor
    weights: Tensor
    ignored_offsets: Tensor | None = None
    ignored_columns: Tensor | None = None
    query_items: Tensor | None = None
    candidate_items: Tensor | None = None
    query_missing: Tensor | None = None
    candidate_missing: Tensor | None = None
    column_bias: Tensor | None = None

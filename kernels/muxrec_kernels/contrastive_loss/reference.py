"""Contrastive cross-entropy, the maths: rules made dense, a matrix of scores, one log-sum-exp."""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec_kernels.contrastive_loss.rules import Rules


def dense_weight(rules: Rules, candidates: int) -> Tensor:
    """Weights of the positives, float32 ``[Q, C]``; 0 for every other entry."""
    weight = rules.weights.new_zeros(len(rules.offsets) - 1, candidates)
    at = (positive_rows(rules), rules.columns)
    return weight.index_put(at, rules.weights, accumulate=True)


def dense_ignored(rules: Rules, candidates: int) -> Tensor:
    """Which entries take no part, bool ``[Q, C]``."""
    shape = (len(rules.offsets) - 1, candidates)
    ignored = torch.zeros(shape, dtype=torch.bool, device=rules.offsets.device)
    if rules.ignored_offsets is not None and rules.ignored_columns is not None:
        columns = rules.ignored_columns
        ignored[_rows(rules.ignored_offsets, columns), columns] = True
    if rules.query_items is not None and rules.candidate_items is not None:
        ignored |= rules.query_items[:, None] == rules.candidate_items[None, :]
    if rules.query_missing is not None:
        ignored |= rules.query_missing[:, None]
    if rules.candidate_missing is not None:
        ignored |= rules.candidate_missing[None, :]
    return ignored


def positive_rows(rules: Rules) -> Tensor:
    """The query of each positive, int64 ``[P]``."""
    return _rows(rules.offsets, rules.columns)


def contrastive_loss(queries: Tensor, candidates: Tensor, rules: Rules, *, scale: Tensor) -> Tensor:
    """See :func:`muxrec_kernels.contrastive_loss.contrastive_loss`; runs on any device."""
    exact = torch.promote_types(queries.dtype, torch.float32)
    queries, candidates, scale = queries.to(exact), candidates.to(exact), scale.to(exact)
    ignored = dense_ignored(rules, len(candidates))
    weight = dense_weight(rules, len(candidates)).to(exact).masked_fill(ignored, 0.0)
    total = weight.sum(dim=1)
    asking = total.nonzero()[:, 0]
    scores = scale * (queries[asking] @ candidates.T)
    if rules.column_bias is not None:
        scores = scores + rules.column_bias.to(exact)
    scores = scores.masked_fill(ignored[asking], float("-inf"))
    share = weight[asking] / total[asking, None]
    # An ignored positive has the score -inf and the share 0, whose product is not a number.
    positive = (share * scores.masked_fill(ignored[asking], 0.0)).sum(dim=1)
    return (scores.logsumexp(dim=1) - positive).sum() / max(1, len(asking))


def _rows(offsets: Tensor, columns: Tensor) -> Tensor:
    """The query of each listed entry, int64 ``[n]``."""
    queries = torch.arange(len(offsets) - 1, device=offsets.device)
    return queries.repeat_interleave(offsets.diff(), output_size=columns.numel())

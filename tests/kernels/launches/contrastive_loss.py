"""Launches of the contrastive loss and of its gradients, held by programs and through slabs."""

from __future__ import annotations

import torch

from muxrec_kernels.contrastive_loss import Rules, contrastive_loss


def lose(
    queries: int,
    candidates: int,
    width: int,
    *,
    dtype: torch.dtype,
    positives: int | None = None,
    ruled: bool = False,
) -> None:
    """Loss and gradients; each of the first ``positives`` queries has one, all by default."""
    count = queries if positives is None else positives
    ends = torch.arange(queries + 1).clamp(max=count)
    columns = torch.arange(count) % candidates
    rules = Rules(ends, columns, torch.ones(count))
    if ruled:
        rules = Rules(
            ends,
            columns,
            torch.ones(count),
            ignored_offsets=ends,
            ignored_columns=columns,
            query_items=torch.arange(queries),
            candidate_items=torch.arange(candidates),
            query_missing=torch.zeros(queries, dtype=torch.bool),
            candidate_missing=torch.zeros(candidates, dtype=torch.bool),
            column_bias=torch.zeros(candidates),
        )
    asked = torch.zeros(queries, width, dtype=dtype, requires_grad=True)
    held = torch.zeros(candidates, width, dtype=dtype, requires_grad=True)
    contrastive_loss(asked, held, rules, scale=torch.ones(1, requires_grad=True)).backward()


CALLS = {
    "one of everything": lambda: lose(1, 1, 1, dtype=torch.float16),
    "one of everything in float32": lambda: lose(1, 1, 1, dtype=torch.float32),
    "no positives": lambda: lose(3, 5, 8, dtype=torch.float16, positives=0),
    "no queries": lambda: lose(0, 5, 8, dtype=torch.float16),
    "multiples of 16, ruled": lambda: lose(32, 48, 64, dtype=torch.bfloat16, ruled=True),
    "wide vectors": lambda: lose(530, 21, 320, dtype=torch.float16),
}

"""Seeded defects of the contrastive loss, and how far each takes it from its reference."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor
from torch.nn.functional import normalize

from muxrec_kernels.contrastive_loss import Rules, contrastive_loss, triton_kernel
from muxrec_kernels.contrastive_loss.backward import launch_backward
from muxrec_kernels.contrastive_loss.launch import Problem, column_terms, launch_forward
from muxrec_kernels.contrastive_loss.tiles import Tile, Tiles
from muxrec_kernels.testing import norm_ratio, poisoned_outputs

MODULE = triton_kernel
TOLERANCE = 2e-6
FORWARD, POSITIVES = "forward_kernel", "positives_kernel"
GRADIENT, SLAB, FINISH = "gradient_kernel", "slab_kernel", "finish_kernel"
DEFECTS = {
    "columns beyond the last have scores": (
        FORWARD,
        'term = tl.load(terms + column, mask=in_columns, other=float("-inf"))',
        "term = tl.load(terms + column, mask=in_columns, other=0.0)",
    ),
    "a higher maximum does not scale the sum": (FORWARD, "sums * tl.exp2(top - base)", "sums"),
    "a tile without a maximum is not a number": (
        FORWARD,
        'tl.where(higher == float("-inf"), 0.0, higher)',
        "higher",
    ),
    "ignored entries are scores of 0": (
        FORWARD,
        'first + COLUMNS, float("-inf")',
        "first + COLUMNS, 0.0",
    ),
    "a tile's last listed entry is missed": (
        FORWARD,
        'first + COLUMNS, float("-inf")',
        'first + COLUMNS - 1, float("-inf")',
    ),
    "an ignored positive counts": (
        POSITIVES,
        "hidden |= column == tl.load(listed + place)",
        "hidden |= column < 0",
    ),
    "the last positive is missed": (POSITIVES, "alive = at < stop", "alive = at < stop - 1"),
    "the query's own item pushes it away": (
        GRADIENT,
        "other[None, :], 0.0, shares",
        "-1, 0.0, shares",
    ),
    "the last row is not written": (
        SLAB,
        "mask=in_rows[:, None]",
        "mask=(row < row_count - 1)[:, None]",
    ),
    "listed entries push away": (SLAB, "column, first + COLUMNS, 0.0", "column, first, 0.0"),
    "the first split alone is added": (FINISH, "range(SPLITS)", "range(1)"),
    "a candidate's positives are not its own": (
        FINISH,
        "entry = tl.load(entries + at, mask=alive, other=0)",
        "entry = at",
    ),
}

QUERIES, CANDIDATES, WIDTH = 18, 21, 12


def guarded(values: Tensor, guard: float) -> Tensor:
    """The same numbers between rows of ``guard``, where a read outside of them lands."""
    rows = values.new_full((1, *values.shape[1:]), guard)
    return torch.cat([rows, values, rows])[1:-1]


def lists_of(listed: Tensor, guard: int) -> tuple[Tensor, Tensor]:
    ends = listed.sum(dim=1).cumsum(dim=0)
    return torch.cat([ends.new_zeros(1), ends]), guarded(listed.nonzero()[:, 1], guard)


def relation() -> Rules:
    generator = torch.Generator().manual_seed(0)
    positives = torch.rand(QUERIES, CANDIDATES, generator=generator) < 0.2
    ignored = torch.rand(QUERIES, CANDIDATES, generator=generator) < 0.2
    # The fifth query ignores all of the first tile; the last of each tile is ignored somewhere.
    ignored[4, :16], positives[4, 18], ignored[4, 18] = True, True, False
    ignored[6, 15], ignored[7, 20] = True, True
    offsets, columns = lists_of(positives, 3)
    starts, listed = lists_of(ignored, 3)
    items = torch.arange(CANDIDATES)
    return Rules(
        offsets,
        columns,
        guarded(0.1 + torch.rand(len(columns), generator=generator), 1e6),
        ignored_offsets=starts,
        ignored_columns=listed,
        query_items=items[:QUERIES],
        candidate_items=items,
        column_bias=guarded(torch.rand(CANDIDATES, generator=generator), 50.0),
    )


def distances(kernels: ModuleType) -> dict[str, float]:
    """Distance of the kernels' loss and gradients from the reference in float64."""
    generator = torch.Generator().manual_seed(1)
    queries, candidates = (
        guarded(normalize(torch.randn(rows, WIDTH, generator=generator)), 100.0)
        for rows in (QUERIES, CANDIDATES)
    )
    rules, scale = relation(), torch.tensor([8.0])
    leaves = [queries.double().requires_grad_(), candidates.double().requires_grad_()]
    exact = contrastive_loss(*leaves, rules, scale=scale, backend="reference")
    exact.backward()
    tile = Tile(16, 16, 16, warps=4, stages=2)
    terms = column_terms(rules, CANDIDATES)
    held, slabs = (
        Problem(
            queries, candidates, scale, terms, rules, Tiles(tile, tile, slabs, programs), "ieee"
        )
        for slabs, programs in ((False, 4), (True, 1))
    )
    found = {}
    with poisoned_outputs():
        passed = launch_forward(kernels, slabs)
        asking = passed.inverse.count_nonzero()
        for name, problem in ((GRADIENT, held), (SLAB, slabs)):
            gradients = launch_backward(kernels, problem, passed, scale / asking)
            found[name] = max(
                norm_ratio(gradient, leaf.grad)
                for gradient, leaf in zip(gradients[:2], leaves, strict=True)
                if leaf.grad is not None
            )
    loss = norm_ratio(passed.losses.sum() / asking, exact.detach())
    return {FORWARD: loss, POSITIVES: loss, FINISH: found[GRADIENT], **found}

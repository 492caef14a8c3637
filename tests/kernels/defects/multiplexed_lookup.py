"""Seeded defects of the lookup, and how far each takes it from its reference."""

from __future__ import annotations

from types import ModuleType

import torch

from muxrec_kernels.multiplexed_lookup import autograd, reference, triton_kernel
from muxrec_kernels.testing import make_jagged, norm_ratio, poisoned_outputs

MODULE = triton_kernel
TOLERANCE = 1e-6
FORWARD, BACKWARD = "forward_kernel", "segment_kernel"
SEGMENT_MASK = "alive = at < stop"
DEFECTS = {
    "ids beyond the bag are read": (FORWARD, "alive = at < stop", "alive = at <= stop"),
    "the bag's last id is missed": (FORWARD, "alive = at < stop", "alive = at < stop - 1"),
    "the last column is missed": (FORWARD, "columns < D\n", "columns < D - 1\n"),
    "the last row is never read": (
        FORWARD,
        "row = hash_rows(found, seed, rows)",
        "row = tl.minimum(hash_rows(found, seed, rows), rows - 2)",
    ),
    "rows are shifted by one": (
        FORWARD,
        "row = hash_rows(found, seed, rows)",
        "row = hash_rows(found, seed, rows) + 1",
    ),
    "an empty bag divides by zero": (
        FORWARD,
        "tl.maximum(last - first, 1).to(tl.float32)",
        "(last - first).to(tl.float32)",
    ),
    "an empty bag is not written": (
        FORWARD,
        "mask=in_batch[:, None] & is_column[None, :])",
        "mask=(in_batch & (last > first))[:, None] & is_column[None, :])",
    ),
    "all slots hash with the first seed": (
        FORWARD,
        "seed = tl.load(slot_seeds + slot)",
        "seed = tl.load(slot_seeds)",
    ),
    "a duplicate is dropped": (BACKWARD, SEGMENT_MASK, "alive = at < start + 1"),
    "a long run is cut": (BACKWARD, SEGMENT_MASK, "alive = at < tl.minimum(stop, start + LANES)"),
    "the neighbour's gradient leaks in": (BACKWARD, SEGMENT_MASK, "alive = at <= stop"),
    "the pooling is forgotten": (BACKWARD, "values = values * scale[:, None]", "values = values"),
    "the last gradient row is not written": (
        BACKWARD,
        "tl.sum(sums, axis=0), mask=is_column)",
        "tl.sum(sums, axis=0), mask=is_column & (segment < tl.num_programs(0) - 1))",
    ),
}

# 160 ids over 3 rows: the first and the last row are read too, by runs longer than any tile.
BAGS = make_jagged([0, 3, 1, 0, 70, 90], batch_size=3, seed=1)
ROWS, WIDTH = 3, 12


def distances(kernels: ModuleType) -> dict[str, float]:
    """Distance of the kernels' forward and gradient from the reference in float64."""
    # Guard rows of a large number around the table make a read outside of it visible.
    guarded = torch.full((ROWS + 2, WIDTH), 1e6)
    guarded[1:-1] = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
    table = guarded[1:-1]
    features, seeds = torch.tensor([1, 0, 0]), torch.tensor([11, -7, 5])
    arguments = (BAGS.ids, BAGS.offsets, features, seeds)
    options = {"batch_size": BAGS.batch_size, "weights": None, "pooling": "mean"}
    exact = table.double().requires_grad_()
    out = reference.multiplexed_lookup(exact, *arguments, **options)  # type: ignore[arg-type]
    direction = torch.linspace(0.1, 1.0, out.numel()).view(out.shape)
    out.backward(direction.double())
    with poisoned_outputs():
        found = autograd.launch_forward(kernels, table, *arguments, **options)  # type: ignore[arg-type]
        rows, values = autograd.launch_backward(
            kernels,
            direction,
            *arguments,
            rows=ROWS,
            width=WIDTH,
            **options,  # type: ignore[arg-type]
        )
    gradient = torch.zeros(ROWS, WIDTH).index_copy(0, rows, values)
    assert exact.grad is not None
    return {
        FORWARD: norm_ratio(found, out.detach()),
        BACKWARD: norm_ratio(gradient, exact.grad.to_dense()),
    }

"""Seeded defects of the lookup, and how far each takes it from its reference."""

from __future__ import annotations

from types import ModuleType

import torch

from muxrec_kernels.multiplexed_lookup import autograd, launch, reference, triton_kernel
from muxrec_kernels.testing import make_jagged, norm_ratio, poisoned_outputs

MODULE = triton_kernel
TOLERANCE = 1e-6
ROWS_OF_BAGS, POOL, PIECES = "sum_rows", "pool", "find_piece"
FORWARD, MERGE, HASH = "forward_kernel", "merge_kernel", "rows_kernel"
HASHED = "row = hash_rows(row, seed, rows)"
DEFECTS = {
    "ids beyond the bag are read": (ROWS_OF_BAGS, "alive = at < stop", "alive = at <= stop"),
    "the bag's last id is missed": (ROWS_OF_BAGS, "alive = at < stop", "alive = at < stop - 1"),
    "the last column is missed": (ROWS_OF_BAGS, "columns < D\n", "columns < D - 1\n"),
    "the first row is taken for none": (ROWS_OF_BAGS, "(row >= 0)", "(row > 0)"),
    "the last row is never read": (
        ROWS_OF_BAGS,
        HASHED,
        "row = tl.minimum(hash_rows(row, seed, rows), rows - 2)",
    ),
    "rows are shifted by one": (ROWS_OF_BAGS, HASHED, "row = hash_rows(row, seed, rows) + 1"),
    "a weight goes to another id": (
        ROWS_OF_BAGS,
        "tl.gather(weight, lane, 0)",
        "tl.gather(weight, BAGS * LANES - 1 - lane, 0)",
    ),
    "duplicates after the first step are dropped": (
        ROWS_OF_BAGS,
        "sums += values",
        "sums = values",
    ),
    "an empty bag divides by zero": (POOL, "tl.maximum(length, 1).to", "length.to"),
    "an empty bag is not written": (
        FORWARD,
        "is_written &= length < PIECE",
        "is_written &= (length < PIECE) & (length > 0)",
    ),
    "all slots hash with the first seed": (
        FORWARD,
        "seed = tl.load(slot_seeds + slot)",
        "seed = tl.load(slot_seeds)",
    ),
    "a piece is sought in the bag before": (PIECES, "(piece + 1) * PIECE", "piece * PIECE"),
    "the search for a bag ends too early": (PIECES, "while stride > 0", "while stride > 1"),
    "a bag of exactly one piece is lost": (MERGE, "stop - start >= PIECE", "stop - start > PIECE"),
    "only the first long bag is merged": (
        MERGE,
        "is_long &= place > found",
        "is_long &= place < 0",
    ),
    "the last piece is left out": (MERGE, "(at < count)", "(at < count - 1)"),
    "what follows the last piece is left out": (MERGE, ", axis=0) + tail", ", axis=0)"),
    "a gradient goes to another id's row": (HASH, "ids + position", "ids + position // 2"),
}

# Both features have bags that are empty, short, of exactly a piece and of several pieces; 3 rows,
# so the first and the last one are read too.
PIECE = 16
BAGS = make_jagged([0, 3, 16, 37, 35, 15, 0, 1], batch_size=4, seed=1)
ROWS, WIDTH = 3, 12
# As in large batches: a program merges several bags, and a bag is sought in several steps.
launch.MERGE_PROGRAMS, launch.WAYS = 3, 2


def distances(kernels: ModuleType) -> dict[str, float]:
    """Distance of the kernels' forward and gradient from the reference in float64."""
    # Guard rows of a large number around the table make a read outside of it visible.
    guarded = torch.full((ROWS + 2, WIDTH), 1e6)
    guarded[1:-1] = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
    table = guarded[1:-1]
    features, seeds = torch.tensor([1, 0, 0]), torch.tensor([11, -7, 5])
    arguments = (BAGS.ids, BAGS.offsets, features, seeds)
    options = {"batch_size": BAGS.batch_size, "pooling": "mean"}
    options["weights"] = torch.linspace(-1, 2, BAGS.ids.numel())
    exact = table.double().requires_grad_()
    out = reference.multiplexed_lookup(exact, *arguments, **options)  # type: ignore[arg-type]
    direction = torch.linspace(0.1, 1.0, out.numel()).view(out.shape)
    out.backward(direction.double())
    with poisoned_outputs():
        found = autograd.launch_forward(  # type: ignore[call-arg]
            kernels, table, *arguments, piece=PIECE, **options
        )
        rows, values = autograd.launch_backward(
            kernels, direction, *arguments, rows=ROWS, width=WIDTH, **options
        )
    gradient = torch.zeros(ROWS, WIDTH).index_copy(0, rows, values)
    assert exact.grad is not None
    forward = norm_ratio(found, out.detach())
    backward = norm_ratio(gradient, exact.grad.to_dense())
    forwards = dict.fromkeys((ROWS_OF_BAGS, POOL, PIECES, FORWARD, MERGE), forward)
    return forwards | {HASH: backward}

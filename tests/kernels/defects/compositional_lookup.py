"""Seeded defects of the compositional lookups, and how far each takes them from the reference."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from muxrec_kernels.compositional_lookup import backward, launch, reference, triton_kernel
from muxrec_kernels.testing import make_jagged, norm_ratio, poisoned_outputs

MODULE = triton_kernel
TOLERANCE = 1e-6
PAIRS, HASHES, CODES, ROBE = (
    "quotient_remainder_kernel",
    "multi_hash_kernel",
    "codebook_kernel",
    "robe_kernel",
)
SUMS, MERGE, TERMS, CUTS = (
    "row_sums_kernel",
    "merge_kernel",
    "multi_hash_terms_kernel",
    "robe_terms_kernel",
)
DEFECTS = {
    "ids beyond the bag are read": (PAIRS, "alive = at < stop", "alive = at <= stop"),
    "quotient and remainder are swapped": (
        PAIRS,
        "second = remainders + low[:, None] * D",
        "second = remainders + tl.minimum(high, 6)[:, None] * D",
    ),
    "all rows hash with the first seed": (
        HASHES,
        "hash_rows(found, tl.load(seeds + probe), pool_rows)",
        "hash_rows(found, tl.load(seeds), pool_rows)",
    ),
    "a bag that is empty is not written": (
        HASHES,
        "    store_bags(out,",
        "    if tl.max(stop - start) > 0:\n        store_bags(out,",
    ),
    "every part reads the first codebook": (
        CODES,
        "entry = part[None, :] * entries + code",
        "entry = 0 * part[None, :] * entries + code",
    ),
    "the last part is missed": (CODES, "is_part = part < PARTS", "is_part = part < PARTS - 1"),
    "a piece runs over the array's end": (
        ROBE,
        "tl.where(place < 0, place + numbers, place)",
        "place + numbers",
    ),
    "a piece's last number is missed": (ROBE, "columns < BLOCK\n", "columns < BLOCK - 1\n"),
    "a duplicate is dropped": (SUMS, "alive = at < stop", "alive = at < tl.minimum(stop, start+1)"),
    "the other row is forgotten": (
        SUMS,
        "values = values * tl.load(address, mask=mask, other=0.0).to(tl.float32)",
        "values = values",
    ),
    "the last cut is not merged": (MERGE, "(cut <= last)", "(cut < last)"),
    "the pooling is forgotten": (TERMS, "slope = slope * scale[:, None]", "slope = slope"),
    "the array's last row is followed by the one behind it": (
        CUTS,
        "tl.where(row == array_rows - 1, 0, row + 1)",
        "tl.minimum(row + 1, array_rows - 1)",
    ),
}

# Four rows of this width fill a program, so the first one has empty bags only.
WIDTH, RUN = 72, 4
BAGS = make_jagged([0, 0, 0, 0, 3, 1, 0, 9], batch_size=8, seed=1, repeat=56)
SEEDS = torch.tensor([11, -7, 5, 3])
OPTIONS = {"weights": None, "pooling": "mean"}


def guarded(rows: int, width: int, seed: int) -> Tensor:
    """A random array between rows of a large number, so that a read outside of it shows."""
    held = torch.full((rows + 4, width), 1e6)
    held[2:-2] = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return held[2:-2]


def distances(kernels: ModuleType) -> dict[str, float]:
    """Distance of each kernel's results from the reference in float64."""
    pair = [guarded(8, WIDTH, 0), guarded(7, WIDTH, 1)]
    multiply = {"combine": "multiply", **OPTIONS}
    hashed = [guarded(9, WIDTH, 2), guarded(5, 3, 3)]
    codes = torch.arange(56 * 3).mul(5).remainder(6).to(torch.uint8).view(56, 3)
    book, array = [guarded(18, 24, 4)], [guarded(3, 24, 5)]
    cut = {"width": WIDTH - 1, **OPTIONS}
    # Behind the last bag lie ids that could be read and must not be.
    ids = torch.cat([BAGS.ids, torch.full((4,), 9)])[:-4], BAGS.offsets
    pairs = compared(kernels, "quotient_remainder", pair, ids, multiply)
    hashes = compared(kernels, "multi_hash", hashed, (*ids, SEEDS), OPTIONS)
    parts = compared(kernels, "codebook", book, ids, OPTIONS, first=codes)
    pieces = compared(kernels, "robe", array, (*ids, SEEDS[:3].contiguous()), cut)
    return {
        PAIRS: pairs[0],
        HASHES: hashes[0],
        CODES: parts[0],
        ROBE: pieces[0],
        SUMS: max(pairs[1], parts[1]),
        MERGE: parts[1],
        TERMS: hashes[1],
        CUTS: pieces[1],
    }


def compared(
    kernels: ModuleType,
    form: str,
    arrays: list[Tensor],
    rest: tuple[Tensor, ...],
    options: dict[str, object],
    first: Tensor | None = None,
) -> tuple[float, float]:
    """Distances of the output and of the farthest gradient."""
    before = () if first is None else (first,)
    exact = [array.double().requires_grad_() for array in arrays]
    out = getattr(reference, f"{form}_lookup")(*before, *exact, *rest, **options)
    direction = torch.linspace(0.1, 1.0, out.numel()).view(out.shape)
    wanted = torch.autograd.grad(out, exact, direction.double())
    with poisoned_outputs():
        found = getattr(launch, f"{form}_forward")(kernels, *before, *arrays, *rest, **options)
        given = getattr(backward, f"{form}_backward")(
            kernels, direction, *before, *arrays, *rest, **options, run=RUN
        )
    pairs = given if len(arrays) > 1 else [given]
    ratios = [
        norm_ratio(torch.zeros_like(array).index_add(0, rows, values), gradient.to_dense())
        for array, (rows, values), gradient in zip(arrays, pairs, wanted, strict=True)
    ]
    return norm_ratio(found, out.detach()), max(ratios)

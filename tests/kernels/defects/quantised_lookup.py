"""Seeded defects of the quantised lookup, and how far each takes it from its reference."""

from __future__ import annotations

from types import ModuleType

import torch

from muxrec_kernels.quantised_lookup import launch, pack_rows, reference, triton_kernel
from muxrec_kernels.testing import make_jagged, norm_ratio, poisoned_outputs

MODULE = triton_kernel
TOLERANCE = 1e-6
KERNEL, READ_ROWS, READ_WORDS = "lookup_kernel", "read_rows", "read_words"
CODES, WORTH, JOIN = "code_floats", "divide_worth", "join_halves"
WRITTEN = "in_batch[:, None] & (columns < D)[None, :]"
DEFECTS = {
    "rows beyond the bag are counted": (READ_WORDS, "alive = at < stop", "alive = at <= stop"),
    "the bag's last row is missed": (READ_WORDS, "alive = at < stop", "alive = at < stop - 1"),
    "the bag's last id is not read": (READ_ROWS, "mask=at < stop", "mask=at < stop - 1"),
    "the step after next is read": (
        KERNEL,
        "row = read_rows(ids, at + STEP, stop, seed, rows, HASHED)\n    for",
        "row = read_rows(ids, at + 2 * STEP, stop, seed, rows, HASHED)\n    for",
    ),
    "a long bag is cut": (
        KERNEL,
        "range(0, longest, STEP)",
        "range(0, tl.minimum(longest, 2 * STEP), STEP)",
    ),
    "the last column is missed": (KERNEL, "columns < D)", "columns < D - 1)"),
    "an empty bag is not written": (
        KERNEL,
        WRITTEN,
        "(in_batch & (last > first))[:, None] & (columns < D)[None, :]",
    ),
    "an empty bag divides by zero": (
        KERNEL,
        "tl.maximum((last - first).to(tl.int32), 1)",
        "(last - first).to(tl.int32)",
    ),
    "levels are read before the row": (READ_WORDS, "(ROW_WORDS - 1)", "-1"),
    "step and offset are swapped": (
        READ_WORDS,
        "step = levels.to(tl.int16)",
        "step = (levels >> 16).to(tl.int16)",
    ),
    "the weight scales the codes alone": (READ_WORDS, "base *= weight", "base *= 1.0"),
    "codes of the upper half reach the exponent": (
        CODES,
        "(PLACE * BITS // 16) * UPPER_SHIFT",
        "(PLACE * BITS // 16) * (UPPER_SHIFT - 1)",
    ),
    "the upper half keeps its power of two": (
        WORTH,
        "SHIFT: tl.constexpr = (PLACE * BITS // 16) * UPPER_SHIFT",
        "SHIFT: tl.constexpr = 0",
    ),
    "columns are woven by pairs": (
        JOIN,
        "tl.join(parts[at], parts[at + COUNT // 2])",
        "tl.join(parts[2 * at], parts[2 * at + 1])",
    ),
}

# The last item's bags are long and empty, so that a cut, a missed id and an unwritten bag show.
BAGS = make_jagged([0, 3, 1, 0, 70, 90], batch_size=3, seed=1)
ROWS, WIDTHS = 3, {8: 11, 4: 24, 2: 30}


def distances(kernels: ModuleType) -> dict[str, float]:
    """Largest distance of the kernel's sums from the reference in float64, of every code."""
    found = max(_distance(kernels, bits) for bits in WIDTHS)
    return dict.fromkeys((KERNEL, READ_ROWS, READ_WORDS, CODES, WORTH, JOIN), found)


def _distance(kernels: ModuleType, bits: int) -> float:
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(2**bits, (ROWS + 2, WIDTHS[bits]), generator=generator)
    levels = torch.randn(ROWS + 2, 2, generator=generator).half()
    # Guard rows of large numbers around the table make a read outside of it visible.
    levels[0], levels[-1] = 6e4, 6e4
    table = pack_rows(codes.to(torch.uint8), levels, bits)[1:-1]
    features, seeds = torch.tensor([1, 0, 0]), torch.tensor([11, -7, 5])
    options = {"width": WIDTHS[bits], "bits": bits, "batch_size": BAGS.batch_size, "unit": 1.0}
    options |= {"weights": torch.rand(BAGS.ids.numel(), generator=generator) + 0.5}
    options |= {"pooling": "mean"}
    exact = reference.quantised_lookup(
        table,
        BAGS.ids,
        BAGS.offsets,
        features,
        seeds,
        dtype=torch.float64,
        **options,  # type: ignore[arg-type]
    )
    with poisoned_outputs():
        found = launch.launch_forward(
            kernels,
            table,
            BAGS.ids,
            BAGS.offsets,
            features,
            seeds,
            dtype=torch.float32,
            **options,  # type: ignore[arg-type]
        )
    return norm_ratio(found, exact)

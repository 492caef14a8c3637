"""Random rows read and added up: nothing that looks rows up can be faster.

    out[p] = sum of LANES * STEPS rows of the table

The numbers are int32, so that the sum costs no more than it must and its order does not matter.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gather_kernel(
    table,  # int32 [R, WORDS]
    rows,  # int64 [programs * LANES * STEPS]
    out,  # int32 [programs, WORDS]
    WORDS: tl.constexpr,
    LANES: tl.constexpr,
    STEPS: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, LANES)
    column = tl.arange(0, WORDS)
    sums = tl.zeros([LANES, WORDS], tl.int32)
    for step in range(STEPS):
        row = tl.load(rows + program * LANES * STEPS + step * LANES + lane)
        sums += tl.load(table + row[:, None] * WORDS + column[None, :])
    tl.store(out + program * WORDS + column, tl.sum(sums, axis=0))

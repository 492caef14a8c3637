"""Quantised lookup in Triton: hash, gather, de-quantise and pool in one pass.

For slot s (feature f, seed z) and item b with ids i_1 .. i_n, and row r(k) = row(i_k, z), or i_k
itself where rows are given:

    out[b, s*d + c] = scale(n) * unit * ( sum_k weight_k * (offset_r + MIDDLE * step_r)
                                        + sum_k weight_k * step_r * (code_r[c] - MIDDLE) )

The first sum is one number per row, not one per column. MIDDLE, half the levels, keeps the two
sums from cancelling each other.

A row is read as 32-bit words, 16 bytes by a thread. A code becomes a number inside the mantissa of
a float32, by one bit operation and one subtraction, both exact:

    float(word & mask | 0x4B000000) = 2**23 + code * worth

``worth`` is a power of two, which is divided out once per bag. Codes in a word's upper half are
shifted to the mantissa first, all by the same shift. A conversion instruction would need the code
alone in a register and has half to an eighth of the rate.

A program holds GROUPS rows side by side and DEPTH behind each other; SPLIT groups share a bag. With
as many groups as rows fit into one load of a warp, the DEPTH rows lie in a thread's own registers
and are summed there. The rows of the next step are on their way while these are de-quantised, and
so are the ids of the step after.
"""

from __future__ import annotations

import triton
import triton.language as tl

from muxrec_kernels.xxhash64.triton_kernel import hash_rows

MAGIC = 0x4B000000
"""2**23 as a float32. The kernel gets it as an argument: a constant known to the assembler would
take a second bit operation per code, since one instruction holds one of them."""
UPPER_SHIFT = tl.constexpr(9)
"""Moves bit 31 to bit 22, the highest of a mantissa."""


@triton.jit
def lookup_kernel(
    table,  # int32 [R, ROW_WORDS]: codes, then step and offset in the last word
    ids,  # int64 [N]: ids where HASHED, else rows
    offsets,  # int64 [F * B + 1]
    slot_features,  # int64 [S], read where HASHED
    slot_seeds,  # int64 [S], read where HASHED
    weights,  # float32 [N], read where WEIGHTED
    out,  # float32 or float16 [B, S * D]
    rows,  # R
    batch_size,  # B
    slots,  # S
    unit,  # float32
    magic,  # MAGIC
    D: tl.constexpr,
    BITS: tl.constexpr,
    ROW_WORDS: tl.constexpr,  # a multiple of 4
    WORDS: tl.constexpr,  # words that hold codes, up to a power of two
    GROUPS: tl.constexpr,
    SPLIT: tl.constexpr,
    DEPTH: tl.constexpr,
    HASHED: tl.constexpr,
    WEIGHTED: tl.constexpr,
    EXPONENT: tl.constexpr,  # 0 sum, 1 mean, 2 square root
):
    CODES: tl.constexpr = 32 // BITS
    BAGS: tl.constexpr = GROUPS // SPLIT
    STEP: tl.constexpr = DEPTH * SPLIT
    slot = tl.program_id(1)
    feature = slot.to(tl.int64)
    seed = feature
    if HASHED:
        feature = tl.load(slot_features + slot)
        seed = tl.load(slot_seeds + slot)

    # Lane l is row l // GROUPS behind the first of group l % GROUPS. Group g reads the places
    # g % SPLIT, g % SPLIT + SPLIT, ... of bag g // SPLIT.                              [LANES]
    lane = tl.arange(0, DEPTH * GROUPS)
    group = lane % GROUPS
    bag = tl.program_id(0).to(tl.int64) * BAGS + group // SPLIT
    in_batch = bag < batch_size
    start = tl.load(offsets + feature * batch_size + bag, mask=in_batch, other=0)
    stop = tl.load(offsets + feature * batch_size + bag + 1, mask=in_batch, other=0)
    longest = tl.max(stop - start)
    at = start + (lane // GROUPS) * SPLIT + group % SPLIT

    # The sums of every place that a code has in a word, CODES times [GROUPS, WORDS].
    sums = ()
    for _ in tl.static_range(CODES):
        sums += (tl.zeros([GROUPS, WORDS], tl.float32),)
    bases = tl.zeros([GROUPS], tl.float32)

    row = read_rows(ids, at, stop, seed, rows, HASHED)
    words, step, base = read_words(
        table, row, weights, at, stop, ROW_WORDS, WORDS, 2 ** (BITS - 1), WEIGHTED
    )
    row = read_rows(ids, at + STEP, stop, seed, rows, HASHED)
    for _ in range(0, longest, STEP):
        at += STEP
        next_words, next_step, next_base = read_words(
            table, row, weights, at, stop, ROW_WORDS, WORDS, 2 ** (BITS - 1), WEIGHTED
        )
        row = read_rows(ids, at + STEP, stop, seed, rows, HASHED)
        longer = ()
        for place in tl.static_range(CODES):
            number = code_floats(words, magic, place, BITS) * step[:, None]
            number = tl.reshape(number, [DEPTH, GROUPS, WORDS])
            longer += (sums[place] + tl.sum(number, axis=0),)
        sums = longer
        bases += tl.sum(tl.reshape(base, [DEPTH, GROUPS]), axis=0)
        words, step, base = next_words, next_step, next_base

    pooled = tl.reshape(weave(sums, CODES, BITS), [BAGS, SPLIT, WORDS * CODES])
    pooled = tl.sum(pooled, axis=1) + tl.sum(tl.reshape(bases, [BAGS, SPLIT]), axis=1)[:, None]
    pooled *= unit

    item = tl.program_id(0).to(tl.int64) * BAGS + tl.arange(0, BAGS)
    in_batch = item < batch_size
    if EXPONENT != 0:
        first = tl.load(offsets + feature * batch_size + item, mask=in_batch, other=0)
        last = tl.load(offsets + feature * batch_size + item + 1, mask=in_batch, other=0)
        length = tl.maximum((last - first).to(tl.int32), 1).to(tl.float32)
        if EXPONENT == 2:
            length = tl.sqrt(length)
        pooled = pooled / length[:, None]
    columns = tl.arange(0, WORDS * CODES)
    # The width is a constant, so its product shows the compiler that 16-byte stores are aligned.
    target = out + (item * slots + slot)[:, None] * D + columns[None, :]
    written = in_batch[:, None] & (columns < D)[None, :]
    tl.store(target, pooled.to(out.dtype.element_ty), mask=written)


@triton.jit
def read_rows(ids, at, stop, seed, rows, HASHED: tl.constexpr):
    """Row of every place ``at``, int64 [LANES]; of a place beyond its bag, any row."""
    row = tl.load(ids + at, mask=at < stop, other=0)
    if HASHED:
        row = hash_rows(row, seed, rows)
    return row


@triton.jit
def read_words(
    table,
    row,
    weights,
    at,
    stop,
    ROW_WORDS: tl.constexpr,
    WORDS: tl.constexpr,
    MIDDLE: tl.constexpr,
    WEIGHTED: tl.constexpr,
):
    """Words, int32 [LANES, WORDS]; steps and middle levels, float32 [LANES]."""
    alive = at < stop
    word = tl.arange(0, WORDS)
    # 64-bit addresses: rows * ROW_WORDS may pass 2**31.
    address = table + row * ROW_WORDS
    held = alive[:, None] & (word < ROW_WORDS)[None, :]
    words = tl.load(address[:, None] + word[None, :], mask=held, other=0)
    # A place beyond its bag has step and offset 0.
    levels = tl.load(address + (ROW_WORDS - 1), mask=alive, other=0)
    step = levels.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    base = (levels >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32) + step * MIDDLE
    if WEIGHTED:
        weight = tl.load(weights + at, mask=alive, other=0.0)
        step *= weight
        base *= weight
    return words, step, base


@triton.jit
def code_floats(words, magic, PLACE: tl.constexpr, BITS: tl.constexpr):
    """(Code number PLACE of every word - MIDDLE) * its worth, float32 of the words' shape."""
    SHIFT: tl.constexpr = (PLACE * BITS // 16) * UPPER_SHIFT
    WORTH: tl.constexpr = 2 ** (PLACE * BITS - SHIFT)
    held = (words >> SHIFT) & ((2**BITS - 1) * WORTH)
    return (held | magic).to(tl.float32, bitcast=True) - (8388608.0 + 2 ** (BITS - 1) * WORTH)


@triton.jit
def divide_worth(sums, PLACE: tl.constexpr, BITS: tl.constexpr):
    SHIFT: tl.constexpr = (PLACE * BITS // 16) * UPPER_SHIFT
    return sums * (2.0 ** (SHIFT - PLACE * BITS))


@triton.jit
def weave(sums, CODES: tl.constexpr, BITS: tl.constexpr):
    """CODES times [GROUPS, WORDS], divided by their worth, as [GROUPS, WORDS, 2, 2, ...]."""
    parts = ()
    for place in tl.static_range(CODES):  # pyright: ignore[reportGeneralTypeIssues]
        parts += (divide_worth(sums[place], place, BITS),)
    # Joining the first half with the second makes an axis of the place's highest bit.
    if CODES == 16:
        parts = join_halves(parts, 16)
    if CODES >= 8:
        parts = join_halves(parts, 8)
    parts = join_halves(parts, 4)
    return tl.join(parts[0], parts[1])


@triton.jit
def join_halves(parts, COUNT: tl.constexpr):
    joined = ()
    for at in tl.static_range(COUNT // 2):  # pyright: ignore[reportGeneralTypeIssues]
        joined += (tl.join(parts[at], parts[at + COUNT // 2]),)
    return joined

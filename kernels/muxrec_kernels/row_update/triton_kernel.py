"""Row update in Triton: hash, sort (in torch), then sum each row's gradients and update it.

For a row r of the table and the lookups m that read it, in the order of their numbers:

    g = sum  scale(m) * grad[source(m)]          w, state = rule(w, state, g)

The lookups lie sorted by row. A program takes CHUNK of them in steps of LANES: it sums every run of
one row within a step by a segmented scan, carries an open run into the next step, and updates the
rows of the runs that lie inside its chunk. What is left of runs that cross a border of chunks, at
most two sums per chunk, is stored and merged by a second kernel in the order of the chunks. Every
program reads the same number of gradient vectors however often a row occurs, no run is found or
counted beforehand, and the order of every sum is fixed by the sorted positions alone.

Tables of 16 bits come as int16: they are read and rounded in integers, the same on every device.
"""

from __future__ import annotations

import triton
import triton.language as tl

from muxrec_kernels.xxhash64.triton_kernel import hash_rows

DEAD = tl.constexpr(2**31 - 1)
"""Row of a lookup that is none; a table has fewer rows."""


@triton.jit
def key_kernel(
    ids,  # int64 [N]
    bags,  # int64 [N]: the bag of each id
    offsets,  # int64 [F * B + 1]
    feature_slots,  # int64 [F, PROBES], -1 where a feature has fewer
    slot_seeds,  # int64 [S]
    weights,  # float32 [N], read where WEIGHTED
    keys,  # out: int32 [N * PROBES], rows
    sources,  # out: int32 [N * PROBES], which of the B * S gradient vectors
    scales,  # out: float32 [N * PROBES], where WEIGHTED or EXPONENT
    count,  # N * PROBES
    rows,  # R
    batch_size,  # B
    slots,  # S
    PROBES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    EXPONENT: tl.constexpr,  # 0 sum, 1 mean, 2 square root
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    alive = at < count
    position = at // PROBES
    # Bags and items fit 32 bits, where a division by a run-time number costs a quarter.
    bag = tl.load(bags + position, mask=alive, other=0).to(tl.int32)
    feature = bag // batch_size
    item = bag - feature * batch_size
    place = feature.to(tl.int64) * PROBES + at % PROBES
    slot = tl.load(feature_slots + place, mask=alive, other=-1)
    is_read = alive & (slot >= 0)
    seed = tl.load(slot_seeds + slot, mask=is_read, other=0)
    found = tl.load(ids + position, mask=alive, other=0)
    row = hash_rows(found, seed, tl.full([], rows, tl.int64))
    tl.store(keys + at, tl.where(is_read, row, DEAD).to(tl.int32), mask=alive)
    tl.store(sources + at, (item * slots + slot).to(tl.int32), mask=alive)
    if WEIGHTED or EXPONENT != 0:
        scale = tl.full([BLOCK], 1.0, tl.float32)
        if EXPONENT != 0:
            start = tl.load(offsets + bag, mask=alive, other=0)
            length = (tl.load(offsets + bag + 1, mask=alive, other=1) - start).to(tl.float32)
            if EXPONENT == 2:
                length = tl.sqrt(length)
            scale = scale / length
        if WEIGHTED:
            scale = scale * tl.load(weights + position, mask=alive, other=0.0)
        tl.store(scales + at, scale, mask=alive)


@triton.jit(do_not_specialize=("key0", "key1"))
def update_kernel(
    grad,  # float32 [V, D]
    rows,  # int32 [M], rising
    order,  # int64 [M]: the lookup at each place
    sources,  # int32 [M]: the gradient vector of each lookup
    scales,  # float32 [M], read where SCALED
    table,  # [R, D] float32, or int16 for the bits of FORMAT
    first,  # float32 [R] or [R, D]
    second,  # float32 [R, D]
    partials,  # out: float32 [chunks, 2, D]: of the run from before, of the run that goes on
    count,  # M
    lr,
    eps,
    decay1,
    gain1,
    decay2,
    gain2,
    bias2,
    key0,
    key1,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    LANES: tl.constexpr,
    CHUNK: tl.constexpr,
    SCALED: tl.constexpr,
    KIND: tl.constexpr,
    FORMAT: tl.constexpr,
    RANDOM: tl.constexpr,
):
    chunk = tl.program_id(0).to(tl.int64)
    begin = chunk * CHUNK
    end = tl.minimum(begin + CHUNK, count)
    before = tl.load(rows + begin - 1, mask=begin > 0, other=-1)
    lane = tl.arange(0, LANES)  # [LANES]
    columns = tl.arange(0, D_PADDED)  # [D_PADDED]
    is_column = columns < D

    # Sums of the run that is open between steps: their sum over the lanes is the run's so far.
    carry = tl.zeros([LANES, D_PADDED], tl.float32)
    for step in range(begin, end, LANES):
        at = step + lane
        head = tl.load(rows + step)
        tail = tl.load(rows + step + LANES, mask=step + LANES < end, other=-1)
        row = tl.load(rows + at, mask=at < end, other=DEAD)
        following = tl.load(rows + at + 1, mask=at + 1 < count, other=DEAD)
        lookup = tl.load(order + at, mask=at < end, other=0)
        source = tl.load(sources + lookup, mask=at < end, other=0).to(tl.int64)
        alive = row != DEAD
        ends = alive & (row != following)
        begins_here = row != before
        is_whole = ends & begins_here

        # 64-bit addresses: rows * D may pass 2**31.                    [LANES, D_PADDED]
        place = row[:, None].to(tl.int64) * D + columns[None, :]
        updated = is_whole[:, None] & is_column[None, :]
        old = tl.load(table + place, mask=updated, other=0)
        address = grad + source[:, None] * D + columns[None, :]
        values = tl.load(address, mask=alive[:, None] & is_column[None, :], other=0.0)
        # Between loads, or the assembler drops it: without it rows are asked for behind the sums,
        # which they do not depend on, and a step waits for memory once more.
        tl.debug_barrier()
        mean, square = load_state(first, second, row, place, is_whole, updated, KIND)
        if SCALED:
            scale = tl.load(scales + lookup, mask=alive, other=0.0)
            values = values * scale[:, None]
        if head == tail:
            # Nothing ends here: one run throughout, of a row that very many lookups read.
            carry += values
        else:
            values += tl.where(lane[:, None] == 0, tl.sum(carry, axis=0)[None, :], 0.0)
            run = tl.broadcast_to(row[:, None], [LANES, D_PADDED])
            _, sums = tl.associative_scan((run, values), 0, add_run)
            is_open = (lane == LANES - 1) & (ends == 0)
            carry = tl.where(is_open[:, None], sums, 0.0)
            store_tile(
                table, first, second, row, columns, place, is_whole, updated,
                sums, old, mean, square,
                lr, eps, decay1, gain1, decay2, gain2, bias2, key0, key1,
                D, KIND, FORMAT, RANDOM,
            )  # fmt: skip
            is_part = alive & (ends | (at == end - 1)) & (is_whole == 0)
            slot = chunk * 2 + begins_here.to(tl.int64)
            address = partials + slot[:, None] * D + columns[None, :]
            tl.store(address, sums, mask=is_part[:, None] & is_column[None, :])


@triton.jit(do_not_specialize=("key0", "key1"))
def merge_kernel(
    rows,  # int32 [M], rising
    table,
    first,
    second,
    partials,  # float32 [chunks, 2, D]
    count,  # M
    chunks,
    lr,
    eps,
    decay1,
    gain1,
    decay2,
    gain2,
    bias2,
    key0,
    key1,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    LANES: tl.constexpr,
    CHUNK: tl.constexpr,
    KIND: tl.constexpr,
    FORMAT: tl.constexpr,
    RANDOM: tl.constexpr,
):
    # The program of the chunk in which a run begins that goes on beyond it merges the run.
    chunk = tl.program_id(0).to(tl.int64)
    begin = chunk * CHUNK
    stop = begin + CHUNK
    before = tl.load(rows + begin - 1, mask=begin > 0, other=-1)
    row = tl.load(rows + tl.minimum(stop, count) - 1)
    following = tl.load(rows + stop, mask=stop < count, other=DEAD)
    if (row != following) | (row == before) | (row == DEAD):
        return
    lane = tl.arange(0, LANES)  # [LANES]
    columns = tl.arange(0, D_PADDED)  # [D_PADDED]
    is_column = columns < D

    # Lane l takes the chunks at l, l + LANES, ... of those that the run covers.
    sums = tl.zeros([LANES, D_PADDED], tl.float32)
    base = chunk
    goes_on = row == following
    while goes_on:
        part = base + lane
        other = tl.load(rows + part * CHUNK, mask=part < chunks, other=DEAD)
        is_mine = (part == chunk) | ((part > chunk) & (other == row))
        slot = part * 2 + (part == chunk).to(tl.int64)
        address = partials + slot[:, None] * D + columns[None, :]
        sums += tl.load(address, mask=is_mine[:, None] & is_column[None, :], other=0.0)
        goes_on = tl.min(is_mine.to(tl.int32), axis=0) == 1
        base += LANES
    total = tl.sum(sums, axis=0)[None, :]  # [1, D_PADDED]
    one = row + tl.arange(0, 1)  # [1]
    is_row = one == row
    place = one[:, None].to(tl.int64) * D + columns[None, :]
    updated = is_row[:, None] & is_column[None, :]
    old = tl.load(table + place, mask=updated, other=0)
    mean, square = load_state(first, second, one, place, is_row, updated, KIND)
    store_tile(
        table, first, second, one, columns, place, is_row, updated, total, old, mean, square,
        lr, eps, decay1, gain1, decay2, gain2, bias2, key0, key1,
        D, KIND, FORMAT, RANDOM,
    )  # fmt: skip


@triton.jit
def add_run(row_a, sum_a, row_b, sum_b):
    """Sum of what ends with ``row_b``: rows rise, so a run of one row is contiguous."""
    return row_b, tl.where(row_a == row_b, sum_a, 0.0) + sum_b


@triton.jit
def load_state(first, second, row, place, is_row, mask, KIND: tl.constexpr):
    """First and second state of a tile's rows; what a rule lacks is never read."""
    if KIND == "adam":
        mean = tl.load(first + place, mask=mask, other=0.0)  # [ROWS, D_PADDED]
        square = tl.load(second + place, mask=mask, other=0.0)
    elif KIND == "sgd":
        mean, square = row, row
    else:
        mean = tl.load(first + row, mask=is_row, other=0.0)  # [ROWS]
        square = mean
    return mean, square


@triton.jit
def store_tile(
    table,
    first,
    second,
    row,  # int32 [ROWS]
    columns,  # int32 [D_PADDED]
    place,  # int64 [ROWS, D_PADDED]: row * D + column
    is_row,  # bool [ROWS]: whether it is updated
    mask,  # bool [ROWS, D_PADDED]: likewise, within the columns
    sums,  # float32 [ROWS, D_PADDED], 0 beyond D
    old,  # [ROWS, D_PADDED]: the rows, as they are stored
    mean,
    square,
    lr,
    eps,
    decay1,
    gain1,
    decay2,
    gain2,
    bias2,
    key0,
    key1,
    D: tl.constexpr,
    KIND: tl.constexpr,
    FORMAT: tl.constexpr,
    RANDOM: tl.constexpr,
):
    """Apply the rule to rows whose gradients are summed."""
    if KIND == "adam":
        mean = decay1 * mean + gain1 * sums
        square = decay2 * square + gain2 * sums * sums
        tl.store(first + place, mean, mask=mask)
        tl.store(second + place, square, mask=mask)
        change = lr * mean / (tl.sqrt(square / bias2) + eps)
    elif KIND == "sgd":
        change = lr * sums
    else:
        found = tl.sum(sums * sums, axis=1) / ((D + 3) // 4 * 4)  # [ROWS]
        if KIND == "adagrad":
            momentum = mean + found
            root = tl.sqrt(momentum)
        else:
            momentum = decay2 * mean + gain2 * found
            root = tl.sqrt(momentum / bias2)
        tl.store(first + row, momentum, mask=is_row)
        change = sums * (lr / (root + eps))[:, None]

    if FORMAT == "fp32":
        tl.store(table + place, old - change, mask=mask)
    else:
        new = widen(old, FORMAT) - change
        words = place.to(tl.uint32)
        if RANDOM:
            words = random_words(row, columns, key0, key1)
        tl.store(table + place, narrow(new, words, FORMAT, RANDOM), mask=mask)


@triton.jit
def widen(bits, FORMAT: tl.constexpr):
    """float32 of 16-bit numbers given as int16."""
    if FORMAT == "bf16":
        return (bits.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return bits.to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def mix32(value):
    value = value ^ (value >> 16)
    value = value * tl.full([], 0x21F0AAAD, tl.uint32)
    value = value ^ (value >> 15)
    value = value * tl.full([], 0x735A2D97, tl.uint32)
    return value ^ (value >> 15)


@triton.jit
def random_words(row, columns, key0, key1):
    """32 random bits, uint32 [ROWS, D_PADDED]; see ``rounding.random_words``."""
    low = mix32(row.to(tl.uint32, bitcast=True) ^ key0.to(tl.uint32, bitcast=True))
    mixed = mix32(low + key1.to(tl.uint32, bitcast=True))
    stepped = columns.to(tl.uint32, bitcast=True) * tl.full([], 0x9E3779B9, tl.uint32)
    return mix32(mixed[:, None] + stepped[None, :])


@triton.jit
def narrow(value, words, FORMAT: tl.constexpr, RANDOM: tl.constexpr):
    """int16 bits of float32 numbers in a 16-bit type; see ``rounding.round_rows``."""
    bits = value.to(tl.uint32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    if FORMAT == "bf16":
        rounded = drop(magnitude, magnitude * 0 + 16, words, RANDOM)
        rounded = tl.where(magnitude > 0x7F800000, 0x7FC0, rounded)
    else:
        exponent = (magnitude >> 23).to(tl.int32)
        mantissa = (magnitude & 0x7FFFFF) | ((exponent > 0).to(tl.uint32) << 23)
        shift = tl.maximum(113 - tl.maximum(exponent, 1), 0) + 13
        far = tl.minimum(tl.maximum(shift - 31, 0), 31)
        mantissa = mantissa >> far.to(tl.uint32)
        steps = drop(mantissa, tl.minimum(shift, 31).to(tl.uint32), words, RANDOM)
        base = (tl.maximum(exponent, 113) - 112) << 10
        rounded = tl.minimum(base + steps.to(tl.int32) - 1024, 0x7C00)
        rounded = tl.where(magnitude > 0x7F800000, 0x7E00, rounded).to(tl.uint32)
    return (rounded | ((bits >> 31) << 15)).to(tl.uint16).to(tl.int16, bitcast=True)


@triton.jit
def drop(number, shift, words, RANDOM: tl.constexpr):
    """``number >> shift``, rounded."""
    below = (tl.full([], 1, tl.uint32) << shift) - 1
    if RANDOM:
        return (number + (words & below)) >> shift
    return (number + (below >> 1) + ((number >> shift) & 1)) >> shift

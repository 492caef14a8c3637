"""Scans of item codes on Triton: tiles, a sample that sets floors, the last merge."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from muxrec_kernels.code_scan.packing import unpack_codes
from muxrec_kernels.tiles import next_power_of_2

PROGRAMS = 8 * 132
"""Programs of a launch: eight for each multiprocessor of an H200."""
SAMPLE_EVERY = 32
"""One tile in so many is scanned first. Its K-th best key is a floor that about ``32 * K`` items of
the catalogue pass, so that most of the other tiles are never sorted."""
MULTIPLIED = 32
"""Queries from which sign codes are compared by matrix products and not by counting bits."""
BLOCK_BYTES = 64
"""Bytes of a code in a product: with 128 the float16 numbers of a tile alone fill 64 registers."""


class Plan(NamedTuple):
    """Shape of a scan: queries and items of a tile, kept results, warps, programs, sample."""

    queries: int
    items: int
    kept: int
    warps: int
    programs: int
    every: int


class Asked(NamedTuple):
    """Queries as the products read them.

    Attributes:
        planes: int8 ``[P, Q, b]``, or two float16 terms ``[2, P, Q, b]``, for b bytes of a code.
        units: float32 ``[Q]``: what the terms are multiplied with; None for int8.
        sums: float32 ``[Q]``; None where no offset is added.
    """

    planes: Tensor
    units: Tensor | None = None
    sums: Tensor | None = None


def choose_plan(queries: int, items: int, k: int, *, words: int = 0) -> Plan:
    """The plan for Q queries, N items and k results. It waits for tuning on a device.

    Args:
        queries: Q.
        items: N.
        k: Results per query.
        words: Words of 32 bits that are counted; 0 where codes are multiplied.
    """
    kept = max(2, next_power_of_2(k))
    if words:
        # Compared words of all pairs of a tile lie in registers: 64 in each of 128 threads.
        pairs = 64 * 128 // next_power_of_2(words)
        tile = 1 if queries == 1 else min(4, max(1, pairs // 256))
        block, warps = max(kept, min(1024, pairs // tile)), 4
    elif kept > 128:
        tile, block, warps = 16, kept, 8
    else:
        tile, block, warps = (16, 128, 4) if queries <= 16 else (32, 128, 8)
    tiles = _cdiv(items, block)
    programs = max(1, PROGRAMS // _cdiv(queries, tile))
    every = SAMPLE_EVERY if tiles >= 8 * SAMPLE_EVERY else 1
    return Plan(tile, block, kept, warps, programs, every)


def scan_signs(
    kernels: ModuleType,
    queries: Tensor,
    codes: Tensor,
    k: int,
    *,
    exclude: Tensor | None,
    plan: Plan,
) -> tuple[Tensor, Tensor]:
    """Run the kernel that counts bits; bytes ``[Q, b]`` and ``[N, b]``, b a multiple of 4.

    The module ``kernels`` is an argument so that a test can pass one with a seeded defect.
    """
    words, asked = codes.view(torch.int32), queries.view(torch.int32)
    size = words.shape[1]

    def run(steps: int, floors: Tensor | None) -> Tensor:
        grid, out = _grid(plan, len(asked), steps, asked.device)
        kernels.signs_kernel[grid](
            asked,
            words,
            asked if exclude is None else exclude,
            asked if floors is None else floors,
            out,
            len(asked),
            len(words),
            steps,
            W=size,
            W_PADDED=next_power_of_2(size),
            QT=plan.queries,
            NT=plan.items,
            K=plan.kept,
            EXCLUDES=exclude is not None,
            REST=floors is not None,
            EVERY=plan.every,
            num_warps=plan.warps,
        )
        return out

    keys = _search(run, plan, len(words), k)
    order, items = read_keys(keys)
    return (-order).masked_fill(items < 0, 2**31 - 1), items


def multiply_signs(
    kernels: ModuleType,
    queries: Tensor,
    codes: Tensor,
    k: int,
    *,
    exclude: Tensor | None,
    plan: Plan,
) -> tuple[Tensor, Tensor]:
    """The same results as ``scan_signs``, by matrix products: one unpacking serves many queries."""
    asked, own = ask_signs(queries)
    nothing = {"steps_of": None, "offsets_of": None}
    keys = scan_dots(kernels, asked, codes, k, bits=1, **nothing, exclude=exclude, plan=plan)
    order, items = read_keys(keys)
    return (own[:, None] - order).masked_fill(items < 0, 2**31 - 1), items


def scan_dots(
    kernels: ModuleType,
    asked: Asked,
    codes: Tensor,
    k: int,
    *,
    bits: int,
    steps_of: Tensor | None,
    offsets_of: Tensor | None,
    exclude: Tensor | None,
    plan: Plan,
) -> Tensor:
    """Run the kernel of products; keys int64 ``[Q, k]``, falling."""
    count, size = asked.planes.shape[-2:]
    nothing = asked.planes
    is_whole = asked.planes.dtype == torch.int8

    def run(steps: int, floors: Tensor | None) -> Tensor:
        grid, out = _grid(plan, count, steps, codes.device)
        kernels.dots_kernel[grid](
            asked.planes,
            codes,
            nothing if asked.units is None else asked.units,
            nothing if asked.sums is None else asked.sums,
            nothing if steps_of is None else steps_of,
            nothing if offsets_of is None else offsets_of,
            nothing if exclude is None else exclude,
            nothing if floors is None else floors,
            out,
            count,
            len(codes),
            steps,
            BYTES=size,
            BLOCK=block_bytes(size),
            BITS=bits,
            WHOLE=is_whole,
            SCALED=steps_of is not None,
            OFFSETS=offsets_of is not None,
            PER_ITEM=steps_of is not None and len(steps_of) > 1,
            QT=plan.queries,
            NT=plan.items,
            K=plan.kept,
            EXCLUDES=exclude is not None,
            REST=floors is not None,
            EVERY=plan.every,
            num_warps=plan.warps,
        )
        return out

    return _search(run, plan, len(codes), k)


def block_bytes(size: int) -> int:
    """Bytes of a code that a product takes at once; matrix units take at least 32 int8."""
    return min(BLOCK_BYTES, max(32, next_power_of_2(size)))


def ask_signs(queries: Tensor) -> tuple[Asked, Tensor]:
    """Sign codes as factors of bits, and their own set bits, int32 ``[Q]``.

    A query's bit that is set counts an item's bit up, any other down: the distance is the number of
    the query's set bits less that sum.
    """
    bits = unpack_codes(queries, 1, 8 * queries.shape[1])
    factors = (2 * bits.to(torch.int8) - 1).view(len(queries), 8, queries.shape[1])
    return Asked(factors.transpose(0, 1).contiguous()), bits.sum(dim=1, dtype=torch.int32)


def ask_bytes(queries: Tensor) -> Asked:
    """int8 queries as they are."""
    return Asked(queries.contiguous()[None])


def ask_numbers(queries: Tensor, *, bits: int, size: int, with_sums: bool) -> Asked:
    """Float queries as two float16 terms each, in the planes of codes of ``size`` bytes.

    The terms hold 22 bits of every number, and a power of two per query keeps them far from both
    ends of float16; codes are exact in it, and products are summed in float32.
    """
    wide = queries.float()
    _, exponent = torch.frexp(wide.abs().amax(dim=1, keepdim=True))
    shift = (14 - exponent).clamp(-100, 100)
    padded = torch.nn.functional.pad(wide, (0, 8 // bits * size - wide.shape[1]))
    terms = torch.ldexp(padded, shift)
    first = terms.half()
    both = torch.stack([first, (terms - first.float()).half()])
    planes = both.view(2, len(queries), 8 // bits, size).transpose(1, 2).contiguous()
    units = torch.ldexp(torch.ones_like(shift, dtype=torch.float32), -shift)[:, 0].contiguous()
    return Asked(planes, units, wide.sum(dim=1) if with_sums else None)


def read_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Ordered scores int32 and items int64 of keys; item -1 where a key is of none."""
    is_none = keys == -(2**63)
    items = (0xFFFFFFFF - (keys & 0xFFFFFFFF)).masked_fill(is_none, -1)
    return (keys >> 32).to(torch.int32), items


def read_floats(order: Tensor) -> Tensor:
    """float32 of which ``order``, int32, is the order; the least int32 is -inf, that of no item."""
    scores = (order ^ ((order >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return scores.masked_fill(order == -(2**31), -torch.inf)


def _cdiv(number: int, size: int) -> int:
    return -(-number // size)


def _grid(
    plan: Plan, queries: int, steps: int, device: torch.device
) -> tuple[tuple[int, int], Tensor]:
    """Query tiles first, so that programs that share a tile of items run together; and the keys."""
    programs = min(plan.programs, steps)
    out = torch.empty(queries, programs, plan.kept, dtype=torch.int64, device=device)
    return (_cdiv(queries, plan.queries), programs), out


def _search(run: Callable[[int, Tensor | None], Tensor], plan: Plan, items: int, k: int) -> Tensor:
    """Keys ``[Q, k]`` of the whole catalogue, falling: a sample of its tiles, then the rest."""
    tiles = _cdiv(items, plan.items)
    sampled = _cdiv(tiles, plan.every)
    best = run(sampled, None).flatten(1).topk(k, dim=1).values
    if sampled < tiles:
        rest = run(tiles - sampled, best[:, -1].contiguous()).flatten(1)
        best = torch.cat([best, rest], dim=1).topk(k, dim=1).values
    return best

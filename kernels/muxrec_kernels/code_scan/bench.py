"""What the scans are checked and timed on: catalogues of codes against torch and faiss."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from muxrec_kernels.bench.case import Case, Check, Run
from muxrec_kernels.bench.inputs import SETS
from muxrec_kernels.code_scan import scan_int8, scan_packed, scan_signs, unpack_codes
from muxrec_kernels.testing import norm_ratio, poisoned_outputs

RESULTS = 100
TOLERANCE = 1e-6
BLOCK = 2**20
"""Items that the torch peers score at a time: their scores of 256 queries take a gigabyte."""
Scan = Callable[[Tensor], tuple[Tensor, Tensor]]


def checks(device: torch.device, *, small: bool) -> Iterator[Check]:
    """Scores, and the scores that the returned items really have, against float64."""
    items, queries = (120, 3) if small else (300_000, 40)
    codes = _bytes(device, items, 32, seed=1)
    yield _check("256 bits", lambda q, who: scan_signs(q, codes, 8, backend=who), codes[:queries])
    numbers = _bytes(device, items, 96, seed=2).view(torch.int8)
    scales = torch.rand(items, device=device)

    def bytes_of(asked: Tensor, who: str) -> tuple[Tensor, Tensor]:
        return scan_int8(asked, numbers, 8, scales=scales, backend=who)

    yield _check("int8 D 96, int8 queries", bytes_of, numbers[:queries])
    yield _check("int8 D 96, float queries", bytes_of, torch.randn(queries, 96, device=device))
    for bits in (1, 2, 4):
        packed = _bytes(device, items, 128 * bits // 8, seed=bits)

        def numbers_of(
            asked: Tensor, who: str, packed: Tensor = packed, bits: int = bits
        ) -> tuple[Tensor, Tensor]:
            options = {"bits": bits, "steps": scales, "offsets": -scales}
            return scan_packed(asked, packed, 8, **options, backend=who)

        yield _check(f"{bits} bits D 128", numbers_of, torch.randn(queries, 128, device=device))


def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
    """Sign codes of one and of many queries, then int8 and 4-bit codes."""
    for queries in (1, 256):
        yield _signs(150 if small else 10_000_000, min(queries, 33) if small else queries, device)
    for queries in (1, 256):
        yield _int8(120 if small else 4_000_000, min(queries, 2) if small else queries, device)
    for queries in (1, 256):
        yield _packed(120 if small else 8_000_000, min(queries, 2) if small else queries, device)


def _check(name: str, scan: Callable[[Tensor, str], tuple[Tensor, Tensor]], asked: Tensor) -> Check:
    with poisoned_outputs():
        found = scan(asked, "triton")
    wide = asked.double() if asked.is_floating_point() else asked
    return Check(name, norm_ratio(found[0], scan(wide, "reference")[0]), TOLERANCE)


def _signs(items: int, queries: int, device: torch.device) -> Case:
    codes, k = _bytes(device, items, 32, seed=0), _results(items)
    asked = [_bytes(device, queries, 32, seed=1 + at) for at in range(SETS)]
    counts = _bit_counts(device)

    def ours(query: Tensor) -> tuple[Tensor, Tensor]:
        return scan_signs(query, codes, k, backend="triton")

    def by_table(query: Tensor) -> tuple[Tensor, Tensor]:
        best, places = _blocks(
            lambda rows: -counts[(query ^ rows).int()].sum(dim=1)[None], codes, k
        )
        return -best.int(), places

    def by_product(query: Tensor) -> tuple[Tensor, Tensor]:
        signs = _signs_of(query)
        best, places = _blocks(lambda rows: signs @ _signs_of(rows).T, codes, k)
        return (256 - best.int()) // 2, places

    # A table look-up per byte and pair is for one query; a product serves many.
    peer = {"xor, table, topk": by_table} if queries == 1 else {"fp16 product, topk": by_product}
    return _case(
        f"256 bits, {queries} queries, {items} items",
        {"muxrec": ours, **peer},
        asked,
        bytes_moved=codes.nbytes + queries * (32 + 12 * k),
        targets=dict.fromkeys(peer, 1.5) | ({"roof": 0.5} if queries == 1 else {}),
    )


def _int8(items: int, queries: int, device: torch.device) -> Case:
    codes, k = _bytes(device, items, 128, seed=0).view(torch.int8), _results(items)
    asked = [_bytes(device, queries, 128, seed=1 + at).view(torch.int8) for at in range(SETS)]

    def ours(query: Tensor) -> tuple[Tensor, Tensor]:
        return scan_int8(query, codes, k, backend="triton")

    def product(query: Tensor) -> tuple[Tensor, Tensor]:
        return _blocks(lambda rows: _int8_product(query, rows), codes, k)

    return _case(
        f"int8 D 128, {queries} queries, {items} items",
        {"muxrec": ours, "int8 product, topk": product},
        asked,
        bytes_moved=codes.nbytes + queries * (128 + 12 * k),
        targets={"int8 product, topk": 1.5},
        flops=2 * queries * codes.numel(),
    )


def _packed(items: int, queries: int, device: torch.device) -> Case:
    codes, k = _bytes(device, items, 64, seed=0), _results(items)
    steps = torch.rand(items, device=device) + 0.5
    offsets = -7.5 * steps
    generator = torch.Generator(device).manual_seed(9)
    asked = [torch.randn(queries, 128, generator=generator, device=device) for _ in range(SETS)]

    def ours(query: Tensor) -> tuple[Tensor, Tensor]:
        return scan_packed(query, codes, k, bits=4, steps=steps, offsets=offsets, backend="triton")

    def decoded(query: Tensor) -> tuple[Tensor, Tensor]:
        def block(places: Tensor) -> Tensor:
            numbers = unpack_codes(codes[places], 4, 128).half() - 7.5
            return (query.half() @ numbers.T).float() * steps[places]

        return _blocks(block, torch.arange(items, device=device), k)

    return _case(
        f"4 bits D 128, {queries} queries, {items} items",
        {"muxrec": ours, "decode, fp16 product, topk": decoded},
        asked,
        bytes_moved=codes.nbytes + 8 * items + queries * (512 + 12 * k),
        targets={"decode, fp16 product, topk": 1.5},
        flops=2 * queries * items * 128,
    )


def _case(
    name: str,
    scans: dict[str, Scan],
    asked: list[Tensor],
    *,
    bytes_moved: int,
    targets: dict[str, float],
    flops: int = 0,
) -> Case:
    # Peers break ties in their own order: what has to agree are the scores.
    found = importlib.util.find_spec("faiss")
    reason = "not installed" if found is None else "its index would have to be copied to the device"
    return Case(
        name=name,
        run={who: _scores_of(scan, asked) for who, scan in scans.items()},
        bytes_moved=bytes_moved,
        flops=flops,
        again=lambda: scans["muxrec"](asked[0]),
        targets=targets,
        absent={"faiss": reason},
        peak_bytes=True,
    )


def _scores_of(scan: Scan, asked: list[Tensor]) -> Run:
    return lambda at: scan(asked[at])[0]


def _blocks(score: Callable[[Tensor], Tensor], codes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest scores ``[Q, k]`` and their items, block after block of codes."""
    best, items = [], []
    for start in range(0, len(codes), BLOCK):
        found = score(codes[start : start + BLOCK])
        top = found.topk(min(k, found.shape[1]), dim=1)
        best.append(top.values)
        items.append(top.indices + start)
    top = torch.cat(best, dim=1).topk(k, dim=1)
    return top.values, torch.cat(items, dim=1).gather(1, top.indices)


def _int8_product(queries: Tensor, rows: Tensor) -> Tensor:
    """int32 ``[Q, n]``; torch's int8 product takes more than 16 queries and whole groups of 8."""
    padding = max(32, -(-len(queries) // 8) * 8) - len(queries)
    short = -len(rows) % 8
    padded = torch.nn.functional.pad(queries, (0, 0, 0, padding))
    rows = torch.nn.functional.pad(rows, (0, 0, 0, short)) if short else rows
    return torch._int_mm(padded, rows.T)[: len(queries), : rows.shape[0] - short]


def _signs_of(codes: Tensor) -> Tensor:
    """float16 ``[n, bits]`` of ones and minus ones; sums of so few are exact."""
    return 2 * unpack_codes(codes, 1, 8 * codes.shape[1]).half() - 1


def _bit_counts(device: torch.device) -> Tensor:
    """Set bits of every byte, uint8 ``[256]``."""
    return (
        unpack_codes(torch.arange(256, dtype=torch.uint8)[:, None], 1, 8)
        .sum(dim=1, dtype=torch.uint8)
        .to(device)
    )


def _bytes(device: torch.device, *size: int, seed: int) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator, device=device)


def _results(items: int) -> int:
    return min(RESULTS, max(4, items // 50))

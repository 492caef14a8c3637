"""What the quantised lookup is checked and timed on, against fbgemm's kernels and torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from muxrec_kernels.bench.case import ROOF, Case, Check, Run
from muxrec_kernels.bench.inputs import SETS, draw_ids, draw_lengths, offsets_of
from muxrec_kernels.quantised_lookup import pool_quantised_rows, quantised_lookup, reference
from muxrec_kernels.quantised_lookup.packing import (
    BITS,
    LEVEL_BYTES,
    SECTOR_BYTES,
    packed_row_bytes,
    row_sectors,
    unpack_rows,
)
from muxrec_kernels.testing import norm_ratio, poisoned_outputs
from muxrec_kernels.xxhash64 import hash_rows

TABLE_BYTES = 4 * 2**30
FBGEMM, HASH_FBGEMM, TORCH = "fbgemm nbit", "hash, then fbgemm nbit", "unpack, then EmbeddingBag"
SEED = 7


class Bags(NamedTuple):
    """One input set, with what fbgemm wants in int32.

    Attributes:
        ids: int64 ``[N]``.
        rows: The rows that they are hashed to, int64 ``[N]``.
        offsets: Bag starts, int64 ``[B + 1]``.
        short_rows: ``rows`` in int32.
        short_offsets: ``offsets`` in int32.
    """

    ids: Tensor
    rows: Tensor
    offsets: Tensor
    short_rows: Tensor
    short_offsets: Tensor


Look = Callable[[Bags], Tensor]


@dataclass(frozen=True)
class Work:
    """One workload.

    Attributes:
        bits: Bits per code.
        width: d.
        length: Ids per bag, or ``jagged``.
        batch: Bags.
        kind: Distribution of the ids.
        hashed: Whether ids are given, and not rows.
        targets: As a case has them.
    """

    bits: int
    width: int
    length: int | str = 20
    batch: int = 65_536
    kind: str = "uniform"
    hashed: bool = False
    targets: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Dtype, width, ids, distribution, batch."""
        given = "ids" if self.hashed else "rows"
        return (
            f"int{self.bits} D {self.width}, {self.length} {given}, {self.kind}, batch {self.batch}"
        )


WORKS = (
    Work(4, 120, targets={ROOF: 0.9, FBGEMM: 1.4}),
    Work(8, 124, targets={ROOF: 0.9, FBGEMM: 1.0}),
    Work(2, 112, targets={ROOF: 0.75, FBGEMM: 1.0}),
    Work(8, 128, targets={ROOF: 0.9, FBGEMM: 1.0}),
    Work(4, 128, kind="zipf-1.05", targets={FBGEMM: 1.0}),
    Work(4, 120, kind="zipf-1.05", hashed=True, targets={HASH_FBGEMM: 1.0}),
    Work(4, 56, length=100, targets={ROOF: 0.75, FBGEMM: 1.0}),
    Work(8, 60, length="jagged", hashed=True, targets={ROOF: 0.9, HASH_FBGEMM: 1.0}),
    Work(4, 120, batch=2_048, targets={FBGEMM: 1.0}),
    Work(2, 128, length="jagged", batch=2_048, kind="zipf-1.05", targets={FBGEMM: 1.0}),
)
SMALL_WORKS = (
    Work(8, 12, length=3, batch=4),
    Work(4, 56, length="jagged", batch=3, kind="zipf-1.05", hashed=True),
    Work(2, 16, length=3, batch=4),
)


def checks(device: torch.device, *, small: bool) -> Iterator[Check]:
    """Rows given and ids hashed, every pooling and code, against the reference in float64."""
    batch = 6 if small else 3000
    for bits, width, pooling in zip(BITS, (60, 120, 100), ("mean", "sum", "sqrt"), strict=True):
        table = draw_table(5000, width, bits, device)
        ids, rows, offsets, _, _ = _draw(batch, "jagged", 5000, "zipf-1.05", 11, device)
        weights = torch.rand(ids.numel(), device=device)
        options = {"width": width, "bits": bits, "batch_size": batch, "pooling": pooling}
        options |= {"weights": weights, "unit": 0.5}
        exact = reference.pool_quantised_rows(
            table,
            rows,
            offsets,
            dtype=torch.float64,
            **options,  # type: ignore[arg-type]
        )
        slots = (torch.zeros(1, dtype=torch.int64, device=device), offsets.new_full((1,), SEED))
        with poisoned_outputs():
            given = pool_quantised_rows(table, rows, offsets, **options, backend="triton")  # type: ignore[arg-type]
            hashed = quantised_lookup(table, ids, offsets, *slots, **options, backend="triton")  # type: ignore[arg-type]
        yield Check(f"int{bits} D {width}, rows, {pooling}", norm_ratio(given, exact), 1e-6)
        yield Check(f"int{bits} D {width}, ids, {pooling}", norm_ratio(hashed, exact), 1e-6)


def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
    """Sums of rows: widths that fill their sectors and widths that do not."""
    for work in SMALL_WORKS if small else WORKS:
        rows = 1000 if small else TABLE_BYTES // packed_row_bytes(work.width, work.bits)
        yield _case(work, draw_table(rows, work.width, work.bits, device), small=small)


def draw_table(rows: int, width: int, bits: int, device: torch.device) -> Tensor:
    """Random codes with the levels of Gaussian rows, uint8 ``[rows, packed_row_bytes]``."""
    generator = torch.Generator(device).manual_seed(width)
    shape = (rows, packed_row_bytes(width, bits))
    table = torch.randint(256, shape, dtype=torch.uint8, device=device, generator=generator)
    steps = torch.rand(rows, device=device, generator=generator).add_(1.0).div_(2**bits)
    levels = torch.stack([steps, steps * -(2 ** (bits - 1))], dim=1).half()
    table[:, -LEVEL_BYTES:] = levels.view(torch.uint8)
    return table


def _case(work: Work, table: Tensor, *, small: bool) -> Case:
    device, width, bits = table.device, work.width, work.bits
    sets = [
        _draw(work.batch, work.length, len(table), work.kind, seed, device) for seed in range(SETS)
    ]
    looks: dict[str, Look] = {"muxrec": _ours(work, table)}
    absent: dict[str, str] = {}
    try:
        looks |= _fbgemm(work, table)
    except (ImportError, OSError, RuntimeError) as error:
        absent[HASH_FBGEMM if work.hashed else FBGEMM] = f"{type(error).__name__}: {error}"
    looks[TORCH] = _unpack_then_pool(work, table, compiled=not small)
    count = sets[0].ids.numel()
    row_bytes = SECTOR_BYTES * row_sectors(width, bits)
    return Case(
        name=work.name,
        run={name: _bound(look, sets) for name, look in looks.items()},
        # Sectors of the row and an int64 per lookup; a start and float32 sums per bag.
        bytes_moved=count * (row_bytes + 8) + work.batch * (8 + 4 * width),
        row_bytes=row_bytes,
        lookups=count,
        targets=work.targets,
        is_small=work.batch < 10_000,
        absent=absent,
        agreement=1e-4,
    )


def _bound(look: Look, sets: list[Bags]) -> Run:
    return lambda at: look(sets[at])


def _ours(work: Work, table: Tensor) -> Look:
    options = {"width": work.width, "bits": work.bits, "batch_size": work.batch}
    feature = torch.zeros(1, dtype=torch.int64, device=table.device)
    seed = torch.full((1,), SEED, device=table.device)

    def look(bags: Bags) -> Tensor:
        ids, rows, offsets = bags[:3]
        if work.hashed:
            return quantised_lookup(table, ids, offsets, feature, seed, **options, backend="triton")  # type: ignore[arg-type]
        return pool_quantised_rows(table, rows, offsets, **options, backend="triton")  # type: ignore[arg-type]

    return look


def _fbgemm(work: Work, table: Tensor) -> dict[str, Look]:
    """The kernel of fbgemm on the same codes, given rows, or ids that torch hashes first."""
    from fbgemm_gpu.split_embedding_configs import SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_inference import (
        IntNBitTableBatchedEmbeddingBagsCodegen,
    )

    dtype = {8: SparseType.INT8, 4: SparseType.INT4, 2: SparseType.INT2}[work.bits]
    is_cuda = table.device.type == "cuda"
    place = EmbeddingLocation.DEVICE if is_cuda else EmbeddingLocation.HOST
    kernel = IntNBitTableBatchedEmbeddingBagsCodegen(
        [("", len(table), work.width, dtype, place)],
        device=table.device,
        output_dtype=SparseType.FP32,
    )
    kernel.initialize_weights()
    ((codes, levels),) = kernel.split_embedding_weights()
    used = work.width * work.bits // 8
    codes[:, :used] = table[:, :used]
    cast(Tensor, levels).copy_(table[:, -LEVEL_BYTES:])
    hashed = torch.compile(_short_hashes) if is_cuda else _short_hashes

    def given(bags: Bags) -> Tensor:
        return kernel(bags.short_rows, bags.short_offsets)

    def hash_first(bags: Bags) -> Tensor:
        return kernel(hashed(bags.ids, len(table)), bags.short_offsets)

    return {HASH_FBGEMM: hash_first} if work.hashed else {FBGEMM: given}


def _short_hashes(ids: Tensor, rows: int) -> Tensor:
    return hash_rows(ids, SEED, rows).int()


def _unpack_then_pool(work: Work, table: Tensor, *, compiled: bool) -> Look:
    def pool(ids: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
        read = hash_rows(ids, SEED, len(table)) if work.hashed else rows
        dense = unpack_rows(table[read], work.width, work.bits)
        each = torch.arange(len(dense), device=dense.device)
        return F.embedding_bag(each, dense, offsets, mode="sum", include_last_offset=True)

    run = torch.compile(pool) if compiled else pool
    return lambda bags: run(*bags[:3])


def _draw(
    batch: int, length: int | str, rows: int, kind: str, seed: int, device: torch.device
) -> Bags:
    lengths = draw_lengths(batch, length=length, seed=seed)
    ids = draw_ids(int(lengths.sum()), distinct=rows, kind=kind, seed=seed, device=device)
    found, offsets = hash_rows(ids, SEED, rows), offsets_of(lengths, device)
    return Bags(ids, found, offsets, found.int(), offsets.int())

"""What the lookup is checked and timed on, against torch's bag, fbgemm's and compiled torch.

Every peer is given slot-major or item-major rows, whichever it sums without another copy: what they
are rated by is the lookup alone. "with hashing" adds what makes their rows of raw ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from muxrec_kernels.bench.case import OURS, ROOF, Case, Check, Run
from muxrec_kernels.bench.inputs import SETS, draw_ids, draw_lengths, offsets_of
from muxrec_kernels.multiplexed_lookup import multiplexed_lookup, pooled_lookup, reference
from muxrec_kernels.testing import TOLERANCES, norm_ratio, poisoned_outputs
from muxrec_kernels.xxhash64 import hash_rows

GIVEN, BAG = "muxrec, rows given", "nn.EmbeddingBag, rows given"
TBE, TBE_HASHING = "fbgemm TBE, rows given", "fbgemm TBE with hashing"
COMPILED = "torch.compile of hash, gather and sum"
NEVER = {"TorchRec's Triton TBE": "its public sources import a module that is not public"}
TABLE_BYTES = 4 * 2**30
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16


@dataclass(frozen=True)
class Work:
    """One workload: a feature that several slots hash.

    Attributes:
        dtype: Of the table.
        width: d.
        probes: Slots.
        length: Ids per bag, or ``jagged``.
        longest: Ids of one more bag among the others; 0 for none.
        kind: Distribution of the ids.
        batch: Bags.
        is_compiled: Whether compiled torch is a peer.
        targets: As a case has them.
    """

    dtype: torch.dtype
    width: int
    probes: int
    length: int | str = 20
    longest: int = 0
    kind: str = "uniform"
    batch: int = 65_536
    is_compiled: bool = False
    targets: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Dtype, width, probes, ids, distribution, batch."""
        length = f"{self.length} ids" + (f" and one of {self.longest}" if self.longest else "")
        return (
            f"{str(self.dtype)[6:]} D {self.width}, {self.probes} probes, {length}, {self.kind}, "
            f"batch {self.batch}"
        )


WIDE = {ROOF: 0.9, TBE_HASHING: 1.0}
NARROW = {ROOF: 0.75, TBE_HASHING: 1.0}
ALIKE = {TBE_HASHING: 1.0}
WORKS = (
    Work(FP16, 64, 4, is_compiled=True, targets=WIDE),
    Work(FP32, 64, 4, targets=WIDE),
    Work(FP16, 128, 1, targets=WIDE),
    Work(FP32, 8, 4, targets=NARROW),
    Work(FP32, 64, 4, length=1, targets=WIDE),
    Work(FP16, 64, 4, batch=2048, targets=ALIKE),
    Work(FP16, 64, 4, length="jagged", kind="zipf-1.2", targets=ALIKE),
    Work(BF16, 128, 1, length=100, kind="zipf-1.05", targets=ALIKE),
    Work(FP32, 128, 1, length=1, batch=2048, targets=ALIKE),
    Work(FP32, 64, 4, length="jagged", longest=100_000, batch=2048, targets=ALIKE),
)
SMALL_WORKS = (
    Work(FP16, 16, 2, length=3, batch=4),
    Work(FP32, 8, 2, length=1, longest=700, batch=3, kind="zipf-1.05"),
)


class Bags(NamedTuple):
    """One input set, and the rows of its lookups.

    Attributes:
        ids: int64 ``[N]``.
        offsets: Bag starts, int64 ``[B + 1]``.
        slot_rows: Slot-major rows, int64 ``[S * N]``.
        slot_offsets: Bag starts of these, int64 ``[S * B + 1]``.
        item_rows: Rows whose bags are item-major, int64 ``[N * S]``.
        item_offsets: Bag starts of these, int64 ``[B * S + 1]``.
    """

    ids: Tensor
    offsets: Tensor
    slot_rows: Tensor
    slot_offsets: Tensor
    item_rows: Tensor
    item_offsets: Tensor


Look = Callable[[Bags], Tensor]


def checks(device: torch.device, *, small: bool) -> Iterator[Check]:
    """Ids hashed and rows given, forward and gradient, long bags among short ones."""
    batch, longest = (4, 600) if small else (3000, 100_000)
    poolings = {FP32: "mean", FP16: "sum", BF16: "sqrt"}
    for seed, (dtype, pooling) in enumerate(poolings.items()):
        work = Work(dtype, 24, 2, length="jagged", longest=longest, kind="zipf-1.05", batch=batch)
        table = draw_table(300, work.width, dtype, device)
        bags = _draw(work, table, seed)
        weights = torch.rand(bags.ids.numel(), device=device)
        options: dict[str, Any] = {"batch_size": len(bags.offsets) - 1, "weights": weights}
        options |= {"pooling": pooling}
        slots = (*bags[:2], *_slots(work, device))
        exact = _with_gradient(table.double(), "reference", *slots, **options)
        with poisoned_outputs():
            found = _with_gradient(table, "triton", *slots, **options)
            given = pooled_lookup(table, *bags[4:], pooling=pooling, backend="triton")
        # The gradient leaves in the table's dtype.
        rounding = {FP32: 1e-6, FP16: 2**-11, BF16: 2**-8}[dtype]
        tolerances = (TOLERANCES[dtype], rounding)
        for part, one, other, most in zip(
            ("forward", "gradient"), found, exact, tolerances, strict=True
        ):
            yield Check(f"{work.name}, {pooling}, {part}", norm_ratio(one, other), most)
        plain = reference.pooled_lookup(table.double(), *bags[4:], weights=None, pooling=pooling)
        ratio = norm_ratio(given, plain)
        yield Check(f"{work.name}, {pooling}, rows given", ratio, TOLERANCES[dtype])


def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
    """Probes of one feature in a table that no cache holds."""
    for work in SMALL_WORKS if small else WORKS:
        rows = 1000 if small else TABLE_BYTES // (work.width * work.dtype.itemsize)
        yield _case(work, draw_table(rows, work.width, work.dtype, device), small=small)


def draw_table(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Gaussian rows ``[rows, width]``."""
    generator = torch.Generator(device).manual_seed(width)
    return torch.randn(rows, width, dtype=dtype, device=device, generator=generator)


def _case(work: Work, table: Tensor, *, small: bool) -> Case:
    sets = [_draw(work, table, seed) for seed in range(SETS)]
    looks: dict[str, Look] = {OURS: _hashed(work, table), GIVEN: _given(work, table)}
    looks[BAG] = _bag(table)
    absent = dict(NEVER)
    try:
        looks |= _fbgemm(work, table)
    except Exception as error:  # noqa: BLE001 - a peer that cannot be built here is a fact to print
        absent |= dict.fromkeys((TBE, TBE_HASHING), f"{type(error).__name__}: {error}")
    if work.is_compiled:
        looks[COMPILED] = _compiled(work, table)
    ids, bags = sets[0].ids.numel(), sets[0].offsets.numel() - 1
    lookups = ids * work.probes
    row_bytes = work.width * work.dtype.itemsize
    return Case(
        name=work.name,
        run={name: _bound(look, sets) for name, look in looks.items()},
        # Every row; every id and bag start once, since the slots share them in a cache; the sums.
        bytes_moved=lookups * row_bytes + 8 * (ids + bags) + bags * work.probes * work.width * 4,
        row_bytes=row_bytes,
        lookups=lookups,
        targets=work.targets,
        is_small=work.batch < 10_000 and not small,
        absent=absent,
        peak_bytes=work is WORKS[0],
    )


def _bound(look: Look, sets: list[Bags]) -> Run:
    return lambda at: look(sets[at])


def _slots(work: Work, device: torch.device) -> tuple[Tensor, Tensor]:
    seeds = torch.arange(1, work.probes + 1, device=device) * 0x9E3779B97F4A7C1
    return torch.zeros_like(seeds), seeds


def _hashed(work: Work, table: Tensor) -> Look:
    slots = _slots(work, table.device)

    def look(bags: Bags) -> Tensor:
        size = len(bags.offsets) - 1
        return multiplexed_lookup(table, *bags[:2], *slots, batch_size=size, backend="triton")

    return look


def _given(work: Work, table: Tensor) -> Look:
    def look(bags: Bags) -> Tensor:
        sums = pooled_lookup(table, bags.item_rows, bags.item_offsets, backend="triton")
        return sums.view(-1, work.probes * work.width)

    return look


def _bag(table: Tensor) -> Look:
    def look(bags: Bags) -> Tensor:
        rows, offsets = bags.item_rows, bags.item_offsets
        sums = F.embedding_bag(rows, table, offsets, mode="sum", include_last_offset=True)
        return sums.view(len(bags.offsets) - 1, -1)

    return look


def _fbgemm(work: Work, table: Tensor) -> dict[str, Look]:
    """Fbgemm's table-batched embedding: one table, a feature for each slot."""
    from fbgemm_gpu.split_embedding_configs import SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    is_cuda = table.device.type == "cuda"
    place = EmbeddingLocation.DEVICE if is_cuda else EmbeddingLocation.HOST
    compute = ComputeDevice.CUDA if is_cuda else ComputeDevice.CPU
    kernel = SplitTableBatchedEmbeddingBagsCodegen(
        [(table.shape[0], table.shape[1], place, compute)],
        feature_table_map=[0] * work.probes,
        weights_precision={FP32: SparseType.FP32, FP16: SparseType.FP16, BF16: SparseType.BF16}[
            work.dtype
        ],
        output_dtype=SparseType.FP32,
        device=table.device if is_cuda else None,
    )
    kernel.split_embedding_weights()[0].copy_(table)
    _, seeds = _slots(work, table.device)
    make_rows = torch.compile(_slot_rows) if is_cuda else _slot_rows

    @torch.no_grad()
    def given(bags: Bags) -> Tensor:
        return kernel(bags.slot_rows, bags.slot_offsets)

    @torch.no_grad()
    def with_hashing(bags: Bags) -> Tensor:
        return kernel(make_rows(bags.ids, seeds, len(table)), bags.slot_offsets)

    return {TBE: given, TBE_HASHING: with_hashing}


def _slot_rows(ids: Tensor, seeds: Tensor, rows: int) -> Tensor:
    return hash_rows(ids, seeds[:, None], rows).flatten()


def _compiled(work: Work, table: Tensor) -> Look:
    """Bags of equal length need no starts: compiled torch makes one kernel of the formula."""
    _, seeds = _slots(work, table.device)

    @torch.compile
    def formula(ids: Tensor) -> Tensor:
        rows = hash_rows(ids.view(-1, 1, int(work.length)), seeds[:, None], len(table))
        return table[rows].float().sum(dim=2).flatten(1)

    return lambda bags: formula(bags.ids)


def _with_gradient(
    table: Tensor, backend: str, *arguments: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    leaf = table.clone().requires_grad_()
    out = multiplexed_lookup(leaf, *arguments, **options, backend=backend)
    direction = torch.linspace(0.1, 1.0, out.numel(), dtype=out.dtype, device=out.device)
    (gradient,) = torch.autograd.grad(out, leaf, direction.view(out.shape))
    return out.detach(), gradient.to_dense()


def _draw(work: Work, table: Tensor, seed: int) -> Bags:
    lengths = draw_lengths(work.batch, length=work.length, seed=seed)
    if work.longest:
        lengths[work.batch // 2] = work.longest
    device, rows = table.device, len(table)
    ids = draw_ids(int(lengths.sum()), distinct=10 * rows, kind=work.kind, seed=seed, device=device)
    offsets = offsets_of(lengths, device)
    found = _slot_rows(ids, _slots(work, device)[1], rows).view(work.probes, -1)
    each = offsets_of(lengths.repeat_interleave(work.probes), device)
    return Bags(
        ids,
        offsets,
        found.flatten(),
        offsets_of(lengths.repeat(work.probes), device),
        _item_major(found, lengths.to(device)),
        each,
    )


def _item_major(found: Tensor, lengths: Tensor) -> Tensor:
    """Rows ``[S, N]`` with an item's slots after another, ``[N * S]``."""
    slots, ids = found.shape
    bag = torch.repeat_interleave(lengths, output_size=ids)
    starts = lengths.cumsum(0) - lengths
    place = torch.arange(ids, device=found.device) - starts[bag]
    slot = torch.arange(slots, device=found.device)[:, None]
    out = torch.empty(slots * ids, dtype=found.dtype, device=found.device)
    out[starts[bag] * slots + slot * lengths[bag] + place] = found
    return out

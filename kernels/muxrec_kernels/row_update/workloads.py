"""What the row update is timed on: ids of some features, looked up in one table of 4 GiB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from muxrec_kernels.bench.inputs import SETS, draw_ids, draw_lengths, offsets_of
from muxrec_kernels.multiplexed_lookup import slot_lookups
from muxrec_kernels.row_update import slots_of_features

TABLE_BYTES = 2**32
DISTINCT = 10_000_000


@dataclass(frozen=True)
class Workload:
    """Lookups of some features in one table."""

    dtype: torch.dtype
    width: int
    probes: int
    features: int
    length: int | str
    kind: str
    batch: int
    table_bytes: int = TABLE_BYTES
    distinct: int = DISTINCT
    from_graph: bool = False

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return self.table_bytes // (self.width * self.dtype.itemsize)

    @property
    def name(self) -> str:
        """The case's name."""
        dtype = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[self.dtype]
        return (
            f"{dtype} D {self.width}, {self.probes} probes, {self.features} features, "
            f"{self.length} ids, {self.kind}, batch {self.batch}"
            f"{', from a graph' if self.from_graph else ''}"
        )


FP32, FP16 = torch.float32, torch.float16
LARGE, SMALL = 65_536, 2_048
WORKLOADS = (
    Workload(FP32, 64, 4, 1, 20, "zipf-1.2", LARGE),
    Workload(FP32, 64, 4, 1, 20, "uniform", LARGE),
    Workload(FP32, 128, 1, 2, 20, "zipf-1.2", LARGE),
    Workload(FP32, 128, 1, 2, 20, "uniform", LARGE),
    Workload(FP32, 64, 4, 8, 1, "zipf-1.05", LARGE),
    Workload(FP32, 64, 4, 1, "jagged", "zipf-1.05", LARGE),
    Workload(FP32, 64, 4, 8, 1, "uniform", SMALL),
    Workload(FP32, 64, 4, 8, 1, "uniform", SMALL, from_graph=True),
    Workload(FP16, 128, 1, 2, 20, "zipf-1.2", LARGE),
)
TINY = Workload(FP32, 8, 2, 2, 2, "zipf-1.2", 3, table_bytes=2**11, distinct=5)


class Inputs(NamedTuple):
    """One input set: what was looked up, and the gradient of what was found."""

    ids: Tensor
    offsets: Tensor
    grad_out: Tensor


class Problem(NamedTuple):
    """A workload's slots and input sets."""

    workload: Workload
    slot_features: Tensor
    slots: Tensor  # int64 [F, P]
    seeds: Tensor
    sets: list[Inputs]


def draw(work: Workload, device: torch.device) -> Problem:
    """Ids, bags and gradients of a workload, the same on every run."""
    slot_features = torch.arange(work.features, device=device).repeat_interleave(work.probes)
    seeds = torch.arange(slot_features.numel(), device=device) * 7919 + 1
    sets = []
    for at in range(SETS):
        lengths = draw_lengths(work.features * work.batch, length=work.length, seed=at)
        count = int(lengths.sum())
        ids = draw_ids(count, distinct=work.distinct, kind=work.kind, seed=at, device=device)
        generator = torch.Generator(device).manual_seed(at)
        size = (work.batch, slot_features.numel() * work.width)
        grad_out = torch.randn(size, generator=generator, device=device)
        sets.append(Inputs(ids, offsets_of(lengths, device), grad_out))
    slots = slots_of_features(slot_features, work.features)
    return Problem(work, slot_features, slots, seeds, sets)


def new_table(problem: Problem, device: torch.device) -> Tensor:
    """Zeros: what the first update leaves is the update alone."""
    work = problem.workload
    return torch.zeros(work.rows, work.width, dtype=work.dtype, device=device)


def rows_of(problem: Problem, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Rows and bag starts of every slot, as a lookup by rows takes them."""
    found = slot_lookups(
        inputs.ids,
        inputs.offsets,
        problem.slot_features,
        problem.seeds,
        rows=problem.workload.rows,
        batch_size=problem.workload.batch,
    )
    return found.rows, found.offsets

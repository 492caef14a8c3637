"""Tables whose update happens inside backward, on whichever fused kernel holds the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from muxrec.errors import TrainingError
from muxrec.tables.addressing import (
    HashedRows,
    RowBags,
    VocabularyRows,
    addressing,
    join_features,
)
from muxrec.tables.bags import Bags
from muxrec.tables.features import Combine, divide_bags
from muxrec.tables.initial import fill_initial
from muxrec.tables.lowering import Lowering
from muxrec.tables.state import TableRows, TableState, check_state, describe_reads


class Kernel(Protocol):
    """Sums of bags of rows over all reads, with the update inside backward."""

    def sums(self, bags: RowBags) -> Tensor:
        """Summed bags, float32 ``[B, sum of widths]``, in the lowering's order of reads."""
        ...

    def local_rows(self) -> dict[str, TableRows]:
        """The rows held by this process, as views that can be written to."""
        ...

    def set_lr(self, lr: float) -> None:
        """Change the learning rate."""
        ...


class FusedOptimizer:
    """The training loop's handle on an optimiser that lives inside backward."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def step(self) -> None:
        """Nothing: backward has updated the rows."""

    def zero_grad(self) -> None:
        """Nothing: there is no gradient to drop."""

    def set_lr(self, lr: float) -> None:
        """Change the learning rate from the next backward on."""
        self.kernel.set_lr(lr)


class FusedTables(nn.Module):
    """Feature embeddings on a fused kernel; follows the same protocol as the reference.

    Every backward updates the rows that its forward read, so a forward that is not meant to train
    runs under ``torch.no_grad``.

    Args:
        lowering: What is read from where.
        kernel: What holds the rows.
        seed: Seed of the initial rows.
    """

    def __init__(self, lowering: Lowering, kernel: nn.Module, *, seed: int) -> None:
        super().__init__()
        self.lowering = lowering
        self.kernel = kernel
        self.addresses = nn.ModuleList(addressing(group) for group in lowering.groups)
        self.combine = Combine(lowering)
        self._names = [tuple(read.feature for read in group.reads) for group in lowering.groups]
        self._features = [name for group in lowering.groups for name in group.features]
        self._place = {name: self._features.index(name) for name in lowering.widths}
        self._chunks = [width for group in lowering.groups for width in group.chunks]
        self._first_read = _first_reads(lowering)
        self._reads = sum(len(names) for names in self._names)
        with torch.no_grad():
            for group in lowering.groups:
                held = self._kernel.local_rows()[group.table.name]
                fill_initial(held.weight, group.table, seed, start=held.start)

    @property
    def widths(self) -> dict[str, int]:
        """Width of each feature's vector."""
        return self.lowering.widths

    @property
    def _kernel(self) -> Kernel:
        return cast(Kernel, self.kernel)

    def forward(self, sparse: Mapping[str, Bags]) -> dict[str, Tensor]:
        """Feature name -> vectors, float32 ``[B, width]``; zeros where a bag has no (known) id.

        Raises:
            KeyError: A feature is missing from ``sparse``.
            ValueError: The features have different numbers of bags.
        """
        bags = self.address(sparse)
        parts = self._kernel.sums(bags).split(self._chunks, dim=1)
        if not _has_long_bag(bags.offsets):
            return self._join(parts)
        lengths = bags.offsets.diff().view(self._reads, -1)
        poolings = self.lowering.poolings
        return self._join(
            [
                divide_bags(part, lengths[first], poolings[name])
                for name, part, first in zip(self._features, parts, self._first_read, strict=True)
            ]
        )

    def address(self, sparse: Mapping[str, Bags]) -> RowBags:
        """The rows of every read, read-major over all physical tables."""
        found = [
            cast("HashedRows | VocabularyRows", address)(join_features(sparse, names))
            for address, names in zip(self.addresses, self._names, strict=True)
        ]
        if len(found) == 1:
            return found[0]
        starts = accumulate((bags.rows.numel() for bags in found), initial=0)
        offsets = [bags.offsets[1:] + start for bags, start in zip(found, starts, strict=False)]
        rows = torch.cat([bags.rows for bags in found])
        return RowBags(rows, torch.cat([found[0].offsets[:1], *offsets]))

    def _join(self, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """Parts in the order of ``_features`` to vectors; a feature may have several parts."""
        if self.combine.is_plain and len(self._place) == len(parts):
            return {name: parts[at] for name, at in self._place.items()}
        at = iter(parts)
        groups = self.lowering.groups
        return self.combine([{name: next(at) for name in group.features} for group in groups])

    def table_optimizer(self) -> FusedOptimizer:
        """A handle that sets the learning rate; the update itself happens inside backward."""
        return FusedOptimizer(self._kernel)

    def row_ranges(self) -> dict[str, tuple[int, int]]:
        """First row and one past the last row held by this process, of every physical table."""
        held = self._kernel.local_rows()
        return {name: (rows.start, rows.stop) for name, rows in held.items()}

    def export_state(self) -> TableState:
        """A copy of the rows held by this process and their optimiser state, on the CPU."""
        tables = {
            name: TableRows(
                rows.total, rows.start, rows.weight.cpu().clone(), rows.momentum.cpu().clone()
            )
            for name, rows in self._kernel.local_rows().items()
        }
        return TableState(describe_reads(self.lowering), tables)

    @torch.no_grad()
    def load_table_state(self, state: TableState) -> None:
        """Take over the rows that this process holds from a state of any engine.

        Raises:
            TrainingError: The state belongs to other features, tables or another hash spec, or does
                not hold all of these rows.
        """
        check_state(state, self.lowering)
        for name, held in self._kernel.local_rows().items():
            rows = (
                state.tables[name].slice(held.start, held.stop) if held.stop > held.start else held
            )
            held.weight.copy_(rows.weight)
            held.momentum.copy_(rows.momentum)


def check_widths(lowering: Lowering) -> None:
    """Refuse widths that the fused kernels cannot hold.

    Raises:
        TrainingError: A table's width is not a multiple of 4.
    """
    for group in lowering.groups:
        if group.table.width % 4:
            raise TrainingError(
                f"tables.{group.table.name}.width must be a multiple of 4 for the torchrec engine, "
                f"got {group.table.width}: change it or set train.engine to reference"
            )


def _has_long_bag(offsets: Tensor) -> bool:
    """Whether some bag may hold two ids; the others are the same under every pooling.

    Looking would wait for a GPU, where dividing is cheap, so only the CPU looks.
    """
    if offsets.device.type != "cpu":
        return True
    own = offsets.numpy()
    return bool((own[1:] - own[:-1]).max() > 1)


def _first_reads(lowering: Lowering) -> list[int]:
    """Number of the first read of every feature of every group, over all groups' reads."""
    found, at = [], 0
    for group in lowering.groups:
        names = [read.feature for read in group.reads]
        found += [at + names.index(name) for name in group.features]
        at += len(names)
    return found

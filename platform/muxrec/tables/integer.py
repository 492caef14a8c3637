"""Tables whose rows are small integers, in training too.

A number is its code times a step size. An update moves a number by a part of a step, so it is
rounded at random: up with the probability of the part, which is right on average. Rounding to the
nearest code would lose every update below half a step, and training would stall.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from muxrec.spec.hashing import BASE_SEED, hash_bytes, hash_ids
from muxrec.tables.addressing import Found, RowBags, addressing
from muxrec.tables.bags import Bags
from muxrec.tables.exchange import gather_counts, gather_gradients
from muxrec.tables.lowering import Group
from muxrec.tables.methods.protocol import PhysicalTable
from muxrec.tables.optimizer import row_steps
from muxrec.tables.reads import split_reads
from muxrec.tables.rows import ROW_FORMATS, ServedRows
from muxrec.tables.rows.blocks import row_blocks
from muxrec.tables.rows.groups import ScaleGroups
from muxrec.tables.rows.signed import SignedRows
from muxrec.tables.state import CODES, TableRows
from muxrec_kernels.multiplexed_lookup import pooled_lookup


class IntegerTable(nn.Module):
    """Codes with one constant step size, updated as float rows are and then rounded.

    Only the rows that a batch reads become floats, and only they have a gradient. Where several
    processes train together each holds the whole table and applies the mean of all gradients with
    the same random numbers, so the copies stay equal.

    What is drawn depends on the run's seed, the table's name and the number of updates so far,
    which is part of the state: a training that goes on from a checkpoint rounds as one that was
    never stopped. (On another kind of device the generator gives other numbers.)

    Source: Xu et al., Agile and Accurate CTR Prediction Model Training for Massive-Scale Online
    Advertising Systems, SIGMOD 2021.

    Args:
        group: What is read; its table says the storage and the first step size.
        poolings: Pooling of each feature.
        rows: Initial rows, float32 ``[R, d]``; they are rounded to the nearest code.

    Attributes:
        codes: int8 or int16 ``[R, d]`` in ``[-top, top]``, top being the type's largest number.
        scale: Step size, float32 ``[1]``.
        momentum: As in float tables, float32 ``[R]``.
        updates: Updates so far, int64 ``[1]``.
    """

    codes: Tensor
    scale: Tensor
    momentum: Tensor
    updates: Tensor

    def __init__(self, group: Group, poolings: Mapping[str, str], rows: Tensor) -> None:
        super().__init__()
        table = group.table
        self.group, self.features, self.poolings = group, group.features, dict(poolings)
        self.address = addressing(group)
        self.top = torch.iinfo(CODES[table.storage]).max
        self._gradients: list[tuple[Tensor, Tensor]] = []
        self._bags = 0
        scale = self._first_scale(rows)
        state = {
            "codes": rounded_codes(rows, scale, CODES[table.storage]),
            "scale": scale,
            "momentum": torch.zeros(table.rows, device=rows.device),
            "updates": torch.zeros(1, dtype=torch.int64, device=rows.device),
        }
        for name, tensor in state.items():
            self.register_buffer(name, tensor, persistent=False)

    def _first_scale(self, rows: Tensor) -> Tensor:
        return torch.full((1,), self.group.table.scale, device=rows.device)

    def _scale_of(self, rows: Tensor) -> Tensor:  # noqa: ARG002 - per row in a subclass
        """Step size of ``rows``, ``[1, 1]`` or ``[U, 1]``."""
        return self.scale[:, None]

    def forward(
        self, sparse: Mapping[str, Bags], found: Mapping[str, Found], size: int
    ) -> dict[str, Tensor]:
        """Each feature's reads."""
        bags = self.address(sparse, found, size)
        used, places = bags.rows.unique(return_inverse=True)
        rows = self.gather(used)
        if torch.is_grad_enabled():
            count = (bags.offsets.numel() - 1) // len(self.group.reads)
            rows.requires_grad_().register_hook(partial(self._collect, used, count))
        return split_reads(self.group, self.poolings, _pooled(rows, places, bags), found)

    def _collect(self, used: Tensor, bags: int, gradient: Tensor) -> None:
        """Keep the gradient of the rows ``used`` until the update."""
        self._bags += bags
        if used.numel():
            gradient = gradient.coalesce()
            self._gradients.append((used[gradient.indices()[0]], gradient.values()))

    @torch.no_grad()
    def gather(self, rows: Tensor) -> Tensor:
        """Rows by number."""
        flat = rows.flatten()
        codes = self.codes.index_select(0, flat).to(self.scale.dtype)
        return (codes * self._scale_of(flat)).view(*rows.shape, self.codes.shape[1])

    @torch.no_grad()
    def update(self, lr: float) -> None:
        """One update of the rows that have a gradient in any process.

        Raises:
            TypeError: The table holds floats for lookups.
        """
        if self.codes.is_floating_point():
            raise TypeError("rows of floats were loaded for lookups: train on the integers")
        rows, gradient = gather_gradients(*self._gradient())
        bags = sum(gather_counts(self._bags, self.codes.device))
        self.clear()
        if rows.numel():
            self.updates += 1
            self._change(rows, gradient, bags, lr)

    def _gradient(self) -> tuple[Tensor, Tensor]:
        """Distinct rows with a gradient here, rising, and their gradients."""
        if not self._gradients:
            nothing = torch.empty(0, dtype=torch.int64, device=self.codes.device)
            return nothing, self.momentum.new_empty(0, self.codes.shape[1])
        if len(self._gradients) == 1:
            return self._gradients[0]
        rows, values = (torch.cat(parts) for parts in zip(*self._gradients, strict=True))
        whole = torch.sparse_coo_tensor(rows[None], values, check_invariants=False).coalesce()
        return whole.indices()[0], whole.values()

    def _change(self, rows: Tensor, gradient: Tensor, bags: int, lr: float) -> None:  # noqa: ARG002
        """Update ``rows``; ``bags`` is the number of bags that all processes read."""
        self._move(rows, self._steps(rows, gradient, lr) / self._scale_of(rows))

    def _steps(self, rows: Tensor, gradient: Tensor, lr: float) -> Tensor:
        """What an update adds to ``rows`` as floats; their momentum is brought forward."""
        rule, age = self.group.table.optimizer, int(self.updates)
        return row_steps(self.momentum, rows, gradient, lr=lr, rule=rule, updates=age)

    def _move(self, rows: Tensor, moves: Tensor) -> None:
        """Add ``moves``, in codes, to ``rows``, rounded at random."""
        # Rounding the sum would lose small moves of large codes to float32.
        moved = self.codes[rows] + torch.floor(moves + self._noise(moves))
        self.codes[rows] = moved.clamp_(-self.top, self.top).to(self.codes.dtype)

    def _noise(self, moves: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), the shape of ``moves``."""
        generator = torch.Generator(moves.device)
        generator.manual_seed(noise_seed(self.group.table, int(self.updates)))
        return torch.rand(moves.shape, generator=generator, device=moves.device)

    def clear(self) -> None:
        """Drop the gradient."""
        self._gradients, self._bags = [], 0

    def local(self) -> TableRows:
        """All rows."""
        return TableRows(
            self.group.table.rows,
            0,
            self.codes,
            self.momentum,
            self.scale,
            updates=self.updates,
            is_replicated=True,
        )

    @torch.no_grad()
    def load(self, rows: TableRows) -> None:
        """Take over rows, their step sizes, momentum and the number of updates.

        Rows of floats, which another served format may stand for, are kept as they are: for
        lookups, not for training.
        """
        if rows.weight.is_floating_point():
            self.codes, self.scale = rows.weight.clone(), torch.ones_like(self.scale)
        else:
            self.local().take(rows)

    def served(self) -> ServedRows:
        """The rows as they are served: by these very codes, or rounded to fewer bits."""
        table = self.group.table
        if not self.is_served_exactly:
            return ROW_FORMATS[table.serve].of(self.local().floats(), group=table.serve_group)
        groups = ScaleGroups.of(table.rows, table.width, table.serve_group)
        rows = torch.arange(groups.lines, device=self.codes.device) * groups.rows_per_line
        scales = self._scale_of(rows).expand(groups.lines, 1).contiguous()
        own = cast("type[SignedRows]", ROW_FORMATS[table.serve])
        return own(groups, self.codes, scales)

    @property
    def is_served_exactly(self) -> bool:
        """Whether the served codes are those of training."""
        form = ROW_FORMATS[self.group.table.serve]
        return issubclass(form, SignedRows) and form.dtype == CODES[self.group.table.storage]


def rounded_codes(rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The codes nearest to ``rows``, block by block.

    Args:
        rows: float32 ``[R, d]``.
        scale: Step sizes, ``[R]`` or ``[1]``.
        dtype: A signed type.

    Returns:
        ``[R, d]``; numbers beyond the largest code become it.
    """
    codes, top = torch.empty_like(rows, dtype=dtype), torch.iinfo(dtype).max
    for block in row_blocks(*rows.shape):
        steps = scale if scale.shape[0] == 1 else scale[block]
        numbers = torch.round(rows[block] / steps[:, None])
        codes[block] = numbers.clamp_(-top, top).to(dtype)
    return codes


def noise_seed(table: PhysicalTable, update: int) -> int:
    """Seed of what update number ``update`` of a table draws, int64."""
    salt = hash_bytes([f"{table.name} rounding".encode()], BASE_SEED)[0]
    return int(hash_ids([update], hash_ids(np.array([table.seed]), salt)[0])[0])


def _pooled(rows: Tensor, places: Tensor, bags: RowBags) -> Tensor:
    """Summed bags of ``rows``; of no rows where the batch has no id."""
    if not rows.shape[0]:
        return rows.new_zeros(bags.offsets.numel() - 1, rows.shape[1]) + rows.sum()
    return pooled_lookup(rows, places, bags.offsets, weights=bags.weights)

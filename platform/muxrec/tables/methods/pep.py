"""``pep``: a learned threshold per row cuts off small numbers; then training starts again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.addresses import IndexAddress
from muxrec.tables.methods.cutting import cut_above, sparsity_at
from muxrec.tables.methods.full import full_table, lower_full
from muxrec.tables.methods.joining import join_lowered
from muxrec.tables.methods.protocol import Access, Arrays, Declared, Lowered, Read, Stage
from muxrec.tables.methods.pruning import PruningMethod, kept_numbers, pruned_readers
from muxrec.tables.methods.sampling import counted_once, sampled_rows

EVERY = 10
WARM_UP = 0.2
FIRST_SHARE = 0.1
"""First thresholds in units of the first rows' range. The published -150 has no gradient."""
SMALLEST, LARGEST = 1e-12, 1 - 1e-6
"""Magnitudes whose logit is finite; a threshold is below 1, so larger ones are never cut."""


class Pep(PruningMethod):
    """Rows are read as ``sign(v) * relu(|v| - sigmoid(s))`` with one learned ``s`` per row.

    One threshold per row and not per number: it takes a row's share of the memory, and numbers of
    one row have one scale. Thresholds exist in the first stage only.

    Published code leaves it to weight decay on ``s`` how sparse the table becomes. Here the decay
    is what is missing to a schedule: all thresholds rise alike until the density is met, which is
    at the end of the stage. Then only the mask is kept, and everything starts from its first
    weights.
    """

    title = "learned thresholds find the numbers worth keeping, which then train from the start"
    source = "Liu et al., ICLR 2021"
    stages = (Stage("search", 0.4), Stage("retrain", 0.6, restarts=True))

    def search(self, declared: Declared) -> Lowered:
        """Full tables, with thresholds for those that are pruned."""
        parts, tables, pruned = [], {}, pruned_readers(declared)
        for reader in declared.readers:
            if reader in pruned:
                parts.append(_with_thresholds(declared, reader))
                tables[declared.name_of(reader)] = declared.name_of(reader, "threshold")
            else:
                parts.append(lower_full(declared, (reader,)))
        sizes = {declared.name_of(r): declared.known(r).size for r in pruned}
        hook = ThresholdHook(
            tables,
            sizes,
            width=declared.table.width,
            density=declared.option("density"),
            least=kept_numbers(declared),
        )
        return replace(join_lowered(parts), hook=hook if tables else None)

    def scores(
        self, declared: Declared, reader: FeatureSpec, rows: Arrays, combine: nn.Module | None
    ) -> Tensor:
        """How far the magnitudes are above the thresholds."""
        del combine
        thresholds = rows[declared.name_of(reader, "threshold")]
        return above_threshold(rows[declared.name_of(reader)], thresholds)

    def going_on(
        self, declared: Declared, reader: FeatureSpec, rows: Arrays, combine: nn.Module | None
    ) -> None:
        """The first rows."""
        del declared, reader, rows, combine


class SoftThreshold(nn.Module):
    """Numbers moved towards zero by their row's threshold, and zero below it.

    Args:
        width: Numbers per row; the threshold's logit comes after them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Rows and logits ``[N, d + 1]`` to vectors ``[N, d]``."""
        values, logits = rows[:, : self.width], rows[:, self.width :]
        return values.sign() * (values.abs() - logits.sigmoid()).relu()


def above_threshold(rows: Tensor, logits: Tensor) -> Tensor:
    """How much all thresholds would have to rise to cut each number, in logits, ``[n, d]``."""
    return rows.abs().clamp(SMALLEST, LARGEST).logit() - logits


class ThresholdHook:
    """Raises all thresholds alike where more numbers are left than the schedule allows.

    Args:
        tables: Table of rows -> table of their thresholds, cut as one.
        sizes: Rows of each table of rows.
        width: Numbers per row.
        density: Share of the numbers that is left at the end.
        least: Numbers that are left at the end.
    """

    def __init__(
        self,
        tables: Mapping[str, str],
        sizes: Mapping[str, int],
        *,
        width: int,
        density: float,
        least: int,
    ) -> None:
        self.tables, self.sizes, self.width = dict(tables), dict(sizes), width
        self.density, self.least = density, least

    def after_step(self, access: Access, *, step: int, share: float) -> None:
        """Raise the thresholds when it is due; all ranks alike."""
        sparsity = sparsity_at(share, self.density, warm_up=WARM_UP)
        if not sparsity or (step % EVERY and share < 1):
            return
        keep = max(self.least, int((1 - sparsity) * self.width * sum(self.sizes.values())))
        parts = [self._above(access, name) for name in self.tables]
        missing = cut_above(parts, keep, over_ranks=True)
        if missing > 0:
            for name in self.tables.values():
                access.local(name)[1].add_(missing)

    def _above(self, access: Access, name: str) -> Tensor:
        """Scores of the rows held here; their thresholds may be held by another rank."""
        first, rows, _ = access.local(name)
        places = torch.arange(self.sizes[name], device=rows.device)
        logits = sampled_rows(access, self.tables[name], places, width=1)
        above = above_threshold(rows, logits[first : first + rows.shape[0]])
        return counted_once(access, name, above)


def _with_thresholds(declared: Declared, reader: FeatureSpec) -> Lowered:
    rows = full_table(declared, reader)
    share = min(FIRST_SHARE * declared.table.init, 0.5)
    first = math.log(share / (1 - share)) if share > 0 else math.log(SMALLEST)
    thresholds = declared.physical(
        declared.name_of(reader, "threshold"), rows.rows, 1, init=0.0, center=first
    )
    return Lowered(
        (rows, thresholds),
        (
            Read(reader.name, 0, rows.name, IndexAddress()),
            Read(reader.name, 1, thresholds.name, IndexAddress()),
        ),
        widths={reader.name: declared.table.width},
        combines={reader.name: SoftThreshold(declared.table.width)},
        per_id=frozenset([reader.name]),
        known={reader.name: declared.known(reader)},
    )

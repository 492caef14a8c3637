"""``autosrh``: gates per group of ids and column, searched with the task, decide what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.addresses import needed
from muxrec.tables.methods.full import lower_full
from muxrec.tables.methods.joining import join_lowered
from muxrec.tables.methods.protocol import Access, Arrays, Declared, Lowered, Stage
from muxrec.tables.methods.pruning import PruningMethod, pruned_readers

LASSO = 1e-5
"""Weight of the gates' absolute sum in the loss."""


class AutoSrh(PruningMethod):
    """A row is multiplied by its group's gates, which search steps train and clip to [0, 1].

    Groups are equal shares of the ids in the order of frequency. After the search gates are part of
    the rows, the smallest numbers of all readers are cut, and the rest trains on.
    """

    title = "searched gates per frequency group and column choose the numbers that are kept"
    source = "Kong et al., WSDM 2022"
    stages = (Stage("search", 0.6, is_search=True), Stage("fine-tune", 0.4))

    def search(self, declared: Declared) -> Lowered:
        """Full tables behind gates."""
        parts, gates, pruned = [], [], pruned_readers(declared)
        for reader in declared.readers:
            full = lower_full(declared, (reader,))
            if reader in pruned:
                gates.append(_gates(declared, reader))
                per_id = frozenset([reader.name])
                full = replace(full, combines={reader.name: gates[-1]}, per_id=per_id)
            parts.append(full)
        return replace(join_lowered(parts), hook=ClipHook(gates) if gates else None)

    def scores(
        self, declared: Declared, reader: FeatureSpec, rows: Arrays, combine: nn.Module | None
    ) -> Tensor:
        """Magnitudes behind the gates."""
        return self.going_on(declared, reader, rows, combine).abs()

    def going_on(
        self, declared: Declared, reader: FeatureSpec, rows: Arrays, combine: nn.Module | None
    ) -> Tensor:
        """Rows times gates."""
        own = rows[declared.name_of(reader)]
        if not isinstance(combine, Gates):
            raise TypeError(f"{reader.name} was searched without gates")
        with torch.no_grad():
            return combine.cpu()(own, None, torch.arange(len(own)))


class Gates(nn.Module):
    """A factor per group of ids and column.

    Args:
        ids: Known ids, n, at least 1.
        groups: Groups of ids, at most n.
        width: Numbers per row.
        lr: Learning rate of the gates.
    """

    def __init__(self, ids: int, groups: int, width: int, *, lr: float) -> None:
        super().__init__()
        self.ids, self.lr = ids, lr
        self.gates = nn.Parameter(torch.ones(groups, width))

    def forward(self, rows: Tensor, ids: Tensor | None, index: Tensor | None) -> Tensor:
        """Rows ``[N, d]`` times their gates."""
        del ids
        gates = self.gates
        if self.training and torch.is_grad_enabled() and gates.requires_grad:
            gates = gates * 1.0
            gates.register_hook(even_groups)
        group = torch.div(needed(index) * len(gates), self.ids, rounding_mode="trunc")
        return rows * gates[group]

    def penalty(self) -> Tensor:
        """The gates' absolute sum, weighted."""
        return LASSO * self.gates.abs().sum()

    def architecture(self) -> list[nn.Parameter]:
        """The gates."""
        return [self.gates]

    def architecture_lr(self) -> float:
        """Their learning rate."""
        return self.lr


def even_groups(gradient: Tensor) -> Tensor:
    """Each group's gradient ``[g, d]`` divided by its mean magnitude; 0 for a group without ids.

    Published code divides by the mean, which may have the opposite sign or be next to nothing.
    Several ranks even the gradients of their own batches, and average them then.
    """
    means = gradient.abs().mean(dim=1, keepdim=True)
    return torch.where(means > 0, gradient / means, 0.0)


class ClipHook:
    """Keeps gates in [0, 1].

    Args:
        gates: Maps with gates.
    """

    def __init__(self, gates: Sequence[Gates]) -> None:
        self.gates = tuple(gates)

    def after_step(self, access: Access, *, step: int, share: float) -> None:  # noqa: ARG002
        """Clip what the last step may have moved out of bounds."""
        with torch.no_grad():
            for each in self.gates:
                each.gates.clamp_(0, 1)


def _gates(declared: Declared, reader: FeatureSpec) -> Gates:
    size = declared.known(reader).size
    groups = min(declared.whole("groups"), size)
    return Gates(size, groups, declared.table.width, lr=declared.option("alpha_lr"))

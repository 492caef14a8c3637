"""``deeplight``: the smallest numbers of a full table become zero while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.cutting import cut_above, sparsity_at
from muxrec.tables.methods.full import lower_full
from muxrec.tables.methods.protocol import Access, Arrays, Declared, Lowered, Stage
from muxrec.tables.methods.pruning import PruningMethod, kept_numbers, pruned_readers
from muxrec.tables.methods.sampling import counted_once

EVERY = 10
WARM_UP = 0.2


class DeepLight(PruningMethod):
    """Every tenth step sets the smallest magnitudes of all readers to zero, ever more of them.

    A number that was cut may come back by its gradient until the next cut, as published; rows keep
    their optimiser state. The density is reached by the end of the first stage; in the second one
    the zeros stay.
    """

    title = "a full table whose smallest numbers become zero step by step, served as sparse rows"
    source = "Deng et al., WSDM 2021"
    stages = (Stage("prune", 0.6), Stage("fine-tune", 0.4))

    def search(self, declared: Declared) -> Lowered:
        """Full tables, cut from time to time."""
        names = [declared.name_of(reader) for reader in pruned_readers(declared)]
        density = declared.option("density")
        total = sum(declared.known(reader).size for reader in pruned_readers(declared))
        hook = MagnitudeHook(
            names, total=total * declared.table.width, density=density, least=kept_numbers(declared)
        )
        return replace(lower_full(declared, declared.readers), hook=hook if names else None)

    def scores(
        self, declared: Declared, reader: FeatureSpec, rows: Arrays, combine: nn.Module | None
    ) -> Tensor:
        """Magnitudes."""
        del combine
        return rows[declared.name_of(reader)].abs()

    def going_on(
        self, declared: Declared, reader: FeatureSpec, rows: Arrays, combine: nn.Module | None
    ) -> Tensor:
        """The rows as they are."""
        del combine
        return rows[declared.name_of(reader)]


class MagnitudeHook:
    """Sets the smallest magnitudes of some tables to zero.

    Args:
        names: Physical tables, cut as one.
        total: Numbers in them.
        density: Share that is left at the end.
        least: Numbers that are left at the end.
    """

    def __init__(self, names: Sequence[str], *, total: int, density: float, least: int) -> None:
        self.names, self.total, self.density, self.least = tuple(names), total, density, least

    def after_step(self, access: Access, *, step: int, share: float) -> None:
        """Cut what is due; all ranks alike."""
        sparsity = sparsity_at(share, self.density, warm_up=WARM_UP)
        if not sparsity or (step % EVERY and share < 1):
            return
        keep = max(self.least, int((1 - sparsity) * self.total))
        parts = {name: access.local(name)[1] for name in self.names}
        counted = [counted_once(access, name, part).abs() for name, part in parts.items()]
        cut = cut_above(counted, keep, over_ranks=True)
        for part in parts.values():
            part.mul_(part.abs() > cut)

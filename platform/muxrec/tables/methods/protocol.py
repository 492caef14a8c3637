"""What a table method is: the physical tables, the rows read, and how they become one vector.

Everything that costs work to build (sharding, fused optimisers, checkpoints, quantisation, export,
the kernels) knows physical tables and reads only, so a new method has all of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import Vocabulary


@dataclass(frozen=True)
class PhysicalTable:
    """A plain array of rows.

    Attributes:
        name: Unique name, the key of its state in checkpoints.
        rows: R, at least 1.
        width: Numbers per row.
        init: Rows start uniform in ``[-init, init]``.
        int8: Whether the rows are served as int8 codes with one scale per row.
    """

    name: str
    rows: int
    width: int
    init: float
    int8: bool = False


@dataclass(frozen=True)
class HashAddress:
    """An id's row is its seeded hash, reduced to the table's rows.

    Attributes:
        seed: Signed 64-bit seed.
    """

    seed: int

    @property
    def fingerprint(self) -> str:
        """What decides the rows, as text."""
        return f"hash {self.seed}"


@dataclass(frozen=True, eq=False)
class VocabularyAddress:
    """An id's row is found in a vocabulary; an unknown id reads nothing.

    Attributes:
        vocabulary: The known ids and their rows.
    """

    vocabulary: Vocabulary

    @property
    def fingerprint(self) -> str:
        """What decides the rows, as text."""
        digest = hashlib.sha256(self.vocabulary.ids().astype("<i8").tobytes()).hexdigest()
        return f"vocabulary {digest[:16]}"


Address = HashAddress | VocabularyAddress


@dataclass(frozen=True)
class Read:
    """One row read per id of one feature.

    Attributes:
        feature: Feature name.
        probe: Number of the read within its feature; reads are concatenated in this order.
        table: Physical table's name.
        address: How an id becomes a row.
    """

    feature: str
    probe: int
    table: str
    address: Address

    @property
    def key(self) -> str:
        """``feature#probe``, the read's key in a KeyedJaggedTensor."""
        return f"{self.feature}#{self.probe}"


class Method(Protocol):
    """One way to turn a declared table and its features into physical tables and reads."""

    @property
    def title(self) -> str:
        """One line for people: what it does and what it costs."""
        ...

    def physical_tables(
        self,
        table: TableSpec,
        readers: tuple[FeatureSpec, ...],
        vocabularies: Mapping[str, Vocabulary],
    ) -> tuple[PhysicalTable, ...]:
        """The arrays that hold the parameters of ``table``, which ``readers`` read."""
        ...

    def reads(
        self, table: TableSpec, feature: FeatureSpec, vocabularies: Mapping[str, Vocabulary]
    ) -> tuple[Read, ...]:
        """The rows that each id of ``feature`` reads, in the order of concatenation."""
        ...

    def combine(self, table: TableSpec, feature: FeatureSpec) -> nn.Module:
        """Map from the pooled reads, float32 ``[B, sum of widths]``, to the feature's vector."""
        ...

    def width(self, table: TableSpec, feature: FeatureSpec) -> int:
        """Width of the feature's vector, the output of :meth:`combine`."""
        ...

"""The slot plan: every physical read of every sparse feature, derived from names alone."""

from __future__ import annotations

from dataclasses import dataclass

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.hashing import probe_seed


@dataclass(frozen=True)
class Slot:
    """One probe of one feature into one physical table.

    Attributes:
        feature: Feature name.
        probe: Probe number, from 0; probes are concatenated in this numeric order.
        table: Table name.
        seed: Signed 64-bit hash seed; unused by full tables.
    """

    feature: str
    probe: int
    table: str
    seed: int

    @property
    def key(self) -> str:
        """``feature#probe``, the slot's key in a KeyedJaggedTensor."""
        return f"{self.feature}#{self.probe}"


def slot_plan(features: tuple[FeatureSpec, ...]) -> tuple[Slot, ...]:
    """Slots of all sparse features, in feature order and then probe order.

    A slot depends on its feature's own declaration only, so adding, removing or reordering features
    changes no other slot.
    """
    return tuple(
        Slot(feature.name, probe, feature.table, probe_seed(feature.name, probe))
        for feature in features
        if feature.table is not None
        for probe in range(feature.probes)
    )


def feature_width(feature: FeatureSpec, tables: tuple[TableSpec, ...]) -> int:
    """Width of a sparse feature's looked-up vector: ``probes * table.width``.

    Raises:
        KeyError: The feature's table is not among ``tables``.
    """
    return feature.probes * {table.name: table.width for table in tables}[feature.table or ""]

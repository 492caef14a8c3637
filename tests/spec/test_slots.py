"""Slots depend on their own feature alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.slots import feature_width, slot_plan


def feature(name: str, probes: int = 1, table: str = "u") -> FeatureSpec:
    return FeatureSpec(name, "bag", (name,), "attributes", table=table, probes=probes)


@given(
    st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=6, unique=True),
    st.integers(1, 12),
    st.data(),
)
def test_adding_removing_or_reordering_features_moves_no_other_slot(
    names: list[str], probes: int, data: st.DataObject
) -> None:
    features = tuple(feature(name, probes) for name in names)
    shuffled = tuple(data.draw(st.permutations(features)))
    whole, other = slot_plan(features), slot_plan(shuffled[:-1])
    assert {slot.key: slot for slot in other}.items() <= {s.key: s for s in whole}.items()


def test_probes_come_in_numeric_order() -> None:
    keys = [slot.key for slot in slot_plan((feature("genre", 12),))]
    assert keys == [f"genre#{probe}" for probe in range(12)]


def test_two_features_and_two_probes_have_different_seeds() -> None:
    seeds = [slot.seed for slot in slot_plan((feature("a", 8), feature("b", 8), feature("ab", 8)))]
    assert len(set(seeds)) == len(seeds)


def test_a_dense_feature_has_no_slot() -> None:
    dense = FeatureSpec("v", "vector", ("v",), "text", width=4)
    assert slot_plan((dense,)) == ()


def test_a_features_width_is_probes_times_the_tables_width() -> None:
    assert feature_width(feature("a", 3), (TableSpec("u", "unified", 8, rows=10),)) == 24

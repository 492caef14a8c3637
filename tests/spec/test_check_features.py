"""Every fault of a declaration is named, all at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from muxrec.spec.features import FeatureSpec, TableSpec, check_features

FULL = TableSpec("items", "full", 16)
UNIFIED = TableSpec("shared", "unified", 8, rows=100)
ITEM = FeatureSpec("item", "id", ("item_id",), "id", table="items")
GENRE = FeatureSpec("genre", "bag", ("genres",), "attributes", table="shared", probes=2)
YEAR = FeatureSpec("year", "number", ("year",), "attributes", table="shared", boundaries=(1.0, 2.0))
VECTOR = FeatureSpec("clip", "vector", ("clip",), "image", width=4)
TEXT = FeatureSpec("plot", "text", ("plot",), "text", encoder="package:m")
SOUND = (ITEM, GENRE, YEAR, VECTOR, TEXT)


def test_a_sound_declaration_has_no_fault() -> None:
    assert check_features(SOUND, (FULL, UNIFIED)) == []
    assert check_features(SOUND, (FULL, replace(UNIFIED, serve_dtype="int4", serve_group=64))) == []


@pytest.mark.parametrize(
    ("feature", "fault"),
    [
        (replace(GENRE, table="nowhere"), "table: nowhere is not a declared table"),
        (replace(GENRE, table=None), "table: None is not a declared table"),
        (replace(GENRE, probes=0), "probes must be positive, got 0"),
        (replace(GENRE, max_length=0), "max_length must be positive, got 0"),
        (replace(ITEM, probes=2), "probes: a full table has no probes"),
        (replace(YEAR, boundaries=(2.0, 1.0)), "boundaries must rise strictly"),
        (replace(VECTOR, width=0), "width must be the positive width of the vector, got 0"),
        (replace(VECTOR, table="shared"), "table: a vector feature reads no table"),
        (replace(TEXT, encoder=None), "encoder must name a local model folder"),
        (replace(TEXT, kind="image", encoder="vgg"), "encoder must be descriptor or conv, got vgg"),
    ],
)
def test_a_faulty_feature_is_named(feature: FeatureSpec, fault: str) -> None:
    others = tuple(f for f in SOUND if f.name != feature.name)
    faults = check_features((feature, *others), (FULL, UNIFIED))
    assert any(found.startswith("features.0.") and fault in found for found in faults), faults


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        (replace(UNIFIED, rows=-5), "rows must be in [1, 2**31) for a unified table, got -5"),
        (replace(UNIFIED, rows=2**31), "got 2147483648"),
        (replace(UNIFIED, rows=None), "got None"),
        (replace(UNIFIED, width=0), "width must be positive, got 0"),
        (replace(UNIFIED, serve_group=-1), "serve_group must not be negative, got -1"),
        (replace(UNIFIED, serve_group=8), "serve_group: fp32 rows have no scales to share"),
        (replace(UNIFIED, serve_dtype="csr"), "serve_dtype: csr is chosen by the methods"),
    ],
)
def test_a_faulty_table_is_named(table: TableSpec, fault: str) -> None:
    faults = check_features(SOUND, (FULL, table))
    assert any(found.startswith("tables.1.") and fault in found for found in faults), faults


def test_every_table_may_have_several_readers() -> None:
    assert check_features(SOUND, (FULL, replace(UNIFIED, method="hashed"))) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"budget": "2MB"}, "budget: it sets rows: leave one of them out"),
        ({"budget": "2 monkeys", "rows": None}, "budget: expected a size such as 2MB"),
        ({"options": {"rank": 3}}, "options.rank: unified has no such option (known: none)"),
        ({"method": "tt", "rows": None, "options": {"rnk": 3}}, "did you mean rank"),
        ({"method": "tt", "rows": None, "options": {"rank": 0.5}}, "an integer from 1 to 1000"),
        ({"method": "pep", "rows": None, "options": {"density": 2}}, "a number from 0.0001 to 1"),
    ],
)
def test_a_faulty_size_or_option_is_named(changes: dict, fault: str) -> None:
    faults = check_features((GENRE,), (replace(UNIFIED, **changes),))
    assert any(found.startswith("tables.0.") and fault in found for found in faults), faults


def test_several_faults_come_at_once() -> None:
    spare = TableSpec("spare", "hashed", 4, rows=10)
    faults = check_features((ITEM, ITEM, GENRE), (replace(FULL, rows=3), UNIFIED, spare))
    assert any("the name item is used more than once" in fault for fault in faults)
    assert any("rows is decided by the vocabulary" in fault for fault in faults)
    assert any("spare is read by no feature" in fault for fault in faults)

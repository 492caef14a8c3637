"""``hashed`` and ``unified``: reads in numeric order, and rows that are shared out by known ids."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from muxrec.errors import RecipeError
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.hashing import hash_rows
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.bags import Bags
from muxrec.tables.build import Tables, build_tables
from muxrec.tables.lowering import lower
from muxrec.tables.methods.hashed import Hashed
from muxrec.tables.methods.protocol import Declared
from muxrec.tables.staging import whole_rows

PROBES = 12
FEATURES = (
    FeatureSpec("brand", "id", ("brand",), "id", table="t", probes=PROBES),
    FeatureSpec("tags", "bag", ("tags",), "attributes", table="t", probes=PROBES),
)
KNOWN = {
    "brand": build_vocabulary("brand", range(300)),
    "tags": build_vocabulary("tags", range(100)),
}


@pytest.mark.parametrize("method", ["hashed", "unified"])
def test_a_tenth_read_is_joined_after_the_second(method: str, engine: str) -> None:
    tables = build_tables(
        FEATURES,
        (TableSpec("t", method, 4, rows=50),),  # type: ignore[arg-type]
        vocabularies=KNOWN,
        engine=engine,  # type: ignore[arg-type]
    )
    ids = torch.arange(7)
    bags = Bags(ids, torch.arange(8))
    found = tables.eval()({"brand": bags, "tags": bags})
    for name in ("brand", "tags"):
        array = whole_rows(cast(Tables, tables))["t" if method == "unified" else f"t.{name}"]
        places = [hash_rows(ids, name=name, probe=at, rows=len(array)) for at in range(PROBES)]
        expected = torch.cat([array[torch.from_numpy(rows)] for rows in places], dim=1)
        assert torch.equal(found[name], expected)


@pytest.mark.parametrize("method", ["hashed", "unified"])
def test_no_two_reads_of_a_table_share_a_hash(method: str) -> None:
    tables = (TableSpec("t", method, 4, rows=50),)  # type: ignore[arg-type]
    (lowered,) = lower(FEATURES, tables, KNOWN).lowered
    assert len({read.address.fingerprint for read in lowered.reads}) == 2 * PROBES


def test_rows_are_dealt_in_proportion_to_known_ids() -> None:
    table = TableSpec("t", "hashed", 4, rows=40)
    lowered = Hashed().lower(Declared(table, FEATURES, KNOWN))
    assert [physical.rows for physical in lowered.tables] == [30, 10]


@pytest.mark.parametrize("method", ["hashed", "cafe"])
def test_rows_are_not_dealt_to_readers_whose_ids_are_not_known(method: str) -> None:
    table = TableSpec("t", method, 4, rows=40)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=rf"tables\.t is {method} and read by tags, whose vocab"):
        lower(FEATURES, (table,), {"brand": KNOWN["brand"]})
    (lowered,) = lower(FEATURES[:1], (table,), {}).lowered
    assert sum(physical.rows for physical in lowered.tables) == 40

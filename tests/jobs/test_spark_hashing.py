"""Spark computes the common hash bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from muxrec.data.keys import id_keys
from muxrec.spec.hashing import hash_ids, hash_rows, probe_seed, string_ids
from muxrec_jobs.hashing import hash_row, id_key

pytestmark = pytest.mark.spark
GOLDEN = Path(__file__).parents[1] / "golden" / "hash_v1.json"
EXTREMES = [0, 1, -1, 42, 2**31 - 1, 2**31, -(2**31), 2**32, 2**40, 2**63 - 1, -(2**63)]


def column(spark: SparkSession, values: list, kind: pa.DataType):
    return spark.createDataFrame(pa.table({"value": pa.array(values, kind)}))


def test_rows_of_a_million_ids_equal_the_numpy_form(spark: SparkSession) -> None:
    random = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 1_000_000, dtype=np.int64)
    ids = np.concatenate([np.array(EXTREMES, dtype=np.int64), random])
    table = column(spark, ids, pa.int64())
    for name, probe, rows in (("item", 0, 1000), ("Gattung ü", 3, 2**31 - 1), ("", 10, 1)):
        found = table.select(hash_row(F.col("value"), name=name, probe=probe, rows=rows).alias("r"))
        expected = hash_rows(ids, name=name, probe=probe, rows=rows)
        np.testing.assert_array_equal(found.toArrow()["r"].to_numpy(), expected)


def test_rows_equal_the_golden_file(spark: SparkSession) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    table = column(spark, golden["ids"], pa.int64())
    wanted, columns = [], []
    for slot in golden["slots"]:
        for rows, expected in slot["rows"].items():
            name = f"c{len(columns)}"
            made = hash_row(F.col("value"), name=slot["name"], probe=slot["probe"], rows=int(rows))
            columns.append(made.alias(name))
            wanted.append((name, expected))
    found = table.select(*columns).toArrow()
    assert wanted
    for name, expected in wanted:
        assert found[name].to_pylist() == expected


def test_the_hash_itself_equals_the_golden_file(spark: SparkSession) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    table = column(spark, golden["ids"], pa.int64())
    for slot in golden["slots"][:6]:
        h = F.xxhash64(F.lit(slot["name"]), F.lit(slot["probe"]).cast("bigint"), F.col("value"))
        assert table.select(h.alias("h")).toArrow()["h"].to_pylist() == slot["hashes"]
        seed = probe_seed(slot["name"], slot["probe"])
        assert hash_ids(golden["ids"], seed).tolist() == slot["hashes"]


def test_keys_of_odd_ids_equal_the_python_form(spark: SparkSession) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    texts = [entry["value"] for entry in golden["strings"]]
    texts += ["0", "-0", "7", "007", "+7", "-7", " 7", "7 ", "7\n", "1.0", "1e3", "٣", "--1"]
    texts += [str(2**63 - 1), str(2**63), str(-(2**63)), str(-(2**63) - 1), "9" * 40]
    found = column(spark, texts, pa.string()).select(id_key(F.col("value")).alias("key"))
    assert found.toArrow()["key"].to_pylist() == id_keys(texts).tolist()


def test_integers_are_their_own_key_and_other_text_is_hashed() -> None:
    assert id_keys(["0", "-5", "42"]).tolist() == [0, -5, 42]
    assert id_keys(["007", "abc"]).tolist() == string_ids(["007", "abc"]).tolist()
    assert id_keys([]).tolist() == []


def test_a_missing_id_has_no_row_and_no_key(spark: SparkSession) -> None:
    row = column(spark, [None], pa.int64()).select(
        hash_row(F.col("value"), name="item", probe=0, rows=10).alias("row"),
        id_key(F.col("value").cast("string")).alias("key"),
    )
    assert row.collect()[0].asDict() == {"row": None, "key": None}


@pytest.mark.parametrize("rows", [0, -1, 2**31])
def test_a_table_size_out_of_range_is_refused(spark: SparkSession, rows: int) -> None:
    with pytest.raises(ValueError, match="rows must be in"):
        hash_row(F.lit(1), name="item", probe=0, rows=rows)

"""The engines that ``muxrec bench pairs`` compares, each run in a process of its own.

``python -m muxrec_jobs.bench_engines ENGINE EVENTS RESULT`` mines the pairs of a parquet file of
``schemas.SLICED_EVENT`` twice, writes them and prints one JSON line with seconds of wall and CPU.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from muxrec.data.snapshot import PAIR_SCHEMA
from muxrec.errors import MissingExtraError
from muxrec.recipe.model import Pairs
from muxrec_jobs.local_pairs import mine_pairs
from muxrec_jobs.pairs import EVENTS_PER_BUCKET, pair_sums, top_pairs
from muxrec_jobs.session import spark_session

SETTINGS = Pairs(window_events=10, window_days=1.0, min_count=3, max_user_events=10**6)
"""Ten positions, users that share a pair at least 3, cosine, 50 partners; no cap on events."""

ORDER = [("item_a", "ascending"), ("score", "descending"), ("item_b", "ascending")]
Mine = Callable[[Path], pa.Table]

WEIGHTED = """
WITH counted AS (
  SELECT user_key, item_key, timestamp,
         row_number() OVER (PARTITION BY user_key ORDER BY timestamp, item_key) AS place,
         count(*) OVER (PARTITION BY user_key) AS n
  FROM events
),
weighted AS (
  SELECT user_key, item_key, timestamp, place,
         CAST(round(1073741824 / {log2}) AS BIGINT) AS w
  FROM counted
)"""

RANKED = """,
own AS (SELECT item_key, CAST(sum(w) AS BIGINT) AS s FROM weighted GROUP BY item_key),
sums AS (
  SELECT least(a, b) AS low, greatest(a, b) AS high,
         CAST(sum(w) AS BIGINT) AS w, count(*) AS n
  FROM met GROUP BY 1, 2 HAVING count(*) >= {min_count}
),
scored AS (
  SELECT low, high, sums.n, sums.w / 1073741824 AS weight,
         sums.w / sqrt(CAST(x.s AS DOUBLE) * CAST(y.s AS DOUBLE)) AS score
  FROM sums JOIN own x ON x.item_key = low JOIN own y ON y.item_key = high
),
directed AS (
  SELECT low AS item_a, high AS item_b, n, weight, score FROM scored
  UNION ALL SELECT high, low, n, weight, score FROM scored
),
ranked AS (
  SELECT *, row_number() OVER (PARTITION BY item_a ORDER BY score DESC, item_b) AS place
  FROM directed
)
SELECT item_a, item_b, n AS count, weight, score FROM ranked WHERE place <= {top_n}"""

LEADS_AND_EXPLODE = """,
led AS (SELECT item_key AS a, timestamp AS t, w, array({leads}) AS partners FROM weighted),
opened AS (SELECT a, t, w, explode(partners) AS partner FROM led),
met AS (
  SELECT a, partner.item_key AS b, w FROM opened
  WHERE partner.item_key IS NOT NULL AND partner.item_key <> a
    AND partner.timestamp - t <= {seconds}
)"""

RANGE_JOIN = """,
met AS (
  SELECT x.item_key AS a, y.item_key AS b, x.w
  FROM weighted x JOIN weighted y
    ON x.user_key = y.user_key AND y.place > x.place AND y.place <= x.place + {window}
  WHERE x.item_key <> y.item_key AND y.timestamp - x.timestamp <= {seconds}
)"""


def plain_spark_query(settings: Pairs) -> str:
    """The job as it is usually written: a lead per position, exploded, then grouped."""
    window = "OVER (PARTITION BY user_key ORDER BY place)"
    leads = ", ".join(
        f"lead(struct(item_key, timestamp), {n}) {window}"
        for n in range(1, settings.window_events + 1)
    )
    met = LEADS_AND_EXPLODE.format(leads=leads, seconds=settings.window_days * 86400)
    ranked = RANKED.format(min_count=settings.min_count, top_n=settings.top_n)
    return WEIGHTED.format(log2="log2(1 + n)") + met + ranked


def duckdb_query(settings: Pairs) -> str:
    """The same pairs by a self-join over a range of positions."""
    met = RANGE_JOIN.format(window=settings.window_events, seconds=settings.window_days * 86400)
    ranked = RANKED.format(min_count=settings.min_count, top_n=settings.top_n)
    return WEIGHTED.format(log2="log2(1 + n)") + met + ranked


@contextmanager
def spark_job() -> Iterator[Mine]:
    """Muxrec's Spark job."""
    with spark_session() as spark:
        yield lambda path: _ours(_events(spark, path))


@contextmanager
def plain_spark_job() -> Iterator[Mine]:
    """Plain Spark SQL, in the same session settings."""
    with spark_session() as spark:

        def mine(path: Path) -> pa.Table:
            _events(spark, path).createOrReplaceTempView("events")
            return spark.sql(plain_spark_query(SETTINGS)).toArrow()

        yield mine


@contextmanager
def duckdb_job() -> Iterator[Mine]:
    """DuckDB with two threads, as many as Spark gets."""
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise MissingExtraError("duckdb is not installed: pip install 'muxrec[test]'") from error
    with duckdb.connect(config={"threads": 2}) as connection:

        def mine(path: Path) -> pa.Table:
            connection.execute(f"CREATE OR REPLACE VIEW events AS FROM '{path}'")
            return connection.sql(duckdb_query(SETTINGS)).to_arrow_table()

        yield mine


@contextmanager
def numpy_job() -> Iterator[Mine]:
    """The local engine."""

    def mine(path: Path) -> pa.Table:
        table = pq.read_table(path)
        columns = [table[name].to_numpy() for name in ("user_key", "timestamp", "item_key")]
        return mine_pairs(columns[0], columns[1], columns[2], SETTINGS)

    yield mine


ENGINES = {
    "muxrec Spark job": spark_job,
    "plain Spark, lead and explode": plain_spark_job,
    "DuckDB, range join": duckdb_job,
    "numpy, local engine": numpy_job,
}


def measure(engine: str, events: Path, result: Path) -> dict[str, Any]:
    """Runs one engine twice, writes its pairs to ``result`` and returns seconds by phase.

    Returns:
        ``{start, first, warm}``, each ``{wall, cpu}``; CPU includes Spark's JVM and its workers.
    """
    clock = _Clock()
    with ENGINES[engine]() as mine:
        seconds = {"start": clock.lap()}
        mine(events)
        seconds["first"] = clock.lap()
        pairs = mine(events)
        seconds["warm"] = clock.lap()
    pq.write_table(pairs.select(PAIR_SCHEMA.names).cast(PAIR_SCHEMA).sort_by(ORDER), result)
    return {"engine": engine, "seconds": seconds}


class _Clock:
    """Wall and CPU seconds since the last lap, of this process and all its descendants."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), cpu_seconds()

    def lap(self) -> dict[str, float]:
        wall, cpu = time.perf_counter(), cpu_seconds()
        lap = {"wall": round(wall - self._wall, 2), "cpu": round(cpu - self._cpu, 2)}
        self._wall, self._cpu = wall, cpu
        return lap


def cpu_seconds() -> float:
    """CPU seconds of this process and its descendants, those that have ended included."""
    try:
        import psutil
    except ModuleNotFoundError as error:
        raise MissingExtraError("psutil is not installed: pip install 'muxrec[test]'") from error
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in [own, *own.children(recursive=True)])


def _events(spark: SparkSession, path: Path) -> DataFrame:
    return spark.read.parquet(str(path))


def _ours(events: DataFrame) -> pa.Table:
    buckets = max(2, events.count() // EVENTS_PER_BUCKET)
    sums = pair_sums(events, SETTINGS, buckets=buckets).persist()
    pairs = top_pairs(sums, SETTINGS).drop("split").toArrow()
    sums.unpersist()
    return pairs


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))  # noqa: T201 - its result

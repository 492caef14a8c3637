"""The steps of the data job, each from tables to tables; ``build`` strings them together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import reduce
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from muxrec.data.snapshot import EVENT_SCHEMA
from muxrec.errors import DataError
from muxrec.recipe.model import Data
from muxrec_jobs.digest import table_prints
from muxrec_jobs.items import item_table, items_of_events, with_relations
from muxrec_jobs.pairs import EVENTS_PER_BUCKET, pair_sums, popularity_share, top_pairs
from muxrec_jobs.quality import (
    Counts,
    check_events,
    check_items,
    count_events,
    enforce,
    rejected_rows,
)
from muxrec_jobs.sources import READERS
from muxrec_jobs.split import Boundaries, find_boundaries, slice_name, time_range
from muxrec_jobs.stages import Stages
from muxrec_jobs.writing import read_back, write_events, write_items, write_pairs, write_rejected


@dataclass(frozen=True)
class Checked:
    """Checked input.

    Attributes:
        events: ``quality.check_events``, persisted.
        catalogue: ``quality.check_items``, persisted; None without a catalogue.
        counts: What the event checks found.
        items: Sound catalogue rows; without a catalogue the kept events, which bound the items.
        item_counts: Reason -> refused catalogue rows.
        beside: The source's ``Raw.beside``, persisted.
        beside_counts: File or table -> reason -> rows of ``beside``.
        enrich: The source's ``Raw.enrich``.
    """

    events: DataFrame
    catalogue: DataFrame | None
    counts: Counts
    items: int
    item_counts: dict[str, int]
    beside: DataFrame | None
    beside_counts: dict[str, dict[str, int]]
    enrich: Callable[[DataFrame, int], DataFrame]

    def release(self) -> None:
        """Frees what is persisted."""
        for table in (self.events, self.catalogue, self.beside):
            if table is not None:
                table.unpersist()


@dataclass(frozen=True)
class Sliced:
    """Events of the wanted time range, with their slice.

    Attributes:
        events: ``schemas.EVENT`` and ``split``.
        as_of: The as-of date.
        boundaries: Where the time line is cut.
    """

    events: DataFrame
    as_of: date
    boundaries: Boundaries


def checked_input(spark: SparkSession, data: Data, *, now: int | None) -> Checked:
    """The source, read and checked.

    Raises:
        DataError: Input is missing, empty, or more of it is refused than declared.
    """
    raw = READERS[data.source.kind].read(spark, data.source)
    catalogue, by_reason, ids = None, {}, None
    if raw.catalogue is not None:
        catalogue = check_items(raw.catalogue).persist()
        rows = catalogue.groupBy("reason").count().collect()
        by_reason = {row["reason"]: row["count"] for row in rows}
        ids = catalogue.where("reason is null").select("item_id")
    clock = int(time.time()) if now is None else now
    events = check_events(raw.interactions, ids, now=clock).persist()
    counts = count_events(events)
    enforce(counts, max_rejected=data.max_rejected, origin=_origin(data))
    sound = by_reason.pop(None, 0) if catalogue is not None else counts.kept
    # Persisted whole: Spark refuses to count by the column of torn lines alone.
    beside = raw.beside.persist() if raw.beside is not None else None
    aside = _count_by_source(beside)
    return Checked(events, catalogue, counts, sound, by_reason, beside, aside, raw.enrich)


def _count_by_source(beside: DataFrame | None) -> dict[str, dict[str, int]]:
    if beside is None:
        return {}
    rows = beside.groupBy("source", "reason").count().orderBy("source", "reason").collect()
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["source"], {})[row["reason"]] = row["count"]
    return found


def sliced_events(
    checked: Checked, data: Data, *, day: date | None, lookback: int | None
) -> Sliced:
    """The sound events up to the end of the as-of day, cut into slices.

    Args:
        checked: Checked input with at least one sound event.
        data: Split and lookback.
        day: As-of date; None for the day of the last sound event.
        lookback: Days that count; None for ``data.lookback_days``.

    Raises:
        DataError: No event is in range, or a slice is empty.
    """
    last = datetime.fromtimestamp(checked.counts.last or 0, UTC).date()
    as_of = day or last
    start, end = time_range(as_of, lookback if lookback is not None else data.lookback_days)
    time = F.col("timestamp")
    kept = checked.events.where(F.col("reason").isNull() & (time >= start) & (time < end))
    boundaries = find_boundaries(kept, data.split, origin=f"{_origin(data)} as of {as_of}")
    events = kept.drop("reason", "row").withColumn("split", slice_name(boundaries))
    return Sliced(events, as_of, boundaries)


def write_tables(
    checked: Checked, sliced: Sliced, data: Data, *, folder: Path, stages: Stages
) -> dict[str, Any]:
    """Writes all tables of a snapshot to ``folder``; returns what the manifest says about them.

    Raises:
        DataError: Two items share one key, or the catalogue's columns are not as declared.
    """
    rows = sum(sliced.boundaries.rows.values())
    with stages("events"):
        written = sliced.events.select(*EVENT_SCHEMA.names)
        write_events(written, folder / "events", partition=data.partition, rows=rows)
        events = read_back(written, folder / "events")
    with stages("pairs"):
        pairs = _write_pairs(events, data, rows=rows, items=checked.items, folder=folder)
    with stages("items"):
        items = _write_items(checked, sliced, data, pairs=pairs, folder=folder)
    with stages("rejected"):
        rejected = _rejected(checked)
        write_rejected(rejected, folder / "rejected")
    with stages("verify"):
        refused = read_back(rejected, folder / "rejected").drop("row")
        tables = {"events": events, "items": items, "pairs": pairs, "rejected": refused}
        prints = table_prints(tables)
        _refuse_shared_keys(items, int(prints["items"]["rows"]))
        below = events.where(F.col("weight") < data.pairs.min_weight).count()
        share = popularity_share(pairs, events)
    counts = checked.counts
    return {
        "counts": {
            "read": counts.read,
            "kept": counts.kept,
            "rejected": counts.rejected,
            "rejected_items": checked.item_counts,
            "set_aside": checked.beside_counts,
            "outside_time_range": counts.kept - rows,
            "below_min_weight": below,
        },
        "rows": {name: int(entry["rows"]) for name, entry in prints.items()},
        "slices": sliced.boundaries.rows,
        "prints": prints,
        "popularity_share": share,
    }


def _write_pairs(
    events: DataFrame, data: Data, *, rows: int, items: int, folder: Path
) -> DataFrame:
    buckets = max(2, rows // EVENTS_PER_BUCKET)
    sums = pair_sums(events, data.pairs, buckets=buckets).persist()
    pairs = top_pairs(sums, data.pairs)
    write_pairs(pairs, folder / "pairs", most=items * data.pairs.top_n)
    sums.unpersist()
    return read_back(pairs, folder / "pairs")


def _write_items(
    checked: Checked, sliced: Sliced, data: Data, *, pairs: DataFrame, folder: Path
) -> DataFrame:
    if checked.catalogue is None:
        sound = items_of_events(sliced.events)
    else:
        sound = checked.catalogue.where("reason is null").drop("reason", "row")
    related = with_relations(sound, data.source.relations)
    enriched = checked.enrich(related, sliced.boundaries.train_end)
    items = item_table(enriched, sliced.events, pairs)
    write_items(items, folder / "items")
    return read_back(items, folder / "items")


def _rejected(checked: Checked) -> DataFrame:
    parts = [rejected_rows(checked.events, source="interactions")]
    if checked.catalogue is not None:
        parts.append(rejected_rows(checked.catalogue, source="items"))
    if checked.beside_counts and checked.beside is not None:
        parts.append(checked.beside)
    return reduce(DataFrame.unionAll, parts)


def _refuse_shared_keys(items: DataFrame, rows: int) -> None:
    if items.select("item_key").distinct().count() == rows:
        return
    shared = items.groupBy("item_key").agg(F.collect_list("item_id").alias("ids"))
    example = shared.where(F.size("ids") > 1).first()
    ids = ", ".join(sorted(example["ids"])) if example else "?"
    raise DataError(f"items {ids} share the key {example and example['item_key']}: rename one")


def _origin(data: Data) -> str:
    source = data.source
    return source.path or (source.interactions.path if source.interactions else source.kind)

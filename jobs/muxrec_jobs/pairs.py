"""Item pairs from users' event sequences, as Spark transforms."""

from __future__ import annotations

from functools import partial

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from muxrec.recipe.model import Pairs
from muxrec_jobs import pair_kernel
from muxrec_jobs.pair_kernel import FIXED_POINT
from muxrec_jobs.schemas import PARTIAL_PAIR, SLICED_EVENT
from muxrec_jobs.split import DAY

EVENTS_PER_BUCKET = 1_000_000


def kernel_window(settings: Pairs) -> pair_kernel.Window:
    """The recipe's window in the kernel's units."""
    return pair_kernel.Window(
        events=settings.window_events,
        seconds=settings.window_days * DAY,
        max_user_events=settings.max_user_events,
        discount=settings.user_discount,
    )


def pair_sums(events: DataFrame, settings: Pairs, *, buckets: int) -> DataFrame:
    """Sums per slice and unordered pair, ``schemas.PARTIAL_PAIR``, one row per pair.

    Users are brought together once; a vectorised function per bucket emits sums, so the second
    shuffle carries pairs and not events times window.

    Args:
        events: Columns of ``schemas.SLICED_EVENT`` and ``weight``; events below
            ``settings.min_weight`` are left out here.
        settings: Window, discount and cap.
        buckets: Partitions of users; a bucket is held in one worker's memory.
    """
    used = events.where(F.col("weight") >= settings.min_weight)
    by_user = used.select(*SLICED_EVENT.fieldNames()).repartition(buckets, "user_key")
    kernel = partial(pair_kernel.partial_pairs, window=kernel_window(settings))
    sums = {name: F.sum(name).alias(name) for name in ("fixed_weight", "count")}
    return (
        by_user.mapInArrow(kernel, PARTIAL_PAIR).groupBy("split", "low", "high").agg(*sums.values())
    )


def top_pairs(sums: DataFrame, settings: Pairs) -> DataFrame:
    """The best ``top_n`` partners of every item, both directions.

    Columns: split, item_a, item_b, count, weight, score. Ties go to the smaller ``item_b``.

    Args:
        sums: ``pair_sums``; it is read up to three times, so it should be persisted.
        settings: ``min_count``, ``scale`` and ``top_n``.
    """
    is_own = F.col("low") == F.col("high")
    pairs = sums.where(~is_own & (F.col("count") >= settings.min_count))
    score = F.col("fixed_weight") / F.lit(FIXED_POINT)
    if settings.scale == "cosine":
        own = sums.where(is_own).select("split", "low", F.col("fixed_weight").alias("own_low"))
        partner = own.withColumnsRenamed({"low": "high", "own_low": "own_high"})
        pairs = pairs.join(own, ["split", "low"]).join(partner, ["split", "high"])
        product = F.col("own_low").cast("double") * F.col("own_high").cast("double")
        score = F.col("fixed_weight") / F.sqrt(product)
    ends = [F.struct(F.col(a).alias("item_a"), F.col(b).alias("item_b")) for a, b in _DIRECTIONS]
    both = pairs.select(
        "split",
        F.explode(F.array(*ends)).alias("pair"),
        "count",
        (F.col("fixed_weight") / F.lit(FIXED_POINT)).alias("weight"),
        score.alias("score"),
    ).select("split", "pair.*", "count", "weight", "score")
    order = Window.partitionBy("split", "item_a").orderBy(F.desc("score"), "item_b")
    ranked = both.withColumn("rank", F.row_number().over(order))
    return ranked.where(F.col("rank") <= settings.top_n).drop("rank")


_DIRECTIONS = (("low", "high"), ("high", "low"))


def popularity_share(pairs: DataFrame, events: DataFrame, *, popular: int = 50) -> float | None:
    """Share of items whose best partner is among the ``popular`` most frequent items of training.

    High values mean that the pair score repeats the popularity list. None without training pairs.

    Args:
        pairs: ``top_pairs``.
        events: Events with ``split`` and ``item_key``.
        popular: Length of the popularity list; ties go to the smaller key.
    """
    counted = events.where("split = 'train'").groupBy("item_key").count()
    top = counted.orderBy(F.desc("count"), "item_key").limit(popular).select("item_key").collect()
    keys = [row.item_key for row in top]
    best = F.max_by("item_b", F.struct("score", F.bitwise_not("item_b"))).alias("best")
    partners = pairs.where("split = 'train'").groupBy("item_a").agg(best)
    return partners.agg(F.avg(F.col("best").isin(keys).cast("double"))).collect()[0][0]

"""``muxrec bench hash``: bit-equality, uniformity, avalanche, pair collisions and speed."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from muxrec.bench.hash_quality import avalanche_bias, id_sets, uniformity
from muxrec.bench.hash_speed import check_equal, engines, million_per_second
from muxrec.bench.report import Table, write_report
from muxrec.spec.hashing import HASH_VERSION

TABLE_ROWS = (100_003, 131_072, 1_000_000)
EDGES = (0, 1, -1, 42, 2**63 - 1, -(2**63), 2**32, -(2**32))
AVALANCHE_SAMPLES = 20_000


@click.command()
@click.option("--ids", "count", default=200_000, show_default=True, help="Ids per quality set.")
@click.option("--check", default=1_000_000, show_default=True, help="Ids that all engines compare.")
@click.option("--seconds", default=1.0, show_default=True, help="CPU seconds per engine.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for Markdown and JSON.")
def hash_bench(count: int, check: int, seconds: float, out: Path | None) -> None:
    """Measure the one hash of all engines; engines that disagree stop it."""
    tables = [measure_speed(check, seconds=seconds), measure_uniformity(count), measure_avalanche()]
    for table in tables:
        click.echo(table.markdown())
    if out is not None:
        markdown, machine = write_report(out, "bench-hash", tables)
        click.echo(f"written: {markdown} {machine}")


def measure_speed(check: int, *, seconds: float) -> Table:
    """Speed of every engine, after all gave the same rows for ``check`` ids.

    Raises:
        MuxrecError: Two engines disagree.
    """
    found = engines()
    rng = np.random.default_rng(3)
    random = rng.integers(-(2**63), 2**63 - 1, size=check, endpoint=True)
    ids = np.concatenate([np.array(EDGES), np.arange(check), random[: max(0, check - 8)]])
    check_equal(found, ids)
    sizes = (1_280, 65_536)
    rows = tuple(
        (name, *(million_per_second(engine, random[:size], seconds=seconds) for size in sizes))
        for name, engine in found.items()
    )
    return Table(
        f"Hash {HASH_VERSION}: speed",
        f"Ids to rows, million per second of CPU on one thread, by ids per call; printed after all "
        f"engines gave the same rows for {len(ids):,} ids with both int64 extremes. Spark SQL's "
        "`xxhash64` is compared in the tests of the jobs.",
        ("engine", *(f"{size:,} ids" for size in sizes)),
        rows,
    )


def measure_uniformity(count: int) -> Table:
    """Row counts and pair collisions of id sets that weak hashes fail on."""
    found = [
        uniformity(name, ids, rows) for name, ids in id_sets(count).items() for rows in TABLE_ROWS
    ]
    return Table(
        f"Hash {HASH_VERSION}: uniformity",
        f"{count:,} ids, four probes. z: chi-square of the row counts in standard deviations, the "
        "probe furthest off; |z| above 4 would be suspect. Pair collisions: pairs of ids that "
        "share the rows of two probes, mean of the six pairs of probes.",
        ("ids", "rows", "worst z", "occupied / expected", "pair collisions", "expected"),
        tuple(
            (u.ids, u.rows, u.worst_z, u.occupied, u.pair_collisions, u.expected_collisions)
            for u in found
        ),
    )


def measure_avalanche() -> Table:
    """How far any output bit is from flipping half of the time when an input bit flips."""
    worst, chance = avalanche_bias(AVALANCHE_SAMPLES)
    return Table(
        f"Hash {HASH_VERSION}: avalanche",
        f"{AVALANCHE_SAMPLES:,} random ids, each of 64 bits flipped; the worst of 64 x 64 pairs of "
        "input and output bit.",
        ("measure", "deviation from one half"),
        (("worst pair", worst), ("worst of as many fair coins", chance)),
    )

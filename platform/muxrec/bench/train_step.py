"""``muxrec bench train-step``: CPU time per step of a unified table, engine by engine."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click
import torch
from torch import Tensor

from muxrec.bench.report import Table, write_report
from muxrec.bench.train_step_peers import peer_steps
from muxrec.errors import MuxrecError
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.tables.addressing import HashedRows, RowBags
from muxrec.tables.bags import Bags
from muxrec.tables.build import Engine, Tables, build_tables
from muxrec.tables.fused import FusedPart, FusedTables

PLAIN, TBE, TBE_SPLIT = (
    "TorchRec EmbeddingBagCollection, rows given, no optimiser",
    "fbgemm TBE alone, rows given, one gradient",
    "fbgemm TBE alone, rows given, a gradient per feature",
)
OURS, REFERENCE = "muxrec torchrec engine, from raw ids", "muxrec reference engine, from raw ids"
SLOW = (PLAIN,)
"""Timed once per round: a step of theirs takes seconds."""

STEPS_PER_ROUND = 10
OTHER_BYTES = 64 * 2**20
"""More than the caches hold."""

Step = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """The table and its readers.

    Attributes:
        features: Features that share the table, one id per item each.
        rows: Rows of the table.
        width: Numbers per row.
    """

    features: int
    rows: int
    width: int


@click.command()
@click.option("--features", default=20, show_default=True, help="Features on the shared table.")
@click.option("--rows", default=400_000, show_default=True, help="Rows of the shared table.")
@click.option("--width", default=64, show_default=True, help="Numbers per row.")
@click.option("--batch", "batches", multiple=True, default=(64, 1024), show_default=True)
@click.option("--rounds", default=15, show_default=True, help="Rounds; every engine runs in each.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for Markdown and JSON.")
def train_step_bench(
    features: int, rows: int, width: int, batches: tuple[int, ...], rounds: int, out: Path | None
) -> None:
    """Time forward, backward and update of a table that many features share, on one thread."""
    shape = Shape(features, rows, width)
    tables = [measure(shape, batch, rounds=rounds) for batch in batches]
    for table in tables:
        click.echo(table.markdown())
    if out is not None:
        markdown, machine = write_report(out, "bench-train-step", tables)
        click.echo(f"written: {markdown} {machine}")


def measure(shape: Shape, batch_size: int, *, rounds: int) -> Table:
    """CPU milliseconds per step of every engine at one batch size, with ratios.

    Args:
        shape: The table.
        batch_size: Items per step.
        rounds: Rounds over all engines.

    Raises:
        MuxrecError: Two engines give different vectors; nothing is timed.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = _steps(shape, batch_size)
        middle = _interleaved(steps, rounds)
        hot = {
            name: _back_to_back(step, 1 if name in SLOW else 100) for name, step in steps.items()
        }
    finally:
        torch.set_num_threads(threads)
    rows = [
        (
            name,
            middle[name],
            middle[PLAIN] / middle[name],
            middle[name] / middle[TBE],
            middle[name] / middle[TBE_SPLIT],
            hot[name],
        )
        for name in steps
    ]
    return Table(
        f"One training step, batch {batch_size}",
        f"{shape.features} features of one id on one table of {shape.rows:,} x {shape.width}; "
        f"forward, backward and update on one thread; process CPU time, medians of {rounds} rounds "
        "over all engines in random order. *Beside a tower*: the caches hold other data before "
        "every step, as in training; the ratios are of this column. *Back to back*: the step and "
        "nothing else, repeated. The rows that peers read are given to them; muxrec hashes.",
        (
            "engine",
            "beside a tower, ms",
            "plain / this",
            "this / TBE",
            "this / TBE, gradient per feature",
            "back to back, ms",
        ),
        tuple(rows),
    )


def _steps(shape: Shape, batch_size: int) -> dict[str, Step]:
    """What is timed, engine by engine, after all of them gave the same vectors."""
    batch = _batch(shape, batch_size)
    reference, fused = _tables(shape, "reference"), _tables(shape, "torchrec")
    _check_equal(reference(batch), fused(batch))
    gradients = list(torch.rand(batch_size, shape.features * shape.width).split(shape.width, dim=1))
    optimizer = reference.table_optimizer()

    def ours() -> None:
        torch.autograd.backward(list(fused(batch).values()), gradients)

    def plain_torch() -> None:
        torch.autograd.backward(list(reference(batch).values()), gradients)
        optimizer.step()

    rows = _addressed(cast(FusedTables, fused), batch)
    plain, one, split = peer_steps(
        rows.rows, rows.offsets, gradients, table_rows=shape.rows, width=shape.width
    )
    return {PLAIN: plain, TBE: one, TBE_SPLIT: split, OURS: ours, REFERENCE: plain_torch}


def _addressed(tables: FusedTables, batch: dict[str, Bags]) -> RowBags:
    """The rows that the unified table's reads come to, for peers that are given them."""
    part = cast(FusedPart, tables.parts[0])
    address = cast(HashedRows, part.addresses[0])
    return address(batch, tables.vectors.find(batch), 0)


def _batch(shape: Shape, batch_size: int) -> dict[str, Bags]:
    generator = torch.Generator().manual_seed(0)
    offsets = torch.arange(batch_size + 1)
    return {
        f"feature {i}": Bags(
            torch.randint(-(2**62), 2**62, (batch_size,), generator=generator), offsets
        )
        for i in range(shape.features)
    }


def _tables(shape: Shape, engine: Engine) -> Tables:
    features = tuple(
        FeatureSpec(f"feature {i}", "id", ("x",), "id", table="shared")
        for i in range(shape.features)
    )
    table = TableSpec("shared", "unified", shape.width, rows=shape.rows)
    return cast(Tables, build_tables(features, (table,), vocabularies={}, engine=engine))


def _check_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    for name, vectors in first.items():
        if not torch.equal(vectors, second[name]):
            raise MuxrecError(f"{name}: the two engines give different vectors: nothing is timed")


def _interleaved(steps: Mapping[str, Step], rounds: int) -> dict[str, float]:
    """Median milliseconds of each engine; one round before the measured ones warms up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    order, shuffle = list(steps), random.Random(0).shuffle
    other_data = torch.zeros(OTHER_BYTES // 4)
    for number in range(rounds + 1):
        shuffle(order)
        for name in order:
            repeats = 1 if name in SLOW else STEPS_PER_ROUND
            for _ in range(repeats):
                other_data += 1
                start = time.process_time()
                steps[name]()
                if number:
                    times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(each) for name, each in times.items()}


def _back_to_back(step: Step, calls: int) -> float:
    """Milliseconds per call of the best of five runs of ``calls``; of one run where it is slow."""
    best = float("inf")
    for _ in range(5 if calls > 1 else 1):
        start = time.process_time()
        for _ in range(calls):
            step()
        best = min(best, 1e3 * (time.process_time() - start) / calls)
    return best

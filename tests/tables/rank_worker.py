"""One process of ``test_ranks.py``: ``rank_worker.py '{"rank": 0, "folder": "...", "worlds": 4}'``.

For N = 4, 3, ... the first N processes form a group and train STEPS steps of the same global
batches, each its equal share of them; they leave the state in ``trained-N``. Then the first M form
a group and write what they read of every state, under other kinds of cutting, to ``opened-N-on-M``.
The processes start once: starting takes longer than everything that they do. The largest group
comes first, since TorchRec's first model in a process exchanges what its later ones do not.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.bags import Bags, bags_from_lists
from muxrec.tables.build import build_tables
from muxrec.tables.convert import read_state, write_state
from muxrec.tables.plan import ON_CPU

STEPS, BATCH = 50, 12
KINDS = {
    "items": "table_wise",
    "shared": "row_wise",
    "own": "column_wise",
    "copied": "data_parallel",
    "tiny.table": "row_wise",
    "digits": "row_wise",
    "columns": "column_wise",
}
TABLES = (
    TableSpec("items", "full", 8),
    TableSpec("shared", "unified", 16, rows=101),
    TableSpec("own", "hashed", 6, rows=38),
    TableSpec("copied", "hashed", 4, rows=23),
    # Fewer rows than ranks: some of them hold none.
    TableSpec("tiny.table", "hashed", 4, rows=1),
    # Read per id, since two rows of an id are multiplied.
    TableSpec("digits", "qr", 8, options={"buckets": 7}),
    TableSpec("columns", "qr", 8, options={"buckets": 5}),
)
FEATURES = (
    FeatureSpec("item", "id", ("item",), "id", table="items"),
    FeatureSpec("genre", "bag", ("genre",), "attributes", table="shared", probes=3),
    FeatureSpec("word", "tokens", ("w",), "attributes", table="shared", probes=2, pooling="sqrt"),
    FeatureSpec("type", "bag", ("type",), "attributes", table="own", probes=2, pooling="sum"),
    FeatureSpec("size", "bag", ("size",), "attributes", table="copied"),
    FeatureSpec("flag", "id", ("flag",), "attributes", table="tiny.table"),
    FeatureSpec("brand", "bag", ("brand",), "attributes", table="digits"),
    FeatureSpec("shop", "bag", ("shop",), "attributes", table="columns", pooling="sum"),
)


def build(engine: str, kinds: Mapping[str, str], *, seed: int):
    known = {feature.name: build_vocabulary(feature.name, range(30)) for feature in FEATURES}
    tables = tuple(replace(table, sharding=kinds[table.name]) for table in TABLES)
    return build_tables(FEATURES, tables, vocabularies=known, engine=engine, seed=seed, lr=0.1)


def batch(step: int, rank: int, world: int) -> dict[str, Bags]:
    """This rank's share of the step's global batch."""
    generator = torch.Generator().manual_seed(step)
    share = range(rank * BATCH // world, (rank + 1) * BATCH // world)
    found = {}
    for feature in FEATURES:
        lengths = torch.randint(0, 4, (BATCH,), generator=generator).tolist()
        ids = [torch.randint(-5, 40, (n,), generator=generator).tolist() for n in lengths]
        found[feature.name] = bags_from_lists([ids[item] for item in share])
    return found


def train(engine: str, out: Path, *, rank: int, world: int) -> None:
    tables = build(engine, KINDS, seed=1)
    optimizer, losses = tables.table_optimizer(), []
    for step in range(STEPS):
        optimizer.set_lr(0.1 if step < 10 else 0.02)
        vectors = tables(batch(step, rank, world))
        loss = sum((v.sin() + v.square()).sum(dim=1).mean() for v in vectors.values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    out.mkdir(exist_ok=True)
    write_state(tables.export_state(), out, rank=rank)
    (out / f"losses.{rank}.json").write_text(json.dumps(losses))


def turned(turns: int) -> dict[str, str]:
    """Every table under another kind, ``turns`` places further in the list of kinds."""
    places = {name: ON_CPU.index(kind) for name, kind in KINDS.items()}
    return {name: ON_CPU[(at + turns) % len(ON_CPU)] for name, at in places.items()}


def open_state(source: Path, out: Path, *, rank: int, turns: int) -> None:
    tables = build("torchrec", turned(turns), seed=2)
    tables.load_table_state(read_state(source, ranges=tables.row_ranges()))
    out.mkdir(exist_ok=True)
    write_state(tables.export_state(), out, rank=rank)


@contextmanager
def joined(store: Path, rank: int, world: int) -> Iterator[None]:
    """The first ``world`` processes as one group."""
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world)
    try:
        yield
        gc.collect()
        dist.barrier()
    finally:
        dist.destroy_process_group()


def main() -> None:
    job = json.loads(sys.argv[1])
    rank, folder, worlds = job["rank"], Path(job["folder"]), range(job["worlds"], 0, -1)
    if rank == 0:
        train("reference", folder / "reference", rank=0, world=1)
    for world in worlds:
        if rank < world:
            with joined(folder / f"train-{world}.store", rank, world):
                train("torchrec", folder / f"trained-{world}", rank=rank, world=world)
    with joined(folder / "between.store", rank, job["worlds"]):
        pass
    for world in worlds:
        if rank < world:
            with joined(folder / f"open-{world}.store", rank, world):
                for source in worlds:
                    out = folder / f"opened-{source}-on-{world}"
                    turns = source + world
                    open_state(folder / f"trained-{source}", out, rank=rank, turns=turns)


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - printed, and nothing comes after it
        traceback.print_exc()
        sys.stderr.flush()
        # The interpreter's own exit waits for peers that will not answer.
        os._exit(1)

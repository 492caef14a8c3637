"""One rank that trains tables of integers and ``cafe``, started by ``test_changing_ranks.py``.

``changing_worker.py '{"rank": 0, ...}'``: goes on from the folder ``source``, if one is given, from
step ``start`` to ``stop``; writes the state and, per rank, all maps and all tables of integers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.bags import Bags, bags_from_lists
from muxrec.tables.build import build_tables
from muxrec.tables.convert import read_state, write_state
from muxrec.tables.staging import after_step

IDS, BATCH, STEPS = 40, 16, 30
FEATURES = tuple(
    FeatureSpec(name, "bag", (name,), "attributes", name) for name in ("int8", "alpt", "cafe")
)
TABLES = (
    TableSpec("int8", "int8", 8),
    TableSpec("alpt", "alpt", 6, options={"scale_lr": 1e-3}),
    TableSpec("cafe", "cafe", 8, rows=14, options={"every": 5, "decay": 0.8}),
)


def batch(step: int, rank: int, world: int) -> dict[str, Bags]:
    """This rank's share of the step's global batch; low ids are seen more often."""
    generator = torch.Generator().manual_seed(step)
    share = range(rank * BATCH // world, (rank + 1) * BATCH // world)
    found = {}
    for feature in FEATURES:
        lengths = torch.randint(0, 4, (BATCH,), generator=generator).tolist()
        odds = 1 / torch.arange(1, IDS + 1).double()
        ids = [
            torch.multinomial(odds, max(1, n), generator=generator)[:n].tolist() for n in lengths
        ]
        found[feature.name] = bags_from_lists([ids[item] for item in share])
    return found


def train(tables: Any, job: dict[str, Any]) -> None:
    optimizer = tables.table_optimizer()
    tables.train()
    for step in range(job["start"], job["stop"]):
        vectors = tables(batch(step, job["rank"], job["world"]))
        loss = sum((v.sin() + v.square()).sum(dim=1).mean() for v in vectors.values())
        cast(torch.Tensor, loss).backward()
        optimizer.step()
        after_step(tables, step=step, epoch=0, epochs=1, part=(step + 1) / STEPS)


def main() -> None:
    job = json.loads(sys.argv[1])
    if job["world"] > 1:
        store = f"file://{job['store']}"
        dist.init_process_group("gloo", store, rank=job["rank"], world_size=job["world"])
    words = {name: build_vocabulary(name, range(IDS)) for name in ("int8", "alpt")}
    tables: Any = build_tables(
        FEATURES, TABLES, vocabularies=words, engine="torchrec", seed=1, lr=0.05
    )
    if job["source"]:
        source = Path(job["source"])
        tables.load_table_state(read_state(source, ranges=tables.row_ranges()))
        tables.vectors.load_state_dict(torch.load(source / "rank.0.pt")["maps"])
    train(tables, job)
    out, rank = Path(job["out"]), job["rank"]
    state = tables.export_state()
    write_state(state, out, rank=rank)
    held = {name: vars(rows) for name, rows in state.tables.items() if rows.is_replicated}
    torch.save({"maps": tables.vectors.state_dict(), "held": held}, out / f"rank.{rank}.pt")
    if job["world"] > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()

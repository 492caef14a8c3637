"""One rank of a training run, started by ``test_ranks.py``: ``rank_worker.py '{"rank": 0, ...}'``.

``train``: STEPS steps of the global batch, of which this rank sees its equal share; writes the
state and the losses. ``open``: reads a state and writes back what this rank holds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.bags import Bags, bags_from_lists
from muxrec.tables.build import build_tables
from muxrec.tables.convert import read_state, write_state

STEPS, BATCH = 20, 12
FEATURES = (
    FeatureSpec("item", "id", ("item",), "id", table="items"),
    FeatureSpec("genre", "bag", ("genre",), "attributes", table="shared", probes=3),
    FeatureSpec("word", "tokens", ("w",), "attributes", table="shared", probes=2, pooling="sqrt"),
    FeatureSpec("type", "bag", ("type",), "attributes", table="own", pooling="sum"),
    FeatureSpec("flag", "id", ("flag",), "attributes", table="tiny.table"),
)
TABLES = (
    TableSpec("items", "full", 8),
    TableSpec("shared", "unified", 16, rows=101),
    TableSpec("own", "hashed", 4, rows=38),
    # Fewer rows than ranks: some of them hold none.
    TableSpec("tiny.table", "hashed", 4, rows=1),
)


def build(engine: str, seed: int):
    vocabularies = {"item": build_vocabulary("item", range(30))}
    return build_tables(
        FEATURES, TABLES, vocabularies=vocabularies, engine=engine, seed=seed, lr=0.1
    )


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


def train(job: dict) -> None:
    tables = build(job["engine"], seed=1)
    optimizer, losses = tables.table_optimizer(), []
    for step in range(STEPS):
        optimizer.set_lr(0.1 if step < 10 else 0.02)
        vectors = tables(batch(step, job["rank"], job["world"]))
        loss = sum((v.sin() + v.square()).sum(dim=1).mean() for v in vectors.values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    out = Path(job["out"])
    write_state(tables.export_state(), out, rank=job["rank"])
    (out / f"losses.{job['rank']}.json").write_text(json.dumps(losses))


def open_state(job: dict) -> None:
    tables = build(job["engine"], seed=2)
    state = read_state(Path(job["source"]), ranges=tables.row_ranges())
    tables.load_table_state(state)
    write_state(tables.export_state(), Path(job["out"]), rank=job["rank"])


def main() -> None:
    job = json.loads(sys.argv[1])
    if job["world"] > 1:
        store = f"file://{job['store']}"
        dist.init_process_group("gloo", store, rank=job["rank"], world_size=job["world"])
    {"train": train, "open": open_state}[job["mode"]](job)
    if job["world"] > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()

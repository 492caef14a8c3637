"""One of two ranks that train tables in stages, started by ``test_staged_ranks.py``.

Every rank takes its half of the batches that one process would take whole.
"""

from __future__ import annotations

import gc
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch import nn

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.bags import Bags
from muxrec.tables.build import Tables, build_tables
from muxrec.tables.convert import write_state
from muxrec.tables.lowering import Place
from muxrec.tables.staging import after_step, is_search_step, rows_kept, step_architecture
from muxrec.training.ranks import Ranks

IDS, WIDTH, BATCH, STEPS = 50, 8, 16, 25
TABLES = {
    "deeplight": {"density": 0.4},
    "pep": {"density": 0.4},
    "autosrh": {"density": 0.4, "alpha_lr": 0.5},
    "autodim": {"alpha_lr": 0.5},
    "optembed": {},
    "dpq": {"parts": 2, "codes": 8},
}
KINDS = ("row_wise", "table_wise", "column_wise", "data_parallel")


def build(kind: str, places: dict[str, Place] | None) -> Tables:
    features = tuple(FeatureSpec(f"f_{n}", "id", (n,), "id", n) for n in TABLES)
    tables = tuple(
        TableSpec(n, n, WIDTH, options=options, sharding=_sharding(n, kind))  # type: ignore[arg-type]
        for n, options in TABLES.items()
    )
    words = {f.name: build_vocabulary(f.name, range(IDS)) for f in features}
    built = build_tables(
        features, tables, vocabularies=words, engine="torchrec", places=places, lr=0.1
    )
    return cast(Tables, built)


def _sharding(name: str, kind: str) -> str:
    """A threshold of ``pep`` is one column, which cannot be cut."""
    return "row_wise" if (name, kind) == ("pep", "column_wise") else kind


def codebooks() -> dict[str, Place]:
    """The second stage of ``dpq``, with an entry that no id uses."""
    first = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0)) * 0.03
    first[:, 5] = 100
    return {"dpq": Place(1, {"f_dpq.codebook": first})}


def train(kind: str, out: Path, ranks: Ranks) -> None:
    tables = build(kind, codebooks())
    cast(nn.Module, tables).train()
    searched = {id(parameter) for parameter in tables.vectors.architecture()}
    mine = [p for p in tables.vectors.parameters() if id(p) not in searched]
    rows, dense = tables.table_optimizer(), torch.optim.SGD(mine, lr=0.1)
    share = slice(
        ranks.rank * BATCH // ranks.world_size, (ranks.rank + 1) * BATCH // ranks.world_size
    )
    for step in range(STEPS):
        draw = torch.Generator().manual_seed(step)
        index = torch.randint(IDS, (BATCH,), generator=draw)[share]
        bags = Bags(index, torch.arange(len(index) + 1))
        searches = is_search_step(tables.lowering, step)
        with rows_kept(tables) if searches else nullcontext():
            found = tables({f.name: bags for f in tables.lowering.features})
            wanted = torch.randn(IDS, WIDTH, generator=torch.Generator().manual_seed(1))[index]
            loss = torch.stack([(v - wanted).square().mean() for v in found.values()]).sum()
            penalty = tables.vectors.penalty()
            (loss if penalty is None else loss + penalty).backward()
        ranks.average_gradients(tables.vectors.parameters())
        if searches:
            step_architecture(tables)
            rows.zero_grad()
        else:
            dense.step()
            rows.step()
        dense.zero_grad()
        after_step(tables, step=step, epoch=0, epochs=2, part=(step + 1) / STEPS)
    out.mkdir(exist_ok=True)
    write_state(tables.export_state(), out, rank=ranks.rank)
    torch.save(tables.vectors.state_dict(), out / f"maps.{ranks.rank}.pt")


def main() -> None:
    job = json.loads(sys.argv[1])
    rank, folder = job["rank"], Path(job["folder"])
    torch.set_num_threads(1)
    if rank == 0:
        train("table_wise", folder / "alone", Ranks())
    dist.init_process_group("gloo", f"file://{folder / 'store'}", rank=rank, world_size=2)
    for kind in KINDS:
        train(kind, folder / kind, Ranks(rank, 2))
        gc.collect()
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

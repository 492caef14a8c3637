"""Train a table of two million rows; print by how much the peak memory rose while training.

``memory_worker.py reference|torchrec|dense``; ``dense`` is plain TorchRec's way, for contrast.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.tables.bags import Bags
from muxrec.tables.build import build_tables

ROWS, WIDTH, FEATURES, BATCH = 2_000_000, 64, 4, 256


def peak_bytes() -> int:
    # Not ru_maxrss: a child begins with the peak of the process that started it.
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if "VmHWM" in line)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def forget_peak() -> None:
    """Making the table peaks above what it keeps; that is not training."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def train_tables(engine: str, rows: int) -> tuple[int, list[str]]:
    """Three steps; returns the memory held before the first and the kinds of gradient."""
    features = tuple(
        FeatureSpec(f"f{i}", "id", ("x",), "id", table="shared") for i in range(FEATURES)
    )
    table = TableSpec("shared", "unified", WIDTH, rows=rows)
    tables = build_tables(features, (table,), vocabularies={}, engine=engine)
    forget_peak()
    optimizer, start, kinds = tables.table_optimizer(), resident_bytes(), []
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        batch = {
            f.name: Bags(
                torch.randint(0, 10**9, (BATCH,), generator=generator), torch.arange(BATCH + 1)
            )
            for f in features
        }
        sum(vector.square().sum() for vector in tables(batch).values()).backward()
        kinds = [kind(parameter) for parameter in tables.parameters()]
        optimizer.step()
    return start, kinds


def train_dense(rows: int) -> tuple[int, list[str]]:
    table = torch.nn.EmbeddingBag(rows, WIDTH, mode="sum")
    start = resident_bytes()
    table(torch.arange(BATCH), torch.arange(BATCH)).sum().backward()
    return start, [kind(table.weight)]


def kind(parameter: torch.Tensor) -> str:
    if parameter.grad is None:
        return "none"
    return "sparse" if parameter.grad.is_sparse else "dense"


def main() -> None:
    way = sys.argv[1]
    if way == "dense":
        start, kinds = train_dense(ROWS)
    else:
        # The first training loads libraries and their buffers: a small table takes that part.
        train_tables(way, 1000)
        start, kinds = train_tables(way, ROWS)
    sys.stdout.write(json.dumps({"rise": peak_bytes() - start, "gradients": kinds}) + "\n")


if __name__ == "__main__":
    main()

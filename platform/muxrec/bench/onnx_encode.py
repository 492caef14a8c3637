"""``muxrec bench onnx``: CPU time per encoded item, and what int8 tables save and cost."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch

from muxrec.bench.made_up_items import MadeUpItems, made_up_items, made_up_model
from muxrec.bench.numpy_tower import NumpyTower
from muxrec.bench.report import Cell, Table, write_report
from muxrec.bundle.tower import TowerSession
from muxrec.data.batch import ItemBatch
from muxrec.errors import MuxrecError
from muxrec.export.onnx_graph import export_onnx
from muxrec.export.parity import max_error, prove_parity, same_top
from muxrec.export.quantise import served_model
from muxrec.model import ItemModel
from muxrec.recipe.model import Export

BATCHES = (1, 8, 32, 256)
HEADER = ("batch", "onnxruntime", "onnxruntime int8", "torch eager", "numpy")
NUMPY_TOLERANCE = 1e-5
"""Numpy sums in yet another order."""

Run = Callable[[], object]


@click.command()
@click.option("--items", "count", default=10_000, show_default=True, help="Items in the catalogue.")
@click.option("--rows", default=50_000, show_default=True, help="Rows of the unified table.")
@click.option("--width", default=64, show_default=True, help="Width of the item vector.")
@click.option("--seconds", default=1.0, show_default=True, help="CPU seconds per measurement.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for Markdown and JSON.")
def onnx_bench(count: int, rows: int, width: int, seconds: float, out: Path | None) -> None:
    """Time one thread of onnxruntime, torch eager and numpy on the same model and batches."""
    torch.set_num_threads(1)
    items = made_up_items(count)
    model = made_up_model(items, width=width, rows=rows, serve_dtype="fp32")
    small = made_up_model(items, width=width, rows=rows, serve_dtype="int8")
    with tempfile.TemporaryDirectory() as scratch:
        path, small_path = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        tower, vectors = _export(model, items, path)
        small_tower, small_vectors = _export(small, items, small_path)
        numpy_tower = _checked_numpy(model, items, vectors)
        note = f"{count} items, unified table {rows} x 32, vectors of {width}, one thread."
        times = _times(model, [tower, small_tower], numpy_tower, items, seconds=seconds)
        tables = [
            Table("Encoding items, CPU us per item", note, HEADER, times),
            _price((path, vectors), (small_path, small_vectors)),
        ]
    for table in tables:
        click.echo(table.markdown())
    if out is not None:
        markdown, machine = write_report(out, "bench-onnx", tables)
        click.echo(f"written: {markdown} {machine}")


def _times(
    model: ItemModel,
    towers: list[TowerSession],
    numpy_tower: NumpyTower,
    items: MadeUpItems,
    *,
    seconds: float,
) -> tuple[tuple[Cell, ...], ...]:
    """A row per batch size: CPU microseconds per item of everything that is timed."""
    rows = []
    for batch in BATCHES:
        runs = _runs(model, towers, numpy_tower, items, batch)
        us = (1e6 * _cpu_s(run, seconds=seconds) / batch for run in runs)
        rows.append((f"batch {batch}", *us))
    return tuple(rows)


def _price(fp32: tuple[Path, np.ndarray], int8: tuple[Path, np.ndarray]) -> Table:
    """What int8 tables save and cost; each side is its graph and its vectors."""
    size, small = (_bytes(path) for path, _ in (fp32, int8))
    error = max_error((fp32[1], fp32[1]), (int8[1], int8[1]))
    same = same_top(fp32[1], int8[1], k=10)
    row = (f"{size / small:.2f}x smaller", size / 1e6, small / 1e6, error, f"{same:.2%}")
    columns = ("size", "fp32 MB", "int8 MB", "largest vector error", "same top 10")
    return Table("int8 tables in the graph", "The same model, rows in bytes.", columns, (row,))


def _export(model: ItemModel, items: MadeUpItems, path: Path) -> tuple[TowerSession, np.ndarray]:
    """The proven graph and its vectors; raises ``BundleError`` before any time is printed."""
    export_onnx(model, items.arrays, path, opset=Export().opset)
    tower = TowerSession(path, features=model.tower.features)
    parity, vectors, _ = prove_parity(served_model(model), tower, items.arrays, limits=Export())
    click.echo(f"{path.stem}: largest error against torch {parity.max_abs_error:.1e}")
    return tower, vectors


def _checked_numpy(model: ItemModel, items: MadeUpItems, vectors: np.ndarray) -> NumpyTower:
    tower = NumpyTower(model, items.vocabularies)
    sample = np.arange(min(len(vectors), 500))
    found = tower.run(items.arrays.take(sample).onnx_inputs(tower.features))
    error = float(np.abs(found - vectors[sample]).max())
    if error > NUMPY_TOLERANCE:
        raise MuxrecError(f"the numpy tower differs by {error:.1e}: its time means nothing")
    click.echo(f"numpy: largest error against onnxruntime {error:.1e}")
    return tower


def _runs(
    model: ItemModel,
    towers: list[TowerSession],
    numpy_tower: NumpyTower,
    items: MadeUpItems,
    batch: int,
) -> list[Run]:
    """What is timed: ready inputs in, vectors out."""
    chosen = items.arrays.take(np.arange(batch) * 7919 % len(items.arrays))
    inputs = chosen.onnx_inputs(numpy_tower.features)
    tensors = ItemBatch.from_arrays(chosen)

    def eager() -> object:
        with torch.inference_mode():
            return model(tensors)

    sessions = [lambda tower=tower: tower.run(inputs) for tower in towers]
    return [*sessions, eager, lambda: numpy_tower.run(inputs)]


def _cpu_s(run: Run, *, seconds: float, blocks: int = 5) -> float:
    """CPU seconds of one call: the best of ``blocks`` means, since other work only adds."""
    run()
    start = time.process_time()
    run()
    once = max(time.process_time() - start, 1e-5)
    calls = max(1, int(seconds / blocks / once))
    best = float("inf")
    for _ in range(blocks):
        start = time.process_time()
        for _ in range(calls):
            run()
        best = min(best, (time.process_time() - start) / calls)
    return best


def _bytes(path: Path) -> int:
    data = path.with_name(f"{path.name}.data")
    return path.stat().st_size + (data.stat().st_size if data.is_file() else 0)

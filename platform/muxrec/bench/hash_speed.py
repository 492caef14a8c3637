"""How fast each engine hashes ids to rows, after all of them gave the same rows."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from muxrec.errors import MuxrecError
from muxrec.spec import hashing
from muxrec.tables.hash_cpu import hash_rows_in_place, start_seeds
from muxrec.tables.hash_torch import hash_rows
from muxrec_kernels.dispatch import why_no_triton

Int64Array = npt.NDArray[np.int64]
Engine = Callable[[Int64Array], Int64Array]

ROWS = 1_000_003
SEED = hashing.probe_seed("feature", 0)
REFERENCE = "numpy (muxrec.spec)"


def engines() -> dict[str, Engine]:
    """Every engine that can run here, by name."""
    found: dict[str, Engine] = {
        REFERENCE: lambda ids: hashing.hash_rows(ids, name="feature", probe=0, rows=ROWS),
        "numpy in place (training step)": _in_place,
        "torch": lambda ids: hash_rows(torch.from_numpy(ids), SEED, ROWS).numpy(),
    }
    if has_onnx():
        found["onnxruntime (exported torch)"] = _onnx_engine()
    if torch.cuda.is_available() and why_no_triton("cuda") is None:
        found["Triton, CUDA"] = _triton_engine()
    return found


def has_onnx() -> bool:
    """Whether the exporter and the runtime are installed."""
    return all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnxscript"))


def check_equal(found: Mapping[str, Engine], ids: Int64Array) -> None:
    """Compare all engines on ``ids``.

    Raises:
        MuxrecError: An engine gives another row; the first id is named.
    """
    wanted = found[REFERENCE](ids)
    for name, engine in found.items():
        rows = engine(ids)
        if wrong := np.flatnonzero(rows != wanted).tolist():
            at = wrong[0]
            raise MuxrecError(
                f"{name} puts id {ids[at]} in row {rows[at]}, {REFERENCE} in {wanted[at]}: no time "
                "is printed for engines that disagree"
            )


def million_per_second(engine: Engine, ids: Int64Array, *, seconds: float) -> float:
    """Million ids hashed per second of CPU on one thread: the best of five blocks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best, deadline = float("inf"), time.process_time() + seconds
    engine(ids)
    while time.process_time() < deadline or best == float("inf"):
        start = time.process_time()
        engine(ids)
        best = min(best, time.process_time() - start)
    torch.set_num_threads(threads)
    return len(ids) / best / 1e6


def _in_place(ids: Int64Array) -> Int64Array:
    starts = start_seeds(np.full(len(ids), SEED))
    return hash_rows_in_place(ids.view(np.uint64), starts, ROWS)


class _Rows(torch.nn.Module):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return hash_rows(ids, SEED, ROWS)


def _onnx_engine() -> Engine:
    import onnxruntime

    shapes = {"ids": {0: torch.export.Dim("batch")}}
    program = torch.onnx.export(
        _Rows().eval(), (torch.arange(4),), dynamo=True, dynamic_shapes=shapes, verbose=False
    )
    if program is None:
        raise MuxrecError("torch.onnx.export gave no program for the hash")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hash.onnx"
        program.save(str(path))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda ids: np.asarray(session.run(None, {name: ids})[0])


def _triton_engine() -> Engine:
    from muxrec_kernels.multiplexed_lookup.triton_kernel import rows_kernel

    def run(ids: Int64Array) -> Int64Array:
        given = torch.from_numpy(ids).cuda()
        out, seeds = torch.empty_like(given), torch.full_like(given, SEED)
        positions, block = torch.arange(len(ids), device="cuda"), 1024
        launch = rows_kernel[(-(-len(ids) // block),)]
        launch(given, positions, seeds, out, len(ids), ROWS, BLOCK=block)  # type: ignore[arg-type]
        return out.cpu().numpy()

    return run

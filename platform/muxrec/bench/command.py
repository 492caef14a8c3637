"""``muxrec bench``: the group of measurements."""

from __future__ import annotations

import click

from muxrec.lazy_group import LazyCommand, LazyGroup

BENCHES = {
    "hash": LazyCommand(
        "muxrec.bench.hash:hash_bench", "Uniformity, avalanche, collisions and speed of the hash."
    ),
    "train-step": LazyCommand(
        "muxrec.bench.train_step:train_step_bench",
        "CPU per step of the table engines.",
        "train,cpu",
    ),
    "onnx": LazyCommand(
        "muxrec.bench.onnx_encode:onnx_bench", "Encoding time of a bundle.", "train,cpu"
    ),
    "compression": LazyCommand(
        "muxrec.bench.compression.command:compression_bench",
        "Quality against bytes of the table methods.",
        "train,cpu",
    ),
    "kernels": LazyCommand(
        "muxrec.bench.kernels:kernels_bench",
        "Triton kernels: correctness, then time against peers and the memory's roof.",
        "train,cpu",
    ),
    "memory": LazyCommand(
        "muxrec.bench.memory:memory_bench",
        "Peak memory of training, export and serving with large tables.",
        "train,jobs,serving,cpu",
    ),
    "pairs": LazyCommand("muxrec_jobs.bench:pairs_bench", "Pair mining: Spark and DuckDB.", "jobs"),
    "serve": LazyCommand(
        "muxrec_serving.bench:serve_bench", "Server CPU per request.", "serving,cpu"
    ),
}


@click.command(cls=LazyGroup, lazy=BENCHES, name="bench")
def bench() -> None:
    """Measurements behind the tables in docs/."""

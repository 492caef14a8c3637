"""The command: build a bundle, start both servers, check that they are right, measure, print."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from muxrec.bundle import Bundle
from muxrec.bundle.sample import sample_bundle
from muxrec.errors import MuxrecError
from muxrec_serving.bench.measure import K, Row, Target, bare_search_us, get, measure, post
from muxrec_serving.bench.peer import LIVE, live_vectors
from muxrec_serving.bench.processes import Running, free_port, running

QUERIES = 512
SCORE_TOLERANCE = 1e-4
"""Answers carry six digits of float32 sums."""

PRECOMPUTED = "muxrec, precomputed"
SEARCHED = "muxrec, searched"
VECTOR = "muxrec, POST of a vector"
PEER = "default FastAPI, items"
PEER_VECTORS = "default FastAPI, same vectors"
PEER_OF = {PRECOMPUTED: PEER, PEER: PEER}
"""Who is the measure of whom: like is compared with like."""


@click.command()
@click.option("--items", default=20_000, show_default=True, help="Items in the catalogue.")
@click.option("--dim", default=64, show_default=True, help="Width of the vectors.")
@click.option("--requests", "count", default=4000, show_default=True, help="Requests per round.")
@click.option("--rounds", default=3, show_default=True, help="Rounds; the median is printed.")
@click.option("--connections", default="1,8,32", show_default=True, help="Kept connections.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the numbers as JSON too.")
def serve_bench(
    *, items: int, dim: int, count: int, rounds: int, connections: str, out: Path | None
) -> None:
    """Measure the server's CPU per request against a bare search and a default endpoint."""
    clients = [int(part) for part in connections.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = sample_bundle(Path(scratch), count=items, dim=dim, neighbours=100, images=False)
        bundle = Bundle.open(folder, verify=False)
        ours, peer = free_port(), free_port()
        serve = ["-m", "muxrec.cli", "serve", "--bundle", str(folder), "--port", str(ours)]
        default = ["-m", "muxrec_serving.bench.peer", str(folder), str(peer)]
        with (
            running(serve, port=ours, path="/version") as server,
            running(default, port=peer, path="/openapi.json") as other,
        ):
            drawn = live_vectors(bundle.dim)
            targets = _targets(bundle, drawn, server, other)
            _check(bundle, server, other)
            bare_us = bare_search_us(bundle, drawn, count=count, rounds=rounds)
            rows = measure(targets, connections=clients, count=count, rounds=rounds)
    report = {"items": items, "dim": dim, "bare_search_us": bare_us, "rows": rows, **_machine()}
    click.echo(_markdown(report))
    if out is not None:
        out.write_text(json.dumps(report, indent=1), encoding="utf-8")


def _targets(bundle: Bundle, drawn: np.ndarray, server: Running, other: Running) -> list[Target]:
    ids = [str(i) for i in np.random.default_rng(0).choice(bundle.item_ids, QUERIES)]
    # A live item has no stored list: its neighbours are searched for every request.
    for number, vector in enumerate(drawn.tolist()):
        server.ask("PUT", f"/v1/items/live-{number}", {"plot": vector})
    vectors = [{"vectors": [vector], "k": K} for vector in drawn.astype(float).round(5).tolist()]
    live = [f"live-{number}" for number in range(LIVE)]
    return [
        Target(PRECOMPUTED, server, [get(f"/v1/items/{i}/similar?k={K}") for i in ids]),
        Target(PEER, other, [get(f"/items/{i}/similar?k={K}") for i in ids]),
        Target(SEARCHED, server, [get(f"/v1/items/{i}/similar?k={K}") for i in live]),
        Target(VECTOR, server, [post("/v1/similar", body) for body in vectors]),
        Target(PEER_VECTORS, other, [get(f"/items/{i}/similar?k={K}") for i in live]),
    ]


def _check(bundle: Bundle, server: Running, other: Running) -> None:
    """No number is printed unless both servers answer as the bundle's vectors say.

    Raises:
        MuxrecError: One does not.
    """
    vectors, ids = bundle.vectors, bundle.item_ids
    for position in range(0, bundle.count, max(1, bundle.count // 50)):
        scores = vectors @ vectors[position]
        scores[position] = -np.inf
        best = float(scores.max())
        for asked, prefix in ((server, "/v1/items"), (other, "/items")):
            answer: Any = asked.ask("GET", f"{prefix}/{ids[position]}/similar?k={K}")
            found = [n for n in answer["neighbours"] if not n["item_id"].startswith("live-")]
            if abs(found[0]["score"] - best) > SCORE_TOLERANCE and asked is server:
                raise MuxrecError(f"{prefix}/{ids[position]}: {found[0]}, expected score {best}")
            if len(answer["neighbours"]) != K:
                raise MuxrecError(f"{prefix}/{ids[position]}: {K} neighbours expected")


def _machine() -> dict[str, Any]:
    return {"python": platform.python_version(), "cpus": os.cpu_count(), "load": os.getloadavg()}


def _markdown(report: dict[str, Any]) -> str:
    rows: list[Row] = report["rows"]
    bare = report["bare_search_us"]
    python, cpus, load = report["python"], report["cpus"], report["load"][0]
    head = (
        f"{report['items']} items of width {report['dim']}, k={K}, ef 64; one worker; "
        f"Python {python}, {cpus} CPUs, load {load:.1f}. "
        f"Bare search in the wrapper: {bare:.0f} us of CPU.\n\n"
        "| target | connections | CPU us per request (low-high) | / bare search | its peer / it "
        "| requests/s | p50 ms | p99 ms |\n|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    lines = [head]
    cpu_of = {(row["target"], row["connections"]): float(row["cpu_us"]) for row in rows}
    for row in rows:
        cpu = float(row["cpu_us"])
        peer = cpu_of[PEER_OF.get(str(row["target"]), PEER_VECTORS), row["connections"]]
        lines.append(
            f"| {row['target']} | {row['connections']} | {cpu:.0f} ({row['cpu_us_low']:.0f}-"
            f"{row['cpu_us_high']:.0f}) | {cpu / bare:.2f} | {peer / cpu:.1f} | "
            f"{row['requests_per_s']:.0f} | {row['p50_ms']:.2f} | {row['p99_ms']:.1f} |"
        )
    return "\n".join(lines)

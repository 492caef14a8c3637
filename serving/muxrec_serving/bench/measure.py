"""CPU per request of several targets, measured in turns so that the machine's moods hit all."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from muxrec.bundle import Bundle
from muxrec.errors import MuxrecError
from muxrec_serving.bench.processes import Running

WARM_UP = 500
K = 10
Row = dict[str, float | str]


@dataclass(frozen=True)
class Target:
    """Something that is asked.

    Attributes:
        name: Its row in the table.
        server: Who is asked.
        requests: Whole HTTP requests, asked in a cycle.
    """

    name: str
    server: Running
    requests: list[str]


def get(path: str) -> str:
    """A GET request on a kept connection."""
    return f"GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n"


def post(path: str, body: object) -> str:
    """A POST request with a JSON body."""
    text = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(text)}\r\n\r\n{text}"


def measure(
    targets: Sequence[Target], *, connections: Sequence[int], count: int, rounds: int
) -> list[Row]:
    """Median CPU and latency of every target at every number of connections.

    Args:
        targets: Who is asked, one after the other within each round.
        connections: Numbers of kept connections.
        count: Requests per target and round.
        rounds: Rounds; the median over them is returned, with the smallest and largest CPU.
    """
    for target in targets:
        _load(target, 8, WARM_UP)
    rows: list[Row] = []
    for clients in connections:
        runs: dict[str, list[dict[str, float]]] = {target.name: [] for target in targets}
        for _ in range(rounds):
            for target in targets:
                runs[target.name].append(_load(target, clients, count))
        rows += [_row(name, clients, found, count) for name, found in runs.items()]
    return rows


def bare_search_us(bundle: Bundle, queries: np.ndarray, *, count: int, rounds: int) -> float:
    """Median CPU microseconds of one ``knn_query`` through the index wrapper, in this process.

    Args:
        bundle: Its index is searched.
        queries: The vectors that the servers are asked about, float32 ``[Q, D]``, unit norm. Other
            ones would not do: a query far from every item costs twice one that is an item.
        count: Searches per round.
        rounds: Rounds; one more goes before as a warm-up.
    """
    index = bundle.index()
    means = []
    for _ in range(rounds + 1):
        started = time.process_time()
        for number in range(count):
            index.search(queries[number % len(queries)][None], K)
        means.append((time.process_time() - started) / count)
    return 1e6 * statistics.median(means[1:])


def _load(target: Target, connections: int, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "muxrec_serving.bench.load", str(target.server.port)]
    lines = "\n".join(json.dumps(request) for request in target.requests)
    before = target.server.cpu_s()
    done = subprocess.run(
        [*command, str(connections), str(count)],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise MuxrecError(f"the load on {target.name} failed: {done.stderr.strip()[-300:]}")
    used = target.server.cpu_s() - before
    if used <= 0:
        raise MuxrecError(
            f"{count} requests cost {target.name} less CPU than the clock can tell: "
            "raise --requests"
        )
    return {**json.loads(done.stdout), "cpu_s": used}


def _row(name: str, clients: int, runs: list[dict[str, float]], count: int) -> Row:
    cpu = sorted(1e6 * run["cpu_s"] / count for run in runs)
    middle = {
        key: statistics.median(run[key] for run in runs) for key in ("seconds", "p50_ms", "p99_ms")
    }
    return {
        "target": name,
        "connections": clients,
        "cpu_us": statistics.median(cpu),
        "cpu_us_low": cpu[0],
        "cpu_us_high": cpu[-1],
        "requests_per_s": count / middle["seconds"],
        "p50_ms": middle["p50_ms"],
        "p99_ms": middle["p99_ms"],
    }

"""Server processes of the benchmark: started, waited for, their CPU time read, stopped."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

import psutil

from muxrec.errors import MuxrecError

START_TIMEOUT_S = 120.0
LOOK_S = 0.1
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Running:
    """A server that listens.

    Attributes:
        port: Its port.
        process: Its first process; workers are children of it.
    """

    port: int
    process: subprocess.Popen[bytes]

    def cpu_s(self) -> float:
        """CPU seconds, user and system, of the process and all its children so far."""
        first = psutil.Process(self.process.pid)
        return sum(cpu_s(one) for one in (first, *first.children(recursive=True)))

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The JSON answer to one request.

        Raises:
            MuxrecError: The status is not 2xx.
        """
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"content-type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status >= 300:
            raise MuxrecError(f"{method} {path} answered {answer.status}: {text[:300]}")
        return json.loads(text)


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of one process, by the clock that counts nanoseconds where there is one.

    ``/proc`` counts ticks of 10 ms, more than a few hundred precomputed answers cost.
    """
    if sys.platform == "linux":
        # The number that clock_getcpuclockid gives for a process: its scheduler clock.
        return time.clock_gettime((~process.pid << 3) | 2)
    times = process.cpu_times()
    return times.user + times.system


@contextmanager
def running(command: Sequence[str], *, port: int, path: str) -> Iterator[Running]:
    """Start ``command``, wait until GET ``path`` is answered, stop it when the block ends.

    Raises:
        MuxrecError: It ended or did not answer in time.
    """
    process = subprocess.Popen(
        [sys.executable, *command], env={**os.environ, **ONE_THREAD}, stderr=subprocess.DEVNULL
    )
    server = Running(port, process)
    try:
        _wait(server, path)
        yield server
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A loopback port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: Running, path: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise MuxrecError(f"a server of the benchmark ended with {server.process.returncode}")
        try:
            server.ask("GET", path)
        except (OSError, HTTPException):
            time.sleep(LOOK_S)
        else:
            return
    raise MuxrecError(f"a server of the benchmark did not answer within {START_TIMEOUT_S:g} s")

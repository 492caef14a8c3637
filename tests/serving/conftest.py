"""Sample bundles, a service in this process, and the real server in its own."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from muxrec.bundle.sample import sample_bundle
from muxrec_serving.answering.service import Service
from muxrec_serving.answering.state import ServingState, load_state
from muxrec_serving.following.origin import Origin
from muxrec_serving.web.app import build_app
from muxrec_serving.web.front import Front

WAIT_S = 60.0
"""Longest wait for a line of a server's log; a machine shared by many is slow, never this slow."""


class ServerProcess:
    """A running ``muxrec serve`` whose log can be waited for."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "muxrec.cli", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self.log: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def worker(self) -> int:
        """Process id of the worker that said last that it listens."""
        line = next(line for line in reversed(self.log) if " listening " in line)
        return int(line.rpartition("worker=")[2])

    def wait_for(self, text: str) -> str:
        """The next line of the log that holds ``text``; fails when the server ends before."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"no line with {text!r} within {WAIT_S:g} s:\n" + "".join(self.log))
            assert line is not None, f"the server ended without {text!r}:\n" + "".join(self.log)
            if text in line:
                return line

    def stop(self, *, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=WAIT_S)

    def kill(self) -> None:
        """End the server and its workers, whatever they do."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            self._lines.put(line)
        self._lines.put(None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_server(*arguments: str, environment: dict[str, str] | None = None):
    server = ServerProcess(*arguments, environment=environment)
    try:
        server.wait_for(" listening ")
        yield server
    finally:
        try:
            server.stop()
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture(scope="session")
def start_server() -> Callable[..., ServerProcess]:
    """Start a server without waiting for anything; the test ends it."""
    return ServerProcess


@pytest.fixture(scope="session")
def serving() -> Callable[..., object]:
    """``with serving("--bundle", ...) as server``: listening inside, stopped after."""
    return run_server


@pytest.fixture(scope="session")
def take_port() -> Callable[[], int]:
    return free_port


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three bundles of one catalogue with different vectors, each in a folder of its own."""
    root = tmp_path_factory.mktemp("bundles")
    return [sample_bundle(root / str(seed), seed=seed) for seed in range(3)]


@pytest.fixture(scope="session")
def states(bundles: list[Path]) -> list[ServingState]:
    return [load_state(Origin(folder), probe=False) for folder in bundles]


@pytest.fixture(scope="session")
def state(states: list[ServingState]) -> ServingState:
    return states[0]


@pytest.fixture
def service(state: ServingState) -> Iterator[Service]:
    made = Service(state)
    made.set_ready(True)
    yield made
    made.close()


@pytest.fixture
def connect() -> Callable[[Service], httpx.AsyncClient]:
    """A client that talks ASGI to a service in this process, all layers included."""

    fronts: dict[int, Front] = {}

    def made(service: Service) -> httpx.AsyncClient:
        front = fronts.get(id(service)) or Front(service, build_app(service))
        fronts[id(service)] = front
        transport = httpx.ASGITransport(app=front)
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    return made


@pytest.fixture(scope="module")
def server(bundles: list[Path]) -> Iterator[ServerProcess]:
    """One running server over the first bundle, shared by a file's tests."""
    with run_server("--bundle", str(bundles[0])) as running:
        yield running

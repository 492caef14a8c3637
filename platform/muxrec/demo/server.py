"""A server process for as long as a block lasts, and the questions put to it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import urlopen

from muxrec.errors import MuxrecError

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.1


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_server(command: Sequence[str], *, port: int, log: Path) -> Iterator[str]:
    """Start a server, wait until it says that it is ready, and stop it when the block ends.

    Args:
        command: The server's command line.
        port: The port it was told to listen on, on loopback.
        log: File that takes what the server prints.

    Yields:
        The server's base address, ``http://127.0.0.1:PORT``.

    Raises:
        MuxrecError: It ended or was not ready in time; the message holds its last line.
    """
    base = f"http://127.0.0.1:{port}"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(process, base, log)
            yield base
        finally:
            _stop(process)


def get_json(url: str) -> Any:
    """The JSON that a GET answers.

    Raises:
        MuxrecError: The answer is an error; the message holds its text.
    """
    try:
        with urlopen(url, timeout=30) as answer:
            return json.load(answer)
    except HTTPError as error:
        text = " ".join(error.read().decode(errors="replace").split())[:300]
        raise MuxrecError(f"{url} answered {error.code}: {text}") from error


def similar_items(base: str, item_id: str, *, k: int) -> list[dict[str, Any]]:
    """The ``k`` neighbours of an item with scores, reasons and display fields."""
    query = f"k={k}&explain=true&display=true"
    return get_json(f"{base}/v1/items/{quote(item_id, safe='')}/similar?{query}")["neighbours"]


def _wait_until_ready(process: subprocess.Popen[bytes], base: str, log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise MuxrecError(f"the server ended with code {process.returncode}: {_last_line(log)}")
        if _is_ready(base):
            return
        time.sleep(POLL_S)
    raise MuxrecError(f"the server was not ready after {READY_TIMEOUT_S:.0f} s: {_last_line(log)}")


def _is_ready(base: str) -> bool:
    try:
        with urlopen(f"{base}/health/ready", timeout=5) as answer:
            return answer.status == 200
    except (URLError, OSError, http.client.HTTPException):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1]} ({log})" if lines else f"it printed nothing ({log})"

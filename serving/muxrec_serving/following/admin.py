"""Administration on a loopback port of its own: status, reload, rollback.

A thread of the standard library's HTTP server: a handful of requests a day must not share the
public listener. Every POST must carry a header that a web page cannot add without permission.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from muxrec.errors import MuxrecError
from muxrec.log import event
from muxrec_serving.answering.answers import json_bytes
from muxrec_serving.errors import error_body
from muxrec_serving.following.follower import Follower

log = logging.getLogger("muxrec_serving.following")
HOST = "127.0.0.1"
GUARD_HEADER = "X-Muxrec-Admin"
TIMEOUT_S = 600.0
LOCAL_NAMES = frozenset({"127.0.0.1", "localhost"})


class AdminServer:
    """The administration's listener."""

    def __init__(self, follower: Follower, port: int, loop: asyncio.AbstractEventLoop) -> None:
        """Listen on the loopback ``port``; commands run on ``loop``.

        Raises:
            MuxrecError: The port is in use.
        """
        try:
            self._server = ThreadingHTTPServer((HOST, port), _handler(follower, loop))
        except OSError as error:
            raise MuxrecError(f"--admin-port {port}: {error.strerror}") from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def _handler(follower: Follower, loop: asyncio.AbstractEventLoop) -> type[BaseHTTPRequestHandler]:
    async def status() -> dict[str, Any]:
        return follower.status()

    routes = {
        ("GET", "/admin/status"): status,
        ("POST", "/admin/reload"): follower.reload,
        ("POST", "/admin/rollback"): follower.rollback,
    }

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            """Answer a GET."""
            self._answer("GET")

        def do_POST(self) -> None:
            """Answer a POST."""
            self._answer("POST")

        def _answer(self, method: str) -> None:
            command = routes.get((method, self.path))
            host = self.headers.get("Host", "").rpartition(":")[0]
            if host not in LOCAL_NAMES:
                self._send(403, error_body("foreign_host", "ask by 127.0.0.1 or localhost"))
            elif command is None:
                known = ", ".join(" ".join(route) for route in routes)
                self._send(404, error_body("unknown_path", f"this port knows {known}"))
            elif method == "POST" and GUARD_HEADER not in self.headers:
                self._send(403, error_body("no_guard", f"send the header {GUARD_HEADER}: yes"))
            else:
                self._send(200, json_bytes(_on_loop(loop, command())))

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            """One line per command, in the service's own form."""
            log.info(event("admin", said=format % args))

    return Handler


def _on_loop(
    loop: asyncio.AbstractEventLoop, command: Coroutine[Any, Any, dict[str, Any]]
) -> dict[str, Any]:
    return asyncio.run_coroutine_threadsafe(command, loop).result(TIMEOUT_S)

"""The outermost ASGI layer: hot routes answered at once, limits, errors, metrics, request ids.

Neither ``GET /v1/items/{id}/similar`` nor ``POST /v1/similar`` reaches the framework: a precomputed
answer costs two lookups, and the framework around a search costs twice the search.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from itertools import count
from secrets import token_hex
from typing import Any

from muxrec.log import event
from muxrec_serving.answering.service import Service
from muxrec_serving.errors import RequestError, error_body, too_large
from muxrec_serving.limits import BODY_TIMEOUT_S, MAX_BODY_BYTES, MAX_ID_CHARS, MAX_UPLOAD_BYTES
from muxrec_serving.query import parse_similar
from muxrec_serving.web.batches import answer_raw

log = logging.getLogger("muxrec_serving.request")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ITEMS, SIMILAR = "/v1/items/", "/similar"
SIMILAR_ROUTE, BATCH_ROUTE = "/v1/items/{item_id}/similar", "/v1/similar"
UPLOADS = frozenset({BATCH_ROUTE, "/v1/embed"})
_JSON = (b"content-type", b"application/json")
_REFUSED = 400


class Front:
    """Wraps the framework's application; one per worker."""

    def __init__(self, service: Service, inner: App, *, access_log: bool = False) -> None:
        self._service = service
        self._inner = inner
        self._access_log = access_log
        self._prefix = token_hex(4)
        self._numbers = count(1)
        metrics = service.metrics
        hot = (SIMILAR_ROUTE, BATCH_ROUTE)
        self._ok = {route: metrics.requests.labels(route, "200") for route in hot}
        self._seconds = {route: metrics.seconds.labels(route) for route in hot}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection event."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        started = time.perf_counter()
        path, method = scope["path"], scope["method"]
        if method == "GET" and path.endswith(SIMILAR) and path.startswith(ITEMS):
            await self._hot(scope, send, started, SIMILAR_ROUTE, self._one(scope))
        elif method == "POST" and path == BATCH_ROUTE:
            await self._hot(scope, send, started, BATCH_ROUTE, self._many(scope, receive))
        else:
            await self._other(scope, receive, send, started)

    async def _hot(
        self, scope: Scope, send: Send, started: float, route: str, work: Awaitable[bytes]
    ) -> None:
        request_id = self._request_id(scope)
        status = 200
        try:
            body = await work
        except RequestError as error:
            status, body = error.status, error.body()
        except Exception as error:  # noqa: BLE001 - the last layer: anything else is a 500
            status, body = 500, _failure(error, request_id)
        await _send_json(send, status, body, request_id)
        elapsed = time.perf_counter() - started
        if status == 200:
            self._ok[route].inc()
            self._seconds[route].observe(elapsed)
        else:
            self._count(route, status, elapsed)
        if status >= _REFUSED or self._access_log:
            _log_request(scope, status, elapsed, request_id)

    async def _one(self, scope: Scope) -> bytes:
        item_id = scope["path"][len(ITEMS) : -len(SIMILAR)]
        if not 0 < len(item_id) <= MAX_ID_CHARS:
            raise RequestError(422, "bad_id", f"an id has 1..{MAX_ID_CHARS} characters")
        return self._service.similar(item_id, parse_similar(scope["query_string"]))

    async def _many(self, scope: Scope, receive: Receive) -> bytes:
        raw = await _whole_body(scope, receive)
        given = next((v for name, v in scope["headers"] if name == b"content-type"), b"")
        return await answer_raw(self._service, given.decode("latin-1"), raw)

    async def _other(self, scope: Scope, receive: Receive, send: Send, started: float) -> None:
        request_id = self._request_id(scope)
        reply = _Reply(send, request_id)
        try:
            body = await _whole_body(scope, receive)
            await self._inner(scope, _replay(body, receive), reply)
        except RequestError as error:
            await reply.fail(error.status, error.body())
        except Exception as error:  # noqa: BLE001 - the last layer: anything else is a 500
            await reply.fail(500, _failure(error, request_id))
        elapsed = time.perf_counter() - started
        route = getattr(scope.get("route"), "path", "other")
        self._count(route, reply.status, elapsed)
        if reply.status >= _REFUSED or self._access_log:
            _log_request(scope, reply.status, elapsed, request_id)

    def _count(self, route: str, status: int, elapsed: float) -> None:
        self._service.metrics.requests.labels(route, str(status)).inc()
        self._service.metrics.seconds.labels(route).observe(elapsed)

    def _request_id(self, scope: Scope) -> bytes:
        """The caller's ``x-request-id`` where it is short and plain, else a new one."""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and len(value) <= 64 and value.isalnum():
                return value
        return b"%s-%x" % (self._prefix.encode(), next(self._numbers))


class _Reply:
    """Remembers the status that went out and adds the request id."""

    def __init__(self, send: Send, request_id: bytes) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self._request_id)]
            message = {**message, "headers": headers}
        await self._send(message)

    async def fail(self, status: int, body: bytes) -> None:
        """Send an error, unless an answer is on its way already."""
        if self.status == 0:
            self.status = status
            await _send_json(self._send, status, body, self._request_id)


async def _send_json(send: Send, status: int, body: bytes, request_id: bytes) -> None:
    headers = [
        _JSON,
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _whole_body(scope: Scope, receive: Receive) -> bytes:
    """The request's body, read within its size and time limits.

    Raises:
        RequestError: It is larger than the route allows (413) or does not arrive (408).
    """
    if scope["method"] in ("GET", "HEAD"):
        return b""
    path: str = scope["path"]
    most = MAX_UPLOAD_BYTES if path in UPLOADS or path.startswith(ITEMS) else MAX_BODY_BYTES
    declared = next((v for n, v in scope["headers"] if n == b"content-length"), b"0")
    if not declared.isdigit() or len(declared) > 18 or int(declared) > most:
        raise too_large(f"a body may have {most} bytes here, got content-length {declared[:20]!r}")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read(receive, most)
    except TimeoutError as error:
        message = f"the body did not arrive within {BODY_TIMEOUT_S:g} s"
        raise RequestError(408, "slow_body", message) from error


async def _read(receive: Receive, most: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "cut_body", "the connection closed before the body was whole")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise too_large(f"a body may have {most} bytes here")
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the read body once and then listens for the disconnect."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _failure(error: Exception, request_id: bytes) -> bytes:
    log.error(event("failed", request_id=request_id.decode()), exc_info=error)
    return error_body("internal", f"the server failed; request {request_id.decode()} is in its log")


def _log_request(scope: Scope, status: int, elapsed: float, request_id: bytes) -> None:
    log.info(
        event(
            "request",
            method=scope["method"],
            path=scope["path"][:200],
            status=status,
            ms=elapsed * 1000,
            request_id=request_id.decode(),
        )
    )

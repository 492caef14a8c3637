"""What all framework routes share: strict JSON in, ready bytes out, declared errors."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from muxrec_serving.answering.answers import json_bytes
from muxrec_serving.errors import RequestError, error_body

MAX_SHOWN_FAULTS = 3


class Fault(BaseModel):
    """Why a request was refused."""

    code: str
    message: str


class ErrorBody(BaseModel):
    """Body of every answer that is not 2xx."""

    error: Fault


class _StrictRequest(Request):
    """Parses by orjson: NaN, lone surrogates and a nesting of thousands are syntax errors to it."""

    async def json(self) -> Any:
        """The parsed body."""
        return orjson.loads(await self.body())


class JsonRoute(APIRoute):
    """A route whose handler sees a ``_StrictRequest``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handler with the request class exchanged."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            if request.method in ("POST", "PUT"):
                check_media_type(request.headers.get("content-type", ""))
            return await inner(_StrictRequest(request.scope, request.receive))

        return handler


def check_media_type(given: str) -> None:
    """Refuse a body that is not declared as JSON.

    Raises:
        RequestError: It is not (415). A page of another site cannot declare it without asking.
    """
    if given.partition(";")[0].strip().lower() != "application/json":
        message = f"send content-type: application/json, got {given[:80]!r}"
        raise RequestError(415, "wrong_media_type", message)


def bad_json(error: orjson.JSONDecodeError) -> RequestError:
    """What to say of a body that is no JSON."""
    return RequestError(400, "bad_json", f"body.{error.pos}: the body is not JSON ({error.msg})")


def json_response(value: object, status: int = 200) -> Response:
    """A JSON answer from bytes or from a value."""
    body = value if isinstance(value, bytes) else json_bytes(value)
    return Response(body, status, media_type="application/json")


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error statuses of a route, for the OpenAPI document."""
    texts = {
        400: "The body is not JSON.",
        404: "No such item.",
        408: "The body did not arrive in time.",
        409: "Live writes are not taken now.",
        413: "Body, batch or picture too large.",
        415: "The body is not declared as JSON.",
        422: "A value is not allowed.",
        503: "Not ready.",
        507: "The journal could not be written.",
    }
    return {status: {"model": ErrorBody, "description": texts[status]} for status in statuses}


async def on_request_error(_: Request, error: Exception) -> Response:
    """The answer to a ``RequestError``."""
    if not isinstance(error, RequestError):
        raise error
    return json_response(error.body(), error.status)


async def on_validation_error(_: Request, error: Exception) -> Response:
    """The answer to a body or parameter of a wrong shape: 400 for no JSON, 422 otherwise."""
    if not isinstance(error, RequestValidationError):
        raise error
    faults = error.errors()
    if faults[0]["type"] == "json_invalid":
        said = f"body.{faults[0]['loc'][-1]}: the body is not JSON ({faults[0]['ctx']['error']})"
        return json_response(error_body("bad_json", said), 400)
    return json_response(error_body("invalid_request", spelled(faults)), 422)


async def on_http_error(_: Request, error: Exception) -> Response:
    """The answer to an unknown path, a wrong method or an unreadable body."""
    if not isinstance(error, HTTPException):
        raise error
    code = {404: "unknown_path", 405: "wrong_method"}.get(error.status_code, "bad_request")
    response = json_response(error_body(code, str(error.detail)), error.status_code)
    response.headers.update(error.headers or {})
    return response


def spelled(faults: Sequence[Any]) -> str:
    """The first faults that validation found, each with its place."""
    lines = []
    for fault in faults[:MAX_SHOWN_FAULTS]:
        place = ".".join(str(part)[:40] for part in fault["loc"])
        lines.append(f"{place}: {fault['msg'].removeprefix('Value error, ')}")
    if len(faults) > MAX_SHOWN_FAULTS:
        lines.append(f"and {len(faults) - MAX_SHOWN_FAULTS} more")
    return "; ".join(lines)

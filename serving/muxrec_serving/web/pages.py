"""The page at ``/``: three static files inside the package, under a strict content policy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}


def page_router() -> APIRouter:
    """Routes of the page, read once."""
    router = APIRouter(include_in_schema=False)
    for path, (name, media_type) in ASSETS.items():
        body = files("muxrec_serving").joinpath("page", name).read_bytes()
        router.add_api_route(path, _static(body, media_type), methods=["GET"])
    return router


def _static(body: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def endpoint() -> Response:
        headers = {**SAFE_HEADERS, "cache-control": "no-cache"}
        return Response(body, media_type=media_type, headers=headers)

    return endpoint

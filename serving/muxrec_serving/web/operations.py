"""Routes for whoever runs the service: health, metrics, version."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from muxrec import __version__
from muxrec.spec.hashing import HASH_VERSION
from muxrec_serving.answering.service import Service
from muxrec_serving.errors import error_body
from muxrec_serving.metrics import CONTENT_TYPE
from muxrec_serving.web.routing import declared, json_response


def operations_router(service: Service) -> APIRouter:
    """The routes over ``service``."""
    router = APIRouter(tags=["operations"])

    @router.get("/health/live")
    async def live() -> Response:
        """The process answers."""
        return json_response({"status": "live"})

    @router.get("/health/ready", responses=declared(503))
    async def ready() -> Response:
        """A verified bundle is in service and the process is not stopping."""
        if not service.is_ready:
            return json_response(error_body("not_ready", "the server is starting or stopping"), 503)
        return json_response({"status": "ready", "bundle": service.view.state.digest})

    @router.get("/metrics")
    async def metrics() -> Response:
        """Counters in Prometheus' text form."""
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    @router.get("/version")
    async def version() -> Response:
        """What is in service."""
        return json_response(version_of(service))

    return router


def version_of(service: Service) -> dict[str, Any]:
    """The bundle in service and where it came from."""
    view = service.view
    state, origin = view.state, view.state.origin
    return {
        "muxrec": __version__,
        "hash_version": HASH_VERSION,
        "bundle": state.digest,
        "digest": state.bundle.digest,
        "model": origin.model,
        "model_version": origin.version,
        "alias": origin.alias,
        "items": state.count,
        "live_items": len(view.overlay.items),
        "deleted_items": len(view.overlay.deleted),
        "width": state.width,
        "modalities": list(state.bundle.modalities),
        "loaded_at": round(state.loaded_at, 3),
    }

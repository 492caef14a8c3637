"""The HTTP routes: validation at the edge, ready bytes out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from muxrec import __version__
from muxrec_serving.answering import browse
from muxrec_serving.answering.service import Service
from muxrec_serving.errors import RequestError
from muxrec_serving.limits import DEFAULT_K, MAX_ID_CHARS, MAX_K
from muxrec_serving.query import parse_similar, parse_title_query
from muxrec_serving.web.batches import answer_batch, check_upload
from muxrec_serving.web.operations import operations_router
from muxrec_serving.web.pages import SAFE_HEADERS, page_router
from muxrec_serving.web.requests import EmbedBody, RawItemBody, SimilarBody, check_batch
from muxrec_serving.web.routing import (
    JsonRoute,
    declared,
    json_response,
    on_http_error,
    on_request_error,
    on_validation_error,
)

ItemPath = Annotated[str, Path(min_length=1, max_length=MAX_ID_CHARS, description="Item id.")]
K = Annotated[int, Query(ge=1, le=MAX_K, description="Neighbours wanted.")]
Filters = Annotated[
    list[str] | None,
    Query(alias="filter", description="column:value[,value]; repeated filters must all hold."),
]


def build_app(service: Service) -> FastAPI:
    """The framework's application over ``service``; ``front.Front`` goes around it."""
    app = FastAPI(
        title="muxrec",
        version=__version__,
        description="Item-to-item neighbours from one verified bundle.",
        docs_url=None,
        redoc_url=None,
    )
    for router in (_items(service), _batches(service), operations_router(service), page_router()):
        app.include_router(router)
    app.add_exception_handler(RequestError, on_request_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_error)
    return app


def _items(service: Service) -> APIRouter:
    """Routes of single items. An id with a slash may be written as it is or as ``%2F``."""
    router = APIRouter(prefix="/v1", route_class=JsonRoute, tags=["items"])

    @router.get("/items/{item_id:path}/similar", responses=declared(404, 422))
    async def similar(
        request: Request,
        item_id: ItemPath,
        k: K = DEFAULT_K,  # noqa: ARG001 - declared for the document, read by parse_similar
        where: Filters = None,  # noqa: ARG001 - declared for the document
        explain: bool = False,  # noqa: ARG001 - declared for the document
        display: bool = False,  # noqa: ARG001 - declared for the document
    ) -> Response:
        """Neighbours of an item."""
        return json_response(service.similar(item_id, parse_similar(request.scope["query_string"])))

    @router.get("/items/{item_id:path}/image", responses=declared(404, 422))
    async def image(item_id: ItemPath) -> Response:
        """The item's picture."""
        body, media_type = browse.picture_of(service.view, item_id)
        return Response(body, media_type=media_type, headers=SAFE_HEADERS)

    @router.get("/items/{item_id:path}", responses=declared(404, 422))
    async def item(item_id: ItemPath) -> Response:
        """Display fields of an item."""
        return json_response(browse.item_of(service.view, item_id))

    @router.put("/items/{item_id:path}", responses=declared(400, 408, 409, 413, 415, 422, 507))
    async def put(request: Request, item_id: ItemPath, body: RawItemBody) -> Response:
        """Insert or replace an item; it is found at once."""
        schema = check_upload(service, len(await request.body()), [body])
        made = await service.put(item_id, schema.clean(body, item_id=item_id))
        return json_response(made, 201 if made["created"] else 200)

    @router.delete("/items/{item_id:path}", responses=declared(404, 409, 422, 507))
    async def delete(item_id: ItemPath) -> Response:
        """Hide an item; it is never returned again."""
        return json_response(await service.delete(item_id))

    @router.get("/search", responses=declared(422))
    async def search(
        request: Request,
        q: Annotated[str, Query(description="Words, or beginnings of words, of a title.")] = "",  # noqa: ARG001 - declared for the document
        k: K = DEFAULT_K,  # noqa: ARG001 - declared for the document
    ) -> Response:
        """Items by title."""
        text, limit = parse_title_query(request.scope["query_string"])
        return json_response(browse.search_titles(service.view, text, limit))

    @router.get("/popular", responses=declared(422))
    async def popular(k: K = DEFAULT_K) -> Response:
        """Items with the most training events."""
        return json_response(browse.popular_items(service.view, k))

    @router.get("/filters")
    async def filters() -> Response:
        """Columns that may be filtered by, with their values and counts."""
        return json_response(browse.filter_choices(service.view))

    return router


def _batches(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1", route_class=JsonRoute, tags=["batches"])

    @router.post("/similar", responses=declared(400, 408, 413, 415, 422))
    async def similar_many(request: Request, body: SimilarBody) -> Response:
        """Neighbours of up to 256 ids, vectors or raw items; an unknown id fails alone."""
        return json_response(await answer_batch(service, body, len(await request.body())))

    @router.post("/embed", responses=declared(400, 408, 413, 415, 422))
    async def embed(request: Request, body: EmbedBody) -> Response:
        """Vectors of up to 256 raw items."""
        check_batch(len(body.items))
        schema = check_upload(service, len(await request.body()), body.items)
        return json_response(await service.embed([schema.clean(item) for item in body.items]))

    return router

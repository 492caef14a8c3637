"""``POST /v1/similar`` from raw bytes to ready bytes; with and without the framework around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic import ValidationError

from muxrec_serving.answering.service import Service
from muxrec_serving.errors import invalid, too_large
from muxrec_serving.limits import MAX_BODY_BYTES
from muxrec_serving.live.rawitem import ItemSchema, bytes_of_pictures
from muxrec_serving.web.requests import SimilarBody
from muxrec_serving.web.routing import bad_json, check_media_type, spelled


async def answer_raw(service: Service, content_type: str, raw: bytes) -> bytes:
    """The answer to a request's body, by the same checks as the framework's route.

    Raises:
        RequestError: Anything is wrong with the body.
    """
    check_media_type(content_type)
    try:
        body = SimilarBody.model_validate(orjson.loads(raw))
    except orjson.JSONDecodeError as error:
        raise bad_json(error) from error
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        raise invalid(spelled(faults)) from error
    return await answer_batch(service, body, len(raw))


async def answer_batch(service: Service, body: SimilarBody, size: int) -> bytes:
    """The answer to a parsed body that had ``size`` bytes.

    Raises:
        RequestError: A limit is passed, or a query is not allowed.
    """
    body.size()
    schema = check_upload(service, size, body.items or []) if body.items else None
    if schema is None and size > MAX_BODY_BYTES:
        raise too_large(f"a body may have {MAX_BODY_BYTES} bytes, got {size}")
    return await service.similar_many(
        body.wanted(),
        item_ids=body.item_ids or (),
        vectors=body.unit_vectors(service.view.state.width),
        items=[schema.clean(item) for item in body.items or ()] if schema else (),
    )


def check_upload(service: Service, size: int, items: Sequence[Mapping[str, Any]]) -> ItemSchema:
    """The schema of raw items, after their body was measured without its pictures.

    Raises:
        RequestError: Without the pictures it is still too large (413).
    """
    schema = service.schema()
    plain = size - bytes_of_pictures(items, schema)
    if plain > MAX_BODY_BYTES:
        raise too_large(f"a body may have {MAX_BODY_BYTES} bytes besides its pictures, got {plain}")
    return schema

"""Whatever a client sends, the answer is a 4xx that says what was wrong; never a 5xx."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import re
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from muxrec_serving import limits
from muxrec_serving.web.app import build_app
from muxrec_serving.web.front import Front

JSON = {"content-type": "application/json"}
VECTOR = [0.5] * 16


def ask(connect, service, method: str, path: str, **content) -> httpx.Response:
    async def once() -> httpx.Response:
        async with connect(service) as client:
            return await client.request(method, path, **content)

    return asyncio.run(once())


GETS = [
    ("/v1/items/nobody/similar", 404, "unknown_item", "nobody"),
    ("/v1/items/nobody", 404, "unknown_item", "nobody"),
    ("/v1/items/nobody/image", 404, "unknown_item", "nobody"),
    ("/v1/items/item-1/similar?k=0", 422, "bad_k", "k must be in 1..500, got 0"),
    ("/v1/items/item-1/similar?k=-1", 422, "bad_k", "got '-1'"),
    ("/v1/items/item-1/similar?k=501", 422, "bad_k", "1..500"),
    ("/v1/items/item-1/similar?k=200", 422, "bad_k", "1..199"),
    ("/v1/items/item-1/similar?k=1e2", 422, "bad_k", "integer"),
    ("/v1/items/item-1/similar?k=", 422, "bad_k", "integer"),
    (f"/v1/items/item-1/similar?k={'9' * 400}", 422, "bad_k", "integer"),
    ("/v1/items/item-1/similar?k=%D9%A3", 422, "bad_k", "integer"),
    ("/v1/items/item-1/similar?k=3&k=3", 422, "invalid_request", "k is given 2 times"),
    ("/v1/items/item-1/similar?n=3", 422, "invalid_request", "unknown parameter 'n'"),
    ("/v1/items/item-1/similar?explain=maybe", 422, "invalid_request", "explain must be"),
    ("/v1/items/item-1/similar?filter=genre", 422, "bad_filter", "column:value"),
    ("/v1/items/item-1/similar?filter=colour:red", 422, "unknown_filter", "genre, year"),
    (f"/v1/items/item-1/similar?{'filter=genre:a&' * 100}", 422, "invalid_request", "64"),
    (f"/v1/items/{'x' * 300}/similar", 422, "bad_id", "256"),
    ("/v1/items//similar", 422, "bad_id", "1..256"),
    (f"/v1/items/{'x' * 300}", 422, "invalid_request", "256"),
    ("/v1/search", 422, "invalid_request", "q must hold"),
    ("/v1/search?q=%20", 422, "invalid_request", "q must hold"),
    (f"/v1/search?q={'a' * 201}", 422, "invalid_request", "200"),
    ("/v1/search?q=a&k=9999", 422, "invalid_request", "less than or equal to 500"),
    ("/v1/popular?k=0", 422, "invalid_request", "greater than or equal to 1"),
    ("/v1/nothing", 404, "unknown_path", "Not Found"),
    ("/../../etc/passwd", 404, "unknown_path", "Not Found"),
    ("/page/../server.py", 404, "unknown_path", "Not Found"),
]


@pytest.mark.parametrize(("path", "status", "code", "said"), GETS)
def test_a_bad_get_says_what_was_wrong(connect, service, path, status, code, said):
    answer = ask(connect, service, "GET", path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert said in error["message"]


POSTS = [
    ("{not json", 400, "bad_json", "JSON"),
    ("", 400, "bad_json", "not JSON"),
    ("[" * 100_000, 400, "bad_json", "depth"),
    ('{"a":' * 50_000, 400, "bad_json", "depth"),
    ('{"vectors": [[NaN]]}', 400, "bad_json", "JSON"),
    ('{"item_ids": ["\\ud800"]}', 400, "bad_json", "JSON"),
    ("[]", 422, "invalid_request", "dictionary"),
    ("{}", 422, "invalid_request", "exactly one of"),
    ({"item_ids": ["item-1"], "vectors": [VECTOR]}, 422, "invalid_request", "exactly one of"),
    ({"item_ids": []}, 422, "invalid_request", "empty"),
    ({"item_ids": ["item-1"] * 257}, 413, "too_large", "256 queries, got 257"),
    ({"item_ids": [1]}, 422, "invalid_request", "valid string"),
    ({"item_ids": ["x" * 257]}, 422, "invalid_request", "256"),
    ({"item_ids": "item-1"}, 422, "invalid_request", "valid list"),
    ({"item_ids": ["item-1"], "k": "3"}, 422, "invalid_request", "body.k"),
    ({"item_ids": ["item-1"], "k": 3.0}, 422, "invalid_request", "body.k"),
    ({"item_ids": ["item-1"], "k": True}, 422, "invalid_request", "body.k"),
    ({"item_ids": ["item-1"], "k": 0}, 422, "bad_k", "1..199"),
    ({"item_ids": ["item-1"], "k": 10**30}, 422, "invalid_request", "body.k"),
    ({"item_ids": ["item-1"], "top": 3}, 422, "invalid_request", "top"),
    ({"item_ids": ["item-1"], "filter": {"colour": ["red"]}}, 422, "unknown_filter", "genre, year"),
    ({"item_ids": ["item-1"], "filter": {"genre": []}}, 422, "invalid_request", "at least 1"),
    ({"item_ids": ["item-1"], "filter": {"genre": "drama"}}, 422, "invalid_request", "list"),
    ({"vectors": [VECTOR[1:]]}, 422, "bad_vector", "vector 0 has 15 numbers"),
    ({"vectors": [VECTOR, [*VECTOR, 1.0]]}, 422, "bad_vector", "vector 1 has 17 numbers"),
    ({"vectors": [[0.0] * 16]}, 422, "bad_vector", "zero"),
    ({"vectors": [[1e308] * 16]}, 422, "bad_vector", "too large"),
    ({"vectors": [["1"] * 16]}, 422, "invalid_request", "valid number"),
    ({"vectors": [VECTOR] * 257}, 413, "too_large", "256"),
    ({"items": [{"plott": VECTOR}]}, 422, "invalid_request", "unknown column 'plott'"),
    ({"items": [{"title": "x"}]}, 422, "bad_item", "nothing to encode"),
    ({"items": [{"plot": {"a": 1}}]}, 422, "invalid_request", "plot must be"),
    ({"items": [{"plot": [[1.0]]}]}, 422, "invalid_request", "plot must be"),
    ({"items": [{"plot": VECTOR[1:]}]}, 422, "bad_item", "16 finite numbers"),
    ({"items": [{"plot": "a text"}]}, 422, "bad_item", "no list of numbers"),
    ({"items": [{"plot": VECTOR}, {"plot": [1.0]}]}, 422, "bad_item", "item 1"),
    ({"items": [{"item_id": ["x"], "plot": VECTOR}]}, 422, "invalid_request", "item_id"),
    ({"items": ["x"]}, 422, "invalid_request", "dictionary"),
    ({"items": [{"plot": [0.1] * 20_000}]}, 422, "invalid_request", "10000 values"),
]


@pytest.mark.parametrize(("body", "status", "code", "said"), POSTS)
def test_a_bad_post_says_what_was_wrong(connect, service, body, status, code, said):
    content = body if isinstance(body, str) else json.dumps(body)
    answer = ask(connect, service, "POST", "/v1/similar", content=content, headers=JSON)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    assert said in error["message"]


def test_a_body_that_is_not_declared_as_json_is_refused(connect, service):
    answer = ask(connect, service, "POST", "/v1/similar", content=b"{}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "wrong_media_type")


def test_a_body_over_the_limit_is_refused(connect, service):
    body = json.dumps({"vectors": [[0.123456789] * 16] * 256, "pad": "x" * limits.MAX_BODY_BYTES})
    answer = ask(connect, service, "POST", "/v1/similar", content=body, headers=JSON)
    # The strict body is read before its size without pictures is known: either refusal is right.
    assert answer.status_code in (413, 422)
    items = [{"plot": VECTOR, "title": "x" * limits.MAX_BODY_BYTES}]
    answer = ask(connect, service, "POST", "/v1/embed", json={"items": items})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    whole = b" " * (limits.MAX_UPLOAD_BYTES + 1)
    answer = ask(connect, service, "POST", "/v1/embed", content=whole, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_wrong_method_is_refused(connect, service):
    answer = ask(connect, service, "PATCH", "/v1/items/item-1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "wrong_method")
    assert answer.headers["allow"]


def test_ids_differ_between_path_and_body(connect, service):
    body = {"item_id": "b", "plot": VECTOR}
    answer = ask(connect, service, "PUT", "/v1/items/a", json=body)
    assert answer.status_code == 422
    assert "'b' in the body and 'a' in the path" in answer.json()["error"]["message"]


def test_the_direct_route_and_the_frameworks_agree(service):
    """The front answers before the framework; what the framework declares must be the same."""

    async def both(body: str) -> list[tuple[int, object]]:
        framework = build_app(service)
        answers = []
        for app in (Front(service, framework), framework):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                answer = await client.post("/v1/similar", content=body, headers=JSON)
                said = answer.json()
                # Pydantic words one refusal differently when the framework calls it.
                said = said["error"]["code"] if "error" in said else said
                answers.append((answer.status_code, said))
        return answers

    good = [{"item_ids": ["item-1", "no"], "k": 3}, {"vectors": [VECTOR], "explain": True}]
    for body in [*good, *(body for body, *_ in POSTS if body)]:
        direct, framed = asyncio.run(both(body if isinstance(body, str) else json.dumps(body)))
        assert direct == framed


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)
KEYS = st.sampled_from(["item_ids", "vectors", "items", "k", "filter", "explain", "display", "x"])


ANYTHING = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@ANYTHING
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_no_body_makes_the_server_fail(connect, service, body):
    content = json.dumps(body)
    answer = ask(connect, service, "POST", "/v1/similar", content=content, headers=JSON)
    assert answer.status_code < 500
    assert answer.status_code == 200 or answer.json()["error"]["message"]


@ANYTHING
@given(
    st.dictionaries(
        st.sampled_from(["plot", "poster", "title", "genre", "year", "item_id"]), VALUES
    )
)
def test_no_raw_item_makes_the_server_fail(connect, service, item):
    content = json.dumps({"items": [item]})
    answer = ask(connect, service, "POST", "/v1/embed", content=content, headers=JSON)
    assert answer.status_code in (200, 400, 422), answer.text


@ANYTHING
@given(st.text(max_size=30), st.text(max_size=30))
def test_no_path_or_query_makes_the_server_fail(connect, service, item_id, query):
    path = f"/v1/items/{quote(item_id, safe='')}/similar"
    answer = ask(connect, service, "GET", path, params={"filter": query})
    assert answer.status_code in (404, 422)


def test_openapi_declares_every_error_that_the_routes_gave(connect, service):
    paths = ask(connect, service, "GET", "/openapi.json").json()["paths"]
    asked = [("get", path, status) for path, status, *_ in GETS if path.startswith("/v1/items/")]
    asked += [("post", "/v1/similar", status) for _, status, *_ in POSTS]
    for method, path, status in asked:
        tail = re.search(r"/(similar|image)(\?|$)", path)
        route = (
            path if method == "post" else "/v1/items/{item_id}" + (f"/{tail[1]}" if tail else "")
        )
        assert str(status) in paths[route][method]["responses"], (method, route, status)


def picture(width: int, height: int) -> str:
    stream = io.BytesIO()
    Image.new("1", (width, height)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_pictures_are_checked_before_they_are_decoded():
    from muxrec_serving.errors import RequestError
    from muxrec_serving.live.rawitem import decode_picture

    assert decode_picture("poster", picture(8, 8)).startswith(b"\x89PNG")
    assert decode_picture("poster", "data:image/png;base64," + picture(8, 8)).startswith(b"\x89PNG")
    noise = random.Random(0).randbytes(limits.MAX_PICTURE_BYTES + 10)
    wrong = {
        "/etc/passwd": 422,
        "aGVsbG8=": 422,
        "": 422,
        picture(5000, 10): 413,
        base64.b64encode(noise).decode(): 413,
    }
    for value, status in wrong.items():
        with pytest.raises(RequestError) as caught:
            decode_picture("poster", value)
        assert caught.value.status == status
    with pytest.raises(RequestError, match="base64 string, got list"):
        decode_picture("poster", [1])


def test_a_bomb_of_a_picture_is_refused_by_its_header():
    from muxrec_serving.errors import RequestError
    from muxrec_serving.live.rawitem import decode_picture

    with pytest.raises(RequestError) as caught:
        decode_picture("poster", picture(30_000, 30_000))
    assert caught.value.status == 413


def test_vectors_are_scaled_to_unit_norm():
    from muxrec_serving.web.requests import SimilarBody

    vectors = SimilarBody(vectors=[[3.0, 4.0], [0.0, 1e-20]]).unit_vectors(2)
    assert np.allclose(vectors, [[0.6, 0.8], [0, 1]])

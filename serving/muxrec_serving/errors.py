"""What a request can do wrong, as a status, a stable code and a sentence."""

from __future__ import annotations

import orjson


class RequestError(Exception):
    """A request that is answered by a 4xx status and says why.

    Attributes:
        status: HTTP status.
        code: Stable word for programs, e.g. ``unknown_item``.
        message: What was expected and what came, for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self) -> bytes:
        """The JSON answer ``{"error": {"code", "message"}}``."""
        return error_body(self.code, self.message)


def error_body(code: str, message: str) -> bytes:
    """JSON bytes of an error answer."""
    return orjson.dumps({"error": {"code": code, "message": message}})


def invalid(message: str, *, code: str = "invalid_request") -> RequestError:
    """A request that could be read and asks for something that is not allowed (422)."""
    return RequestError(422, code, message)


def unknown_item(item_id: str) -> RequestError:
    """The item is neither in the bundle nor among the live items, or it was deleted (404)."""
    return RequestError(404, "unknown_item", f"no item has the id {item_id[:80]!r}")


def too_large(message: str) -> RequestError:
    """A body, batch or picture beyond its limit (413)."""
    return RequestError(413, "too_large", message)

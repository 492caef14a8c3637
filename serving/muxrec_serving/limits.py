"""Every bound that a request, a picture or a live write must keep."""

from __future__ import annotations

MAX_BODY_BYTES = 2**20
"""JSON of one request, pictures not counted."""

MAX_PICTURE_BYTES = 5 * 10**6
"""One decoded picture inside a raw item."""

MAX_UPLOAD_BYTES = 8 * 2**20
"""One request body on the routes that take raw items, pictures counted."""

MAX_PICTURE_SIDE = 4096
MAX_K = 500
DEFAULT_K = 10
MAX_BATCH = 256
MAX_ID_CHARS = 256
MAX_QUERY_CHARS = 200
MAX_FILTER_VALUES = 64
MAX_ITEM_VALUES = 10_000
MAX_LIVE_ITEMS = 10_000
BODY_TIMEOUT_S = 10.0
HEADER_TIMEOUT_S = 5.0
MAX_HEADER_BYTES = 64 * 2**10

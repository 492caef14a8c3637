"""Picture files of the catalogue, as they go into a bundle."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from muxrec.errors import DataError
from muxrec.log import event

STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF")
"""First bytes of JPEG, PNG, GIF and WebP. Other formats, SVG above all, can hold scripts."""
MAX_BYTES = 5 * 2**20

log = logging.getLogger("muxrec.export")


def picture_files(values: Sequence[object]) -> Iterator[bytes | None]:
    """The bytes of each item's picture, or None; how many were left out is logged at the end.

    Args:
        values: File names or raw bytes; None where an item has no picture.

    Raises:
        DataError: A value is neither.
    """
    found = missing = refused = 0
    for value in values:
        content = _content(value)
        if content is None and value is not None:
            missing += 1
        elif content is not None and not _is_picture(content):
            refused += 1
            content = None
        found += content is not None
        yield content
    log.info(event("pictures", found=found, missing=missing, refused=refused, items=len(values)))


def _content(value: object) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value or None
    if not isinstance(value, str):
        raise DataError(f"a picture must be a file name or bytes, got {type(value).__name__}")
    path = Path(value)
    return path.read_bytes() if value and path.is_file() else None


def _is_picture(content: bytes) -> bool:
    return content.startswith(STARTS) and len(content) <= MAX_BYTES

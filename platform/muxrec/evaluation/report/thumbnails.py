"""Small pictures inside the page, within a limit of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

SIZE = (72, 108)
QUALITY = 40


def thumbnails(paths: Iterable[Path | None], *, limit_bytes: int) -> list[str | None]:
    """A ``data:`` address per picture, first come first served; None beyond the limit.

    Args:
        paths: Picture files, most important first; None and unreadable files give None.
        limit_bytes: Most characters that all addresses may have together.
    """
    found: list[str | None] = []
    left = limit_bytes
    for path in paths:
        address = _address(path) if path is not None and left > 0 else None
        if address is None or len(address) > left:
            found.append(None)
            continue
        left -= len(address)
        found.append(address)
    return found


def _address(path: Path) -> str | None:
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
            small.thumbnail(SIZE)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")

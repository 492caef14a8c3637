"""Raw items from a request: only known columns, only plain values, pictures as checked bytes."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError

from muxrec_serving.answering.state import ServingState
from muxrec_serving.errors import invalid, too_large
from muxrec_serving.limits import MAX_ITEM_VALUES, MAX_PICTURE_BYTES, MAX_PICTURE_SIDE

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")


@dataclass(frozen=True)
class ItemSchema:
    """Columns that a raw item may have under one bundle.

    Attributes:
        columns: All of them, ``item_id`` excluded.
        pictures: Those that hold a picture.
    """

    columns: frozenset[str]
    pictures: frozenset[str]

    @classmethod
    def of(cls, state: ServingState) -> ItemSchema:
        """Columns that the bundle's features read, and that it shows or filters by."""
        features = state.encoder.features
        pictures = {name for f in features if f.kind == "image" for name in f.columns}
        shown = {*state.catalogue.display, *state.catalogue.filters}
        return cls(
            frozenset((state.encoder.column_names | shown) - {"item_id"}), frozenset(pictures)
        )

    def clean(self, item: Mapping[str, Any], *, item_id: str | None = None) -> dict[str, Any]:
        """The item with pictures decoded and ``item_id`` set; values are scalars and flat lists.

        Args:
            item: Parsed JSON object.
            item_id: Id from the path; an ``item_id`` inside the item must agree with it.

        Raises:
            RequestError: A column is unknown, a value is nested or too long, a picture is no
                picture or too large, or the ids differ.
        """
        given = item.get("item_id")
        if item_id is not None and given is not None and str(given) != item_id:
            raise invalid(
                f"item_id is {str(given)[:80]!r} in the body and {item_id[:80]!r} in the path"
            )
        cleaned: dict[str, Any] = {}
        for name, value in item.items():
            if name == "item_id" or value is None:
                continue
            if name not in self.columns:
                known = ", ".join(sorted(self.columns))
                raise invalid(f"unknown column {name[:40]!r}: this bundle knows {known}")
            is_picture = name in self.pictures
            cleaned[name] = decode_picture(name, value) if is_picture else _plain(name, value)
        own = item_id if item_id is not None else given
        if own is not None:
            if not isinstance(own, (str, int)) or isinstance(own, bool):
                raise invalid("item_id must be a string or an integer")
            cleaned["item_id"] = str(own)
        return cleaned


def decode_picture(column: str, value: object) -> bytes:
    """Bytes of a base64 picture, with or without a ``data:`` prefix. File names are refused.

    Raises:
        RequestError: It is no base64, no picture of a known format, or too large.
    """
    if not isinstance(value, str):
        raise invalid(f"{column} must be a base64 string, got {type(value).__name__}")
    encoded = value.partition(",")[2] if value.startswith("data:") else value
    if len(encoded) > MAX_PICTURE_BYTES * 4 // 3 + 4:
        raise too_large(f"{column}: a picture may have {MAX_PICTURE_BYTES} bytes")
    try:
        picture = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{column} must be base64 of a picture file: {error}") from error
    _check_picture(column, picture)
    return picture


def _check_picture(column: str, picture: bytes) -> None:
    """Read the header only, so that a picture that would unpack to gigabytes never does."""
    known = ", ".join(PICTURE_FORMATS)
    try:
        with Image.open(io.BytesIO(picture), formats=PICTURE_FORMATS) as opened:
            width, height = opened.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise invalid(f"{column} is no readable picture ({known})") from error
    except Image.DecompressionBombError as error:
        raise too_large(f"{column}: a picture may be {MAX_PICTURE_SIDE} pixels wide") from error
    if max(width, height) > MAX_PICTURE_SIDE:
        raise too_large(
            f"{column}: a picture may be {MAX_PICTURE_SIDE} pixels wide and high, "
            f"got {width} x {height}"
        )


def _plain(column: str, value: object) -> object:
    if isinstance(value, list):
        if len(value) > MAX_ITEM_VALUES:
            raise invalid(f"{column} may hold {MAX_ITEM_VALUES} values, got {len(value)}")
        if all(isinstance(element, (str, int, float)) for element in value):
            return value
    elif isinstance(value, (str, int, float)):
        return value
    kind = "a list of other things" if isinstance(value, list) else type(value).__name__
    raise invalid(f"{column} must be a string, a number or a list of them, got {kind}")


def bytes_of_pictures(items: Sequence[Mapping[str, Any]], schema: ItemSchema) -> int:
    """Characters of the pictures inside parsed, not yet cleaned items."""
    values = [item.get(name) for item in items for name in schema.pictures]
    return sum(len(value) for value in values if isinstance(value, str))

"""Dense features: precomputed vectors and pictures to one fixed-size array per item."""

from __future__ import annotations

import base64
import binascii
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muxrec.errors import DataError
from muxrec.features.arrays import Dense
from muxrec.features.images import DESCRIPTOR_WIDTH, UnreadablePictureError, describe, pixels
from muxrec.spec.features import FeatureSpec

log = logging.getLogger("muxrec.features")


def vectors_of(feature: FeatureSpec, column: list[Any]) -> Dense:
    """Precomputed vectors of one feature; null is missing.

    Raises:
        DataError: A vector has another width or holds a number that is not finite.
    """
    width = feature.width or 0
    present = np.array([value is not None for value in column], dtype=bool)
    values = np.zeros((len(column), width), dtype=np.float32)
    for row in np.flatnonzero(present):
        try:
            vector = np.asarray(column[row], dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"feature {feature.name}: row {row} is no list of numbers") from error
        if vector.shape != (width,) or not np.isfinite(vector).all():
            found = f"shape {vector.shape}, finite {bool(np.isfinite(vector).all())}"
            raise DataError(
                f"feature {feature.name}: {width} finite numbers expected, row {row}: {found}"
            )
        values[row] = vector
    return Dense(values, present)


def pictures_of(feature: FeatureSpec, column: list[Any]) -> Dense:
    """Pixels or descriptors of one feature; missing and unreadable files are counted and logged."""
    size = feature.image_size
    is_conv = feature.encoder == "conv"
    shape, dtype = ((3, size, size), np.uint8) if is_conv else ((DESCRIPTOR_WIDTH,), np.float32)
    values: npt.NDArray[Any] = np.zeros((len(column), *shape), dtype=dtype)
    present = np.zeros(len(column), dtype=bool)
    faults: Counter[str] = Counter()
    # A server encodes an item or a few at a time: no bar for what is done within a second.
    bar = tqdm(column, desc="read pictures", disable=None, leave=False, delay=1)
    for row, value in enumerate(bar):
        if value is None or value == "":
            continue
        try:
            source = picture_source(value)
            values[row] = pixels(source, size) if is_conv else describe(source)
            present[row] = True
        except FileNotFoundError:
            faults["missing file"] += 1
        except UnreadablePictureError:
            faults["unreadable"] += 1
    for reason, count in faults.items():
        log.warning("pictures_skipped feature=%s reason=%s count=%d", feature.name, reason, count)
    return Dense(values, present)


def picture_source(value: object) -> Path | bytes:
    """A picture's file or bytes, from a file name, bytes, or a base64 ``data:`` text.

    Raises:
        UnreadablePictureError: The base64 text is damaged, or the value is none of these.
    """
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise UnreadablePictureError(f"a picture cannot be a {type(value).__name__}")
    if not value.startswith("data:"):
        return Path(value)
    try:
        return base64.b64decode(value.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise UnreadablePictureError(str(error)) from error

"""The 64-bit key of a user or item id that is kept as text, and where a key stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import compress

import numpy as np

from muxrec.spec.hashing import Int64Array, string_ids

INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
"""Spelling of an id that counts as an integer; ``007`` and ``+7`` are strings."""


def id_keys(values: Sequence[str]) -> Int64Array:
    """Signed 64-bit key of each id, int64 ``[N]``: integers as they are, others by XXH64.

    The rule looks at one id's text alone, so a key never depends on the other ids of a column, on a
    file format or on an engine; Spark computes the same in ``muxrec_jobs.hashing.id_key``.

    Args:
        values: Ids as text; an integer is written in its shortest decimal form and fits 64 bits.
    """
    keys = np.empty(len(values), dtype=np.int64)
    is_integer = np.fromiter((_is_integer(value) for value in values), bool, len(values))
    keys[is_integer] = [int(value) for value in compress(values, is_integer)]
    keys[~is_integer] = string_ids(list(compress(values, ~is_integer)))
    return keys


def positions_of(wanted: Int64Array, keys: Int64Array) -> Int64Array:
    """Place of each key in the rising ``keys``, -1 for a key that is not there; int64 ``[N]``.

    Args:
        wanted: Keys to find, int64 ``[N]``.
        keys: Distinct keys, int64 ``[C]``, rising; may be empty.
    """
    if not keys.size:
        return np.full(len(wanted), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.where(keys[at] == wanted, at, -1).astype(np.int64)


def _is_integer(value: str) -> bool:
    return INTEGER.fullmatch(value) is not None and -(2**63) <= int(value) < 2**63

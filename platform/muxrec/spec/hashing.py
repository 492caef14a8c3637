"""The one hash of every engine: XXH64 of an id, seeded by feature name and probe number.

``seed0 = XXH64(utf8(name), 42)``, ``seed = XXH64(le64(probe), seed0)``,
``h = XXH64(le64(id), seed)``, ``row = ((h >>> 32) * rows) >>> 32``. Spark SQL computes the same
``h`` with ``xxhash64(name, cast(probe as bigint), id)``. This module is the numpy form and the
definition of correct; the torch, Triton, ONNX and Spark forms are tested bit-equal against it.

Source: XXH64, xxHash specification 0.1.1 (Yann Collet); range reduction: Lemire 2019.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

HASH_VERSION = "xxh64-mulshift-1"
"""Written into every dataset, checkpoint and bundle; artifacts of two versions never mix."""

BASE_SEED = 42
MAX_ROWS = 2**31

P1 = 0x9E3779B185EBCA87
P2 = 0xC2B2AE3D27D4EB4F
P3 = 0x165667B19E3779F9
P4 = 0x85EBCA77C2B2AE63
P5 = 0x27D4EB2F165667C5

Int64Array = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]
_U64 = np.uint64


def _rotate_left(value: _Words, bits: int) -> _Words:
    return (value << _U64(bits)) | (value >> _U64(64 - bits))


def _avalanche(h: _Words) -> _Words:
    h = (h ^ (h >> _U64(33))) * _U64(P2)
    h = (h ^ (h >> _U64(29))) * _U64(P3)
    return h ^ (h >> _U64(32))


def _round(accumulator: _Words, lane: _Words) -> _Words:
    return _rotate_left(accumulator + lane * _U64(P2), 31) * _U64(P1)


def _hash_words(ids: npt.NDArray[np.uint64], seed: npt.NDArray[np.uint64]) -> _Words:
    with np.errstate(over="ignore"):
        lane = _rotate_left(ids * _U64(P2), 31) * _U64(P1)
        h = (seed + _U64(P5) + _U64(8)) ^ lane
        return _avalanche(_rotate_left(h, 27) * _U64(P1) + _U64(P4))


def hash_ids(ids: npt.ArrayLike, seed: int | npt.ArrayLike) -> Int64Array:
    """XXH64 of each id's eight little-endian bytes.

    Args:
        ids: Raw ids, int64, any shape.
        seed: Signed 64-bit seed or an int64 array that broadcasts against ``ids``.

    Returns:
        Signed 64-bit hashes, int64, the broadcast shape; empty for an empty input.
    """
    words = np.asarray(ids, dtype=np.int64).view(np.uint64)
    seeds = np.asarray(seed, dtype=np.int64).view(np.uint64)
    return _hash_words(words, seeds).view(np.int64)


def probe_seed(name: str, probe: int) -> int:
    """The signed 64-bit seed of probe ``probe`` of the feature called ``name``.

    It depends on the name and the number alone, so adding, removing or reordering features moves no
    other feature's rows.
    """
    seed0 = hash_bytes([name.encode()], BASE_SEED)[0]
    return int(hash_ids(np.array([probe]), seed0)[0])


def reduce_to_rows(hashes: npt.ArrayLike, rows: int) -> Int64Array:
    """Rows ``((h >>> 32) * rows) >>> 32`` of hashes ``h``, int64 in ``[0, rows)``, same shape.

    Raises:
        ValueError: ``rows`` is not in ``[1, 2**31)``.
    """
    if not 1 <= rows < MAX_ROWS:
        raise ValueError(f"rows must be in [1, 2**31), got {rows}")
    high = np.asarray(hashes, dtype=np.int64).view(np.uint64) >> _U64(32)
    return ((high * _U64(rows)) >> _U64(32)).view(np.int64)


def hash_rows(ids: npt.ArrayLike, *, name: str, probe: int, rows: int) -> Int64Array:
    """The row that probe ``probe`` of feature ``name`` reads for each id, int64 in ``[0, rows)``.

    Args:
        ids: Raw ids, int64, any shape.
        name: Feature name, the salt.
        probe: Probe number, from 0.
        rows: Rows of the physical table, in ``[1, 2**31)``.
    """
    return reduce_to_rows(hash_ids(ids, probe_seed(name, probe)), rows)


def string_ids(values: Sequence[str]) -> Int64Array:
    """XXH64 (seed 42) of each string's UTF-8 bytes as a signed id, int64 ``[N]``.

    Equal to Spark SQL's ``xxhash64(value)`` of a string column.

    Raises:
        UnicodeEncodeError: A string holds a lone surrogate and has no UTF-8 form.
    """
    return hash_bytes([value.encode() for value in values], BASE_SEED)


def hash_bytes(values: Sequence[bytes], seed: int) -> Int64Array:
    """XXH64 of each byte string with a signed 64-bit ``seed``, int64 ``[N]``.

    Strings of one length are hashed together, column by column, so the cost per string is a few
    vectorised steps and not a Python loop over its bytes.
    """
    out = np.empty(len(values), dtype=np.int64)
    lengths = np.fromiter((len(value) for value in values), dtype=np.int64, count=len(values))
    for length in np.unique(lengths).tolist():
        members = np.flatnonzero(lengths == length)
        joined = b"".join([values[i] for i in members.tolist()])
        block = np.frombuffer(joined, dtype=np.uint8).reshape(len(members), length)
        out[members] = _hash_block(block, seed).view(np.int64)
    return out


def _hash_block(block: npt.NDArray[np.uint8], seed: int) -> _Words:
    """XXH64 of every row of ``block``, uint8 ``[N, length]``."""
    count, length = block.shape
    start = struct.unpack("<Q", struct.pack("<q", seed))[0]
    with np.errstate(over="ignore"):
        h, done = _stripes(block, start)
        h = h + _U64(length)
        while done + 8 <= length:
            lane = _words(block[:, done : done + 8], np.uint64)
            zero = np.zeros(count, dtype=np.uint64)
            h = _rotate_left(h ^ _round(zero, lane), 27) * _U64(P1) + _U64(P4)
            done += 8
        if done + 4 <= length:
            lane = _words(block[:, done : done + 4], np.uint32)
            h = _rotate_left(h ^ (lane * _U64(P1)), 23) * _U64(P2) + _U64(P3)
            done += 4
        for column in range(done, length):
            lane = block[:, column].astype(np.uint64)
            h = _rotate_left(h ^ (lane * _U64(P5)), 11) * _U64(P1)
        return _avalanche(h)


def _words(block: npt.NDArray[np.uint8], dtype: type[np.unsignedinteger]) -> _Words:
    little = np.dtype(dtype).newbyteorder("<")
    return np.ascontiguousarray(block).view(little)[:, 0].astype(np.uint64)


def _stripes(block: npt.NDArray[np.uint8], seed: int) -> tuple[_Words, int]:
    """State after the 32-byte stripes and how many bytes they took."""
    count, length = block.shape
    seeds = np.full(count, seed, dtype=np.uint64)
    if length < 32:
        return seeds + _U64(P5), 0
    lanes: list[_Words] = [
        seeds + _U64(P1) + _U64(P2),
        seeds + _U64(P2),
        seeds.copy(),
        seeds - _U64(P1),
    ]
    done = 0
    while done + 32 <= length:
        for i in range(4):
            at = done + 8 * i
            lanes[i] = _round(lanes[i], _words(block[:, at : at + 8], np.uint64))
        done += 32
    return _merge(lanes), done


def _merge(lanes: list[_Words]) -> _Words:
    zero = np.zeros_like(lanes[0])
    h = np.zeros_like(lanes[0])
    for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True):
        h += _rotate_left(lane, bits)
    for lane in lanes:
        h = (h ^ _round(zero, lane)) * _U64(P1) + _U64(P4)
    return h

"""The common hash as Spark SQL columns, bit-equal to ``muxrec.spec.hashing``."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

from muxrec.data.keys import INTEGER
from muxrec.spec.hashing import MAX_ROWS


def id_key(text: Column) -> Column:
    """Signed 64-bit key of an id given as text, bigint; null stays null.

    Integers as they are, other strings by XXH64, as ``muxrec.data.keys.id_keys``.
    """
    integer = F.when(text.rlike(rf"^(?:{INTEGER.pattern})\z"), text.try_cast("bigint"))
    return F.when(text.isNotNull(), F.coalesce(integer, F.xxhash64(text)))


def hash_row(ids: Column, *, name: str, probe: int, rows: int) -> Column:
    """The row that probe ``probe`` of feature ``name`` reads, bigint in ``[0, rows)``.

    Args:
        ids: Raw ids, bigint; null stays null (an INT literal hashes differently: cast it first).
        name: Feature name, the salt.
        probe: Probe number, from 0.
        rows: Rows of the physical table, in ``[1, 2**31)``; the product below stays under 2**63,
            so ANSI mode has nothing to refuse.

    Raises:
        ValueError: ``rows`` is out of range.
    """
    if not 1 <= rows < MAX_ROWS:
        raise ValueError(f"rows must be in [1, 2**31), got {rows}")
    h = F.xxhash64(F.lit(name), F.lit(probe).cast("bigint"), ids)
    high = F.shiftrightunsigned(h, 32)
    row = F.shiftrightunsigned(high * F.lit(rows).cast("bigint"), 32)
    return F.when(ids.isNotNull(), row)

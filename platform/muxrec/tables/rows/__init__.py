"""Formats of served rows: one file each, and the dict that names them."""

from muxrec.tables.rows.csr import CsrRows
from muxrec.tables.rows.fp16 import Fp16Rows
from muxrec.tables.rows.fp32 import Fp32Rows
from muxrec.tables.rows.int2 import Int2Rows
from muxrec.tables.rows.int4 import Int4Rows
from muxrec.tables.rows.int8 import Int8Rows
from muxrec.tables.rows.int16 import Int16Rows
from muxrec.tables.rows.protocol import ServedRows

ROW_FORMATS: dict[str, type[ServedRows]] = {
    "fp32": Fp32Rows,
    "fp16": Fp16Rows,
    "int16": Int16Rows,
    "int8": Int8Rows,
    "int4": Int4Rows,
    "int2": Int2Rows,
    "csr": CsrRows,
}

__all__ = [
    "ROW_FORMATS",
    "CsrRows",
    "Fp16Rows",
    "Fp32Rows",
    "Int2Rows",
    "Int4Rows",
    "Int8Rows",
    "Int16Rows",
    "ServedRows",
]

"""Served formats of tables that hold one or a few numbers per row."""

from __future__ import annotations

from typing import Any

from muxrec.tables.methods.protocol import Declared


def few_numbers(declared: Declared) -> dict[str, Any]:
    """Changes of a physical table whose rows are factors: a scale per row would outweigh them."""
    is_half = declared.table.serve_dtype == "fp16"
    return {"serve": "fp16" if is_half else "fp32", "serve_group": 0}

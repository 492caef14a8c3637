"""Byte budgets as recipes write them: ``2MB``, ``500kB``, ``10%`` of the full table, ``0.1x``."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|KiB|MiB|GiB|%|x)\s*")


@dataclass(frozen=True)
class Budget:
    """How many bytes a table may take when it is served, without the dictionary of its ids.

    Attributes:
        number: A number of bytes, or a share of the bytes of the full table.
        is_share: Which of the two.
    """

    number: float
    is_share: bool

    def bytes_of(self, full_bytes: int) -> int:
        """The budget in bytes, given the bytes of the readers' full fp32 tables."""
        return int(self.number * full_bytes) if self.is_share else int(self.number)


def parse_budget(text: str) -> Budget:
    """The budget that ``text`` says.

    Raises:
        ValueError: It is not a positive number with a unit.
    """
    match = _PATTERN.fullmatch(text)
    number = float(match[1]) if match else 0.0
    if match is None or number <= 0:
        units = ", ".join(UNITS)
        raise ValueError(f"expected a size such as 2MB ({units}), 10% or 0.1x, got {text!r}")
    if match[2] in UNITS:
        return Budget(number * UNITS[match[2]], is_share=False)
    return Budget(number / 100 if match[2] == "%" else number, is_share=True)

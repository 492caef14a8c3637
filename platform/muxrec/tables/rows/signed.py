"""Signed integers that stand for numbers, with a float32 scale per group."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from muxrec.tables.rows.blocks import check_weight, dense_rows
from muxrec.tables.rows.groups import ScaleGroups

LARGEST = 1e38
"""So that no product of a code and a scale overflows, however the scale was rounded."""


class SignedRows(nn.Module):
    """Symmetric codes: a number is its code times its group's scale.

    The error of a number is at most half a step, ``max(abs(group)) / (2 * top)``; zero stays zero,
    and a group of zeros keeps scale 0.

    Attributes:
        dtype: Integers of the codes, a signed type.
        codes: Codes ``[R, d]`` in ``[-top, top]``, top being the type's largest number.
        scales: float32 ``[lines, scales per row]``, see :class:`ScaleGroups`.
    """

    is_exact: ClassVar[bool] = False
    dtype: ClassVar[torch.dtype]
    codes: Tensor
    scales: Tensor

    def __init__(self, groups: ScaleGroups, codes: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.groups = groups
        self.rows, self.width = codes.shape
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    @classmethod
    def of(cls, weight: Tensor, *, group: int = 0) -> Self:
        """The rows of ``weight``, whose numbers are at most 1e38 in magnitude."""
        weight = check_weight(weight, what=cls._name(), largest=LARGEST)
        groups = ScaleGroups.of(len(weight), weight.shape[1], group)
        codes, top = torch.empty_like(weight, dtype=cls.dtype), torch.iinfo(cls.dtype).max
        scales = weight.new_empty(groups.lines, groups.per_row)
        for rows, lines in groups.blocks():
            numbers = groups.split(weight[rows], lines)
            found = numbers.abs().amax(dim=1) / top
            steps = torch.where(found > 0, found, 1.0)
            rounded = torch.round(numbers / steps[:, None]).clamp(-top, top)
            codes[rows] = rounded.to(cls.dtype).view(-1, groups.width)
            scales[lines] = found.view(-1, groups.per_row)
        return cls(groups, codes, scales)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows int64 ``[...]`` -> float32 ``[..., d]``."""
        flat, groups = rows.flatten(), self.groups
        codes = self.codes.index_select(0, flat).to(torch.float32)
        scales = self.scales.index_select(0, groups.line_of(flat))
        parts = codes.view(-1, groups.per_row, self.width // groups.per_row) * scales[:, :, None]
        return parts.view(*rows.shape, self.width)

    def dense(self) -> Tensor:
        """The rows that the codes stand for, float32 ``[R, d]``."""
        return dense_rows(self, self.codes.device)

    @property
    def served_bytes(self) -> int:
        """Bytes of codes and scales."""
        return self.codes.nbytes + self.scales.nbytes

    @classmethod
    def bytes_for(
        cls,
        rows: int,
        width: int,
        *,
        group: int = 0,
        nonzeros: int | None = None,  # noqa: ARG003 - one protocol
    ) -> int:
        """The codes' bytes and four per scale."""
        groups = ScaleGroups.of(rows, width, group)
        return rows * width * cls.dtype.itemsize + 4 * groups.lines * groups.per_row

    @classmethod
    def _name(cls) -> str:
        """The format's name in messages: ``int8``."""
        return str(cls.dtype).removeprefix("torch.")

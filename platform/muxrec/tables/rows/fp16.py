"""``fp16``: half the bytes, eleven bits of each number."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muxrec.tables.rows.blocks import check_weight, refuse_group

LARGEST = torch.finfo(torch.float16).max


class Fp16Rows(nn.Module):
    """Rows of float16, looked up as float32.

    A number's error is at most ``2**-11`` of it, or ``2**-25`` for numbers below ``2**-14``.

    Attributes:
        values: float16 ``[R, d]``.
    """

    is_exact: ClassVar[bool] = False
    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.rows, self.width = values.shape
        self.register_buffer("values", values)

    @classmethod
    def of(cls, weight: Tensor, *, group: int = 0) -> Self:
        """The rows of ``weight``, whose numbers are at most 65504 in magnitude."""
        refuse_group(group, what="fp16")
        return cls(check_weight(weight, what="fp16", largest=LARGEST).half())

    def forward(self, rows: Tensor) -> Tensor:
        """Rows int64 ``[...]`` -> float32 ``[..., d]``."""
        return F.embedding(rows, self.values).to(torch.float32)

    def dense(self) -> Tensor:
        """The rounded rows, float32 ``[R, d]``."""
        return self.values.float()

    @property
    def served_bytes(self) -> int:
        """Bytes of the values."""
        return self.values.nbytes

    @classmethod
    def bytes_for(
        cls,
        rows: int,
        width: int,
        *,
        group: int = 0,
        nonzeros: int | None = None,  # noqa: ARG003 - one protocol
    ) -> int:
        """Two bytes per number."""
        refuse_group(group, what="fp16")
        return 2 * rows * width

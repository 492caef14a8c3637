"""``fp32``: the rows as they are trained."""

from __future__ import annotations

from typing import ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

from muxrec.tables.rows.blocks import check_weight, refuse_group


class Fp32Rows(nn.Module):
    """Rows of float32; nothing is lost and nothing is saved.

    Attributes:
        values: float32 ``[R, d]``; the weight itself, not a copy.
    """

    is_exact: ClassVar[bool] = True
    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.rows, self.width = values.shape
        self.register_buffer("values", values)

    @classmethod
    def of(cls, weight: Tensor, *, group: int = 0) -> Self:
        """The rows of ``weight``, which is kept and not copied."""
        refuse_group(group, what="fp32")
        return cls(check_weight(weight, what="fp32"))

    def forward(self, rows: Tensor) -> Tensor:
        """Rows int64 ``[...]`` -> float32 ``[..., d]``."""
        return F.embedding(rows, self.values)

    def dense(self) -> Tensor:
        """The rows themselves, float32 ``[R, d]``."""
        return self.values

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
        """Four bytes per number."""
        refuse_group(group, what="fp32")
        return 4 * rows * width

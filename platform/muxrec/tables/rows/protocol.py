"""What a format of served rows is: codes in few bytes, and a lookup that exports to ONNX."""

from __future__ import annotations

from typing import ClassVar, Protocol, Self

from torch import Tensor


class ServedRows(Protocol):
    """One physical table as it is served: an ``nn.Module`` whose tensors are buffers.

    ``forward`` is made of operations that ``torch.onnx.export(dynamo=True)`` translates and that
    onnxruntime runs with the same bits.

    Attributes:
        is_exact: Whether the rows are the trained ones (but for the sign of a zero).
        rows: R.
        width: Numbers per row, d.
    """

    is_exact: ClassVar[bool]
    rows: int
    width: int

    @classmethod
    def of(cls, weight: Tensor, *, group: int = 0) -> Self:
        """The rows of ``weight`` in this format.

        The table is read in blocks, so that nothing of its size is made but the result.

        Args:
            weight: float32 ``[R, d]``, both at least 1.
            group: Numbers that share a scale, where the format has scales: 0 for one scale per row;
                a divisor of d for several scales per row; a multiple ``k * d`` for one scale per k
                consecutive rows (the last ones may be fewer). Where it has none: 0.

        Raises:
            ValueError: The weight has another shape or dtype, holds numbers that the format cannot,
                or the group does not fit the width.
        """
        ...

    def __call__(self, rows: Tensor) -> Tensor:
        """The rows asked for.

        Args:
            rows: Row numbers in ``[0, R)``, int64 of any shape ``[...]``; none give none.

        Returns:
            float32 ``[..., d]``, bit by bit ``dense()[rows]``.
        """
        ...

    def dense(self) -> Tensor:
        """All rows that the codes stand for, float32 ``[R, d]``."""
        ...

    @property
    def served_bytes(self) -> int:
        """Bytes of all tensors that are served."""
        ...

    @classmethod
    def bytes_for(
        cls, rows: int, width: int, *, group: int = 0, nonzeros: int | None = None
    ) -> int:
        """:attr:`served_bytes` of such a table, without its numbers.

        Args:
            rows: R.
            width: d.
            group: As in :meth:`of`.
            nonzeros: Numbers that are not 0, which decide the size of ``csr`` rows and of no other
                format; None for all of them.

        Raises:
            ValueError: The group does not fit the width.
        """
        ...

"""Summed bags of quantised rows on this project's kernel, on any device and platform.

A row ends with its levels and takes a multiple of 16 bytes; on the CPU, where the kernel's
reference runs, that is more than fbgemm's rows take.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from muxrec.tables.addressing import RowBags
from muxrec.tables.rows.kernel_layout import BITS, packed_rows
from muxrec_kernels.quantised_lookup import pool_quantised_rows


class PackedBags(nn.Module):
    """Summed bags of quantised rows, for several physical tables at once.

    Args:
        tables: Table name -> rows, float32 ``[R, d]``, all on one device.
        keys: Table name -> keys of the reads on it, at least one; no key comes twice.
        dtype: ``int8``, ``int4`` or ``int2``.

    Raises:
        ValueError: An unknown dtype, a table without keys or keys without a table, a key that comes
            twice, or rows that the format cannot hold.

    Attributes:
        keys: Keys in the order of ``tables``.
        widths: Width of each key's rows.
    """

    def __init__(
        self, tables: Mapping[str, Tensor], keys: Mapping[str, tuple[str, ...]], *, dtype: str
    ) -> None:
        super().__init__()
        check_keys(tables, keys, dtype)
        self.dtype, self.keys = dtype, [key for name in tables for key in keys[name]]
        self.widths = [tables[name].shape[1] for name in tables for _ in keys[name]]
        self._reads = [(weight.shape[1], len(keys[name])) for name, weight in tables.items()]
        for at, weight in enumerate(tables.values()):
            self.register_buffer(f"rows_{at}", packed_rows(weight, dtype))

    def forward(self, rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Summed bags of every key, side by side in the order of ``tables`` and ``keys``.

        Args:
            rows: Row numbers in the key's table, int64 ``[N]``, key after key.
            offsets: Bag starts, int64 ``[keys * B + 1]``; bag ``k * B + b`` belongs to key k.
            weights: Weight of each row, float32 ``[N]``; None for 1.

        Returns:
            float32 ``[B, sum of widths over keys]``; zeros for an empty bag.
        """
        size, first = (offsets.numel() - 1) // len(self.keys), 0
        if size == 0:
            return torch.zeros(0, sum(self.widths), device=rows.device)
        parts = []
        for table, (width, reads) in zip(self.buffers(), self._reads, strict=True):
            bags = offsets[first * size : (first + reads) * size + 1]
            sums = pool_quantised_rows(
                table,
                rows,
                bags,
                width=width,
                bits=BITS[self.dtype],
                batch_size=size,
                weights=weights,
            )
            parts.append(sums)
            first += reads
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def sums(self, bags: RowBags) -> Tensor:
        """Summed bags of rows; see :meth:`forward`."""
        return self(bags.rows, bags.offsets, bags.weights)

    @property
    def served_bytes(self) -> int:
        """Bytes of the rows with their levels."""
        return sum(table.nbytes for table in self.buffers())


def check_keys(
    tables: Mapping[str, Tensor], keys: Mapping[str, tuple[str, ...]], dtype: str
) -> None:
    """Refuse reads that belong to no table, and the reverse.

    Raises:
        ValueError: An unknown dtype, a table without keys or keys without a table, or a key that
            comes twice.
    """
    if dtype not in BITS:
        raise ValueError(f"dtype must be one of {', '.join(BITS)}, got {dtype}")
    if not tables or tables.keys() != keys.keys() or not all(keys.values()):
        raise ValueError(
            "every table needs its keys and every key's table its rows, got tables "
            f"{sorted(tables)} and keys of {sorted(name for name, reads in keys.items() if reads)}"
        )
    every = [key for reads in keys.values() for key in reads]
    if twice := sorted({key for key in every if every.count(key) > 1}):
        raise ValueError(f"key {twice[0]} is given twice: a key is one read of one table")

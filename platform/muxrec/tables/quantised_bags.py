"""Summed bags of quantised rows on TorchRec's inference modules: fbgemm's kernels.

The codes are made by :mod:`muxrec.tables.rows.kernel_layout`. TorchRec aligns rows to 16 bytes
unless told otherwise, so that narrow rows would save nothing; on the CPU a row takes the bytes that
it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torchrec import EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.modules.embedding_configs import DataType, PoolingType
from torchrec.quant.embedding_modules import EmbeddingBagCollection

from muxrec.tables.addressing import RowBags
from muxrec.tables.packed_bags import check_keys
from muxrec.tables.rows.kernel_layout import ROW_ALIGNMENT, kernel_rows, kernel_width

DATA_TYPES = {"int8": DataType.INT8, "int4": DataType.INT4, "int2": DataType.INT2}


class QuantisedBags(nn.Module):
    """Summed bags of quantised rows, for several physical tables at once.

    Args:
        tables: Table name -> rows, float32 ``[R, d]``, all on one device.
        keys: Table name -> keys of the reads on it, at least one; no key comes twice.
        dtype: ``int8``, ``int4`` or ``int2``.

    Raises:
        ValueError: An unknown dtype, a table without keys or keys without a table, a key that comes
            twice, or rows that the format cannot hold.

    Attributes:
        bags: TorchRec's collection; rows whose width its kernels do not take are wider in it.
    """

    def __init__(
        self, tables: Mapping[str, Tensor], keys: Mapping[str, tuple[str, ...]], *, dtype: str
    ) -> None:
        super().__init__()
        check_keys(tables, keys, dtype)
        self.dtype, self.keys = dtype, [key for name in tables for key in keys[name]]
        self.widths = [tables[name].shape[1] for name in tables for _ in keys[name]]
        self._held = [kernel_width(width, dtype) for width in self.widths]
        device = next(iter(tables.values())).device
        quantised = {
            _module_name(name): kernel_rows(weight, dtype) for name, weight in tables.items()
        }
        self.bags = EmbeddingBagCollection(
            [_config(name, weight, keys[name], dtype) for name, weight in tables.items()],
            is_weighted=True,
            device=device,
            table_name_to_quantized_weights=quantised,
            register_tbes=True,
            row_alignment=ROW_ALIGNMENT[device.type],
        )
        # The collection copied them and would keep them.
        quantised.clear()

    def forward(self, rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Summed bags of every key, side by side in the order of ``tables`` and ``keys``.

        Args:
            rows: Row numbers in the key's table, int64 ``[N]``, key after key.
            offsets: Bag starts, int64 ``[keys * B + 1]``; bag ``k * B + b`` belongs to key k.
            weights: Weight of each row, float32 ``[N]``; None for 1.

        Returns:
            float32 ``[B, sum of widths over keys]``; zeros for an empty bag.
        """
        weights = torch.ones_like(rows, dtype=torch.float32) if weights is None else weights
        keyed = KeyedJaggedTensor(keys=self.keys, values=rows, offsets=offsets, weights=weights)
        sums = self.bags(keyed).values()
        if self._held == self.widths:
            return sums
        parts = zip(sums.split(self._held, dim=1), self.widths, strict=True)
        return torch.cat([part[:, :width] for part, width in parts], dim=1)

    def sums(self, bags: RowBags) -> Tensor:
        """Summed bags of rows; see :meth:`forward`."""
        return self(bags.rows, bags.offsets, bags.weights)

    @property
    def served_bytes(self) -> int:
        """Bytes of the arrays that hold the rows, their levels and what aligns them."""
        kernels = [cast("nn.Module", kernel) for kernel in self.bags.tbes]
        arrays = [
            getattr(kernel, name) for kernel in kernels for name in ("weights_host", "weights_dev")
        ]
        return sum(array.untyped_storage().nbytes() for array in arrays)


def _config(name: str, weight: Tensor, keys: tuple[str, ...], dtype: str) -> EmbeddingBagConfig:
    return EmbeddingBagConfig(
        name=_module_name(name),
        num_embeddings=weight.shape[0],
        embedding_dim=kernel_width(weight.shape[1], dtype),
        feature_names=list(keys),
        pooling=PoolingType.SUM,
        data_type=DATA_TYPES[dtype],
    )


def _module_name(table: str) -> str:
    """The table's name in torchrec's ModuleDict, which refuses ``items`` and names with dots."""
    return f"table_{table.encode().hex()}"

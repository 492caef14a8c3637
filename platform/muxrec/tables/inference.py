"""Quantised tables on TorchRec's inference modules: pooled lookups without ONNX.

The kernels are fbgemm's, the codes are made by :mod:`muxrec.tables.rows.kernel_layout`. TorchRec
aligns rows to 16 bytes unless told otherwise, so that narrow rows would save nothing; on the CPU a
row takes the bytes that it needs.
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
from muxrec.tables.bags import Bags
from muxrec.tables.fused import FusedPart
from muxrec.tables.lowering import Group
from muxrec.tables.reference import ReferenceTables
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
        _check(tables, keys, dtype)
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


class InferenceTables(nn.Module):
    """The feature vectors of trained tables, looked up in quantised rows.

    Args:
        tables: Trained tables; their maps are shared, their rows are copied.
        dtype: ``int8``, ``int4`` or ``int2``.
    """

    def __init__(self, tables: ReferenceTables, *, dtype: str) -> None:
        super().__init__()
        self.vectors, self.lowering = tables.vectors, tables.lowering
        rows = {each.group.table.name: each.local().floats() for each in tables.table_groups()}
        kinds = [
            tuple(group for group in self.lowering.groups if group.is_per_id == is_per_id)
            for is_per_id in (False, True)
        ]
        self.parts = nn.ModuleList(
            FusedPart(groups, _bags_of(groups, rows, dtype)) for groups in kinds if groups
        )

    @torch.no_grad()
    def forward(self, sparse: Mapping[str, Bags]) -> dict[str, Tensor]:
        """Feature name -> vectors, float32 ``[B, width]``, as :class:`ReferenceTables` gives."""
        found = self.vectors.find(sparse)
        size, poolings = self.vectors.most_ids(found), self.vectors.poolings
        read = {}
        for part in cast("list[FusedPart]", list(self.parts)):
            tables = zip(part.groups, part(sparse, found, size, poolings), strict=True)
            read.update({group.table.name: parts for group, parts in tables})
        return self.vectors([read[group.table.name] for group in self.lowering.groups], found)

    @property
    def served_bytes(self) -> int:
        """Bytes of all rows."""
        parts = cast("list[FusedPart]", list(self.parts))
        return sum(cast(QuantisedBags, part.kernel).served_bytes for part in parts)


def _bags_of(groups: tuple[Group, ...], rows: Mapping[str, Tensor], dtype: str) -> QuantisedBags:
    """The rows of ``groups``; a key for every read, since a feature may read several tables."""
    tables = {group.table.name: rows[group.table.name] for group in groups}
    keys = {
        group.table.name: tuple(f"{group.table.name}/{read.key}" for read in group.reads)
        for group in groups
    }
    return QuantisedBags(tables, keys, dtype=dtype)


def _check(tables: Mapping[str, Tensor], keys: Mapping[str, tuple[str, ...]], dtype: str) -> None:
    if dtype not in DATA_TYPES:
        raise ValueError(f"dtype must be one of {', '.join(DATA_TYPES)}, got {dtype}")
    if not tables or tables.keys() != keys.keys() or not all(keys.values()):
        raise ValueError(
            "every table needs its keys and every key's table its rows, got tables "
            f"{sorted(tables)} and keys of {sorted(name for name, reads in keys.items() if reads)}"
        )
    every = [key for reads in keys.values() for key in reads]
    if twice := sorted({key for key in every if every.count(key) > 1}):
        raise ValueError(f"key {twice[0]} is given twice: a key is one read of one table")


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

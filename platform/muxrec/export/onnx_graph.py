"""One ONNX graph of an item model: hash, lookups, pooling, modality encoders, fusion, head."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from muxrec.bundle import format as names
from muxrec.errors import BundleError
from muxrec.export.onnx_shift import TRANSLATIONS
from muxrec.export.quantise import served_rows, tables_of
from muxrec.features.arrays import ItemArrays
from muxrec.model import ItemModel
from muxrec.spec.hashing import HASH_VERSION
from muxrec.tables.features import Gathers
from muxrec.tables.held import TableGroup

EXTERNAL_BYTES = 64 * 2**20
"""Weights above this lie in ``item_tower.onnx.data``, which onnxruntime maps and does not copy."""
EXAMPLE_ITEMS = 5


class ServedGroup(nn.Module):
    """One physical table with the reads on it, in exportable operations and its served format."""

    def __init__(self, table: TableGroup) -> None:
        super().__init__()
        self.address, self.features = table.address, table.features
        self.rows = served_rows(table)

    def gather(self, rows: Tensor) -> Tensor:
        """Rows ``[..., d]`` by number."""
        return self.rows(rows)


class ServedGraph(nn.Module):
    """An item model over padded inputs: tensors in the order of ``input_names``.

    Args:
        model: A trained model with reference tables.
    """

    def __init__(self, model: ItemModel) -> None:
        super().__init__()
        self.tower = model.tower
        self.vectors = tables_of(model).vectors
        self.groups = nn.ModuleList(
            ServedGroup(cast(TableGroup, group)) for group in tables_of(model).table_groups()
        )
        self.features = model.tower.features

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, as ``ItemArrays.onnx_inputs`` gives them."""
        ends = {True: ("ids", "mask"), False: ("values", "present")}
        return [f"{f.name}.{end}" for f in self.features for end in ends[f.is_sparse]]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """``(vector, parts)``, float32 ``[B, D]`` and ``[B, M, D]``."""
        inputs = dict(zip(self.input_names, tensors, strict=True))
        sparse = [f.name for f in self.features if f.is_sparse]
        dense = [f.name for f in self.features if not f.is_sparse]
        masks = {name: inputs[f"{name}.mask"] for name in sparse}
        groups = cast("list[Gathers]", list(self.groups))
        vectors = {
            name: self.vectors.padded(name, inputs[f"{name}.ids"], masks[name], groups)
            for name in sparse
        }
        output = self.tower.forward_features(
            vectors,
            {name: mask.sum(dim=1) > 0 for name, mask in masks.items()},
            {name: inputs[f"{name}.values"] for name in dense},
            {name: inputs[f"{name}.present"] > 0 for name in dense},
        )
        return output.vector, output.parts


def export_onnx(model: ItemModel, arrays: ItemArrays, path: Path, *, opset: int) -> None:
    """Write the graph of ``model`` to ``path``; large weights to ``<path>.data`` beside it.

    Inputs are those of ``ItemArrays.onnx_inputs`` for the tower's features, outputs ``vector``
    ``[batch, D]`` and ``parts`` ``[batch, M, D]``; the batch is dynamic.

    Args:
        model: A trained model with reference tables, dropouts off.
        arrays: Encoded items, at least one; their shapes are the graph's, their values do not
            matter.
        path: File to write.
        opset: ONNX opset.

    Raises:
        BundleError: The exporter failed.
    """
    graph = ServedGraph(model).eval()
    example = arrays.take(_example_rows(len(arrays))).onnx_inputs(graph.features)
    tensors = tuple(torch.from_numpy(example[name]) for name in graph.input_names)
    batch = torch.export.Dim("batch")
    with _quiet_exporter(), torch.inference_mode(mode=False), torch.no_grad():
        program = torch.onnx.export(
            graph,
            tensors,
            dynamo=True,
            opset_version=opset,
            input_names=graph.input_names,
            output_names=["vector", "parts"],
            dynamic_shapes={"tensors": tuple({0: batch} for _ in tensors)},
            custom_translation_table=dict(TRANSLATIONS),
            verbose=False,
        )
    if program is None:
        raise BundleError("torch.onnx.export returned nothing: the graph was not exported")
    _describe(program.model, model)
    program.save(path, external_data=_weight_bytes(graph) > EXTERNAL_BYTES)


def _example_rows(count: int) -> Any:
    """Positions of ``EXAMPLE_ITEMS`` items, int64; with 0 or 1 the batch would become fixed."""
    return (torch.arange(EXAMPLE_ITEMS) % count).numpy()


def _describe(graph: Any, model: ItemModel) -> None:
    """Say what the graph belongs to, and drop the exporter's notes: they hold local file names."""
    for node in graph.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    graph.metadata_props.clear()
    graph.metadata_props.update(
        {
            names.ONNX_HASH_VERSION: HASH_VERSION,
            names.ONNX_FEATURES_HASH: names.features_hash(model.tower.features),
            names.ONNX_MODALITIES: json.dumps(list(model.tower.modalities)),
        }
    )


def _weight_bytes(graph: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*graph.parameters(), *graph.buffers()])


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns about its own dependencies and logs every step; none of it is ours."""
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    loud.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            loud.setLevel(level)

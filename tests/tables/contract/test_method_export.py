"""Every method in one exported graph: the vectors that onnxruntime gives, and the bytes inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muxrec.export.onnx_graph import ServedGroup
from muxrec.export.onnx_shift import TRANSLATIONS
from muxrec.export.quantise import served_rows
from muxrec.tables.bags import Bags
from muxrec.tables.memory import serving_bytes
from muxrec.tables.methods import Lowered
from muxrec.tables.reference import ReferenceTables

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

TOGETHER = 5
"""Methods per graph: a graph of its own for each, or one for all, takes the exporter longer."""
BATCH, LENGTH = 33, 5
SMALL = 4
"""Constants of so few numbers are shapes, seeds and limits of the graph, not weights."""


class Lookups(nn.Module):
    """The vectors of one feature of each method, from one batch of padded ids."""

    def __init__(self, served: Mapping[str, ReferenceTables]) -> None:
        super().__init__()
        self.names = {key: each.vectors.names[0] for key, each in served.items()}
        self.vectors = nn.ModuleList(each.vectors for each in served.values())
        self.groups = nn.ModuleList(
            nn.ModuleList(ServedGroup(table) for table in each.table_groups())
            for each in served.values()
        )

    def forward(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        each = zip(self.vectors, self.names.values(), self.groups, strict=True)
        return [vectors.padded(name, ids, mask, list(groups)) for vectors, name, groups in each]


@dataclass(frozen=True)
class Exported:
    """A graph of some methods, and its answers to one batch.

    Attributes:
        weights: Bytes of the weights behind each method's vectors.
        vectors: Each method's vectors, by onnxruntime.
        bags: The batch.
    """

    weights: Mapping[str, int]
    vectors: Mapping[str, np.ndarray]
    bags: Bags


@pytest.fixture(scope="module")
def export_of(all_cases, tmp_path_factory):
    """The export that a case is part of; every method in the most demanding of its formats."""

    @cache
    def exported(part: int) -> Exported:
        cases = all_cases[part * TOGETHER : (part + 1) * TOGETHER]
        served = {case.method: case.walk(case.serves[-1]).served for case in cases}
        path = tmp_path_factory.mktemp("export") / "lookups.onnx"
        ids, mask = padded_ids(cases[0])
        export(Lookups(served).eval(), ids, mask, list(served), path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        answers = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        return Exported(
            weights_of(path), dict(zip(served, answers, strict=True)), bags_of(ids, mask)
        )

    return lambda case: exported(all_cases.index(case) // TOGETHER)


def padded_ids(case) -> tuple[Tensor, Tensor]:
    """Known, unknown and extreme ids with weights; an empty and a full bag among them."""
    generator = torch.Generator().manual_seed(0)
    known = torch.from_numpy(case.vocabularies[case.names[0]].ids())
    pool = torch.cat([known, torch.tensor([10**15, -(10**15)])])
    ids = pool[torch.randint(len(pool), (BATCH, LENGTH), generator=generator)]
    mask = torch.rand(BATCH, LENGTH, generator=generator).round(decimals=1)
    mask[0], mask[1] = 0.0, 1.0
    return ids, mask


def export(graph: nn.Module, ids: Tensor, mask: Tensor, outputs: list[str], path: Path) -> None:
    dim = {0: torch.export.Dim("batch")}
    with torch.no_grad():
        program = torch.onnx.export(
            graph,
            (ids[:3], mask[:3]),
            dynamo=True,
            opset_version=20,
            input_names=["ids", "mask"],
            output_names=outputs,
            dynamic_shapes=(dim, dim),
            custom_translation_table=dict(TRANSLATIONS),
            verbose=False,
        )
    assert program is not None
    program.save(path)


def bags_of(ids: Tensor, mask: Tensor) -> Bags:
    """The same bags without the places that have no weight."""
    lengths = (mask > 0).sum(dim=1)
    return Bags(ids[mask > 0], F.pad(lengths.cumsum(0), (1, 0)), mask[mask > 0])


def weights_of(path: Path) -> dict[str, int]:
    """Bytes of the weights from which each output is made, by walking the graph back."""
    graph = onnx.load(path).graph
    makers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: weight_bytes(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors = [each.t for each in node.attribute if each.name == "value"]
            weights[node.output[0]] = sum(map(weight_bytes, tensors))
    totals = {}
    for output in graph.output:
        todo, seen = [output.name], set()
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += makers[name].input if name in makers else []
        totals[output.name] = sum(weights.get(name, 0) for name in seen)
    return totals


def weight_bytes(tensor: onnx.TensorProto) -> int:
    array = onnx.numpy_helper.to_array(tensor)
    return array.nbytes if array.size > SMALL else 0


def expected(served: ReferenceTables, bags: Bags) -> Tensor:
    """Vectors of jagged bags with the rows that the served codes stand for."""
    tables = ReferenceTables(served.lowering, seed=0, lr=0.0).eval()
    for mine, theirs in zip(tables.table_groups(), served.table_groups(), strict=True):
        mine.load(replace(theirs.local(), weight=served_rows(theirs).dense()))
    names = served.vectors.names
    return tables(dict.fromkeys(names, bags))[names[0]].detach()


def of_reader(lowered: Lowered, name: str) -> Lowered:
    """The part of a table that one of its features reads."""
    reads = tuple(read for read in lowered.reads if read.feature == name)
    read = {each.table for each in reads}
    return replace(
        lowered,
        tables=tuple(table for table in lowered.tables if table.name in read),
        reads=reads,
        combines={key: each for key, each in lowered.combines.items() if key == name},
        known={key: each for key, each in lowered.known.items() if key == name},
    )


def test_the_exported_graph_answers_as_the_served_tables(case, export_of) -> None:
    exported = export_of(case)
    wanted = expected(case.walk(case.serves[-1]).served, exported.bags)
    found = torch.from_numpy(exported.vectors[case.method])
    assert found.shape == (BATCH, 8)
    assert found[0].eq(0).all()
    assert found[1].ne(0).any()
    # Rows are the same; up to five weighted ones are added in another order.
    torch.testing.assert_close(found, wanted, rtol=0, atol=case.export_error)


def test_the_exported_weights_are_the_announced_bytes(case, export_of) -> None:
    walked = case.walk(case.serves[-1])
    mine = of_reader(walked.frozen.lowered[0], walked.served.vectors.names[0])
    announced = serving_bytes(mine).total
    # Seeds and constants of the hash come on top.
    assert announced <= export_of(case).weights[case.method] <= 1.05 * announced

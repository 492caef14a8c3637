"""Frozen tables for the exported graph: equal lookups, int8 within half a scale, exportable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from muxrec.tables.build import build_tables
from muxrec.tables.serving import ServedTables, quantise_rows

NAMES = ("item", "genre", "word", "type")


def built(declared, serve_dtype: str):
    tables = tuple(replace(table, serve_dtype=serve_dtype) for table in declared.tables)
    return build_tables(
        declared.features, tables, vocabularies=declared.vocabularies, engine="reference"
    )


def test_fp32_lookups_are_the_trained_ones_and_frozen(declared, make_batch, pad) -> None:
    tables = built(declared, "fp32")
    served = ServedTables(tables)
    batch = make_batch(NAMES, seed=0)
    before = {name: served.lookup_padded(name, *pad(batch[name])) for name in NAMES}
    for name, vectors in tables(batch).items():
        torch.testing.assert_close(before[name], vectors.detach(), rtol=0, atol=1e-7)
    with torch.no_grad():
        for group in tables.table_groups():
            group.weight += 1
    assert torch.equal(served.lookup_padded("genre", *pad(batch["genre"])), before["genre"])


def test_int8_lookups_are_within_half_a_scale_per_row(declared, make_batch, pad) -> None:
    tables = built(declared, "int8")
    served = ServedTables(tables)
    batch = make_batch(NAMES, seed=0)
    for name, vectors in tables(batch).items():
        found = served.lookup_padded(name, *pad(batch[name]))
        longest = int(batch[name].lengths().max())
        # Rows start within 0.05, so a scale is at most 0.05 / 127; a sum adds up to `longest`.
        assert (found - vectors).abs().max() <= longest * 0.5 * 0.05 / 127 + 1e-7
    rows = sum(group.table.rows for group in tables.lowering.groups)
    numbers = sum(g.table.rows * g.table.width for g in tables.lowering.groups)
    assert served.table_bytes() == numbers + 4 * rows


@given(
    st.lists(
        st.lists(st.floats(-1e3, 1e3, width=32), min_size=4, max_size=4), min_size=1, max_size=8
    )
)
def test_quantised_rows_come_back_within_half_a_scale(values: list[list[float]]) -> None:
    rows = torch.tensor(values)
    codes, scales = quantise_rows(rows)
    back = codes.float() * scales[:, None]
    # One more unit in the last place for the division and the product.
    assert ((back - rows).abs() <= scales[:, None] * 0.5 * (1 + 1e-4) + 1e-30).all()
    assert codes.abs().max() <= 127


@pytest.mark.slow
@pytest.mark.parametrize("serve_dtype", ["fp32", "int8"])
def test_the_exported_lookups_are_the_same(
    declared, make_batch, pad, tmp_path: Path, serve_dtype: str
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    served = ServedTables(built(declared, serve_dtype))

    class Lookups(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = served

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
            return [self.tables.lookup_padded(name, ids, mask) for name in NAMES]

    batch = make_batch(("item",), seed=0, size=33, longest=6)
    ids, mask = pad(batch["item"])
    dim = {0: torch.export.Dim("batch")}
    program = torch.onnx.export(
        Lookups().eval(), (ids[:3], mask[:3]), dynamo=True, dynamic_shapes=(dim, dim), verbose=False
    )
    assert program is not None
    program.save(str(tmp_path / "lookups.onnx"))
    session = onnxruntime.InferenceSession(
        tmp_path / "lookups.onnx", providers=["CPUExecutionProvider"]
    )
    inputs = dict(
        zip([i.name for i in session.get_inputs()], (ids.numpy(), mask.numpy()), strict=True)
    )
    for name, found in zip(NAMES, session.run(None, inputs), strict=True):
        wanted = served.lookup_padded(name, ids, mask).numpy()
        # Rows are the same; at most six of them are added in another order.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)

"""Padded lookups export to ONNX and answer there what the tables answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from muxrec.tables.build import build_tables

NAMES = ("item", "genre", "word", "type")


@pytest.mark.slow
def test_the_exported_lookups_are_the_same(declared, make_batch, pad, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    tables = build_tables(
        declared.features, declared.tables, vocabularies=declared.vocabularies, engine="reference"
    )

    class Lookups(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = tables

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
        wanted = tables.lookup_padded(name, ids, mask).detach().numpy()
        # Rows are the same; at most six of them are added in another order.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)

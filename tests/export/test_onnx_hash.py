from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from muxrec.export.onnx_shift import TRANSLATIONS
from muxrec.spec.hashing import hash_rows, probe_seed
from muxrec.tables import hash_torch

ROWS = (1, 7, 50_000, 2**31 - 1)


class Rows(nn.Module):
    """The row of every id in tables of several sizes, by two seeds."""

    def forward(self, ids):
        seeds = torch.tensor([probe_seed("words", probe) for probe in range(2)])
        found = [hash_torch.hash_rows(ids[:, None], seeds, rows) for rows in ROWS]
        return torch.stack(found, dim=2)


@pytest.mark.slow
def test_a_million_ids_have_the_same_rows_in_onnxruntime_and_numpy(tmp_path):
    program = torch.onnx.export(
        Rows().eval(),
        (torch.arange(5),),
        dynamo=True,
        opset_version=20,
        dynamic_shapes={"ids": {0: torch.export.Dim("batch")}},
        custom_translation_table=TRANSLATIONS,
        verbose=False,
    )
    program.save(tmp_path / "rows.onnx")
    operations = Counter(node.op_type for node in onnx.load(tmp_path / "rows.onnx").graph.node)
    assert operations["BitShift"] > 0
    assert not operations.keys() & {"Where", "Less", "Mod"}, "no sign bits are spelled out"
    ends = np.iinfo(np.int64)
    ids = np.random.default_rng(0).integers(ends.min, ends.max, size=1_000_000, endpoint=True)
    ids[:9] = [ends.min, ends.min + 1, -(2**32), -1, 0, 1, 2**32, ends.max - 1, ends.max]
    session = ort.InferenceSession(tmp_path / "rows.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: ids})[0]
    for at, rows in enumerate(ROWS):
        for probe in range(2):
            expected = hash_rows(ids, name="words", probe=probe, rows=rows)
            np.testing.assert_array_equal(found[:, probe, at], expected)

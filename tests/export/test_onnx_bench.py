import json

import numpy as np
import pytest
from click.testing import CliRunner

from muxrec.bench.made_up_items import FEATURES, made_up_items, made_up_model
from muxrec.bench.numpy_tower import NumpyTower
from muxrec.bench.onnx_encode import onnx_bench
from muxrec.export.parity import STRANGE_IDS, strange_inputs
from muxrec.training.encode import encode_catalogue


def test_the_numpy_tower_agrees_with_torch_on_strange_inputs_too():
    items = made_up_items(300)
    model = made_up_model(items, width=16, rows=1000, serve_dtype="fp32")
    tower = NumpyTower(model, items.vocabularies)
    assert len(STRANGE_IDS)
    for what, arrays in {
        "catalogue": items.arrays,
        **strange_inputs(items.arrays, FEATURES),
    }.items():
        expected, _ = encode_catalogue(model, arrays)
        found = tower.run(arrays.onnx_inputs(tower.features))
        # Sums of up to 384 products in another order.
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=what)


@pytest.mark.slow
def test_the_benchmark_prints_times_for_every_batch_and_the_price_of_int8(tmp_path):
    options = ["--items", "300", "--rows", "2000", "--seconds", "0.01", "--out", str(tmp_path)]
    done = CliRunner().invoke(onnx_bench, options, catch_exceptions=False)
    assert done.exit_code == 0
    times, price = json.loads((tmp_path / "bench-onnx.json").read_text())
    assert [row[0] for row in times["rows"]] == ["batch 1", "batch 8", "batch 32", "batch 256"]
    assert all(value > 0 for row in times["rows"] for value in row[1:])
    (row,) = price["rows"]
    assert row[1] > row[2] > 0
    assert 0 < row[3] < 0.1
    assert "| batch 256 |" in done.output
    assert f"| {row[0]} |" in (tmp_path / "bench-onnx.md").read_text()

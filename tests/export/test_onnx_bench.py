import re

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
def test_the_benchmark_prints_times_for_every_batch_and_the_price_of_int8():
    options = ["--items", "300", "--rows", "2000", "--seconds", "0.01"]
    done = CliRunner().invoke(onnx_bench, options, catch_exceptions=False)
    assert done.exit_code == 0
    rows = re.findall(
        r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", done.output, re.MULTILINE
    )
    assert [int(row[0]) for row in rows] == [1, 8, 32, 256]
    assert all(float(value) > 0 for row in rows for value in row[1:])
    ratio = re.search(r"\(([\d.]+)x smaller\); largest vector error ([\d.e-]+)", done.output)
    assert float(ratio[1]) > 1
    assert 0 < float(ratio[2]) < 0.1

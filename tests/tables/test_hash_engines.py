"""One hash, the same bits in numpy, torch, Triton and ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from muxrec.spec import hashing
from muxrec.tables.hash_cpu import hash_rows_in_place, start_seeds
from muxrec.tables.hash_torch import finish_hashes, hash_rows, mix_ids

GOLDEN = Path(__file__).parent.parent / "golden" / "hash_v1.json"
INT64 = st.integers(-(2**63), 2**63 - 1)
ROWS = 1_000_003
SEED = hashing.probe_seed("item_id", 2)


@pytest.fixture(scope="module")
def million() -> np.ndarray:
    """Random, sequential and high-word-only ids, with both extremes."""
    rng = np.random.default_rng(11)
    random = rng.integers(-(2**63), 2**63 - 1, size=600_000, endpoint=True)
    edges = np.array([0, 1, -1, 42, 2**63 - 1, -(2**63), 2**32, -(2**32)])
    sequential = np.arange(-100_000, 200_000)
    high_word = np.arange(100_000) << 32
    return np.concatenate([random, edges, sequential, high_word])


@pytest.fixture(scope="module")
def expected(million: np.ndarray) -> np.ndarray:
    return hashing.hash_rows(million, name="item_id", probe=2, rows=ROWS)


def test_torch_agrees_on_a_million_ids(million: np.ndarray, expected: np.ndarray) -> None:
    ids = torch.from_numpy(million)
    hashes = finish_hashes(mix_ids(ids), SEED)
    np.testing.assert_array_equal(hashes.numpy(), hashing.hash_ids(million, SEED))
    np.testing.assert_array_equal(hash_rows(ids, SEED, ROWS).numpy(), expected)


def test_the_training_form_agrees_on_a_million_ids(
    million: np.ndarray, expected: np.ndarray
) -> None:
    before = million.copy()
    starts = start_seeds(np.full(len(million), SEED))
    found = hash_rows_in_place(million.view(np.uint64), starts, ROWS)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(million, before)


def test_triton_agrees_on_a_million_ids(million: np.ndarray, expected: np.ndarray) -> None:
    pytest.importorskip("triton", reason="triton has wheels for Linux only")
    from muxrec_kernels.multiplexed_lookup.triton_kernel import rows_kernel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    ids = torch.from_numpy(million).to(device)
    count, block = ids.numel(), 2**17
    found = torch.empty_like(ids)
    positions, seeds = torch.arange(count, device=device), torch.full_like(ids, SEED)
    rows_kernel[(-(-count // block),)](ids, positions, seeds, found, count, ROWS, BLOCK=block)
    np.testing.assert_array_equal(found.cpu().numpy(), expected)


@pytest.mark.slow
def test_the_exported_graph_agrees_on_a_million_ids(
    million: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")

    class Rows(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return hash_rows(ids[:, None], torch.tensor([SEED, 7]), ROWS)

    path = tmp_path / "rows.onnx"
    shapes = {"ids": {0: torch.export.Dim("batch")}}
    program = torch.onnx.export(
        Rows().eval(), (torch.arange(4),), dynamo=True, dynamic_shapes=shapes, verbose=False
    )
    assert program is not None
    program.save(str(path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: million})
    np.testing.assert_array_equal(found[:, 0], expected)
    other = hashing.reduce_to_rows(hashing.hash_ids(million, 7), ROWS)
    np.testing.assert_array_equal(found[:, 1], other)
    operators = {node.op_type for node in program.model.graph}
    assert not operators & {"Mod", "Div"}


def test_torch_holds_the_golden_file() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    ids = torch.tensor(golden["ids"])
    for slot in golden["slots"]:
        assert finish_hashes(mix_ids(ids), slot["seed"]).tolist() == slot["hashes"]
        for rows, wanted in slot["rows"].items():
            assert hash_rows(ids, slot["seed"], int(rows)).tolist() == wanted


@given(st.lists(INT64, min_size=1, max_size=50), INT64, st.integers(1, 2**31 - 1))
@example([0, -1, 2**63 - 1, -(2**63)], -(2**63), 2**31 - 1)
@example([0], 2**63 - 1, 1)
def test_torch_and_the_training_form_agree_with_numpy(ids: list[int], seed: int, rows: int) -> None:
    wanted = hashing.reduce_to_rows(hashing.hash_ids(ids, seed), rows).tolist()
    assert hash_rows(torch.tensor(ids), seed, rows).tolist() == wanted
    words = np.array(ids, dtype=np.int64).view(np.uint64)
    starts = start_seeds(np.full(len(ids), seed, dtype=np.int64))
    assert hash_rows_in_place(words, starts, rows).tolist() == wanted


def test_a_seed_as_a_number_stays_a_64_bit_constant_in_a_graph() -> None:
    class Rows(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return hash_rows(ids, 2**63 - 1, ROWS)

    ids = torch.tensor([0, 1, -1])
    graph = torch.export.export(Rows(), (ids,)).graph
    numbers = [arg for node in graph.nodes for arg in node.args if isinstance(arg, int)]
    assert numbers
    assert all(-(2**63) <= number < 2**63 for number in numbers)
    expected = hashing.reduce_to_rows(hashing.hash_ids(ids.numpy(), 2**63 - 1), ROWS)
    np.testing.assert_array_equal(Rows()(ids).numpy(), expected)

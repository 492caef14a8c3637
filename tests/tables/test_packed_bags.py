"""Quantised tables on this project's kernel give what they give on fbgemm's."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from muxrec.tables import inference
from muxrec.tables.build import build_tables, has_torchrec
from muxrec.tables.inference import InferenceTables
from muxrec.tables.packed_bags import PackedBags
from muxrec.tables.rows.kernel_layout import BITS, packed_rows, quantised_bytes
from muxrec_kernels.dispatch import FORCE_VARIABLE
from muxrec_kernels.quantised_lookup import unpack_rows

KEYS = {"items.title": ("a", "b"), "type": ("c",)}
NAMES = ("item", "genre", "word", "type")
ROWS = torch.tensor([0, 5, 6, 2, 2, 1, 4, 6])
OFFSETS = torch.tensor([0, 3, 3, 3, 5, 6, 8])
"""Two items: bags of three rows and of none, twice the same row, one row and two."""
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0, 0.0, 1.5, 2.0])

needs_fbgemm = pytest.mark.skipif(not has_torchrec(), reason="torchrec is not installed")
backends = pytest.mark.parametrize("backend", ["reference", "triton"])


def tables(width: int) -> dict[str, Tensor]:
    """Gaussian rows, one of them zeros and one all alike, and narrower uniform ones."""
    generator = torch.Generator().manual_seed(width)
    rows = 0.1 * torch.randn(41, width, generator=generator)
    rows[3], rows[4] = 0, 0.25
    return {"items.title": rows, "type": torch.rand(7, 4, generator=generator)}


@pytest.fixture
def _forced(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "triton":
        pytest.importorskip("triton", reason="triton has wheels for Linux only")
    monkeypatch.setenv(FORCE_VARIABLE, backend)


@pytest.fixture
def trained(declared):
    """Tables with a width that fbgemm's kernels do not take."""
    given = [dataclasses.replace(declared.tables[0], width=6), *declared.tables[1:]]
    return build_tables(
        declared.features,
        tuple(given),
        vocabularies=declared.vocabularies,
        engine="reference",
        seed=3,
        lr=0.1,
    )


@backends
@pytest.mark.usefixtures("_forced")
@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("width", [1, 6, 56])
def test_sums_of_bags_are_sums_of_the_rows_that_the_codes_stand_for(dtype, width):
    given = tables(width)
    served = PackedBags(given, KEYS, dtype=dtype)
    assert served.widths == [width, width, 4]
    first, last = (
        unpack_rows(packed_rows(rows, dtype), rows.shape[1], BITS[dtype], dtype=torch.float64)
        for rows in given.values()
    )
    for used in (None, WEIGHTS):
        w = torch.ones(8).double() if used is None else used.double()
        expected = torch.stack(
            [
                torch.cat([w[0:3] @ first[[0, 5, 6]], torch.zeros(width), w[5] * last[1]]),
                torch.cat([torch.zeros(width), w[3:5] @ first[[2, 2]], w[6:8] @ last[[4, 6]]]),
            ]
        )
        found = served(ROWS, OFFSETS, used)
        # float32 sums of up to three products.
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


@needs_fbgemm
@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("width", [1, 6, 32, 70])
def test_both_kernels_hold_the_same_numbers(dtype, width):
    from muxrec.tables.quantised_bags import QuantisedBags

    given = tables(width)
    ours, theirs = (kind(given, KEYS, dtype=dtype) for kind in (PackedBags, QuantisedBags))
    for used in (None, WEIGHTS):
        # The same codes and levels; float32 sums of three products in another order.
        torch.testing.assert_close(
            ours(ROWS, OFFSETS, used), theirs(ROWS, OFFSETS, used), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("dtype", BITS)
def test_the_bytes_used_are_those_announced(dtype):
    given = tables(20)
    served = PackedBags(given, KEYS, dtype=dtype)
    announced = sum(
        quantised_bytes(*rows.shape, dtype=dtype, kernel="muxrec") for rows in given.values()
    )
    assert served.served_bytes == announced == sum(each.nbytes for each in served.buffers())


def test_no_items_have_no_sums():
    served = PackedBags(tables(6), KEYS, dtype="int4")
    assert served(ROWS[:0], torch.zeros(1, dtype=torch.int64)).shape == (0, 16)


def test_what_cannot_be_looked_up_is_refused():
    with pytest.raises(ValueError, match="one of int8, int4, int2, got fp8"):
        PackedBags(tables(4), KEYS, dtype="fp8")
    with pytest.raises(ValueError, match="int4 rows hold numbers up to"):
        PackedBags({"t": torch.full((2, 4), 4e4)}, {"t": ("a",)}, dtype="int4")


@backends
@pytest.mark.usefixtures("_forced")
@pytest.mark.parametrize(("dtype", "limit"), [("int8", 0.02), ("int4", 0.2), ("int2", 0.6)])
def test_vectors_come_from_the_quantised_rows(trained, make_batch, dtype, limit):
    batch = make_batch(NAMES, seed=9, size=30)
    served, exact = InferenceTables(trained, dtype=dtype, kernel="muxrec"), trained(batch)
    found = served(batch)
    assert list(found) == list(exact)
    for name, vectors in found.items():
        assert vectors.shape == exact[name].shape
        assert 0 < (vectors - exact[name]).square().mean().sqrt() < limit * exact[name].std()


@needs_fbgemm
@pytest.mark.parametrize("dtype", BITS)
def test_vectors_are_the_same_on_both_kernels(trained, make_batch, dtype):
    batch = make_batch(NAMES, seed=2, size=20)
    theirs = InferenceTables(trained, dtype=dtype, kernel="fbgemm")(batch)
    for name, vectors in InferenceTables(trained, dtype=dtype, kernel="muxrec")(batch).items():
        torch.testing.assert_close(vectors, theirs[name], rtol=1e-5, atol=1e-6)


def test_the_kernel_follows_the_device_and_what_is_installed(trained, monkeypatch):
    monkeypatch.setattr(inference, "has_torchrec", lambda: False)
    assert InferenceTables(trained, dtype="int4").kernel == "muxrec"
    if not has_torchrec():
        return
    monkeypatch.undo()
    assert InferenceTables(trained, dtype="int4").kernel == "fbgemm"
    monkeypatch.setenv(FORCE_VARIABLE, "triton")
    assert InferenceTables(trained, dtype="int4").kernel == "muxrec"


def test_an_unknown_kernel_is_refused(trained):
    with pytest.raises(ValueError, match="kernel must be one of fbgemm, muxrec, got 'cuda'"):
        InferenceTables(trained, dtype="int4", kernel="cuda")

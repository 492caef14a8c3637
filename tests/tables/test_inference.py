"""Quantised tables on TorchRec's kernels give the trained ones within the quantisation."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from muxrec.tables.build import build_tables, has_torchrec
from muxrec.tables.rows import ROW_FORMATS
from muxrec.tables.rows.kernel_layout import BITS, kernel_rows, quantised_bytes

if not has_torchrec():
    pytest.skip("torchrec is not installed", allow_module_level=True)

from muxrec.tables.inference import InferenceTables
from muxrec.tables.quantised_bags import QuantisedBags

WIDTHS = (4, 8, 16, 32, 64)
ODD_WIDTHS = (1, 3, 6, 70)
KEYS = {"items.title": ("a", "b"), "type": ("c",)}
NAMES = ("item", "genre", "word", "type")


def tables(width: int) -> dict[str, Tensor]:
    """Two tables: Gaussian rows, one of them zeros and one all alike, and narrower uniform ones."""
    generator = torch.Generator().manual_seed(width)
    rows = 0.1 * torch.randn(41, width, generator=generator)
    rows[3], rows[4] = 0, 0.25
    return {"items.title": rows, "type": torch.rand(7, 4, generator=generator)}


def dense_rows(served: QuantisedBags, rows: int) -> list[Tensor]:
    """Every key's first ``rows`` rows: bags of one row each."""
    each = torch.arange(rows).repeat(len(served.keys))
    return list(served(each, torch.arange(each.numel() + 1)).split(served.widths, dim=1))


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("width", [*WIDTHS, *ODD_WIDTHS])
def test_rows_are_within_half_a_step_of_the_trained_ones(width, dtype):
    weight = tables(width)["items.title"]
    served = QuantisedBags({"items.title": weight}, {"items.title": ("a", "b")}, dtype=dtype)
    first, second = dense_rows(served, len(weight))
    assert torch.equal(first, second)
    low, high = weight.aminmax(dim=1)
    half_step = (high - low) / (2 ** BITS[dtype] - 1) / 2
    # The offset is rounded to a float16, and so is the step, once for all levels of the row.
    rounding = 2**-11 * (low.abs() + high - low)
    error = (first - weight).square().mean(dim=1).sqrt()
    assert (error <= half_step + rounding).all()
    assert not first[3].any()


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("width", WIDTHS)
def test_sums_of_bags_are_sums_of_the_rows(width, dtype):
    served = QuantisedBags(tables(width), KEYS, dtype=dtype)
    dense = dense_rows(served, 7)
    # Two items: bags of three rows and of none, twice the same row, one row and two.
    rows = torch.tensor([0, 5, 6, 2, 2, 1, 4, 6])
    offsets = torch.tensor([0, 3, 3, 3, 5, 6, 8])
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0, 0.0, 1.5, 2.0])
    for used in (None, weights):
        w = torch.ones(8) if used is None else used
        a, b, c = dense
        expected = torch.stack(
            [
                torch.cat([w[0:3] @ a[[0, 5, 6]], torch.zeros(width), w[5] * c[1]]),
                torch.cat([torch.zeros(width), w[3:5] @ b[[2, 2]], w[6:8] @ c[[4, 6]]]),
            ]
        )
        found = served(rows, offsets, used)
        assert found.shape == (2, 2 * width + 4)
        # float32 sums of up to three products, fused or not.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("width", [*WIDTHS, *ODD_WIDTHS])
def test_the_bytes_used_are_those_announced(width, dtype):
    given = tables(width)
    served = QuantisedBags(given, KEYS, dtype=dtype)
    announced = sum(quantised_bytes(*rows.shape, dtype=dtype) for rows in given.values())
    assert served.served_bytes == announced
    # Every array of codes that the module can reach, each storage once.
    buffers = [getattr(buffer, "elem", buffer) for buffer in served.buffers()]
    storages = {b.untyped_storage().data_ptr(): b.untyped_storage() for b in buffers}
    large = [storage.nbytes() for storage in storages.values() if storage.nbytes() > 100]
    assert sum(large) == announced


@pytest.mark.parametrize(
    ("width", "dtype", "each"),
    [
        (4, "int8", 8), (4, "int4", 6), (4, "int2", 6), (8, "int8", 12), (8, "int4", 8),
        (16, "int8", 20), (16, "int4", 12), (32, "int2", 12), (64, "int8", 68), (1, "int8", 8),
    ],
)  # fmt: skip
def test_a_row_takes_its_codes_and_four_bytes(width, dtype, each):
    """Tables end at multiples of 128 bytes, so 128 rows have no rest."""
    assert quantised_bytes(128, width, dtype=dtype) == 128 * each


@pytest.mark.parametrize(("dtype", "bits"), [("int4", 4), ("int2", 2)])
def test_the_rows_are_closer_than_fbgemms_own(dtype, bits):
    weight = torch.randn(500, 32, generator=torch.Generator().manual_seed(0))
    served = QuantisedBags({"t": weight}, {"t": ("a",)}, dtype=dtype)
    quantise = torch.ops.fbgemm.FloatOrHalfToFusedNBitRowwiseQuantizedSBHalf
    restore = torch.ops.fbgemm.FusedNBitRowwiseQuantizedSBHalfToFloat
    theirs = (restore(quantise(weight, bits), bits) - weight).square().mean().sqrt()
    ours = (dense_rows(served, 500)[0] - weight).square().mean().sqrt()
    assert ours < {"int4": 0.95, "int2": 0.8}[dtype] * theirs


@pytest.mark.parametrize(
    ("given", "keys", "dtype", "message"),
    [
        ({"t": torch.zeros(2, 4)}, {"t": ("a",)}, "fp8", "one of int8, int4, int2, got fp8"),
        ({"t": torch.zeros(2, 4)}, {"u": ("a",)}, "int8", r"tables \['t'\] and keys of \['u'\]"),
        ({"t": torch.zeros(2, 4)}, {"t": ()}, "int8", r"tables \['t'\] and keys of \[\]"),
        ({"t": torch.zeros(2, 4)}, {"t": ("a", "a")}, "int8", "key a is given twice"),
        ({}, {}, "int8", "every table needs its keys"),
        ({"t": torch.full((2, 4), 4e4)}, {"t": ("a",)}, "int4", "int4 rows hold numbers up to"),
    ],
)
def test_what_cannot_be_looked_up_is_refused(given, keys, dtype, message):
    with pytest.raises(ValueError, match=message):
        QuantisedBags(given, keys, dtype=dtype)


@pytest.fixture
def trained(declared):
    """Tables of a few steps, with a width that the kernels do not take."""
    given = [dataclasses.replace(declared.tables[0], width=6), *declared.tables[1:]]
    return build_tables(
        declared.features,
        tuple(given),
        vocabularies=declared.vocabularies,
        engine="reference",
        seed=3,
        lr=0.1,
    )


@pytest.mark.parametrize(("dtype", "limit"), [("int8", 0.01), ("int4", 0.1), ("int2", 0.45)])
def test_vectors_of_trained_tables_come_from_their_quantised_rows(
    trained, make_batch, dtype, limit
):
    optimizer = trained.table_optimizer()
    for step in range(5):
        batch = make_batch(NAMES, seed=step)
        sum(v.sin().sum() for v in trained(batch).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    served = InferenceTables(trained, dtype=dtype)
    batch = make_batch(NAMES, seed=9, size=30)
    found, exact = served(batch), trained(batch)
    assert list(found) == list(exact)
    for name, vectors in found.items():
        assert vectors.shape == exact[name].shape
        assert 0 < (vectors - exact[name]).square().mean().sqrt() < limit * exact[name].std()
    assert served.served_bytes < sum(
        ROW_FORMATS["fp32"].bytes_for(*table.local().weight.shape)
        for table in trained.table_groups()
    )


def test_the_vectors_are_those_of_tables_that_hold_the_quantised_rows(trained, make_batch):
    twin = copy.deepcopy(trained)
    for table in twin.table_groups():
        local = table.local()
        name, rows = table.group.table.name, local.weight.shape[0]
        served = QuantisedBags({name: local.weight}, {name: ("a",)}, dtype="int4")
        table.load(dataclasses.replace(local, weight=dense_rows(served, rows)[0]))
    batch = make_batch(NAMES, seed=2, size=20)
    found = InferenceTables(trained, dtype="int4")(batch)
    for name, vectors in twin(batch).items():
        # float32 sums of up to five products in another order.
        torch.testing.assert_close(found[name], vectors, rtol=1e-5, atol=1e-7)


def test_codes_lie_as_fbgemm_reads_them():
    weight = torch.tensor([[0.0, 1.0, 2.0, 3.0, 3.0, 2.0, 1.0, 0.0]])
    codes, levels = kernel_rows(weight, "int2")
    assert codes.tolist() == [[0b11100100, 0b00011011]]
    assert levels.view(torch.float16).tolist() == [[1.0, 0.0]]

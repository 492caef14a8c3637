"""Lookups in rows of codes against their reference in float64, and the layout of such rows."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from muxrec_kernels.dispatch import Backend, BackendError
from muxrec_kernels.quantised_lookup import (
    BITS,
    launch,
    pack_codes,
    pack_rows,
    packed_row_bytes,
    pool_quantised_rows,
    quantised_lookup,
    reference,
    row_sectors,
    sector_exact_width,
    unpack_codes,
    unpack_rows,
)
from muxrec_kernels.quantised_lookup.launch import ENOUGH_PROGRAMS, LOAD_WORDS, choose_tile
from muxrec_kernels.testing import Jagged, make_jagged, norm_ratio, poisoned_outputs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 1e-6
"""float32 sums of some hundred exact products at most, as for tables of floats."""

BAGS = {
    "all bags empty": make_jagged([0, 0, 0, 0], batch_size=2),
    "one id": make_jagged([1], batch_size=1),
    "one empty bag among full ones": make_jagged([2, 0, 3, 1, 1, 1], batch_size=3),
    "63 and 100 ids": make_jagged([63, 100], batch_size=1),
    "a batch that fills no tile": make_jagged([1] * 37, batch_size=37),
    "duplicates": make_jagged([9, 30, 1, 12], batch_size=2, repeat=4),
    "extreme ids": Jagged(
        torch.tensor([0, -1, 2**63 - 1, -(2**63)]), torch.tensor([0, 2, 4]), batch_size=2
    ),
}


def packed(rows: int, width: int, bits: int) -> Tensor:
    """Random rows; row 0 has step 0, the last row the largest step and offset of a float16."""
    generator = torch.Generator().manual_seed(1000 * rows + 10 * width + bits)
    codes = torch.randint(2**bits, (rows, width), generator=generator).to(torch.uint8)
    levels = torch.randn(rows, 2, generator=generator).half()
    levels[:, 0] = levels[:, 0].abs()
    if rows > 2:
        levels[0, 0] = 0.0
    return pack_rows(codes, levels, bits).to(DEVICE)


def slots(bags: Jagged) -> tuple[Tensor, Tensor]:
    """Three slots over the features in an order of their own, the first feature twice."""
    features = (bags.offsets.numel() - 1) // bags.batch_size
    return torch.tensor([features - 1, 0, 0], device=DEVICE), torch.tensor([3, -5, 2**63 - 1]).to(
        DEVICE
    )


def hashed(table: Tensor, bags: Jagged, **options: object) -> Tensor:
    return quantised_lookup(
        table,
        bags.ids.to(DEVICE),
        bags.offsets.to(DEVICE),
        *slots(bags),
        batch_size=bags.batch_size,
        **options,  # type: ignore[arg-type]
    )


def given_rows(table: Tensor, bags: Jagged, **options: object) -> Tensor:
    return pool_quantised_rows(
        table,
        bags.ids.remainder(table.shape[0]).to(DEVICE),
        bags.offsets.to(DEVICE),
        batch_size=bags.batch_size,
        **options,  # type: ignore[arg-type]
    )


def compare(table: Tensor, bags: Jagged, *, width: int, bits: int, **options: object) -> None:
    for run in (hashed, given_rows):
        exact = run(
            table,
            bags,
            width=width,
            bits=bits,
            dtype=torch.float64,
            backend=Backend.REFERENCE,
            **options,
        )
        with poisoned_outputs():
            found = run(table, bags, width=width, bits=bits, backend=Backend.TRITON, **options)
        assert found.dtype == torch.float32
        assert norm_ratio(found, exact) <= TOLERANCE


@pytest.mark.parametrize("bags", BAGS.values(), ids=BAGS.keys())
@pytest.mark.parametrize("bits", BITS)
def test_every_shape(bags: Jagged, bits: int) -> None:
    pooling = {8: "mean", 4: "sum", 2: "sqrt"}[bits]
    compare(packed(29, 12, bits), bags, width=12, bits=bits, pooling=pooling)


@pytest.mark.parametrize("bits", BITS)
def test_bags_have_threads_of_their_own_where_there_are_many(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "ENOUGH_PROGRAMS", 0)
    assert choose_tile(12, bits, 2, 8.0).split == 1
    bags = make_jagged([9, 0, 11, 12], batch_size=2, repeat=4)
    compare(packed(11, 12, bits), bags, width=12, bits=bits, pooling="mean")


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", [1, 4, 5, 28, 56, 63, 64, 112, 120, 124, 128, 200, 512])
def test_every_width(width: int, bits: int) -> None:
    table, bags = packed(11, width, bits), make_jagged([9, 0, 1, 5], batch_size=2, repeat=4)
    exact = hashed(
        table, bags, width=width, bits=bits, dtype=torch.float64, backend="reference", unit=0.5
    )
    with poisoned_outputs():
        found = hashed(table, bags, width=width, bits=bits, backend="triton", unit=0.5)
    assert norm_ratio(found, exact) <= TOLERANCE


@pytest.mark.parametrize("pooling", ["sum", "mean", "sqrt"])
def test_weights_scale_each_row(pooling: str) -> None:
    bags = BAGS["duplicates"]
    weights = torch.linspace(-1, 2, bags.ids.numel()).to(DEVICE)
    compare(packed(17, 8, 4), bags, width=8, bits=4, pooling=pooling, weights=weights)


def test_the_reference_is_the_mean_of_unpacked_rows() -> None:
    codes = torch.tensor([[0, 1, 2, 3, 0], [3, 3, 3, 3, 1]], dtype=torch.uint8)
    levels = torch.tensor([[0.5, -1.0], [2.0, 0.25]], dtype=torch.float16)
    table = pack_rows(codes, levels, 2).to(DEVICE)
    rows, offsets = torch.tensor([0, 1, 1], device=DEVICE), torch.tensor([0, 2, 3], device=DEVICE)
    expected = [[2.625, 2.875, 3.125, 3.375, 0.625], [6.25, 6.25, 6.25, 6.25, 2.25]]
    for backend in Backend:
        options = {"width": 5, "bits": 2, "batch_size": 2, "pooling": "mean", "backend": backend}
        found = pool_quantised_rows(table, rows, offsets, **options)  # type: ignore[arg-type]
        assert found.tolist() == expected


def test_steps_and_offsets_of_any_size_are_exact() -> None:
    levels = torch.tensor(
        [[65504.0, -65504.0], [2.0**-24, -(2.0**-24)], [0.0, 3.0], [2.0**-14, 0.0]]
    ).half()
    for bits in BITS:
        codes = torch.arange(4 * 9).view(4, 9).remainder(2**bits).to(torch.uint8)
        table = pack_rows(codes, levels, bits).to(DEVICE)
        rows = torch.arange(4, device=DEVICE)
        offsets = torch.arange(5, device=DEVICE)
        found = pool_quantised_rows(
            table, rows, offsets, width=9, bits=bits, batch_size=4, backend=Backend.TRITON
        )
        exact = unpack_rows(table, 9, bits, dtype=torch.float64)
        # A sum of two rounded terms of the size of the row's range, not of its smallest number.
        limit = 2.0**-23 * (2**bits * levels[:, :1].double() + levels[:, 1:].abs().double())
        assert ((found - exact).abs() <= limit.to(DEVICE)).all()


def test_a_table_of_one_row_and_the_last_row_are_read() -> None:
    compare(packed(1, 8, 4), BAGS["duplicates"], width=8, bits=4)
    bags = make_jagged([40, 24], batch_size=1, seed=5)
    features, seeds = (part.cpu() for part in slots(bags))
    lookups = reference.slot_lookups(bags.ids, bags.offsets, features, seeds, rows=3, batch_size=1)
    assert {0, 2} <= set(lookups.rows.tolist())
    compare(packed(3, 8, 2), bags, width=8, bits=2)


def test_rows_outside_of_all_bags_are_not_read() -> None:
    table, rows = packed(5, 12, 8), torch.tensor([2**40, 1, 4, 3, -(2**40)], device=DEVICE)
    for backend in Backend:
        found = pool_quantised_rows(
            table,
            rows,
            torch.tensor([1, 3, 4], device=DEVICE),
            width=12,
            bits=8,
            batch_size=1,
            backend=backend,
        )
        dense = unpack_rows(table, 12, 8)
        expected = torch.cat([dense[1] + dense[4], dense[3]])[None]
        assert norm_ratio(found, expected) <= TOLERANCE


def test_results_leave_as_float16_where_asked() -> None:
    table, bags = packed(9, 20, 4), BAGS["one empty bag among full ones"]
    single = given_rows(table, bags, width=20, bits=4, backend=Backend.TRITON)
    with poisoned_outputs():
        half = given_rows(
            table, bags, width=20, bits=4, backend=Backend.TRITON, dtype=torch.float16
        )
    assert half.dtype == torch.float16
    assert torch.equal(half, single.half())


def test_the_result_is_the_same_bits_on_every_run() -> None:
    table, bags = packed(5, 16, 8), BAGS["63 and 100 ids"]
    first = hashed(table, bags, width=16, bits=8, backend=Backend.TRITON)
    for _ in range(3):
        assert torch.equal(hashed(table, bags, width=16, bits=8, backend=Backend.TRITON), first)


@settings(max_examples=8, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda batch: st.tuples(
            st.just(batch),
            st.lists(st.integers(0, 6), min_size=batch, max_size=3 * batch).map(
                lambda found: found[: len(found) // batch * batch]
            ),
        )
    ),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(BITS),
    st.sampled_from(["sum", "mean", "sqrt"]),
)
def test_any_jagged_shape(
    shape: tuple[int, list[int]], rows: int, width: int, bits: int, pooling: str
) -> None:
    batch, lengths = shape
    bags = make_jagged(lengths, batch_size=batch, seed=rows, repeat=9)
    compare(packed(rows, width, bits), bags, width=width, bits=bits, pooling=pooling)


@given(st.sampled_from(BITS), st.integers(1, 5), st.integers(1, 300), st.integers(0, 2**31))
def test_packed_rows_come_back(bits: int, rows: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**bits, (rows, width), generator=generator, dtype=torch.uint8)
    levels = torch.randn(rows, 2, generator=generator).half()
    table = pack_rows(codes, levels, bits)
    assert table.shape == (rows, packed_row_bytes(width, bits))
    assert table.shape[1] % 16 == 0
    assert torch.equal(unpack_codes(table, width, bits), codes)
    exact = codes.double() * levels[:, :1].double() + levels[:, 1:].double()
    assert torch.equal(unpack_rows(table, width, bits, dtype=torch.float64), exact)


def test_codes_fill_a_byte_from_its_lowest_bits_and_levels_end_the_row() -> None:
    codes = torch.tensor([[0, 1, 2, 3, 3]], dtype=torch.uint8)
    assert pack_codes(codes, 2).tolist() == [[0b11100100, 0b11]]
    assert pack_codes(codes, 4).tolist() == [[0x10, 0x32, 0x03]]
    row = pack_rows(codes, torch.tensor([[1.0, -2.0]]).half(), 2)[0]
    assert row[:2].tolist() == [0b11100100, 0b11]
    assert not row[2:12].any()
    assert row[12:].view(torch.float16).tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    ("bits", "widths"), [(8, (28, 60, 124, 252)), (4, (56, 120, 248)), (2, (112, 240))]
)
def test_sector_exact_widths_fill_their_rows(bits: int, widths: tuple[int, ...]) -> None:
    for at, width in enumerate(widths):
        assert packed_row_bytes(width, bits) == 32 << at
        assert row_sectors(width, bits) == 1 << at
        assert row_sectors(width + 1, bits) == (1 << at) + 1
        assert sector_exact_width(width, bits) == width
        assert sector_exact_width(width + 1, bits) == width
    assert sector_exact_width(1, bits) == widths[0]
    assert sector_exact_width(128, bits) == {8: 124, 4: 120, 2: 112}[bits]


@pytest.mark.parametrize(
    ("bits", "width", "sectors"),
    [(8, 128, 5), (8, 124, 4), (4, 128, 3), (4, 120, 2), (2, 128, 2), (2, 112, 1), (8, 64, 3)],
)
def test_a_row_touches_the_sectors_that_it_lies_in(bits: int, width: int, sectors: int) -> None:
    assert row_sectors(width, bits) == sectors
    row = packed_row_bytes(width, bits)
    for start in range(0, 20 * row, row):
        assert (start + row - 1) // 32 - start // 32 + 1 == sectors


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", [4, 28, 64, 120, 128, 512, 1000])
def test_a_tile_holds_all_codes_and_one_load_of_a_warp(width: int, bits: int) -> None:
    for bags, length in ((10, 0.0), (10, 300.0), (10**6, 1.0), (10**6, 20.0), (10**6, 300.0)):
        tile = choose_tile(width, bits, bags, length)
        assert 32 * tile.words >= width * bits
        assert tile.groups * tile.words >= LOAD_WORDS
        assert tile.groups % tile.split == 0
    assert choose_tile(width, bits, 32 * ENOUGH_PROGRAMS, 20.0).split == 1
    few = choose_tile(width, bits, 10, 10_000.0)
    assert few.split == few.groups


def test_wrong_arguments_are_refused() -> None:
    table, bags = packed(5, 4, 8).cpu(), BAGS["duplicates"]
    features, seeds = torch.tensor([1, 0]), torch.tensor([1, 2])
    good = {"table": table, "ids": bags.ids, "offsets": bags.offsets, "width": 4, "bits": 8}
    good |= {"slot_features": features, "slot_seeds": seeds, "batch_size": 2}
    weights = torch.ones(bags.ids.numel())
    for change, message in (
        ({"table": table.float()}, r"uint8 \[R, 16\] for 4 codes of 8 bits, got torch.float32"),
        ({"width": 13}, r"uint8 \[R, 32\] for 13 codes of 8 bits, got torch.uint8 \[5, 16\]"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"bits": 3}, "bits must be one of 8, 4, 2, got 3"),
        ({"table": table.repeat(1, 2)[:, :16]}, "contiguous and begin at a multiple of 16"),
        ({"table": table.flatten()[8:72].view(4, 16)}, "begin at a multiple of 16"),
        ({"table": table[:0]}, "1 to 2[*][*]31 - 1 rows, got 0"),
        ({"ids": bags.ids.int()}, r"ids must be int64 \[n\], got torch.int32"),
        ({"batch_size": 3}, r"F \* batch_size \+ 1 entries, got 5 for batch_size 3"),
        ({"slot_seeds": seeds[:1]}, "as long and not empty, got 2 and 1"),
        ({"weights": weights[1:]}, r"weights must be float32 \[52\], one factor of each of ids"),
        ({"weights": weights.double()}, "weights must be float32"),
        ({"weights": weights.requires_grad_()}, "weights must not require a gradient"),
        ({"pooling": "max"}, "pooling must be one of sum, sqrt, mean, got 'max'"),
        ({"dtype": torch.bfloat16}, "float32, float16, float64 on backend reference"),
        ({"dtype": torch.float64, "backend": "triton"}, "float32, float16 on backend triton"),
    ):
        with pytest.raises(ValueError, match=message):
            quantised_lookup(**{**good, **change})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows must be int64"):
        pool_quantised_rows(table, bags.ids.float(), bags.offsets, width=4, bits=8, batch_size=2)
    with pytest.raises(BackendError, match="one of reference, triton, got 'cuda'"):
        quantised_lookup(**good, backend="cuda")  # type: ignore[arg-type]


def test_wrong_codes_and_levels_are_refused() -> None:
    codes, levels = torch.zeros(3, 4, dtype=torch.uint8), torch.zeros(3, 2).half()
    with pytest.raises(ValueError, match=r"codes must be uint8 \[n, d\], got torch.int64"):
        pack_rows(codes.long(), levels, 8)
    with pytest.raises(ValueError, match=r"float16 \[3, 2\], got torch.float32 \[3, 2\]"):
        pack_rows(codes, levels.float(), 8)
    with pytest.raises(ValueError, match=r"got torch.float16 \[2, 2\]"):
        pack_rows(codes, levels[:2], 8)

"""The Triton lookup against its reference, forward and gradient, on shapes that break kernels."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from hypothesis import given, settings
from hypothesis import strategies as st

from muxrec_kernels.dispatch import Backend
from muxrec_kernels.multiplexed_lookup import (
    autograd,
    launch,
    multiplexed_lookup,
    pool_rows,
    pooled_lookup,
    reference,
    triton_kernel,
)
from muxrec_kernels.testing import (
    TOLERANCES,
    Jagged,
    make_jagged,
    norm_ratio,
    poisoned_outputs,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SEEDS = (3, -5, 2**63 - 1, -(2**63))

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


def slots(bags: Jagged) -> tuple[torch.Tensor, torch.Tensor]:
    """Three slots over the features in an order of their own, the first feature twice."""
    features = (bags.offsets.numel() - 1) // bags.batch_size
    places = [features - 1, 0, 0]
    return torch.tensor(places), torch.tensor([SEEDS[at] for at in range(len(places))])


def table_of(rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows * 1000 + width)
    return torch.randn(rows, width, generator=generator).to(dtype)


def run(
    table: torch.Tensor, bags: Jagged, backend: Backend, **options: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and dense gradient; the gradient's weights differ per number, so a swap shows."""
    leaf = table.detach().clone().requires_grad_()
    features, seeds = slots(bags)
    out = multiplexed_lookup(
        leaf,
        bags.ids.to(DEVICE),
        bags.offsets.to(DEVICE),
        features.to(DEVICE),
        seeds.to(DEVICE),
        batch_size=bags.batch_size,
        backend=backend,
        **options,  # type: ignore[arg-type]
    )
    direction = torch.linspace(0.1, 1.0, out.numel(), dtype=out.dtype, device=out.device)
    out.backward(direction.view(out.shape))
    assert leaf.grad is not None
    assert leaf.grad.is_sparse
    return out.detach(), leaf.grad.to_dense()


def compare(table: torch.Tensor, bags: Jagged, **options: object) -> None:
    exact = run(table.double(), bags, Backend.REFERENCE, **options)
    with poisoned_outputs():
        found = run(table, bags, Backend.TRITON, **options)
    assert found[0].dtype == torch.float32
    assert norm_ratio(found[0], exact[0]) <= TOLERANCES[table.dtype]
    # The gradient leaves in the table's own dtype: one rounding to 8 or 11 bits for 16-bit tables.
    rounding = {torch.float32: 1e-6, torch.float16: 2**-11, torch.bfloat16: 2**-8}[table.dtype]
    assert norm_ratio(found[1], exact[1]) <= rounding


@pytest.mark.parametrize("bags", BAGS.values(), ids=BAGS.keys())
@pytest.mark.parametrize("pooling", ["sum", "mean", "sqrt"])
def test_every_shape_and_pooling(bags: Jagged, pooling: str) -> None:
    compare(table_of(29, 8, torch.float32).to(DEVICE), bags, pooling=pooling)


@pytest.mark.parametrize("width", [4, 5, 12, 16, 63, 64, 96, 128, 200, 512])
def test_every_width(width: int) -> None:
    compare(table_of(11, width, torch.float32).to(DEVICE), BAGS["duplicates"], pooling="mean")


# bfloat16 arithmetic is garbage in Triton's interpreter; the kernels only load it and cast, which
# is exact there too.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype(dtype: torch.dtype) -> None:
    bags = BAGS["one empty bag among full ones"]
    compare(table_of(23, 16, dtype).to(DEVICE), bags, pooling="sqrt")


def test_weights_scale_each_id() -> None:
    bags = BAGS["duplicates"]
    weights = torch.linspace(-1, 2, bags.ids.numel()).to(DEVICE)
    for pooling in ("sum", "mean"):
        compare(table_of(17, 8, torch.float32).to(DEVICE), bags, pooling=pooling, weights=weights)


def test_a_table_of_one_row_and_the_last_row_are_read() -> None:
    compare(table_of(1, 8, torch.float32).to(DEVICE), BAGS["duplicates"])
    bags = make_jagged([40, 24], batch_size=1, seed=5)
    features, seeds = slots(bags)
    found = reference.slot_lookups(
        bags.ids, bags.offsets, features, seeds, rows=3, batch_size=1
    ).rows
    assert {0, 2} <= set(found.tolist())
    compare(table_of(3, 8, torch.float32).to(DEVICE), bags)


def test_the_gradient_lists_each_row_once_in_order() -> None:
    table = table_of(7, 8, torch.float32).to(DEVICE).requires_grad_()
    bags = BAGS["duplicates"]
    features, seeds = (part.to(DEVICE) for part in slots(bags))
    out = multiplexed_lookup(
        table,
        bags.ids.to(DEVICE),
        bags.offsets.to(DEVICE),
        features,
        seeds,
        batch_size=bags.batch_size,
        backend=Backend.TRITON,
    )
    (gradient,) = torch.autograd.grad(out.sum(), table)
    assert gradient.is_coalesced()
    rows = gradient.indices()[0]
    assert rows.diff().gt(0).all()
    assert gradient.values().shape == (rows.numel(), 8)


def test_the_gradient_is_the_same_bits_on_every_run() -> None:
    table, bags = table_of(5, 16, torch.float32).to(DEVICE), BAGS["63 and 100 ids"]
    first = run(table, bags, Backend.TRITON, pooling="mean")
    for _ in range(3):
        again = run(table, bags, Backend.TRITON, pooling="mean")
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


@settings(max_examples=12, deadline=None)
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
    st.integers(1, 24),
    st.sampled_from(["sum", "mean", "sqrt"]),
)
def test_any_jagged_shape(
    shape: tuple[int, list[int]], rows: int, width: int, pooling: str
) -> None:
    batch, lengths = shape
    bags = make_jagged(lengths, batch_size=batch, seed=rows, repeat=9)
    compare(table_of(rows, width, torch.float32).to(DEVICE), bags, pooling=pooling)


def split(table: torch.Tensor, bags: Jagged, *, piece: int, **options: object) -> torch.Tensor:
    """The forward kernels' output with pieces of ``piece`` ids."""
    features, seeds = slots(bags)
    arguments = [bags.ids, bags.offsets, features, seeds]
    with poisoned_outputs():
        return autograd.launch_forward(
            triton_kernel,
            table,
            *(argument.to(DEVICE) for argument in arguments),
            batch_size=bags.batch_size,
            piece=piece,
            **{"weights": None, "pooling": "sum", **options},  # type: ignore[arg-type]
        )


def compare_split(table: torch.Tensor, bags: Jagged, *, piece: int, **options: object) -> None:
    exact = run(table.double(), bags, Backend.REFERENCE, **options)[0]
    assert norm_ratio(split(table, bags, piece=piece, **options), exact) <= TOLERANCES[table.dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_bags_around_the_length_of_a_piece_are_whole(dtype: torch.dtype) -> None:
    bags = make_jagged([15, 16, 17, 0, 31, 32, 33, 1, 0, 0, 75, 0], batch_size=6, seed=3)
    compare_split(table_of(29, 8, dtype).to(DEVICE), bags, piece=16, pooling="mean")


def test_long_bags_are_weighted_in_every_piece() -> None:
    bags = make_jagged([3, 50, 0, 21, 16, 40], batch_size=3, seed=4)
    weights = torch.linspace(-1, 2, bags.ids.numel()).to(DEVICE)
    table = table_of(17, 12, torch.float32).to(DEVICE)
    compare_split(table, bags, piece=8, pooling="sqrt", weights=weights)


def test_a_program_merges_all_of_its_long_bags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "MERGE_PROGRAMS", 1)
    bags = make_jagged([9, 8, 0, 20, 7, 8, 30, 1], batch_size=8, seed=5)
    assert launch.merge_shape(8, 4, 24)["BAGS"] == 32
    compare_split(table_of(29, 8, torch.float32).to(DEVICE), bags, piece=8)


@pytest.mark.parametrize("ways", [2, 64])
def test_the_bag_of_a_piece_is_found_among_many(ways: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "WAYS", ways)
    lengths = [1] * 66 + [20, 0, 0, 9, 0, 17]
    bags = make_jagged(lengths, batch_size=len(lengths), seed=8)
    assert launch.first_stride(len(lengths)) == 64
    compare_split(table_of(29, 4, torch.float32).to(DEVICE), bags, piece=8)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.sampled_from([2, 4]))
def test_any_jagged_shape_in_pieces(lengths: list[int], piece: int) -> None:
    bags = make_jagged(lengths, batch_size=len(lengths), seed=len(lengths))
    compare_split(table_of(13, 4, torch.float32).to(DEVICE), bags, piece=piece)


def test_a_long_bag_has_the_same_bits_wherever_it_lies() -> None:
    table = table_of(31, 8, torch.float32).to(DEVICE)
    long = make_jagged([45], batch_size=1, seed=6).ids
    apart = torch.arange(5)
    bags = Jagged(torch.cat([long, apart, long]), torch.tensor([0, 45, 50, 95]), batch_size=3)
    found = split(table, bags, piece=8)
    assert torch.equal(found[0], found[2])
    alone = Jagged(long, torch.tensor([0, 45]), batch_size=1)
    assert torch.equal(split(table, alone, piece=8)[0], found[0])


def test_a_very_long_bag_and_very_popular_rows_pass_through_the_public_function() -> None:
    """Three rows are read by 2,600 lookups each: the gradient is summed in pieces too."""
    bags = make_jagged([2600, 0, 3], batch_size=3, seed=7)
    assert bags.ids.numel() > 5 * launch.LONGEST_PIECE
    compare(table_of(3, 16, torch.float32).to(DEVICE), bags, pooling="mean")


GIVEN = torch.tensor([3, 0, 10, 10, 5, 10, 7, 0, 2, 10])
"""Rows of bags: the first and the last one of 11, and duplicates."""
STARTS = torch.tensor([0, 0, 4, 5, 9, 10, 10])


def pooled(table: torch.Tensor, backend: Backend, **options: object) -> list[torch.Tensor]:
    """Output and dense gradient of the rows in ``GIVEN``."""
    leaf = table.detach().clone().requires_grad_()
    out = pooled_lookup(
        leaf,
        GIVEN.to(DEVICE),
        STARTS.to(DEVICE),
        backend=backend,
        **options,  # type: ignore[arg-type]
    )
    direction = torch.linspace(0.1, 1.0, out.numel(), dtype=out.dtype, device=out.device)
    out.backward(direction.view(out.shape))
    assert leaf.grad is not None
    assert leaf.grad.is_sparse
    return [out.detach(), leaf.grad.to_dense()]


@pytest.mark.parametrize("pooling", ["sum", "mean", "sqrt"])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_given_rows_are_pooled_as_the_reference_pools_them(pooling: str, is_weighted: bool) -> None:
    weights = torch.linspace(-1, 2, GIVEN.numel()).to(DEVICE) if is_weighted else None
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        table = table_of(11, 12, dtype).to(DEVICE)
        options = {"pooling": pooling, "weights": weights}
        exact = pooled(table.double(), Backend.REFERENCE, **options)
        with poisoned_outputs():
            found = pooled(table, Backend.TRITON, **options)
        rounding = {torch.float32: 1e-6, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
        assert found[0].dtype == torch.float32
        assert norm_ratio(found[0], exact[0]) <= TOLERANCES[dtype]
        assert norm_ratio(found[1], exact[1]) <= rounding
        assert all(map(torch.equal, found, pooled(table, Backend.TRITON, **options)))


def test_no_bags_no_rows_and_rows_that_nothing_reads() -> None:
    table = table_of(11, 8, torch.float32).to(DEVICE).requires_grad_()
    nothing = torch.empty(0, dtype=torch.int64, device=DEVICE)
    for bags in (0, 3):
        offsets = torch.zeros(bags + 1, dtype=torch.int64, device=DEVICE)
        out = pooled_lookup(table, nothing, offsets, backend=Backend.TRITON)
        assert torch.equal(out, torch.zeros(bags, 8, device=DEVICE))
        (gradient,) = torch.autograd.grad(out.sum(), table)
        assert gradient._nnz() == 0


def test_given_rows_on_the_reference_are_the_bits_of_pool_rows() -> None:
    weights = torch.linspace(-1, 2, GIVEN.numel())
    for dtype in (torch.float32, torch.float16, torch.float64):
        table = table_of(11, 12, dtype)
        found = pooled_lookup(table, GIVEN, STARTS, weights=weights, backend=Backend.REFERENCE)
        assert torch.equal(found, pool_rows(table, GIVEN, STARTS, weights))


def strided(values: torch.Tensor) -> torch.Tensor:
    """The same numbers, every second of a larger tensor."""
    wide = values.repeat_interleave(2)
    wide[1::2] = 0
    assert not wide[::2].is_contiguous()
    return wide[::2]


@pytest.mark.parametrize("backend", list(Backend))
def test_strided_ids_offsets_and_weights_are_read_right(backend: Backend) -> None:
    bags = BAGS["duplicates"]
    table = table_of(17, 8, torch.float32).to(DEVICE)
    weights = torch.linspace(-1, 2, bags.ids.numel()).to(DEVICE)
    apart = Jagged(strided(bags.ids), strided(bags.offsets), bags.batch_size)
    straight = run(table, bags, backend, weights=weights)
    crooked = run(table, apart, backend, weights=strided(weights))
    for one, other in zip(straight, crooked, strict=True):
        assert norm_ratio(other, one) <= 1e-6
    rows, starts = strided(GIVEN.to(DEVICE)), strided(STARTS.to(DEVICE))
    found = pooled_lookup(table, rows, starts, backend=backend)
    torch.testing.assert_close(found, pooled_lookup(table, GIVEN.to(DEVICE), STARTS.to(DEVICE)))


def test_wrong_rows_are_refused() -> None:
    table = table_of(11, 4, torch.float32)
    good = {"table": table, "rows": GIVEN, "offsets": STARTS}
    for change, message in (
        ({"table": table[:, :2]}, r"table must be contiguous \[R, d\]"),
        ({"rows": GIVEN.int()}, r"rows must be int64 \[n\], got torch.int32"),
        ({"offsets": STARTS[:0]}, "an entry per bag and one more, got none"),
        ({"weights": torch.ones(GIVEN.numel(), requires_grad=True)}, "without gradient"),
        ({"pooling": "max"}, "pooling must be one of sum, sqrt, mean, got 'max'"),
        ({"table": table.double(), "backend": "triton"}, "needs backend='reference'"),
    ):
        with pytest.raises(ValueError, match=message):
            pooled_lookup(**{**good, **change})  # type: ignore[arg-type]


def test_wrong_arguments_are_refused() -> None:
    table, bags = table_of(5, 4, torch.float32), BAGS["duplicates"]
    features, seeds = slots(bags)
    good = {"table": table, "ids": bags.ids, "offsets": bags.offsets}
    good |= {"slot_features": features, "slot_seeds": seeds, "batch_size": 2}
    for change, message in (
        ({"table": table[0]}, r"table must be contiguous \[R, d\]"),
        ({"table": table.t()}, r"table must be contiguous \[R, d\]"),
        ({"table": table.long()}, "floating-point rows, got torch.int64"),
        ({"ids": bags.ids.int()}, r"ids must be int64 \[n\], got torch.int32"),
        ({"batch_size": 3}, r"F \* batch_size \+ 1 entries, got 5 for batch_size 3"),
        ({"slot_seeds": seeds[:1]}, "as long and not empty, got 3 and 1"),
        ({"weights": torch.ones(2)}, "one factor per id without gradient"),
        ({"pooling": "max"}, "pooling must be one of sum, sqrt, mean, got 'max'"),
    ):
        with pytest.raises(ValueError, match=message):
            multiplexed_lookup(**{**good, **change})  # type: ignore[arg-type]

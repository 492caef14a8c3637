"""The Triton lookup against its reference, forward and gradient, on shapes that break kernels."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from hypothesis import given, settings
from hypothesis import strategies as st

from muxrec_kernels.dispatch import Backend
from muxrec_kernels.multiplexed_lookup import multiplexed_lookup, reference
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

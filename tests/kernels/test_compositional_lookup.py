"""The Triton lookups against their references, forward and gradients, in all four forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton has wheels for Linux only")

import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from muxrec_kernels.compositional_lookup import (
    codebook_lookup,
    gradient,
    multi_hash_lookup,
    quotient_remainder_lookup,
    robe_lookup,
)
from muxrec_kernels.compositional_lookup.device import split_digits
from muxrec_kernels.dispatch import Backend, BackendError
from muxrec_kernels.testing import (
    TOLERANCES,
    Jagged,
    make_jagged,
    norm_ratio,
    poisoned_outputs,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INDICES = 56
"""Ids have an index below this: 8 quotients of 7 remainders, and as many codes."""
SEEDS = (3, -5, 2**63 - 1, -(2**63), 17)


@dataclass(frozen=True)
class Form:
    """One lookup.

    Attributes:
        run: ``run(arrays, ids, offsets, **options)``.
        shapes: ``shapes(width)``: of its floating-point arrays.
        is_hashed: Whether it takes any id; otherwise an index.
    """

    run: Callable[..., Tensor]
    shapes: Callable[[int], tuple[tuple[int, int], ...]]
    is_hashed: bool


def pairs(combine: str) -> Form:
    return Form(
        lambda arrays, *bags, **options: quotient_remainder_lookup(
            *arrays, *bags, combine=combine, **options
        ),
        lambda width: ((8, width), (7, width)),
        is_hashed=False,
    )


def multi_hash(arrays: list[Tensor], ids: Tensor, offsets: Tensor, **options: object) -> Tensor:
    seeds = torch.tensor(SEEDS[: arrays[1].shape[1] + 1], device=ids.device)
    return multi_hash_lookup(*arrays, ids, offsets, seeds, **options)  # type: ignore[arg-type]


def codebook(arrays: list[Tensor], ids: Tensor, offsets: Tensor, **options: object) -> Tensor:
    codes = torch.arange(INDICES * 3).mul(5).remainder(6).to(torch.uint8).view(INDICES, 3)
    return codebook_lookup(codes.to(ids.device), *arrays, ids, offsets, **options)  # type: ignore[arg-type]


def robe(arrays: list[Tensor], ids: Tensor, offsets: Tensor, **options: object) -> Tensor:
    """Three pieces, the last of which is used in part where a block has two numbers or more."""
    block = arrays[0].shape[1]
    seeds = torch.tensor(SEEDS[:3], device=ids.device)
    return robe_lookup(arrays[0], ids, offsets, seeds, width=max(3, 3 * block - 1), **options)  # type: ignore[arg-type]


FORMS = {
    "multiply": pairs("multiply"),
    "add": pairs("add"),
    "concatenate": pairs("concatenate"),
    "multi-hash": Form(multi_hash, lambda width: ((9, width), (5, 3)), is_hashed=True),
    "codebook": Form(codebook, lambda width: ((18, width),), is_hashed=False),
    "robe": Form(robe, lambda width: ((4, width),), is_hashed=True),
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
KERNELS = {name: form for name, form in FORMS.items() if name not in ("add", "concatenate")}
each_kernel = pytest.mark.parametrize("form", KERNELS.values(), ids=KERNELS.keys())

BAGS = {
    "all bags empty": make_jagged([0, 0, 0], batch_size=3),
    "one id": make_jagged([1], batch_size=1, repeat=INDICES),
    "one empty bag among full ones": make_jagged([2, 0, 3, 1], batch_size=4, repeat=INDICES),
    "63 and 100 ids": make_jagged([63, 100], batch_size=2, repeat=INDICES),
    "a batch that fills no tile": make_jagged([1] * 37, batch_size=37, repeat=INDICES),
    "duplicates": make_jagged([9, 0, 12], batch_size=3, repeat=3),
    "the last rows": Jagged(torch.tensor([INDICES - 1, 0]), torch.tensor([0, 1, 2]), batch_size=2),
}
EXTREMES = Jagged(torch.tensor([0, -1, 2**63 - 1, -(2**63)]), torch.tensor([0, 2, 4]), batch_size=2)


def arrays_of(form: Form, width: int = 8, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(width)
    shapes = form.shapes(width)
    return [torch.randn(*shape, generator=generator).to(dtype).to(DEVICE) for shape in shapes]


def run(
    form: Form, arrays: list[Tensor], bags: Jagged, backend: str, **options: object
) -> tuple[Tensor, list[Tensor]]:
    """Output and sparse gradients; the direction differs per number, so that a swap shows."""
    leaves = [array.detach().clone().requires_grad_() for array in arrays]
    ids, offsets = bags.ids.to(DEVICE), bags.offsets.to(DEVICE)
    out = form.run(leaves, ids, offsets, backend=backend, **options)
    direction = torch.linspace(0.1, 1.0, out.numel(), dtype=torch.float64, device=out.device)
    gradients = torch.autograd.grad(out, leaves, direction.view(out.shape).to(out.dtype))
    return out.detach(), list(gradients)


def compare(form: Form, arrays: list[Tensor], bags: Jagged, **options: object) -> None:
    exact = run(form, [array.double() for array in arrays], bags, "reference", **options)
    with poisoned_outputs():
        found = run(form, arrays, bags, "triton", **options)
    dtype = arrays[0].dtype
    assert found[0].dtype == torch.float32
    assert norm_ratio(found[0], exact[0]) <= TOLERANCES[dtype]
    # Gradients leave in the arrays' dtype: one rounding to 8 or 11 bits for 16-bit arrays.
    rounding = {torch.float32: 1e-6, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    for mine, other in zip(found[1], exact[1], strict=True):
        assert mine.is_coalesced()
        assert torch.equal(mine.indices(), other.coalesce().indices())
        assert norm_ratio(mine.to_dense(), other.to_dense()) <= rounding


@each_kernel
@pytest.mark.parametrize("bags", BAGS.values(), ids=BAGS.keys())
def test_every_shape(form: Form, bags: Jagged) -> None:
    compare(form, arrays_of(form), bags, pooling="mean")


@each_form
@pytest.mark.parametrize("pooling", ["sum", "mean", "sqrt"])
def test_every_pooling_with_weights(form: Form, pooling: str) -> None:
    bags = BAGS["one empty bag among full ones"]
    weights = torch.linspace(-1, 2, bags.ids.numel()).to(DEVICE)
    compare(form, arrays_of(form), bags, pooling=pooling, weights=weights)


@each_form
@pytest.mark.parametrize("width", [1, 4, 12, 63, 512])
def test_every_width(form: Form, width: int) -> None:
    compare(form, arrays_of(form, width), BAGS["one empty bag among full ones"], pooling="sqrt")


# bfloat16 arithmetic is garbage in Triton's interpreter; the kernels only load it and cast, which
# is exact there too.
@each_kernel
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_dtype(form: Form, dtype: torch.dtype) -> None:
    compare(form, arrays_of(form, 16, dtype), BAGS["one empty bag among full ones"])


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.is_hashed])
def test_any_id_is_hashed(name: str) -> None:
    compare(FORMS[name], arrays_of(FORMS[name]), EXTREMES)


@triton.jit
def digits_kernel(index, high, low, buckets, reciprocal, COUNT: tl.constexpr):  # noqa: N803
    at = tl.arange(0, COUNT)
    first, second = split_digits(tl.load(index + at), buckets, reciprocal)
    tl.store(high + at, first)
    tl.store(low + at, second)


@pytest.mark.parametrize("buckets", [1, 2, 3, 7, 2**31 - 1])
def test_digits_are_those_of_a_division(buckets: int) -> None:
    """Up to the largest index that two tables can have, where a quotient is one below a whole."""
    largest = (2**31 - 1) * buckets - 1
    near = [buckets * q + r for q in (0, 1, 2**31 - 2) for r in (-1, 0, 1, buckets - 1)]
    index = torch.tensor(([0, largest] + [n for n in near if 0 <= n <= largest] + [0] * 16)[:16])
    index = index.to(DEVICE)
    high, low = torch.empty_like(index), torch.empty_like(index)
    digits_kernel[(1,)](index, high, low, buckets, (2**63 - 1) // buckets, COUNT=16)
    assert high.tolist() == [number // buckets for number in index.tolist()]
    assert low.tolist() == [number % buckets for number in index.tolist()]


@each_form
def test_arrays_of_one_row(form: Form) -> None:
    arrays = [array[:1].contiguous() for array in arrays_of(form)]
    if form is FORMS["codebook"]:
        arrays = [arrays_of(form)[0][:6].repeat(3, 1)[:18]]
    ids = BAGS["duplicates"].ids if form.is_hashed else torch.zeros(21, dtype=torch.int64)
    compare(form, arrays, Jagged(ids, BAGS["duplicates"].offsets, batch_size=3))


@each_kernel
def test_long_runs_are_cut_and_merged(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of 4 lookups: most rows have several, some begin at a cut, some end at one."""
    monkeypatch.setattr(gradient, "RUN", 4)
    arrays = arrays_of(form, 4)
    compare(form, arrays, BAGS["duplicates"], pooling="mean")
    ids = torch.tensor([0] * 4 + [1] * 3 + [2] + [3] * 9 + [7] * 8).repeat(2)
    compare(form, arrays, Jagged(ids, torch.tensor([0, 20, 50]), batch_size=2))


@each_kernel
def test_the_same_bits_on_every_run(form: Form) -> None:
    arrays, bags = arrays_of(form, 16), BAGS["duplicates"]
    first = run(form, arrays, bags, "triton", pooling="mean")
    for _ in range(2):
        again = run(form, arrays, bags, "triton", pooling="mean")
        assert torch.equal(first[0], again[0])
        for mine, other in zip(first[1], again[1], strict=True):
            assert torch.equal(mine.to_dense(), other.to_dense())


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(list(FORMS)),
    st.lists(st.integers(0, 6), min_size=1, max_size=5),
    st.integers(1, 24),
    st.integers(0, 99),
    st.sampled_from(["sum", "mean", "sqrt"]),
)
def test_any_jagged_shape(
    name: str, lengths: list[int], width: int, seed: int, pooling: str
) -> None:
    bags = make_jagged(lengths, batch_size=len(lengths), seed=seed, repeat=INDICES)
    compare(FORMS[name], arrays_of(FORMS[name], width), bags, pooling=pooling)


def test_a_forced_backend_that_cannot_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    form, bags = FORMS["multiply"], BAGS["one id"]
    arrays = [array.cpu() for array in arrays_of(form)]
    with pytest.raises(BackendError, match="triton was asked for on cpu but"):
        form.run(arrays, bags.ids, bags.offsets, backend=Backend.TRITON)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("multiply", {"quotients": torch.ones(8, 4).t()}, r"contiguous \[R, d\]"),
        ("multiply", {"quotients": torch.ones(8, 4).long()}, "floating-point rows"),
        ("multiply", {"remainders": torch.ones(7, 5)}, "the same width, got quotients"),
        ("multiply", {"combine": "divide"}, "multiply, add, concatenate, got 'divide'"),
        ("multiply", {"index": torch.zeros(3).int()}, r"index must be contiguous int64 \[n\]"),
        ("multiply", {"index": torch.zeros(6).long()[::2]}, r"index must be contiguous int64"),
        ("multiply", {"offsets": torch.zeros(1).long()}, "B >= 1, got 1"),
        ("multiply", {"weights": torch.ones(2)}, "one contiguous float32 factor per id"),
        ("multiply", {"weights": torch.ones(3).double()}, "float32 factor per id"),
        ("multiply", {"pooling": "max"}, "pooling must be one of sum, sqrt, mean, got 'max'"),
        ("multi-hash", {"seeds": torch.zeros(3).long()}, r"int64 \[4\], one per factor"),
        ("codebook", {"codes": torch.zeros(9, 3).long()}, r"contiguous uint8 \[V, P\]"),
        ("codebook", {"codebook": torch.ones(17, 4)}, "for each of 3 parts, got 17 rows"),
        ("robe", {"width": 9}, r"int64 \[3\] for 9 numbers in pieces of 4"),
        ("robe", {"array": torch.ones(1).expand(2**30, 2)}, r"contiguous \[R, d\]"),
    ],
)
def test_wrong_arguments_are_refused(name: str, changes: dict[str, object], message: str) -> None:
    index, offsets = torch.zeros(3).long(), torch.tensor([0, 2, 3])
    lookup, given = {
        "multiply": (
            quotient_remainder_lookup,
            {"quotients": torch.ones(8, 4), "remainders": torch.ones(7, 4), "index": index},
        ),
        "multi-hash": (
            multi_hash_lookup,
            {
                "pool": torch.ones(9, 4),
                "factors": torch.ones(5, 3),
                "ids": index,
                "seeds": torch.zeros(4).long(),
            },
        ),
        "codebook": (
            codebook_lookup,
            {
                "codes": torch.zeros(9, 3, dtype=torch.uint8),
                "codebook": torch.ones(18, 4),
                "index": index,
            },
        ),
        "robe": (
            robe_lookup,
            {
                "array": torch.ones(5, 4),
                "ids": index,
                "seeds": torch.zeros(2).long(),
                "width": 8,
            },
        ),
    }[name]
    arguments = {**given, "offsets": offsets}
    lookup(**arguments)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        lookup(**{**arguments, **changes})  # type: ignore[operator]


def test_triton_refuses_float64() -> None:
    form, bags = FORMS["multiply"], BAGS["one id"]
    arrays = [array.double() for array in arrays_of(form)]
    with pytest.raises(ValueError, match="Triton sums in float32"):
        form.run(arrays, bags.ids.to(DEVICE), bags.offsets.to(DEVICE), backend="triton")

"""The Triton scans of item codes against their reference: scores, items, order, ties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from hypothesis import given, settings
from hypothesis import strategies as st

from muxrec_kernels import code_scan
from muxrec_kernels.code_scan import (
    launch,
    pack_codes,
    pack_signs,
    packed_bytes,
    scan_int8,
    scan_packed,
    scan_signs,
    scans,
    triton_kernel,
    unpack_codes,
)
from muxrec_kernels.code_scan.launch import Plan
from muxrec_kernels.dispatch import Backend, BackendError
from muxrec_kernels.testing import norm_ratio, poisoned_outputs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Queries keep 22 bits, products are exact, sums are of float32.
TOLERANCE = 1e-6
Best = tuple[Tensor, Tensor]


def draw_bytes(*size: int, seed: int = 0, high: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, size, dtype=torch.uint8, generator=generator).to(DEVICE)


def draw_vectors(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def draw_int8(*size: int, seed: int = 0) -> Tensor:
    return draw_bytes(*size, seed=seed).view(torch.int8)


def tiny_plans(monkeypatch: pytest.MonkeyPatch, *, every: int = 1, programs: int = 2) -> None:
    """Tiles of 16 items, so that a few hundred items are many tiles."""

    def plan(queries: int, items: int, k: int, *, words: int = 0) -> Plan:
        kept = max(2, 1 << (k - 1).bit_length())
        tile = 2 if words else 16
        return Plan(tile, max(16, kept), kept, 4, programs, every)

    monkeypatch.setattr(scans, "choose_plan", plan)


def same(found: Best, expected: Best) -> None:
    assert found[0].dtype == expected[0].dtype
    assert found[1].tolist() == expected[1].tolist()
    assert torch.equal(found[0], expected[0])


def both(scan: Any, *arguments: Any, **options: Any) -> tuple[Best, Best]:
    with poisoned_outputs():
        found = scan(*arguments, **options, backend=Backend.TRITON)
    return found, scan(*arguments, **options, backend=Backend.REFERENCE)


@pytest.mark.parametrize(("bits", "queries"), [(64, 1), (96, 3), (256, 5), (512, 2)])
def test_distances_of_signs_are_exact(bits: int, queries: int) -> None:
    codes = draw_bytes(301, bits // 8)
    same(*both(scan_signs, codes[:queries], codes, 7))


@pytest.mark.parametrize("bits", [64, 160])
def test_many_queries_are_multiplied_and_give_the_same_distances(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "MULTIPLIED", 17)
    tiny_plans(monkeypatch)
    codes = draw_bytes(70, bits // 8, seed=1)
    leave_out = torch.arange(17, device=DEVICE)
    same(*both(scan_signs, codes[:17], codes, 5, exclude=leave_out))


def test_words_of_every_size_are_the_same_codes() -> None:
    codes = draw_bytes(70, 16)
    expected = scan_signs(codes[:2], codes, 5)
    for dtype in (torch.int32, torch.int64):
        held = codes.view(dtype)
        same(scan_signs(held[:2], held, 5, backend="triton"), expected)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("k", [1, 5, 16])
def test_tiles_programs_and_a_sample_change_nothing(
    k: int, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_plans(monkeypatch, every=every, programs=3)
    codes = draw_bytes(149, 8, seed=k)
    leave_out = torch.tensor([0, -1, 148], device=DEVICE)
    same(*both(scan_signs, codes[[0, 1, 148]], codes, k, exclude=leave_out))
    numbers = codes.view(torch.int8)
    same(*both(scan_int8, numbers[[0, 1, 148]], numbers, k, exclude=leave_out))


@pytest.mark.parametrize("every", [1, 2])
def test_ties_go_to_the_lower_item(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_plans(monkeypatch, every=every)
    codes = draw_bytes(5, 8)[torch.arange(100, device=DEVICE) % 5].contiguous()
    distances, items = scan_signs(codes[:2], codes, 8, backend="triton")
    assert items.tolist() == [list(range(0, 40, 5)), list(range(1, 41, 5))]
    assert not distances.any()
    equal = torch.ones(100, 4, dtype=torch.int8, device=DEVICE)
    scores, items = scan_int8(equal[:1], equal, 6, backend="triton")
    assert items.tolist() == [list(range(6))]
    assert scores.tolist() == [[4] * 6]


def test_both_zeros_are_one_score() -> None:
    codes = torch.zeros(9, 4, dtype=torch.int8, device=DEVICE)
    scales = torch.tensor([-1.0, 1.0] * 4 + [-1.0], device=DEVICE)
    _, items = scan_int8(codes[:1], codes, 9, scales=scales, backend="triton")
    assert items.tolist() == [list(range(9))]


@pytest.mark.parametrize(("width", "queries"), [(128, 2), (96, 17), (5, 1), (140, 3)])
def test_dots_of_int8_are_exact_with_scales_and_without(width: int, queries: int) -> None:
    codes, scales = draw_int8(150, width), draw_vectors(150).exp()
    same(*both(scan_int8, codes[:queries], codes, 6))
    same(*both(scan_int8, codes[:queries], codes, 6, scales=scales))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_float_queries_score_int8_codes(dtype: torch.dtype) -> None:
    codes, scales = draw_int8(150, 72), draw_vectors(150).exp()
    queries = draw_vectors(3, 72, seed=1).to(dtype)
    found = scan_int8(queries, codes, 6, scales=scales, backend="triton")
    expected = scan_int8(queries.double(), codes, 6, scales=scales, backend="reference")
    assert found[1].tolist() == expected[1].tolist()
    assert found[0].dtype == torch.float32
    assert norm_ratio(found[0], expected[0]) <= TOLERANCE


@pytest.mark.parametrize("per_item", [True, False])
@pytest.mark.parametrize(("bits", "width"), [(1, 64), (2, 70), (4, 128), (4, 9)])
def test_float_queries_score_packed_codes(bits: int, width: int, per_item: bool) -> None:
    codes = pack_codes(draw_bytes(150, width, high=2**bits), bits)
    length = 150 if per_item else 1
    steps, offsets = draw_vectors(length).exp(), draw_vectors(length, seed=2)
    queries = draw_vectors(3, width, seed=1)
    options: dict[str, Any] = {"bits": bits, "steps": steps, "offsets": offsets}
    found = scan_packed(queries, codes, 6, **options, backend="triton")
    expected = scan_packed(queries.double(), codes, 6, **options, backend="reference")
    assert found[1].tolist() == expected[1].tolist()
    assert norm_ratio(found[0], expected[0]) <= TOLERANCE


def test_whole_numbers_as_floats_are_scored_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_plans(monkeypatch, every=2, programs=3)
    queries = draw_int8(20, 40, seed=3).float()
    codes = pack_codes(draw_bytes(140, 40, high=4), 2)
    one, two = torch.ones(1, device=DEVICE), torch.full((1,), 2.0, device=DEVICE)
    leave_out = torch.arange(20, device=DEVICE)
    options: dict[str, Any] = {"bits": 2, "steps": two, "offsets": -one, "exclude": leave_out}
    same(*both(scan_packed, queries, codes, 8, **options))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_tiny_and_huge_queries_keep_their_digits(size: float) -> None:
    codes, queries = draw_int8(60, 32), size * draw_vectors(2, 32)
    found = scan_int8(queries, codes, 4, backend="triton")
    expected = scan_int8(queries.double(), codes, 4, backend="reference")
    assert found[1].tolist() == expected[1].tolist()
    # Squares of numbers this far out leave float64's norm whole only after they are brought back.
    assert norm_ratio(found[0].double() / size, expected[0] / size) <= TOLERANCE


@pytest.mark.parametrize("backend", list(Backend))
def test_where_fewer_items_are_left_the_last_result_is_of_none(backend: Backend) -> None:
    codes = draw_bytes(4, 8)
    leave_out = torch.tensor([2, -1], device=DEVICE)
    distances, items = scan_signs(codes[:2], codes, 4, exclude=leave_out, backend=backend)
    assert sorted(items[0].tolist()) == [-1, 0, 1, 3]
    assert items[0, -1] == -1
    assert distances[0, -1] == 2**31 - 1
    assert sorted(items[1].tolist()) == [0, 1, 2, 3]
    numbers = codes.view(torch.int8)
    scores, items = scan_int8(numbers[:2], numbers, 4, exclude=leave_out, backend=backend)
    assert (items[0, -1], scores[0, -1]) == (-1, -(2**31))
    scores, items = scan_int8(numbers[:2].float(), numbers, 4, exclude=leave_out, backend=backend)
    assert (items[0, -1], scores[0, -1]) == (-1, -torch.inf)


@given(
    items=st.integers(1, 60),
    queries=st.integers(1, 5),
    k=st.integers(1, 12),
    values=st.integers(1, 4),
    every=st.integers(1, 4),
)
@settings(max_examples=8, deadline=None)
def test_any_shape_with_many_ties_agrees(
    items: int, queries: int, k: int, values: int, every: int
) -> None:
    codes = draw_bytes(values, 8, seed=items)[draw_bytes(items, high=values).long()].contiguous()
    leave_out = draw_bytes(queries, high=min(255, items)).long()
    with pytest.MonkeyPatch.context() as patch:
        tiny_plans(patch, every=every)
        same(
            *both(
                scan_signs, codes[:queries], codes, min(k, items), exclude=leave_out[: len(codes)]
            )
        )


def test_the_reference_goes_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = draw_bytes(101, 8)
    whole = scan_signs(codes[:3], codes, 10, backend="reference")
    monkeypatch.setattr("muxrec_kernels.code_scan.reference.BLOCK_NUMBERS", 64 * 7)
    same(scan_signs(codes[:3], codes, 10, backend="reference"), whole)


def test_the_reference_finds_planted_neighbours() -> None:
    codes = draw_bytes(50, 32)
    flipped = codes.clone()
    flipped[:, 0] ^= 1
    catalogue = torch.cat([codes, flipped])
    distances, items = scan_signs(codes, catalogue, 2)
    assert items.tolist() == [[n, n + 50] for n in range(50)]
    assert distances.tolist() == [[0, 1]] * 50


def test_no_query_gives_no_result() -> None:
    codes = draw_bytes(9, 8)
    for backend in Backend:
        for scores, items in (
            scan_signs(codes[:0], codes, 3, backend=backend),
            scan_int8(draw_vectors(0, 8), codes.view(torch.int8), 3, backend=backend),
        ):
            assert scores.shape == items.shape == (0, 3)


def test_every_run_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_plans(monkeypatch, every=3)
    codes, queries = draw_int8(90, 20), draw_vectors(4, 20)
    same(*(scan_int8(queries, codes, 5, backend="triton") for _ in range(2)))


@given(bits=st.sampled_from([1, 2, 4]), items=st.integers(0, 5), width=st.integers(1, 40))
def test_packed_codes_come_back(bits: int, items: int, width: int) -> None:
    numbers = draw_bytes(items, width, high=2**bits, seed=width)
    packed = pack_codes(numbers, bits)
    assert packed.shape == (items, packed_bytes(width, bits))
    assert torch.equal(unpack_codes(packed, bits, width), numbers)


def test_signs_of_vectors_and_scores_with_signs() -> None:
    vectors = draw_vectors(40, 64)
    codes = pack_signs(vectors)
    apart = (vectors[:1] > 0) != (vectors > 0)
    distances, items = scan_signs(codes[:1], codes, 40)
    assert torch.equal(distances[0], apart.sum(dim=1)[items[0]].int())
    two, minus = torch.full((1,), 2.0, device=DEVICE), torch.full((1,), -1.0, device=DEVICE)
    scores, items = scan_packed(vectors[:1], codes, 40, bits=1, steps=two, offsets=minus)
    signs = torch.where(vectors > 0, 1.0, -1.0)
    torch.testing.assert_close(scores[0], (vectors[:1] @ signs.T)[0, items[0]])


CODES, NUMBERS = draw_bytes(20, 8), draw_int8(20, 8)
ONE = torch.ones(1, device=DEVICE)
PACKED: dict[str, Any] = {"bits": 4, "steps": ONE, "offsets": ONE}
OFFSETS_OF_ALL: dict[str, Any] = PACKED | {"offsets": ONE.expand(20)}
WRONG = {
    r"k must be in \[1, 20\] for 20 items, got 21": lambda: scan_signs(CODES, CODES, 21),
    r"k must be in \[1, 256\]": lambda: scan_signs(CODES, draw_bytes(300, 8), 257),
    "both the same": lambda: scan_signs(CODES.view(torch.int64), CODES, 2),
    "multiple of 32 bits": lambda: scan_signs(CODES[:, :6], CODES[:, :6].contiguous(), 2),
    "32 to 512": lambda: scan_signs(draw_bytes(2, 80), draw_bytes(2, 80), 2),
    "codes must be contiguous": lambda: scan_int8(NUMBERS, NUMBERS[:, ::2], 2),
    "codes must be int8": lambda: scan_int8(NUMBERS, CODES, 2),
    "queries must be int8 or floating-point": lambda: scan_int8(CODES, NUMBERS, 2),
    "must be as wide": lambda: scan_int8(NUMBERS[:, :4], NUMBERS, 2),
    r"scales must be float32 \[20\]": lambda: scan_int8(NUMBERS, NUMBERS, 2, scales=ONE),
    "exclude must be an item per query": lambda: scan_int8(
        NUMBERS, NUMBERS, 2, exclude=torch.zeros(3, dtype=torch.int64)
    ),
    "bits must be one of": lambda: scan_packed(
        draw_vectors(1, 8), CODES, 2, bits=3, steps=ONE, offsets=ONE
    ),
    "must have 4 bytes, got 8": lambda: scan_packed(draw_vectors(1, 8), CODES, 2, **PACKED),
    r"offsets must be float32 \[1\]": lambda: scan_packed(
        draw_vectors(1, 16), CODES, 2, **OFFSETS_OF_ALL
    ),
    "queries floating-point": lambda: scan_packed(NUMBERS, CODES, 2, **PACKED),
    "got torch.float64": lambda: scan_packed(
        draw_vectors(1, 16).double(), CODES, 2, **PACKED, backend="triton"
    ),
    "numbers must be uint8": lambda: pack_codes(NUMBERS, 4),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WRONG[message]()


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(BackendError, match="must be one of"):
        scan_signs(CODES, CODES, 2, backend="faiss")


def test_the_default_plan_samples_large_catalogues() -> None:
    plan = launch.choose_plan(1, 10_000_000, 100, words=8)
    assert plan.every == launch.SAMPLE_EVERY
    assert plan.kept == 128
    assert launch.choose_plan(1, 1000, 100, words=8).every == 1
    assert launch.choose_plan(300, 1000, 256).items >= 256
    assert code_scan.MOST_RESULTS == 256
    assert triton_kernel.__doc__

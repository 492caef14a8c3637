"""The contrastive loss without its matrix of scores against the float64 reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from hypothesis import given, settings
from hypothesis import strategies as st

from muxrec_kernels.contrastive_loss import (
    Rules,
    autograd,
    backward,
    contrastive_loss,
    dense_ignored,
    dense_weight,
)
from muxrec_kernels.contrastive_loss.tiles import Tile, Tiles, padded_width
from muxrec_kernels.dispatch import Backend
from muxrec_kernels.testing import norm_ratio, poisoned_outputs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SLABS = pytest.mark.parametrize("slabs", [False, True], ids=["held", "slabs"])
RULES = {
    "positives alone": (),
    "listed entries": ("ignored_offsets", "ignored_columns"),
    "items": ("query_items", "candidate_items"),
    "missing": ("query_missing", "candidate_missing"),
    "bias": ("column_bias",),
}
EVERY = tuple(name for names in RULES.values() for name in names)
TOLERANCE = 2e-6
"""Largest norm ratio in float32; the scale's gradient is a sum of both signs and gets ten times
as much."""

ROUNDING = {torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Probabilities are rounded to 11 or 8 bits, and so is the gradient when it leaves."""

Answer = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiles(monkeypatch, slabs=False)


def use_tiles(monkeypatch: pytest.MonkeyPatch, *, slabs: bool, programs: int = 2) -> None:
    """Tiles of 16 by 16, two column splits or as many as ``programs`` ask for, slabs of 16 rows."""

    def choose(dtype: torch.dtype, width: int) -> Tiles:
        chunk = 16 if slabs else padded_width(width)
        tile = Tile(16, 16, chunk, warps=4, stages=2)
        return Tiles(tile, tile, slabs=slabs, programs=programs)

    monkeypatch.setattr(autograd, "choose_tiles", choose)
    monkeypatch.setattr(backward, "LEAST_SLAB_ROWS", 16)


def lists_of(listed: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets and columns of a bool ``[Q, C]``."""
    ends = listed.sum(dim=1).cumsum(dim=0)
    return torch.cat([ends.new_zeros(1), ends]), listed.nonzero()[:, 1].contiguous()


def rules_of(queries: int, candidates: int, names: tuple[str, ...] = EVERY, seed: int = 0) -> Rules:
    """A relation; the second query ignores all, the third lists no positive, some items repeat."""
    generator = torch.Generator().manual_seed(seed)

    def chance(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    positives, ignored = chance(queries, candidates) < 0.2, chance(queries, candidates) < 0.15
    ignored[1:2], positives[2:3] = True, False
    offsets, columns = lists_of(positives)
    starts, listed = lists_of(ignored)
    items = torch.randint(max(2, candidates // 2), (queries + candidates,), generator=generator)
    every = {
        "ignored_offsets": starts,
        "ignored_columns": listed,
        "query_items": items[:queries].clone(),
        "candidate_items": items[queries:].clone(),
        "query_missing": chance(queries) < 0.1,
        "candidate_missing": chance(candidates) < 0.1,
        "column_bias": chance(candidates) * 3 - 1,
    }
    weights = 0.1 + chance(len(columns))
    return on_device(Rules(offsets, columns, weights, **{name: every[name] for name in names}))


def on_device(rules: Rules) -> Rules:
    held = {k: v.to(DEVICE) for k, v in vars(rules).items() if v is not None}
    return Rules(**held)


def vectors_of(
    queries: int, candidates: int, width: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    both = normalize(torch.randn(queries + candidates, width, generator=generator)).to(dtype)
    return both[:queries].to(DEVICE), both[queries:].to(DEVICE)


def run(
    queries: Tensor,
    candidates: Tensor,
    rules: Rules,
    backend: Backend = Backend.TRITON,
    scale: float = 10.0,
) -> Answer:
    """Three times the loss, and its gradients by queries, candidates and scale."""
    kind = torch.promote_types(queries.dtype, torch.float32)
    factor = torch.tensor(scale, dtype=kind, device=queries.device)
    leaves = [x.detach().clone().requires_grad_() for x in (queries, candidates, factor)]
    loss = 3.0 * contrastive_loss(leaves[0], leaves[1], rules, scale=leaves[2], backend=backend)
    gradients = torch.autograd.grad(loss, leaves)
    return loss.detach(), gradients[0], gradients[1], gradients[2]


def exact(queries: Tensor, candidates: Tensor, rules: Rules, scale: float = 10.0) -> Answer:
    return run(queries.double(), candidates.double(), rules, Backend.REFERENCE, scale)


def compare(queries: Tensor, candidates: Tensor, rules: Rules, scale: float = 10.0) -> None:
    expected = exact(queries, candidates, rules, scale)
    with poisoned_outputs():
        found = run(queries, candidates, rules, scale=scale)
    rounding = ROUNDING.get(queries.dtype, TOLERANCE)
    assert found[0].dtype == torch.float32
    assert found[1].dtype == found[2].dtype == queries.dtype
    assert norm_ratio(found[0], expected[0]) <= TOLERANCE
    assert norm_ratio(found[1], expected[1]) <= rounding
    assert norm_ratio(found[2], expected[2]) <= rounding
    assert norm_ratio(found[3], expected[3]) <= 10 * rounding


@SLABS
@pytest.mark.parametrize("names", [*RULES.values(), EVERY], ids=[*RULES, "every rule"])
def test_every_rule(names: tuple[str, ...], slabs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiles(monkeypatch, slabs=slabs)
    compare(*vectors_of(18, 35, 12), rules_of(18, 35, names))


@SLABS
@pytest.mark.parametrize("width", [4, 16, 33, 63, 100, 160])
def test_every_width(width: int, slabs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiles(monkeypatch, slabs=slabs)
    compare(*vectors_of(5, 18, width), rules_of(5, 18))


@SLABS
@pytest.mark.parametrize("dtype", ROUNDING)
def test_every_dtype(dtype: torch.dtype, slabs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiles(monkeypatch, slabs=slabs)
    compare(*vectors_of(18, 20, 24, dtype), rules_of(18, 20))


@pytest.mark.parametrize(("queries", "candidates"), [(1, 1), (1, 40), (17, 1), (16, 16), (33, 17)])
def test_every_shape(queries: int, candidates: int) -> None:
    compare(*vectors_of(queries, candidates, 8), rules_of(queries, candidates, ()))
    names = ("ignored_offsets", "ignored_columns")
    compare(*vectors_of(queries, candidates, 8), rules_of(queries, candidates, names))


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 20), st.integers(1, 24), st.integers(1, 20), st.integers(0, 99))
def test_any_relation(queries: int, candidates: int, width: int, seed: int) -> None:
    compare(*vectors_of(queries, candidates, width), rules_of(queries, candidates, seed=seed))


def test_lists_longer_than_a_tile_and_a_program_are_read_to_their_end() -> None:
    ignored = torch.rand(5, 90, generator=torch.Generator().manual_seed(1)) < 0.7
    positives = torch.rand(5, 90, generator=torch.Generator().manual_seed(2)) < 0.6
    offsets, columns = lists_of(positives)
    starts, listed = lists_of(ignored)
    rules = Rules(offsets, columns, torch.rand(len(columns)), starts, listed)
    compare(*vectors_of(5, 90, 8), on_device(rules))


def test_scores_of_a_thousand_overflow_nowhere() -> None:
    queries, candidates = vectors_of(6, 18, 8)
    rules = rules_of(6, 18)
    expected = exact(3 * queries, 3 * candidates, rules, scale=100.0)
    found = run(3 * queries, 3 * candidates, rules, scale=100.0)
    # A float32 score of 900 is exact to 6e-5, and so is the exponent of its probability.
    assert max(map(norm_ratio, found, expected)) <= 1e-3


@SLABS
def test_what_is_missing_may_hold_anything(slabs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiles(monkeypatch, slabs=slabs)
    queries, candidates = vectors_of(9, 20, 8)
    rules = rules_of(9, 20, ())
    gone = torch.zeros(20, dtype=torch.bool, device=DEVICE)
    gone[[0, 7, 19]] = True
    rules = replace(rules, query_missing=gone[:9].clone(), candidate_missing=gone)
    plain = run(queries, candidates, rules)
    queries[0], candidates[7], candidates[19] = float("nan"), float("nan"), float("inf")
    for backend in Backend:
        altered = run(queries, candidates, rules, backend)
        assert max(map(norm_ratio, altered, plain)) <= 10 * TOLERANCE
    found = run(queries, candidates, rules)
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
    assert not found[2][gone].any()


def test_not_a_number_in_a_listed_entry_does_not_reach_the_loss() -> None:
    queries, candidates = vectors_of(4, 20, 8)
    ignored = torch.zeros(4, 20, dtype=torch.bool)
    ignored[:, 17] = True
    starts, listed = lists_of(ignored)
    rules = replace(rules_of(4, 20, ()), ignored_offsets=starts, ignored_columns=listed)
    plain = run(queries, candidates, on_device(rules))[0]
    candidates[17] = float("nan")
    assert torch.equal(run(queries, candidates, on_device(rules))[0], plain)


@SLABS
@pytest.mark.parametrize("bias", [-9.0, -14.0])
def test_sure_rows_keep_small_gradients(
    bias: float, slabs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positives with nearly all of the mass: rounding their probability would be the gradient."""
    use_tiles(monkeypatch, slabs=slabs)
    queries, candidates = vectors_of(6, 18, 16, torch.float16)
    column_bias = torch.full((18,), bias)
    column_bias[0] = 0.0
    offsets, columns = torch.arange(7), torch.zeros(6, dtype=torch.int64)
    rules = on_device(Rules(offsets, columns, torch.ones(6), column_bias=column_bias))
    expected = exact(queries, candidates, rules, scale=1.0)[2] / 3.0
    found = candidate_gradient(queries, candidates, rules)
    # The others hold 2e-3 (1e-5): 1 minus the positive's is exact to 1e-7 over that, and off by a
    # tenth if 11 bits were all. Theirs near 1e-6 would have four bits as float16 themselves.
    assert norm_ratio(found[0], expected[0]) <= (1e-3 if bias > -10 else 3e-2)
    assert norm_ratio(found[1:], expected[1:]) <= ROUNDING[torch.float16]


def candidate_gradient(queries: Tensor, candidates: Tensor, rules: Rules) -> Tensor:
    """Gradient of the candidates before it is rounded to their own type."""
    scale = torch.ones(1, device=queries.device)
    terms = autograd.column_terms(rules, len(candidates))
    tiles = autograd.choose_tiles(queries.dtype, queries.shape[1])
    problem = autograd.Problem(queries, candidates, scale, terms, rules, tiles, "ieee")
    passed = autograd.launch_forward(autograd.triton_kernel, problem)
    factor = scale / len(queries)
    return autograd.launch_backward(autograd.triton_kernel, problem, passed, factor)[1]


@pytest.mark.parametrize("backend", Backend)
def test_without_an_asking_query_the_loss_is_zero_and_connected(backend: Backend) -> None:
    none = torch.zeros(0, dtype=torch.int64, device=DEVICE)
    for queries, candidates in ((3, 5), (0, 5), (3, 0)):
        offsets = torch.zeros(queries + 1, dtype=torch.int64, device=DEVICE)
        rules = Rules(offsets, none, none.float())
        found = run(*vectors_of(queries, candidates, 4), rules, backend)
        assert [part.abs().sum().item() for part in found] == [0.0] * 4
    everything = replace(
        rules_of(3, 5, ()), query_missing=torch.ones(3, dtype=torch.bool).to(DEVICE)
    )
    assert not any(part.any() for part in run(*vectors_of(3, 5, 4), everything, backend))


@SLABS
def test_all_runs_give_the_same_bits(slabs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiles(monkeypatch, slabs=slabs)
    first, again = (run(*vectors_of(9, 20, 8), rules_of(9, 20)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("programs", [1, 9])
def test_any_number_of_column_splits(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiles(monkeypatch, slabs=False, programs=programs)
    compare(*vectors_of(6, 70, 8), rules_of(6, 70))


def test_vectors_need_not_be_contiguous() -> None:
    queries, candidates = vectors_of(7, 20, 16)
    compare(queries[:, ::2], candidates.T.contiguous().T[:, 3:11], rules_of(7, 20, ()))


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that an operation gave back."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for part in found if isinstance(found, tuple | list) else (found,):
            # The interpreter looks at existing storages as bytes.
            if isinstance(part, Tensor) and part.dtype != torch.uint8:
                self.numbers = max(self.numbers, part.numel())
        return found


@SLABS
def test_no_tensor_of_all_entries_is_made(slabs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiles(monkeypatch, slabs=slabs, programs=1)
    rules = rules_of(30, 24, ("query_items", "candidate_items"))
    vectors = vectors_of(30, 24, 4)
    with _Largest() as largest:
        run(*vectors, rules)
    # A slab holds 16 of the 30 rows, its columns filled up to 32; vectors are filled up to 8.
    assert largest.numbers <= (16 * 32 if slabs else 30 * 8)
    with _Largest() as largest:
        run(*vectors, rules, Backend.REFERENCE)
    assert largest.numbers >= 24 * 24


def test_the_matrices_of_rules() -> None:
    rules = Rules(
        torch.tensor([0, 2, 2]),
        torch.tensor([0, 3]),
        torch.tensor([0.5, 2.0]),
        ignored_offsets=torch.tensor([0, 0, 1]),
        ignored_columns=torch.tensor([2]),
        query_items=torch.tensor([7, 8]),
        candidate_items=torch.tensor([8, 7, 9, 7]),
        candidate_missing=torch.tensor([False, False, False, True]),
    )
    assert dense_weight(rules, 4).tolist() == [[0.5, 0.0, 0.0, 2.0], [0.0] * 4]
    assert dense_ignored(rules, 4).int().tolist() == [[0, 1, 0, 1], [1, 0, 1, 1]]


def test_wrong_arguments_are_refused() -> None:
    queries, candidates = vectors_of(3, 5, 4)
    rules, scale = rules_of(3, 5), torch.tensor(2.0, device=DEVICE)
    good = {"queries": queries, "candidates": candidates, "rules": rules, "scale": scale}
    for change, message in (
        ({"queries": queries[0]}, r"\[Q, D\] and \[C, D\], got \(4,\) and \(5, 4\)"),
        ({"queries": queries[:, :3]}, r"got \(3, 3\) and \(5, 4\)"),
        ({"queries": queries.half()}, "of one floating-point type, got torch.float16 and"),
        ({"queries": queries.long(), "candidates": candidates.long()}, "floating-point type"),
        ({"scale": torch.ones(2)}, r"one floating-point number, got torch.float32 \(2,\)"),
        ({"rules": replace(rules, offsets=rules.offsets[:-1])}, r"rules.offsets .* \[4\]"),
        ({"rules": replace(rules, columns=rules.columns.int())}, "rules.columns .* torch.int64"),
        ({"rules": replace(rules, weights=rules.weights[1:])}, "rules.weights must be"),
        ({"rules": replace(rules, ignored_columns=None)}, "must be given together"),
        ({"rules": replace(rules, candidate_items=None)}, "must be given together"),
        (
            {"rules": replace(rules, query_missing=torch.ones(3))},
            r"rules.query_missing .*torch.bool",
        ),
        ({"rules": replace(rules, column_bias=torch.ones(4))}, r"rules.column_bias .*\[5\]"),
    ):
        with pytest.raises(ValueError, match=message):
            contrastive_loss(**{**good, **change})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="float64 vectors are for the reference"):
        run(queries.double(), candidates.double(), rules)

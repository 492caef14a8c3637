"""``dpq`` and ``mgqe``: codes of one byte, codebooks that start from data and stay in use."""

from __future__ import annotations

import math

import pytest
import torch

from muxrec.tables.memory import serving_of
from muxrec.tables.methods.dpq import Dpq
from muxrec.tables.methods.mgqe import Mgqe
from muxrec.tables.methods.quantiser import (
    COMMITMENT,
    REVIVE_EVERY,
    CodebookPlan,
    Quantiser,
    ReviveHook,
    first_codebook,
)

DPQ = {"parts": 2, "codes": 16}
MGQE = {"parts": 2, "codes": 32, "tail_codes": 16, "frequent": 0.25}
PLAN = CodebookPlan(ids=200, width=8, parts=2, codes=16, tail_codes=8, frequent=50)


def rows(seed: int = 0) -> torch.Tensor:
    return torch.randn(200, 8, generator=torch.Generator().manual_seed(seed))


class HeldRows:
    """A table in training."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def local(self, name: str):
        return 0, self.weight, torch.zeros(len(self.weight))

    def first_column(self, name: str) -> int:
        return 0

    def is_copy(self, name: str) -> bool:
        return False

    def read_ids(self, feature: str, ids: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


@pytest.mark.parametrize(("method", "options"), [("dpq", DPQ), ("mgqe", MGQE)])
def test_sixteen_centroids_hold_twelve_kinds_of_ids(
    method, options, engine, planted, train_planted, all_vectors
) -> None:
    run = train_planted(planted(method, options), engine)
    # The kinds' own spread of 0.1 is 0.01 of error, the rest is what training leaves.
    assert run.error < 0.06 < run.first_error
    trained = all_vectors(run.stages[-1], run.planted)
    torch.testing.assert_close(run.vectors(), trained, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("method", "options"), [("dpq", DPQ), ("mgqe", MGQE)])
def test_served_are_one_byte_per_id_and_part_and_the_codebooks(
    method, options, planted, train_planted
) -> None:
    run = train_planted(planted(method, options), epochs=2, steps=3)
    found = serving_of(run.frozen)
    assert (found.maps, found.combine) == (240 * 2, 0)
    assert found.rows == 4 * options["codes"] * 8
    assert [group.table.name for group in run.frozen.groups] == ["t.f0.codebook"]


def test_centroids_start_from_trained_rows() -> None:
    points = rows() + 10
    codebook = first_codebook(PLAN, points, torch.Generator().manual_seed(0))
    assert codebook.shape == (2, 16, 4)
    # Means of points around 10 with a spread of 1.
    assert codebook.sub(10).abs().max() < 4


def test_rare_ids_use_the_first_centroids_only() -> None:
    points = rows()
    codebook = first_codebook(PLAN, points, torch.Generator().manual_seed(0))
    codes = Quantiser(PLAN, codebook).all_codes(points)
    assert codes[50:].max() < 8
    assert codes[:50].max() >= 8


def test_each_code_is_the_nearest_centroid_allowed() -> None:
    points = rows()
    codebook = first_codebook(PLAN, points, torch.Generator().manual_seed(0))
    codes = Quantiser(PLAN, codebook).all_codes(points).long()
    distances = torch.cdist(points.view(200, 2, 4).transpose(0, 1), codebook)
    distances[:, 50:, 8:] = torch.inf
    assert torch.equal(codes, distances.argmin(dim=2).T)


def test_the_gradient_passes_straight_to_the_query_and_the_penalty_joins_both() -> None:
    quantiser = Quantiser(PLAN, torch.randn(2, 16, 4))
    queries = rows().requires_grad_()
    direction = torch.randn(200, 8)
    found = quantiser(queries, torch.arange(200), torch.arange(200))
    (found * direction).sum().backward()
    torch.testing.assert_close(queries.grad, direction, rtol=0, atol=0)
    assert quantiser.codebook.grad is None
    queries.grad = None
    quantiser.penalty().backward()
    off = (queries - found).detach()
    torch.testing.assert_close(queries.grad, COMMITMENT * 2 * off / off.numel())
    assert quantiser.codebook.grad is not None
    torch.testing.assert_close(
        quantiser.codebook.grad.sum(dim=1).flatten(), -2 * off.sum(dim=0) / off.numel()
    )


def test_a_batch_without_ids_has_no_penalty() -> None:
    quantiser = Quantiser(PLAN, torch.randn(2, 16, 4))
    nothing = torch.empty(0, dtype=torch.int64)
    assert quantiser(torch.empty(0, 8), nothing, nothing).shape == (0, 8)
    assert quantiser.penalty() == 0
    assert quantiser.penalty() == 0


def test_a_centroid_that_no_id_uses_is_revived() -> None:
    points = rows()
    quantiser = Quantiser(PLAN, first_codebook(PLAN, points, torch.Generator().manual_seed(0)))
    with torch.no_grad():
        quantiser.codebook[:, [3, 12]] = 1e3
    before = quantiser.codebook.detach().clone()
    hook = ReviveHook({"t.f0": quantiser})
    hook.after_step(HeldRows(points), step=REVIVE_EVERY + 1, share=0.5)
    assert torch.equal(before, quantiser.codebook)
    hook.after_step(HeldRows(points), step=REVIVE_EVERY, share=0.5)
    assert quantiser.codebook.abs().max() < 10
    codes = quantiser.all_codes(points)
    assert all({3, 12} <= set(codes[:, part].tolist()) for part in range(2))


def test_parts_are_lowered_to_a_divisor_of_the_width(planted) -> None:
    given = planted("dpq", {"parts": 7, "codes": 16})
    assert Dpq().plan_of(given.declared(), given.features[0]).parts == 4


@pytest.mark.parametrize("size", [30, 240, 100_000])
@pytest.mark.parametrize("share", [0.9, 0.25, 0.1, 0.05])
def test_sizes_fit_the_share_and_tell_the_most_vectors_apart(planted, size, share) -> None:
    given = planted("dpq", {"share": share}, None, (size,))
    plan = Dpq().plan_of(given.declared(), given.features[0])
    assert 8 % plan.parts == 0
    allowed = share * size * 8 * 4

    def taken(parts: int, codes: int) -> int:
        return size * parts + 4 * 8 * codes

    fitting = [
        (parts * math.log2(codes), parts, codes)
        for parts in (1, 2, 4, 8)
        for codes in range(2, 257)
        if taken(parts, codes) <= allowed
    ]
    assert (plan.parts, plan.codes) == (max(fitting)[1:] if fitting else (1, 2))


def test_rare_ids_never_use_more_than_half_of_the_entries(planted) -> None:
    for codes, tail in ((256, 64), (32, 16), (3, 1)):
        given = planted("mgqe", {"codes": codes}, None, (5000,))
        assert Mgqe().plan_of(given.declared(), given.features[0]).tail_codes == tail


def test_the_shape_before_training_is_the_served_one(planted, train_planted) -> None:
    for method, options in ((Dpq(), DPQ), (Mgqe(), MGQE)):
        name = type(method).__name__.lower()
        run = train_planted(planted(name, options, None, (240, 9)), epochs=2, steps=1)
        shape = method.served_shape(run.planted.declared(stage=1))
        assert shape.tables == run.frozen.lowered[0].tables
        # Nine ids are too few for a codebook.
        assert [table.name for table in shape.tables] == ["t.f0.codebook", "t.f1"]

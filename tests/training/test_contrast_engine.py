"""The engine against a loop, and its contract for every divergence."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from muxrec.data.known_pairs import KnownPairs
from muxrec.data.pairs import PairBatch
from muxrec.losses.divergences import DIVERGENCES, divergence_of
from muxrec.losses.engine import Divergence, contrast, target_of
from muxrec.losses.infonce import cross_entropy
from muxrec.losses.logq import log_inclusion
from muxrec.losses.relation import RELATIONS, candidates_in_batch
from muxrec.recipe.model import Objective

MADE = [divergence_of(Objective(divergence=name)) for name in DIVERGENCES]
EVERY = pytest.mark.parametrize("divergence", MADE, ids=DIVERGENCES)


def _case(queries: int = 7, candidates: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    scores = 5 * torch.randn(queries, candidates)
    weight = torch.rand(queries, candidates) * (torch.rand(queries, candidates) > 0.7)
    ignored = torch.rand(queries, candidates) > 0.7
    weight[2], ignored[3] = 0.0, True
    return scores, weight, ignored


def _cross_entropy_by_loop(scores: Tensor, weight: Tensor, ignored: Tensor) -> float:
    losses = []
    for s, w, hidden in zip(scores.tolist(), weight.tolist(), ignored.tolist(), strict=True):
        seen = [(x, y) for x, y, h in zip(s, w, hidden, strict=True) if not h]
        if sum(y for _, y in seen) <= 0:
            continue
        total = math.fsum(math.exp(x) for x, _ in seen)
        share = [(y, math.log(math.exp(x) / total)) for x, y in seen]
        losses.append(-math.fsum(y * p for y, p in share) / math.fsum(y for y, _ in share))
    return math.fsum(losses) / len(losses)


def _contrast(scores: Tensor, weight: Tensor, ignored: Tensor, divergence: Divergence) -> Tensor:
    target = target_of(weight, ignored)
    return contrast(scores[target.asking], target, divergence)


def test_cross_entropy_equals_a_loop_over_queries() -> None:
    case = _case()
    # float32 sums of 11 terms against float64.
    assert _contrast(*case, cross_entropy).item() == pytest.approx(
        _cross_entropy_by_loop(*case), rel=1e-5
    )


def test_one_positive_per_row_is_infonce() -> None:
    scores = torch.randn(6, 9)
    targets = torch.tensor([3, 1, 8, 0, 0, 5])
    weight = torch.nn.functional.one_hot(targets, 9).float() * 0.37
    found = _contrast(scores, weight, torch.zeros(6, 9).bool(), cross_entropy)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(scores, targets))


def test_a_target_lists_the_asking_queries_and_their_shares() -> None:
    weight = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0], [2.0, 0.0, 5.0]])
    ignored = torch.zeros(3, 3).bool()
    ignored[2, 2] = True
    target = target_of(weight, ignored)
    assert target.asking.tolist() == [0, 2]
    assert torch.equal(target.ignored, ignored[[0, 2]])
    listed = zip(target.rows.tolist(), target.columns.tolist(), target.share.tolist(), strict=True)
    assert list(listed) == [(0, 1, 0.25), (0, 2, 0.75), (1, 0, 1.0)]


@EVERY
@pytest.mark.parametrize("hidden", [1e30, float("nan"), float("inf")])
def test_ignored_entries_change_neither_loss_nor_gradient(
    divergence: Divergence, hidden: float
) -> None:
    scores, weight, ignored = _case()
    plain = scores.clone().requires_grad_()
    altered = scores.masked_fill(ignored, hidden).requires_grad_()
    first = _contrast(plain, weight, ignored, divergence)
    second = _contrast(altered, weight + 3.0 * ignored, ignored, divergence)
    first.backward()
    second.backward()
    assert torch.equal(first, second)
    assert plain.grad is not None
    assert altered.grad is not None
    assert torch.equal(plain.grad, altered.grad)
    assert not altered.grad[ignored].any()


@EVERY
def test_queries_without_a_positive_contribute_nothing(divergence: Divergence) -> None:
    scores, weight, ignored = _case()
    scores.requires_grad_()
    asking = weight.masked_fill(ignored, 0).sum(dim=1) > 0
    assert not asking.all()
    loss = _contrast(scores, weight, ignored, divergence)
    few = _contrast(scores[asking], weight[asking], ignored[asking], divergence)
    assert torch.equal(loss, few)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert not scores.grad[~asking].any()


@EVERY
@pytest.mark.parametrize("size", [1, 2, 5])
def test_identical_vectors_and_tiny_batches_have_finite_gradients(
    divergence: Divergence, size: int
) -> None:
    vectors = torch.ones(size, 4, requires_grad=True)
    weight = torch.ones(size, size) - torch.eye(size)
    ignored = torch.eye(size, dtype=torch.bool)
    loss = _contrast(vectors @ vectors.T / 0.01, weight, ignored, divergence)
    loss.backward()
    assert loss.isfinite()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def _batch() -> tuple[PairBatch, KnownPairs]:
    a, b = np.array([4, 4, 9, 2]), np.array([9, 2, 7, 7])
    pairs = PairBatch(a, b, np.array([0.5, 0.25, 1.0, 0.0], dtype=np.float32))
    return pairs, KnownPairs(pairs, 12)


def test_candidates_are_the_distinct_items_and_know_their_places() -> None:
    pairs, _ = _batch()
    candidates = candidates_in_batch(pairs)
    assert candidates.items.tolist() == [2, 4, 7, 9]
    assert np.array_equal(candidates.items[candidates.a], pairs.a)
    assert np.array_equal(candidates.items[candidates.b], pairs.b)


def test_multi_positive_weighs_every_known_partner_in_both_directions() -> None:
    pairs, known = _batch()
    relation = RELATIONS["multi"](candidates_in_batch(pairs), known).dense()
    expected = torch.zeros(4, 4)  # places: 2, 4, 7, 9
    expected[1, 3], expected[1, 0], expected[3, 2] = 0.5, 0.25, 1.0
    expected[0, 2] = 1e-6  # A known pair without score is still no negative.
    torch.testing.assert_close(relation.weight, expected + expected.T, rtol=0, atol=0)
    assert torch.equal(relation.ignored, torch.eye(4).bool())


def test_single_positive_ignores_the_other_known_partners() -> None:
    pairs, known = _batch()
    candidates = candidates_in_batch(pairs)
    relation = RELATIONS["single"](candidates, known).dense()
    assert relation.weight.shape == (8, 4)
    assert torch.equal(relation.weight.sum(dim=1), torch.ones(8))
    first = relation.ignored[0]  # Item 4 asks for 9; 4 is itself and 2 is another known partner.
    assert first.tolist() == [True, True, False, False]


def test_a_pair_of_an_item_with_itself_asks_for_nothing() -> None:
    same = np.array([3, 3])
    pairs = PairBatch(same, np.array([3, 5]), np.ones(2, dtype=np.float32))
    for relation in RELATIONS.values():
        found = relation(candidates_in_batch(pairs), KnownPairs(pairs, 6)).dense()
        assert not found.weight[found.ignored].any()
        assert found.weight.sum() == 2


@pytest.mark.parametrize("name", RELATIONS)
def test_the_lists_of_a_relation_rise_within_each_query(name: str) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 20, (2, 60))
    pairs = PairBatch(a, b, rng.random(60).astype(np.float32))
    candidates = candidates_in_batch(pairs.take(np.arange(25)))
    relation = {**RELATIONS}[name](candidates, KnownPairs(pairs, 20))  # type: ignore[index]
    lists = [(relation.offsets, relation.columns)]
    lists.append((relation.ignored_offsets, relation.ignored_columns))
    for offsets, columns in lists:
        assert offsets[0] == 0
        assert offsets[-1] == len(columns)
        for start, stop in itertools.pairwise(offsets.tolist()):
            assert (columns[start:stop].diff() > 0).all()


def test_a_duplicate_of_the_query_and_what_is_missing_are_ignored() -> None:
    pairs, known = _batch()
    relation = RELATIONS["multi"](candidates_in_batch(pairs), known)
    relation = relation._replace(items=torch.tensor([2, 4, 4, 9]))
    missing = torch.tensor([True, False, False, False])
    weight, ignored = relation.dense(missing)
    expected = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 1]]).bool()
    assert torch.equal(ignored, expected)
    assert not weight[ignored].any()


def test_log_inclusion_is_the_share_of_batches_that_hold_the_item() -> None:
    rng = np.random.default_rng(0)
    shares = np.array([0.5, 0.3, 0.15, 0.04, 0.01])
    draws = rng.choice(5, size=(20_000, 2 * 8), p=shares)
    held = np.array([(draws == item).any(axis=1).mean() for item in range(5)])
    # Six standard errors of a share over 20,000 batches are at most 0.0212.
    assert np.abs(np.exp(log_inclusion(2 * shares, 8).numpy()) - held).max() < 0.0212

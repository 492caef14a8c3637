"""Vectors of every method: shapes, empty bags, pooling, weights, unknown ids, padded bags."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn

from muxrec.spec.table_methods import METHOD_SPECS
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.bags import bags_from_lists
from muxrec.tables.build import build_tables
from muxrec.tables.methods import METHODS

POOLINGS = ("sum", "mean", "sqrt")
# Vectors are sums of a few numbers below 1 in another order, or of a chain of products of them.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def evaluated(tables):
    cast(nn.Module, tables).eval()
    return tables


def test_a_title_says_what_the_method_does_and_a_source_where_it_is_from(case) -> None:
    method = METHODS[case.method]
    assert 20 < len(method.title) < 100
    assert 5 < len(method.source) < 100
    assert sum(stage.share for stage in method.stages_of(case.table())) == pytest.approx(1.0)
    assert case.method in METHOD_SPECS


def test_vectors_have_the_announced_widths(case, engine: str) -> None:
    tables = case.build(engine)
    vectors = tables(case.batch(seed=1))
    assert tables.widths == dict.fromkeys(case.names, 8)
    for name in case.names:
        assert vectors[name].shape == (16, 8)
        assert vectors[name].dtype == torch.float32


def test_empty_bags_are_zeros_even_when_all_are_empty(case, engine: str) -> None:
    tables = evaluated(case.build(engine))
    some = tables(case.bags([[], [100, 101], []]))
    none = tables(case.bags([[], []]))
    for name in case.names:
        assert some[name][[0, 2]].eq(0).all()
        assert some[name][1].ne(0).any()
        assert none[name].shape == (2, 8)
        assert none[name].eq(0).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_weighted_bag_is_its_ids_vectors_weighted_and_pooled(
    case, engine: str, pooling: str
) -> None:
    tables = evaluated(case.build(engine, poolings=(pooling, pooling)))
    weights = torch.tensor([0.5, 2.0, 0.25, 0.0])
    singles = tables(case.bags([[100], [101], [102], [103]]))
    bags = tables(case.bags([[100, 101, 102, 103]], [weights.tolist()]))
    divisor = {"sum": 1.0, "mean": weights.sum(), "sqrt": weights.square().sum().sqrt()}[pooling]
    for name in case.names:
        wanted = (singles[name] * weights[:, None]).sum(dim=0) / divisor
        torch.testing.assert_close(bags[name][0], wanted, **CLOSE)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_bag_is_its_ids_vectors_pooled(case, engine: str, pooling: str) -> None:
    tables = evaluated(case.build(engine, poolings=(pooling, pooling)))
    singles = tables(case.bags([[100], [101], [100], [101]]))
    bags = tables(case.bags([[100, 101, 101]]))
    divisor = {"sum": 1.0, "mean": 3.0, "sqrt": 3.0**0.5}[pooling]
    for name in case.names:
        wanted = (singles[name][0] + 2 * singles[name][1]) / divisor
        torch.testing.assert_close(bags[name][0], wanted, **CLOSE)


def test_unknown_ids_are_dropped_or_answered_and_extreme_ids_are_finite(case, engine: str) -> None:
    tables = evaluated(case.build(engine))
    extreme = tables(case.bags([[-(2**63)], [2**63 - 1], [0], [-1]]))
    unseen = tables(case.bags([[10**18], [-(10**18)]]))
    mixed = tables(case.bags([[100, 101], [100, 101, 10**18]]))
    for name in case.names:
        assert extreme[name].isfinite().all()
        assert extreme[name].ne(0).any(dim=1).all()
        if case.drops(tables, name):
            assert unseen[name].eq(0).all()
            assert torch.equal(mixed[name][0], mixed[name][1])
        else:
            assert unseen[name].ne(0).any(dim=1).all()
            assert not torch.equal(mixed[name][0], mixed[name][1])


def test_the_seed_alone_decides_the_first_vectors(case, engine: str) -> None:
    batch, found = case.batch(seed=5), []
    for seed, noise in [(5, 0), (5, 1), (6, 0)]:
        torch.manual_seed(noise)
        tables = evaluated(case.build(engine, seed=seed))
        torch.manual_seed(0)
        found.append(tables(batch))
    for name in case.names:
        assert torch.equal(found[0][name], found[1][name])
        assert not torch.equal(found[0][name], found[2][name])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padded_lookups_are_the_jagged_ones(case, pooling: str, pad) -> None:
    tables = evaluated(case.build(poolings=(pooling, pooling)))
    batch = case.batch(seed=6, size=40)
    vectors = tables(batch)
    for name in case.names:
        padded = tables.lookup_padded(name, *pad(batch[name]))
        torch.testing.assert_close(padded, vectors[name], **CLOSE)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_feature_with_hardly_any_ids_has_vectors(case, engine: str, count: int) -> None:
    known = {name: build_vocabulary(name, range(count)) for name in case.names}
    tables = evaluated(
        build_tables(case.features(), (case.table(),), vocabularies=known, engine=engine)
    )
    vectors = tables(dict.fromkeys(case.names, bags_from_lists([[0], [1, 7], []])))
    for name in case.names:
        assert vectors[name].shape == (3, 8)
        assert vectors[name].isfinite().all()
        assert vectors[name][2].eq(0).all()

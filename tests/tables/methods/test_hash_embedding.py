"""``hash_embedding``: hashed rows summed with hashed weights."""

from __future__ import annotations

import pytest
import torch

from muxrec.spec.hashing import hash_rows
from muxrec.tables.methods.hash_embedding import HashEmbedding


def test_a_vector_is_the_weighted_sum_of_its_rows(planted, all_vectors) -> None:
    given = planted("hash_embedding", {"hashes": 3}, rows=60)
    tables = given.build()
    held = tables.local_tables()
    pool, weights = held["t.pool"].weight, held["t.weights"].weight
    ids = given.vocabularies["f0"].ids()

    def rows(probe: int, size: int) -> torch.Tensor:
        return torch.from_numpy(hash_rows(ids, name="f0", probe=probe, rows=size))

    factors = weights[rows(3, len(weights))]
    expected = sum(pool[rows(at, len(pool))] * factors[:, at : at + 1] for at in range(3))
    torch.testing.assert_close(all_vectors(tables, given), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("hashes", [1, 2, 5])
def test_pool_and_weights_take_no_more_numbers_than_the_declared_rows(
    planted, share: float, hashes: int
) -> None:
    options = {"hashes": hashes, "weight_share": share}
    lowered = HashEmbedding().lower(planted("hash_embedding", options, rows=100).declared())
    pool, weights = lowered.tables
    numbers = [table.rows * table.width for table in lowered.tables]
    assert sum(numbers) <= 800
    assert sum(numbers) > 800 - 2 * 8
    assert weights.width == hashes
    assert numbers[1] == pytest.approx(max(share * 800, hashes), abs=hashes)
    assert pool.rows >= 1


def test_weights_start_near_one_and_vectors_as_declared(planted, all_vectors) -> None:
    given = planted("hash_embedding", {"hashes": 4}, rows=4_000, sizes=(3_000,))
    tables = given.build()
    weights = tables.local_tables()["t.weights"].weight
    assert (weights - 1).abs().max() <= given.table.init
    square = all_vectors(tables, given).square().mean()
    assert float(square) == pytest.approx(given.table.init**2 / 3, rel=0.1)


def test_ids_that_share_all_rows_are_told_apart_by_their_weights(planted, train_planted) -> None:
    given = planted("hash_embedding", {"hashes": 2, "weight_share": 0.9}, rows=80)
    trained = train_planted(given, epochs=2)
    pool = next(table for table in trained.frozen.lowered[0].tables if table.name == "t.pool")
    assert pool.rows < 10
    assert len(trained.vectors().unique(dim=0)) > 180


def test_all_readers_share_the_arrays_and_none_their_rows(planted) -> None:
    lowered = HashEmbedding().lower(planted("hash_embedding", rows=60, sizes=(50, 50)).declared())
    assert [table.name for table in lowered.tables] == ["t.pool", "t.weights"]
    seeds = [read.address.fingerprint for read in lowered.reads]
    assert len(set(seeds)) == len(seeds) == 2 * 3


def test_it_learns(planted, train_planted) -> None:
    trained = train_planted(planted("hash_embedding", rows=120))
    assert trained.error < 0.9 * trained.first_error

"""``qr``: a row of quotients times a row of remainders."""

from __future__ import annotations

import torch

from muxrec.tables.methods.qr import QuotientRemainder


def test_a_vector_is_the_product_of_its_two_rows(planted, all_vectors) -> None:
    given = planted("qr", {"buckets": 16})
    tables = given.build()
    rows = {name: held.weight for name, held in tables.local_tables().items()}
    index = torch.arange(240)
    expected = rows["t.f0.quotient"][index // 16] * rows["t.f0.remainder"][index % 16]
    torch.testing.assert_close(all_vectors(tables, given), expected, rtol=0, atol=0)
    assert {name: len(held) for name, held in rows.items()} == {
        "t.f0.quotient": 15,
        "t.f0.remainder": 16,
    }


def test_a_product_does_not_start_near_zero(planted, all_vectors) -> None:
    """Published code starts both rows near 0, and with them every vector and gradient."""
    given = planted("qr", {"buckets": 16})
    tables = given.build()
    remainders = tables.local_tables()["t.f0.remainder"].weight
    assert (remainders - 1).abs().max() <= given.table.init
    vectors = all_vectors(tables, given)
    # 15 quotient rows of 8 numbers are 120 draws: their mean square varies by some ten percent.
    assert 0.7 < vectors.square().mean() / (given.table.init**2 / 3) < 1.4


def test_no_two_ids_share_both_rows(planted) -> None:
    declared = planted("qr", {"buckets": 13}).declared()
    lowered = QuotientRemainder().lower(declared)
    index = torch.arange(240)
    rows = [
        read.address(index, index, table.rows)
        for read, table in zip(lowered.reads, lowered.tables, strict=True)
    ]
    assert all(int(r.max()) < t.rows for r, t in zip(rows, lowered.tables, strict=True))
    assert len(torch.stack(rows, dim=1).unique(dim=0)) == 240


def test_a_feature_that_would_not_shrink_stays_full(planted) -> None:
    lowered = QuotientRemainder().lower(
        planted("qr", {"buckets": 64}, sizes=(240, 65, 66, 1, 0)).declared()
    )
    names = [table.name for table in lowered.tables]
    assert names == ["t.f0.quotient", "t.f0.remainder", "t.f1", "t.f2", "t.f3", "t.f4"]
    assert lowered.per_id == {"f0"}


def test_it_learns(planted, train_planted) -> None:
    trained = train_planted(planted("qr", {"buckets": 24}))
    assert trained.error < 0.5 * trained.first_error

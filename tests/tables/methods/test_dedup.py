"""``dedup``: blocks that are alike share rows, within any budget."""

from __future__ import annotations

import pytest
import torch

from muxrec.tables.memory import serving_of
from muxrec.tables.methods.blocks import ALIKE, alike_blocks, are_alike, merge_nearest
from muxrec.tables.methods.dedup import Dedup, block_means
from muxrec.tables.methods.protocol import Declared

DISTANCE = 0.01
OPTIONS = {"kept": 0.3, "block": 2}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def copies(kinds: int, each: int, spread: float, *, size: int = 32) -> torch.Tensor:
    """``each`` blocks of every kind that differ by at most ``spread``, the kinds in turn."""
    draw = generator()
    centers = torch.randn(kinds, size, generator=draw).repeat(each, 1)
    return centers + spread * (torch.rand(centers.shape, generator=draw) - 0.5)


def test_blocks_within_the_distance_share_one_and_others_do_not() -> None:
    home = alike_blocks(copies(20, 6, DISTANCE), distance=DISTANCE, generator=generator())
    kinds = home.view(6, 20) % 20
    assert torch.equal(kinds, torch.arange(20).expand(6, 20))
    # Two blocks of a kind may be shared before they meet in a bucket; they stay apart.
    assert 20 <= len(home.unique()) <= 30


def test_every_block_is_alike_the_very_block_that_it_shares() -> None:
    # A chain: neighbours are alike, the ends are far apart.
    blocks = torch.linspace(0, 1, 400)[:, None] + torch.zeros(400, 16)
    home = alike_blocks(blocks, distance=DISTANCE, generator=generator())
    assert are_alike(blocks, blocks[home], DISTANCE).all()
    assert torch.equal(home[home], home)
    assert len(home.unique()) < 200


def test_seven_numbers_of_ten_must_be_close() -> None:
    left, right = torch.zeros(2, 10), torch.zeros(2, 10)
    right[0, :3], right[1, :4] = 1, 1
    assert are_alike(left, right, DISTANCE).tolist() == [True, False]
    assert ALIKE == 0.7


@pytest.mark.parametrize("count", [2, 30, 3000])
def test_merging_goes_on_to_the_limit_exactly(count: int) -> None:
    means = torch.randn(count, 8, generator=generator())
    for limit in {1, count // 2, count - 1}:
        home = merge_nearest(means, torch.ones(count), limit, generator())
        assert home.unique().tolist() == list(range(limit))


def test_the_nearest_blocks_merge_first() -> None:
    means = copies(10, 5, 0.5)
    home = merge_nearest(means, torch.ones(50), 10, generator()).view(5, 10)
    assert torch.equal(home, home[:1].expand(5, 10))


def test_equal_blocks_merge_too() -> None:
    home = merge_nearest(torch.zeros(9, 4), torch.ones(9), 2, generator())
    assert len(home.unique()) == 2


def test_rows_start_as_means_without_the_rows_that_the_last_block_lacks() -> None:
    blocks = torch.tensor([[1.0, 2.0], [3.0, torch.nan], [5.0, 6.0]])
    means, sizes = block_means(blocks, torch.tensor([0, 0, 1]))
    assert means.tolist() == [[2, 2], [5, 6]]
    assert sizes.tolist() == [2, 1]


def test_no_more_blocks_are_kept_than_asked_for(planted) -> None:
    for kept, block in ((0.5, 1), (0.3, 7), (0.01, 4)):
        given = planted("dedup", {"kept": kept, "block": block}).declared()
        rows = {"t.f0": torch.randn(240, 8, generator=generator())}
        left = Dedup().advance(given, rows, {}, lambda: 0.0)
        blocks = -(-240 // block)
        found = left.carried["f0.blocks"]
        assert len(found) == blocks
        assert len(found.unique()) == max(1, int(kept * blocks))
        assert left.values["t.f0"].shape == (max(1, int(kept * blocks)) * block, 8)
        Dedup().lower(Declared(given.table, given.readers, given.vocabularies, 1, left.carried))


def test_blocks_that_share_rows_still_learn_their_kinds(engine, planted, train_planted) -> None:
    run = train_planted(planted("dedup", {"kept": 0.3, "block": 1}), engine)
    assert run.error < 0.06 < run.first_error


def test_the_map_of_blocks_is_counted(planted, train_planted) -> None:
    run = train_planted(planted("dedup", OPTIONS), epochs=2, steps=2)
    found = serving_of(run.frozen)
    assert found.maps == 120
    assert found.rows == 36 * 2 * 8 * 4
    shape = Dedup().served_shape(run.planted.declared(stage=1))
    assert shape.tables == run.frozen.lowered[0].tables

"""``robe``: pieces of vectors anywhere in one flat array."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from muxrec.errors import RecipeError
from muxrec.spec.hashing import hash_ids, probe_seed, reduce_to_rows
from muxrec.tables.methods.robe import RandomBlocks


def flat_vectors(array: Tensor, name: str, ids: np.ndarray, block: int, width: int) -> Tensor:
    """The definition: every number by its own place in the flat array."""
    flat, columns = array.flatten(), []
    for number in range(width):
        piece, offset = divmod(number, block)
        hashes = hash_ids(ids, probe_seed(name, piece))
        places = (reduce_to_rows(hashes, flat.numel()) + offset) % flat.numel()
        sign = torch.from_numpy(1 - 2 * (hashes & 1)).float()
        columns.append(flat[torch.from_numpy(places)] * sign)
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize(("rows", "block"), [(31, 4), (7, 3), (1, 5), (2, 8), (50, 1), (3, 16)])
def test_a_vector_is_read_number_by_number_from_the_flat_array(
    planted, all_vectors, rows: int, block: int
) -> None:
    given = planted("robe", {"block": block}, rows=rows)
    tables = given.build()
    array = tables.local_tables()["t"].weight
    expected = flat_vectors(array, "f0", given.vocabularies["f0"].ids(), block, 8)
    assert torch.equal(all_vectors(tables, given), expected)


def test_pieces_begin_at_every_number_and_wrap_around_the_end(planted) -> None:
    lowered = RandomBlocks().lower(planted("robe", {"block": 4}, rows=5).declared())
    module, ids = lowered.combines["f0"], torch.arange(4_000)
    # The array's numbers are their places, so a vector names the places that it was read from.
    array = torch.arange(20.0).view(5, 4)
    rows = [array[read.address(ids, None, 5)] for read in lowered.reads]
    found = module(torch.cat(rows, dim=1), ids, None).abs().long().view(-1, 2, 4)
    assert set(found[:, 0, 0].tolist()) == set(range(20))
    assert torch.equal(found, (found[:, :, :1] + torch.arange(4)) % 20)


def test_signs_are_even_and_independent_of_the_place(planted) -> None:
    lowered = RandomBlocks().lower(planted("robe", {"block": 8}, rows=1).declared())
    ids = torch.arange(20_000)
    signs = lowered.combines["f0"](torch.ones(20_000, 16), ids, None)[:, 0]
    # 20,000 signs: a mean of 0 +- 0.0071.
    assert signs.mean().abs() < 5 * 0.0071
    shift = reduce_to_rows(hash_ids(ids.numpy(), probe_seed("f0", 0)), 8)
    for place in range(8):
        assert signs[torch.from_numpy(shift == place)].mean().abs() < 5 * 0.02


def test_every_number_of_the_budget_is_a_parameter_and_nothing_else_is(planted) -> None:
    lowered = RandomBlocks().lower(
        planted("robe", {"block": 4}, rows=37, sizes=(240, 9)).declared()
    )
    assert [(table.rows, table.width) for table in lowered.tables] == [(37, 4)]
    modules = [*lowered.combines.values(), *(read.address for read in lowered.reads)]
    assert not [tensor for each in modules for tensor in each.state_dict().values()]
    assert not [tensor for each in modules for tensor in each.buffers()]


def test_a_block_is_the_length_of_a_piece_and_not_their_number(planted) -> None:
    """Published code calls the number of pieces Z, the paper the length of one."""
    lowered = RandomBlocks().lower(planted("robe", {"block": 2}, rows=37).declared())
    assert len(lowered.reads) == 2 * 4


def test_a_gradient_reaches_exactly_the_numbers_that_were_read(planted) -> None:
    given = planted("robe", {"block": 3}, rows=29)
    tables = given.build()
    bags, _ = given.batch(0, size=1)
    tables(bags)["f0"].sum().backward()
    gradient = tables.table_groups()[0].weight.grad.to_dense().flatten()
    probe = torch.zeros(29, 3).flatten()
    for number in range(8):
        piece, offset = divmod(number, 3)
        hashes = hash_ids(bags["f0"].ids.numpy(), probe_seed("f0", piece))
        place = (int(reduce_to_rows(hashes, 87)[0]) + offset) % 87
        probe[place] += float(1 - 2 * (hashes[0] & 1))
    assert torch.equal(gradient, probe)


def test_an_array_beyond_the_range_of_the_hash_is_refused(planted) -> None:
    given = planted("robe", {"block": 4096}, rows=2**20)
    with pytest.raises(RecipeError, match=r"fewer than 2\*\*31: lower rows or budget"):
        RandomBlocks().lower(given.declared())


def test_it_learns(planted, train_planted) -> None:
    trained = train_planted(planted("robe", {"block": 4}, rows=120))
    assert trained.error < 0.9 * trained.first_error

"""``narrow``: few numbers per id and one projection per feature."""

from __future__ import annotations

import torch

from muxrec.tables.methods.narrow import Narrow
from muxrec.tables.methods.projection import Projection


def test_an_id_keeps_dim_numbers_and_the_feature_one_map(planted) -> None:
    lowered = Narrow().lower(planted("narrow", {"dim": 3}, sizes=(240, 90)).declared())
    assert [(table.rows, table.width) for table in lowered.tables] == [(240, 3), (90, 3)]
    assert [module.weight.shape for module in lowered.combines.values()] == [(8, 3)] * 2


def test_it_learns(planted, train_planted) -> None:
    trained = train_planted(planted("narrow", {"dim": 4}))
    assert trained.error < 0.5 * trained.first_error


def test_a_feature_too_small_to_gain_keeps_its_full_table(planted) -> None:
    lowered = Narrow().lower(planted("narrow", {"dim": 4}, sizes=(240, 8, 2, 1, 0)).declared())
    assert [table.width for table in lowered.tables] == [4, 8, 8, 8, 8]
    assert list(lowered.combines) == ["f0"]
    assert {"f0", "f1", "f2", "f3", "f4"} == set(lowered.known)


def test_dim_of_the_whole_width_or_more_is_the_full_table(planted) -> None:
    for dim in (8, 50):
        lowered = Narrow().lower(planted("narrow", {"dim": dim}).declared())
        assert [(table.rows, table.width) for table in lowered.tables] == [(240, 8)]
        assert not lowered.combines


def test_vectors_start_with_the_variance_of_the_declared_rows() -> None:
    rows = torch.rand(100_000, 4, generator=torch.Generator().manual_seed(0)) * 0.1 - 0.05
    vectors = Projection(4, 16, torch.Generator().manual_seed(1))(rows)
    # 100,000 vectors: the mean square is known to about half a percent.
    torch.testing.assert_close(vectors.square().mean(), rows.square().mean(), rtol=0.02, atol=0)


def test_the_first_map_follows_seed_and_name_and_no_global_generator(planted) -> None:
    def first(sizes: tuple[int, ...], name: str) -> torch.Tensor:
        declared = planted("narrow", {"dim": 3}, sizes=sizes).declared()
        return Narrow().lower(declared).combines[name].state_dict()["weight"]

    torch.manual_seed(1)
    alone = first((240,), "f0")
    state = torch.get_rng_state()
    torch.manual_seed(2)
    both = first((240, 90), "f0")
    assert torch.equal(alone, both)
    assert not torch.equal(alone, first((240, 90), "f1"))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())

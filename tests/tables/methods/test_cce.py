"""``cce``: clusters replace hashes, and the published defects stay away."""

from __future__ import annotations

import pytest
import torch

from muxrec.tables.initial import initial_rows
from muxrec.tables.memory import serving_of
from muxrec.tables.methods.cce import Cce
from muxrec.tables.methods.clustering import k_means, largest_divisor, means_of, nearest
from muxrec.tables.methods.protocol import Declared, Lowered
from muxrec.tables.staging import check_epochs

ROWS = 40


def options(rounds: int, columns: int = 2) -> dict[str, float]:
    return {"columns": columns, "rounds": rounds}


def first_rows(declared: Declared) -> dict[str, torch.Tensor]:
    return {table.name: initial_rows(table, 0) for table in Cce().lower(declared).tables}


def after(declared: Declared, rows: dict[str, torch.Tensor]) -> tuple[Lowered, dict]:
    left = Cce().advance(declared, rows, {}, lambda: 0.0)
    later = Declared(
        declared.table, declared.readers, declared.vocabularies, declared.stage + 1, left.carried
    )
    return Cce().lower(later), dict(left.values)


def read_all(declared: Declared, lowered: Lowered, rows) -> torch.Tensor:
    ids = torch.from_numpy(declared.known(declared.readers[0]).ids())
    found = [
        rows[r.table][r.address(ids, torch.arange(len(ids)), len(rows[r.table]))]
        for r in lowered.reads
    ]
    return lowered.combines["f0"](torch.cat(found, dim=1))


def test_clusters_learn_what_hashes_cannot(engine, planted, train_planted) -> None:
    hashed = train_planted(planted("cce", options(0), ROWS), engine, epochs=4)
    clustered = train_planted(planted("cce", options(3), ROWS), engine, epochs=4)
    assert clustered.error < 0.85 * hashed.error < hashed.first_error


def test_stages_are_the_clusterings_and_one_more(planted) -> None:
    for rounds in (0, 1, 5):
        stages = Cce().stages_of(planted("cce", options(rounds), ROWS).table)
        assert len(stages) == rounds + 1
        assert sum(stage.share for stage in stages) == pytest.approx(1)


def test_a_training_with_fewer_epochs_than_parts_is_refused(planted) -> None:
    tables = planted("cce", options(3), ROWS).build()
    with pytest.raises(Exception, match="part 1, part 2, part 3, settle"):
        check_epochs(tables.lowering, 3)


def test_clusters_stand_for_the_vectors_as_they_were(planted) -> None:
    declared = planted("cce", options(1), ROWS).declared()
    lowered = Cce().lower(declared)
    rows = first_rows(declared)
    # Twenty vectors per column and table: with the rest at 0 there are twenty different pieces.
    rows["t.f0.rest"].zero_()
    before = read_all(declared, lowered, rows)
    later, values = after(declared, rows)
    # k-means may leave a few of the twenty groups together.
    error = (read_all(declared, later, values) - before).square().mean()
    assert error < 0.15 * before.square().mean()


def test_the_second_hash_is_drawn_once_per_clustering(planted) -> None:
    declared = planted("cce", options(2), ROWS).declared()
    rows = first_rows(declared)
    lowered = [Cce().lower(declared)]
    for _ in range(2):
        later, rows = after(declared, rows)
        carried = Cce().advance(declared, first_rows(declared), {}, lambda: 0.0).carried
        declared = Declared(
            declared.table, declared.readers, declared.vocabularies, declared.stage + 1, carried
        )
        lowered.append(later)
    hashes = [
        [r.address.fingerprint for r in each.reads if r.table == "t.f0.rest"] for each in lowered
    ]
    assert len({fingerprint for each in hashes for fingerprint in each}) == 6
    again = Cce().lower(declared)
    assert hashes[-1] == [r.address.fingerprint for r in again.reads if r.table == "t.f0.rest"]


def test_empty_clusters_are_never_nan(planted) -> None:
    declared = planted("cce", options(1), ROWS).declared()
    rows = {name: torch.full_like(own, 0.5) for name, own in first_rows(declared).items()}
    later, values = after(declared, rows)
    assert all(own.isfinite().all() for own in values.values())
    torch.testing.assert_close(read_all(declared, later, values), torch.ones(240, 8))


def test_pointers_are_counted_and_hashes_take_nothing(planted, train_planted) -> None:
    run = train_planted(planted("cce", options(1), ROWS), epochs=2, steps=2)
    found = serving_of(run.frozen)
    assert (found.rows, found.maps, found.combine) == (ROWS * 8 * 4, 240 * 2, 0)
    shape = Cce().served_shape(run.planted.declared(stage=1))
    assert shape.tables == run.frozen.lowered[0].tables
    bare = train_planted(planted("cce", options(0), ROWS), epochs=1, steps=2)
    assert serving_of(bare.frozen).maps == 0


def test_k_means_finds_planted_clusters_and_uses_every_centroid() -> None:
    generator = torch.Generator().manual_seed(0)
    centers = 10 * torch.randn(7, 3, generator=generator)
    points = centers.repeat(30, 1) + 0.1 * torch.randn(210, 3, generator=generator)
    found = k_means(points, 12, generator=generator)
    home = nearest(points, found)
    assert len(home.unique()) == 12
    assert (points - found[home]).norm(dim=1).max() < 1


def test_more_centroids_than_points_are_finite() -> None:
    points = torch.randn(3, 2)
    found = k_means(points, 8, generator=torch.Generator().manual_seed(0))
    assert found.isfinite().all()
    torch.testing.assert_close(found[nearest(points, found)], points)


def test_a_centroid_without_points_stays_where_it_is() -> None:
    found = means_of(torch.ones(2, 2), torch.tensor([1, 1]), torch.full((3, 2), 7.0))
    assert found.tolist() == [[7, 7], [1, 1], [7, 7]]


def test_columns_are_lowered_to_a_divisor_of_the_width() -> None:
    assert [largest_divisor(12, most) for most in (1, 2, 5, 7, 12, 99)] == [1, 2, 4, 6, 12, 12]

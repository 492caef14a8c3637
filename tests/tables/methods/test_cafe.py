"""``cafe``: rows of their own for the ids that gradients need most, found while training."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.bags import Bags, bags_from_lists
from muxrec.tables.build import build_tables, tables_of
from muxrec.tables.convert import read_state, write_state
from muxrec.tables.hash_torch import hash_rows
from muxrec.tables.memory import serving_of
from muxrec.tables.methods.cafe import Rounds
from muxrec.tables.methods.gradient_norms import OwnOrShared
from muxrec.tables.methods.hot_keys import COLD, FREE, SLOTS, HotKeys
from muxrec.tables.staging import TablesAccess, after_step, freeze, whole_rows

IDS, WIDTH, EPOCH = 2000, 8, 1000


def build(method: str = "cafe", engine: str = "reference", *, rows: int = 240, **options: Any):
    tables = build_tables(
        (FeatureSpec("f", "bag", ("f",), "attributes", "t"),),
        (TableSpec("t", method, WIDTH, rows, options=options),),  # type: ignore[arg-type]
        vocabularies={},
        engine=engine,  # type: ignore[arg-type]
        lr=0.1,
    )
    return cast(Any, tables)


def keys_of(tables: Any) -> HotKeys:
    (module,) = (m for m in tables.vectors.maps if isinstance(m, OwnOrShared))
    return module.keys


def owners(tables: Any) -> set[int]:
    return set(keys_of(tables).owned()[0].tolist())


def zipf(seed: int, size: int, *, shift: int = 0) -> Tensor:
    """Ids of which the n-th is seen about 1 / n as often as the first."""
    odds = 1 / torch.arange(1, IDS + 1).double() ** 1.25
    drawn = torch.multinomial(odds, size, True, generator=torch.Generator().manual_seed(seed))
    # Not ascending: neighbours in frequency are no neighbours in the ids.
    return ((drawn + shift) % IDS) * 7919


def targets(ids: Tensor) -> Tensor:
    planted = torch.randn(IDS, WIDTH, generator=torch.Generator().manual_seed(3))
    return planted[(ids // 7919) % IDS]


def bags_of(ids: Tensor, each: int) -> Bags:
    return Bags(ids, torch.arange(0, len(ids) + 1, each))


def loss_of(tables: Any, ids: Tensor, each: int = 1) -> Tensor:
    wanted = targets(ids).view(-1, each, WIDTH).mean(dim=1)
    return (tables({"f": bags_of(ids, each)})["f"] - wanted).square().mean()


def train(tables: Any, steps: range, *, each: int = 1, shift: int = 0, size: int = 128) -> None:
    tables.train()
    optimizer = tables.table_optimizer()
    for step in steps:
        loss_of(tables, zipf(step, size, shift=shift), each).backward()
        optimizer.step()
        after_step(tables, step=step, epoch=0, epochs=1, part=step / EPOCH)


@torch.no_grad()
def error(tables: Any) -> float:
    return float(loss_of(tables.eval(), zipf(10**6, 5000)))


def served(tables: Any) -> tuple[Any, int]:
    frozen = freeze(tables, whole_rows(tables))
    return tables_of(frozen, engine="reference").eval(), serving_of(frozen).limited


def test_it_beats_plain_hashing_of_the_same_bytes(engine: str) -> None:
    cafe = build(engine=engine, every=20)
    train(cafe, range(500))
    found, size = served(cafe)
    rows = -(-size // (4 * WIDTH))
    hashed = build("hashed", engine, rows=rows)
    train(hashed, range(500))
    assert served(hashed)[1] >= size
    # Measured: 0.77 of it; with the true frequencies known beforehand it would be 0.69.
    assert error(found) < 0.85 * error(hashed)


def test_the_owners_are_the_most_frequent_ids(engine: str) -> None:
    tables = build(engine=engine, every=20)
    train(tables, range(200))
    frequent = set((torch.arange(40) * 7919).tolist())
    assert len(frequent & owners(tables)) >= 32
    assert len(owners(tables)) > 100


def test_engines_choose_the_same_owners() -> None:
    one, other = build(engine="reference", every=10), build(engine="auto", every=10)
    for tables in (one, other):
        train(tables, range(60))
    assert torch.equal(keys_of(one).places, keys_of(other).places)
    assert torch.equal(keys_of(one).keys, keys_of(other).keys)


def test_drifted_popularity_evicts_stale_ids() -> None:
    tables = build(every=5, decay=0.7)
    train(tables, range(150))
    before = owners(tables)
    train(tables, range(150, 400), shift=IDS // 2)
    after = owners(tables)
    early = set((torch.arange(30) * 7919).tolist())
    late = set(((torch.arange(30) + IDS // 2) * 7919).tolist())
    assert len(early & before) >= 24
    assert len(late & after) >= 24
    assert len(early & after) <= 6


def test_an_id_that_is_admitted_keeps_its_vector_at_that_moment(engine: str) -> None:
    tables = build(engine=engine, every=10)
    train(tables, range(19))
    optimizer, ids = tables.table_optimizer(), torch.arange(IDS) * 7919
    loss_of(tables, zipf(19, 128)).backward()
    optimizer.step()
    first, access = owners(tables), TablesAccess(tables)
    before = access.read_ids("f", ids)
    after_step(tables, step=19, epoch=0, epochs=1, part=0.1)
    came = torch.tensor(sorted(owners(tables) - first))
    assert len(came)
    after = access.read_ids("f", ids)
    left = torch.tensor(sorted(first - owners(tables)), dtype=torch.int64)
    stays = ~torch.isin(ids, left)
    assert torch.equal(after[stays], before[stays])
    rows = keys_of(tables)(came)
    _, _, momentum = access.local("t.f.hot")
    assert momentum[rows].eq(0).all()


def test_an_admitted_id_no_longer_moves_with_its_neighbours() -> None:
    tables = build(every=10)
    train(tables, range(50))
    hot = min(owners(tables))
    alone = TablesAccess(tables).read_ids("f", torch.tensor([hot]))
    others = torch.arange(IDS) * 7919
    loss_of(tables, others[others != hot]).backward()
    tables.table_optimizer().step()
    assert torch.equal(TablesAccess(tables).read_ids("f", torch.tensor([hot])), alone)


def test_unseen_ids_are_answered_in_training_and_served(engine: str) -> None:
    tables = build(engine=engine, every=10)
    train(tables, range(30))
    ids = {"f": bags_from_lists([[10**15], [-1], [2**63 - 1], [-(2**63)], []])}
    trained = tables.eval()(ids)["f"]
    assert trained[:4].ne(0).any(dim=1).all()
    assert trained[4].eq(0).all()
    assert torch.equal(served(tables)[0](ids)["f"], trained)


def test_bags_of_several_ids_are_read_and_scored(engine: str) -> None:
    tables = build(engine=engine, every=20)
    train(tables, range(200), each=4)
    assert len(set((torch.arange(30) * 7919).tolist()) & owners(tables)) >= 24
    ids = zipf(77, 40)
    found = tables.eval()({"f": bags_of(ids, 4)})["f"]
    single = tables({"f": bags_of(ids, 1)})["f"]
    # Four additions in another order.
    torch.testing.assert_close(found, single.view(10, 4, WIDTH).mean(dim=1), rtol=0, atol=1e-6)


def test_a_resumed_training_goes_on_bit_for_bit(engine: str, tmp_path) -> None:
    whole, half = build(engine=engine, every=10), build(engine=engine, every=10)
    train(whole, range(60))
    train(half, range(35))
    write_state(half.export_state(), tmp_path)
    maps = {name: value.clone() for name, value in half.vectors.state_dict().items()}
    resumed = build(engine=engine, every=10)
    resumed.load_table_state(read_state(tmp_path))
    resumed.vectors.load_state_dict(maps)
    train(resumed, range(35, 60))
    for name, rows in whole.local_tables().items():
        assert torch.equal(resumed.local_tables()[name].weight, rows.weight)
        assert torch.equal(resumed.local_tables()[name].momentum, rows.momentum)
    for name, value in whole.vectors.state_dict().items():
        assert torch.equal(resumed.vectors.state_dict()[name], value), name
    assert len(owners(whole)) > 50


def test_served_are_the_owned_rows_a_list_of_their_owners_and_the_hashed_rows() -> None:
    tables = build(every=10, threshold=60.0)
    train(tables, range(60))
    count = len(owners(tables))
    assert 5 < count < 120
    frozen = freeze(tables, whole_rows(tables))
    found = serving_of(frozen)
    words = build_vocabulary("f", np.array(sorted(owners(tables))))
    assert (found.rows, found.maps) == ((count + 120) * WIDTH * 4, words.lookup_bytes)
    assert found.combine == 0
    ids = {"f": bags_of(torch.arange(IDS) * 7919, 5)}
    answered = tables_of(frozen, engine="reference").eval()(ids)["f"]
    # Own and hashed rows of a bag are added in another order.
    torch.testing.assert_close(answered, tables.eval()(ids)["f"], rtol=0, atol=1e-6)


def test_the_served_graph_finds_owned_and_hashed_rows(export_lookup, tmp_path) -> None:
    tables = build(every=10)
    train(tables, range(60))
    ids = torch.cat([torch.arange(28) * 7919, torch.tensor([10**15, -(2**63)])]).view(6, 5)
    mask = torch.ones(6, 5)
    mask[0, 1:], mask[1] = 0, 0
    model, _ = served(tables)
    # Five additions in another order.
    found = export_lookup(model, "f", ids, mask, tmp_path)
    torch.testing.assert_close(found, model.lookup_padded("f", ids, mask), rtol=0, atol=1e-6)
    assert found[1].eq(0).all()


def test_without_hot_rows_it_is_plain_hashing() -> None:
    for tables in (build(hot=0.0), build(rows=1)):
        train(tables, range(3))
        assert set(tables.local_tables()) == {"t.f.cold"}
        assert served(tables)[1] == whole_rows(tables)["t.f.cold"].nbytes


def test_before_any_id_is_admitted_the_served_form_is_plain_hashing() -> None:
    tables = build(every=1000)
    train(tables, range(3))
    ids = {"f": bags_from_lists([[1], [7919, 2]])}
    model, size = served(tables)
    assert torch.equal(model(ids)["f"], tables.eval()(ids)["f"])
    assert size == 120 * WIDTH * 4


class SlowSketch:
    """The same rules for one id at a time."""

    def __init__(self, keys: HotKeys, bucket_of: dict[int, int]) -> None:
        self.slots: list[dict[int, list[float]]] = [{} for _ in range(keys.rows)]
        self.bucket_of = bucket_of

    def add(self, key: int, score: float) -> None:
        bucket = self.slots[self.bucket_of[key]]
        if key in bucket:
            bucket[key][0] += score
        elif len(bucket) < SLOTS:
            bucket[key] = [score, 0.0]
        else:
            weakest = min(bucket, key=lambda other: bucket[other][0])
            taken = bucket.pop(weakest)[0]
            bucket[key] = [taken + score, taken]


def test_scores_are_those_of_space_saving() -> None:
    keys, ids = HotKeys(3, seed=9), torch.arange(40)
    buckets = hash_rows(ids, 9, 3).tolist()
    slow = SlowSketch(keys, dict(zip(ids.tolist(), buckets, strict=True)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        drawn = torch.randint(40, (1,), generator=generator)
        # Distinct sums, so that no two scores are the same.
        score = 1 + torch.rand(1, generator=generator)
        keys.add(drawn, score)
        slow.add(int(drawn), float(score))
    for bucket, wanted in enumerate(slow.slots):
        found = {int(k): at for at, k in enumerate(keys.keys[bucket])}
        assert found.keys() == wanted.keys()
        for key, (score, taken) in wanted.items():
            assert float(keys.scores[bucket, found[key]]) == pytest.approx(score, rel=1e-5)
            assert float(keys.errors[bucket, found[key]]) == pytest.approx(taken, rel=1e-5)


def test_an_id_that_came_once_is_not_taken_for_a_frequent_one() -> None:
    keys = HotKeys(1, seed=0)
    for _ in range(50):
        keys.add(torch.arange(SLOTS), torch.full((SLOTS,), 10.0))
    keys.add(torch.tensor([99]), torch.tensor([1.0]))
    assert (keys.keys == 99).any()
    assert float(keys.scores[keys.keys == 99]) > 500
    admitted = keys.candidates(threshold=2.0)
    assert len(admitted.ids) == 1
    assert int(admitted.ids) != 99


def test_hot_ids_are_never_overwritten_and_leave_when_they_fade() -> None:
    keys = HotKeys(1, seed=0)
    keys.add(torch.tensor([5]), torch.tensor([8.0]))
    keys.admit(keys.candidates(threshold=2.0))
    assert keys(torch.tensor([5, 6])).tolist() == [0, -1]
    keys.add(torch.arange(100, 130), torch.rand(30) + 100)
    assert keys(torch.tensor([5])).tolist() == [0]
    keys.fade(0.5, 2.0)
    assert keys(torch.tensor([5])).tolist() == [0]
    keys.fade(0.1, 2.0)
    assert keys(torch.tensor([5])).tolist() == [-1]


def test_a_row_changes_hands_for_a_clearly_higher_score_only() -> None:
    keys = HotKeys(1, seed=0)
    keys.add(torch.tensor([5]), torch.tensor([8.0]))
    keys.admit(keys.candidates(threshold=2.0))
    keys.add(torch.tensor([6]), torch.tensor([11.0]))
    assert not len(keys.candidates(threshold=2.0).ids)
    keys.add(torch.tensor([6]), torch.tensor([2.0]))
    admitted = keys.candidates(threshold=2.0)
    assert (admitted.ids.tolist(), admitted.rows.tolist()) == ([6], [0])
    keys.admit(admitted)
    assert keys(torch.tensor([5, 6])).tolist() == [-1, 0]


def test_the_strongest_of_one_batch_stay_in_a_bucket() -> None:
    keys = HotKeys(1, seed=0)
    keys.add(torch.arange(20), torch.arange(20).float() + 1)
    assert sorted(keys.keys.flatten().tolist()) == [16, 17, 18, 19]
    assert keys.errors.eq(0).all()
    keys.add(torch.arange(50, 70), 100 + torch.arange(20).float())
    assert int((keys.places == COLD).sum()) == SLOTS
    assert 69 in keys.keys.flatten().tolist()


def test_id_zero_is_not_found_in_free_slots() -> None:
    keys = HotKeys(4, seed=0)
    assert keys.places.eq(FREE).all()
    assert keys(torch.tensor([0, 1])).tolist() == [-1, -1]
    keys.add(torch.tensor([0]), torch.tensor([3.0]))
    assert int((keys.places == COLD).sum()) == 1


def test_scores_are_one_on_average_over_the_reads_of_a_step() -> None:
    module = OwnOrShared(HotKeys(2, seed=0), width=2)
    rows = torch.zeros(5, 4, requires_grad=True)
    ids = torch.tensor([7, 8, 7, 9, 9])
    sizes = torch.tensor([3.0, 1.0, 0.0, 1e-30, 4.0])
    (module(rows, ids, None) * torch.stack([sizes, 0 * sizes], dim=1)).sum().backward()
    found, scores = module.take_scores()
    assert found.tolist() == [7, 8, 9]
    torch.testing.assert_close(scores, torch.tensor([3.0, 1.0, 4.0]) * 5 / 8)
    assert len(module.take_scores()[0]) == 0
    with torch.no_grad():
        module(rows, ids, None)
    module.eval()(rows, ids, None).sum().backward()
    assert len(module.take_scores()[0]) == 0


def test_rounds_come_every_so_many_steps() -> None:
    tables = build(every=7)
    assert isinstance(tables.vectors.hooks[0], Rounds)
    train(tables, range(6))
    assert not owners(tables)
    train(tables, range(6, 7))
    assert owners(tables)

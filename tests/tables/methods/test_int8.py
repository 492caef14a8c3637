"""``int8`` and ``int16``: integers in training too, rounded at random, served by the same codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from muxrec.errors import TrainingError
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.bags import Bags, bags_from_lists
from muxrec.tables.build import build_tables, tables_of
from muxrec.tables.convert import read_state, write_state
from muxrec.tables.integer import IntegerTable, noise_seed
from muxrec.tables.lowering import lower
from muxrec.tables.memory import serving_of
from muxrec.tables.staging import freeze, whole_rows

IDS, WIDTH = 60, 8
BYTES = {"int8": 1, "int16": 2}
both = pytest.mark.parametrize("method", BYTES)


def build(
    method: str, engine: str = "reference", *, seed: int = 0, ids: int = IDS, **options: Any
) -> Any:
    serve = {"serve_dtype": options.pop("serve")} if "serve" in options else {}
    table = TableSpec("t", method, WIDTH, options=options, **serve)  # type: ignore[arg-type]
    return build_tables(
        (FeatureSpec("f", "bag", ("f",), "attributes", "t"),),
        (table,),
        vocabularies={"f": build_vocabulary("f", range(ids))},
        engine=engine,  # type: ignore[arg-type]
        seed=seed,
    )


def held(tables: Any) -> IntegerTable:
    modules = [m for m in tables.modules() if isinstance(m, IntegerTable)]
    assert len(modules) == 1
    return modules[0]


def batch(step: int, size: int = 32) -> dict[str, Bags]:
    generator = torch.Generator().manual_seed(step)
    lengths = torch.randint(0, 4, (size,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return {"f": Bags(torch.randint(0, IDS, (int(offsets[-1]),), generator=generator), offsets)}


def train(tables: Any, steps: range, *, lr: float = 0.05) -> list[float]:
    """Every id's vector towards a planted one."""
    planted = 0.2 * torch.rand(IDS, WIDTH, generator=torch.Generator().manual_seed(7)) - 0.1
    optimizer, losses = tables.table_optimizer(), []
    optimizer.set_lr(lr)
    for step in steps:
        bags = batch(step)
        wanted = torch.nn.functional.embedding_bag(
            bags["f"].ids, planted, bags["f"].offsets, mode="mean", include_last_offset=True
        )
        loss = (tables(bags)["f"] - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@both
def test_rounding_to_the_nearest_code_stalls_and_rounding_at_random_does_not(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A first step of Adagrad is lr times at most sqrt(8), less than half a code.
    scale, lr = 0.02, 0.0033
    learning = build(method, scale=scale)
    losses = train(learning, range(400), lr=lr)
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    monkeypatch.setattr(IntegerTable, "_noise", lambda self, moves: torch.full_like(moves, 0.5))
    stalled = build(method, scale=scale)
    before = held(stalled).codes.clone()
    train(stalled, range(400), lr=lr)
    assert torch.equal(held(stalled).codes, before)


@both
def test_it_learns_as_floats_do(method: str, engine: str) -> None:
    floats = train(build("full", engine), range(300))[-20:]
    integers = train(build(method, engine), range(300))[-20:]
    # Rounding at random adds at most a quarter of a squared step to each number's error.
    assert sum(integers) / 20 < sum(floats) / 20 + 0.002**2 / 4


@both
def test_a_move_is_right_on_average_even_for_the_largest_codes(method: str) -> None:
    table = held(build(method, ids=5000))
    table.codes.fill_(table.top - 1)
    moves = torch.full((5000, WIDTH), -0.0125)
    table._move(torch.arange(5000), moves)
    moved = (table.codes.double() - (table.top - 1)).mean()
    # 40,000 draws: the mean's standard deviation is 0.00056.
    assert abs(moved + 0.0125) < 0.0028


def test_codes_end_at_the_largest() -> None:
    table = held(build("int8"))
    table._move(torch.tensor([3, 4]), torch.tensor([[1e4], [-1e9]]).expand(2, WIDTH))
    assert table.codes[3].tolist() == [127] * WIDTH
    assert table.codes[4].tolist() == [-127] * WIDTH


@both
def test_a_resumed_training_goes_on_bit_for_bit(method: str, engine: str, tmp_path) -> None:
    whole, half = build(method, engine), build(method, engine)
    train(whole, range(30))
    train(half, range(15))
    write_state(half.export_state(), tmp_path)
    resumed = build(method, engine, seed=0)
    resumed.load_table_state(read_state(tmp_path, ranges=resumed.row_ranges()))
    train(resumed, range(15, 30))
    for name in ("codes", "momentum", "scale", "updates"):
        assert torch.equal(getattr(held(resumed), name), getattr(held(whole), name)), name
    assert held(whole).updates.tolist() == [30]
    assert held(whole).codes.dtype.itemsize == BYTES[method]


@both
def test_engines_round_alike(method: str) -> None:
    one, other = build(method, "reference"), build(method, "auto")
    assert train(one, range(20)) == train(other, range(20))
    assert torch.equal(held(one).codes, held(other).codes)


def test_every_seed_table_and_update_draws_other_numbers() -> None:
    physical = held(build("int8")).group.table
    changes = [{}, {"seed": 1}, {"seed": -1}, {"name": "u.f"}]
    drawn = {noise_seed(replace(physical, **each), update) for each in changes for update in (0, 1)}
    assert len(drawn) == 8
    one, other = build("int8", seed=1), build("int8", seed=2)
    held(other).codes.copy_(held(one).codes)
    train(one, range(3))
    train(other, range(3))
    assert not torch.equal(held(one).codes, held(other).codes)


@both
def test_served_are_the_trained_codes_and_scales_of_many_rows(method: str) -> None:
    tables = build(method)
    train(tables, range(20))
    served = held(tables).served()
    assert served.codes.data_ptr() == held(tables).codes.data_ptr()  # type: ignore[attr-defined]
    rows = torch.tensor([[0, 5], [IDS - 1, 0]])
    assert torch.equal(served(rows), held(tables).gather(rows))
    assert torch.equal(served.dense(), tables.local_tables()["t.f"].floats())
    # One scale: rows share it up to 2**20 numbers.
    assert served.served_bytes == IDS * WIDTH * BYTES[method] + 4
    frozen = freeze(tables, whole_rows(tables))
    assert serving_of(frozen).rows == served.served_bytes


@pytest.mark.parametrize("serve", ["fp32", "fp16", "int8", "int4", "int2"])
def test_a_declared_format_counts_where_it_has_fewer_bits(serve: str) -> None:
    tables = build("int8", serve=serve)
    smaller = serve in ("int4", "int2")
    assert held(tables).group.table.serve == (serve if smaller else "int8")
    assert held(tables).is_served_exactly is not smaller
    error = (held(tables).served().dense() - tables.local_tables()["t.f"].floats()).abs().max()
    assert bool(error > 0) is smaller


def test_what_is_served_is_trained_bit_for_bit_after_freezing() -> None:
    tables = build("int16", scale=0.0003)
    train(tables, range(20))
    frozen = freeze(tables, whole_rows(tables))
    served: Any = tables_of(frozen, engine="reference").eval()
    assert torch.equal(served(batch(99))["f"], tables.eval()(batch(99))["f"])
    assert held(served).codes.dtype == torch.int16


def test_two_forwards_before_an_update_add_up() -> None:
    one, two = build("int8"), build("int8")
    bags = {"f": bags_from_lists([[1, 2], [3], []])}
    loss = 2 * one(bags)["f"].square().sum()
    loss.backward()
    (two(bags)["f"].square().sum() + two(bags)["f"].square().sum()).backward()
    for tables in (one, two):
        tables.table_optimizer().step()
    assert torch.equal(held(one).codes, held(two).codes)
    assert torch.equal(held(one).momentum, held(two).momentum)


def test_a_batch_without_ids_changes_nothing() -> None:
    tables = build("int8")
    before = held(tables).codes.clone()
    found = tables({"f": bags_from_lists([[], []])})["f"]
    found.sum().backward()
    tables.table_optimizer().step()
    assert found.eq(0).all()
    assert torch.equal(held(tables).codes, before)
    assert held(tables).updates.tolist() == [0]


def test_floats_are_refused_where_integers_are_held() -> None:
    with pytest.raises(TrainingError, match=r"tables.t.f holds int8 rows .* float32"):
        build("int8").load_table_state(build("full").export_state())
    with pytest.raises(TrainingError, match=r"tables.t.f holds float32 rows .* int8"):
        build("full").load_table_state(build("int8").export_state())


@both
def test_no_step_makes_floats_of_the_tables_size(method: str, engine: str) -> None:
    rows = 100_000
    tables = build(method, engine, ids=rows)
    optimizer, bags = tables.table_optimizer(), {"f": Bags(torch.arange(32), torch.arange(33))}

    def step() -> None:
        tables(bags)["f"].sum().backward()
        optimizer.step()

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events: Any = profiler.events()
    largest = max(event.self_cpu_memory_usage for event in events)
    assert 0 < largest < rows * WIDTH / 8
    assert not list(tables.parameters())


def test_the_run_seed_reaches_the_rounding() -> None:
    lowering = lower(
        (FeatureSpec("f", "bag", ("f",), "attributes", "t"),),
        (TableSpec("t", "int8", WIDTH),),
        {"f": build_vocabulary("f", range(5))},
        seed=11,
    )
    assert lowering.groups[0].table.seed == 11

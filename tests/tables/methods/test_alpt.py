"""``alpt``: bytes that stand for numbers by a step size that every row learns."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.alpt import AlptTable, rounding_slope
from muxrec.tables.bags import Bags
from muxrec.tables.build import build_tables, tables_of
from muxrec.tables.convert import read_state, write_state
from muxrec.tables.memory import serving_of, training_of
from muxrec.tables.staging import freeze, whole_rows

IDS, WIDTH = 60, 8


def build(
    method: str = "alpt", engine: str = "reference", *, width: int = WIDTH, **options: float
) -> Any:
    tables = build_tables(
        (FeatureSpec("f", "id", ("f",), "id", "t"),),
        (TableSpec("t", method, width, options=options),),  # type: ignore[arg-type]
        vocabularies={"f": build_vocabulary("f", range(IDS))},
        engine=engine,  # type: ignore[arg-type]
    )
    return cast(Any, tables)


def held(tables: Any) -> AlptTable:
    (table,) = (m for m in tables.modules() if isinstance(m, AlptTable))
    return table


def planted(size: float) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return size * (2 * torch.rand(IDS, WIDTH, generator=generator) - 1)


def train(tables: Any, steps: range, *, size: float = 0.1, batch: int = 32) -> list[float]:
    optimizer, losses = tables.table_optimizer(), []
    optimizer.set_lr(0.05)
    for step in steps:
        ids = torch.randint(IDS, (batch,), generator=torch.Generator().manual_seed(step))
        found = tables({"f": Bags(ids, torch.arange(batch + 1))})["f"]
        loss = (found - planted(size)[ids]).square().sum(dim=1).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_the_slope_of_rounding_is_the_derivative_by_the_step_size() -> None:
    numbers = torch.tensor([0.3, -2.6, 126.9, 500.0, -500.0], dtype=torch.float64)
    step, top = torch.tensor(0.01, dtype=torch.float64, requires_grad=True), 127

    def rounded(weight: Tensor) -> Tensor:
        scaled = (weight / step).clamp(-top, top)
        # The straight-through estimator: rounding is the identity for gradients.
        return (scaled + (scaled.round() - scaled).detach()) * step

    for number in numbers:
        (wanted,) = torch.autograd.grad(rounded(number * 0.01), step)
        torch.testing.assert_close(rounding_slope(number, top), wanted, rtol=1e-9, atol=1e-9)


def test_a_step_size_takes_one_step_of_descent_with_the_scaled_gradient() -> None:
    tables = build(scale=0.002, scale_lr=0.01)
    table, ids = held(tables), torch.tensor([4, 4, 9])
    codes, momentum = table.codes.clone().float(), torch.zeros(IDS)
    weights = torch.rand(3, WIDTH, generator=torch.Generator().manual_seed(1))
    (tables({"f": Bags(ids, torch.arange(4))})["f"] * weights).sum().backward()
    tables.table_optimizer().step()
    gradient = {4: weights[0] + weights[1], 9: weights[2]}
    for row in range(IDS):
        if row not in gradient:
            assert table.scale[row] == pytest.approx(0.002)
            assert torch.equal(table.codes[row].float(), codes[row])
            continue
        momentum[row] = gradient[row].square().mean()
        steps = -0.05 * gradient[row] / momentum[row].sqrt()
        slope = (gradient[row] * rounding_slope(codes[row] + steps / 0.002, 127)).sum()
        # A batch of three items, eight numbers, 2 ** 7 - 1 codes.
        wanted = 0.002 - 0.01 * slope / (3 * WIDTH * 127) ** 0.5
        assert float(table.scale[row]) == pytest.approx(
            min(max(float(wanted), 0.001), 0.004), rel=1e-4
        )


def test_a_row_keeps_its_numbers_when_its_step_size_changes() -> None:
    table = held(build())
    rows, old = torch.arange(IDS), table._scale_of(torch.arange(IDS))
    before, draws = table.gather(rows), torch.zeros(IDS, WIDTH)
    codes = table.codes.clone()
    new = 1.7 * old
    for draw in range(400):
        table.codes.copy_(codes)
        table.updates.fill_(draw)
        table._move(rows, codes * (old - new) / new)
        draws += table.codes * new
    # A number's draws lie within one step of 0.0034: the mean's deviation is at most 0.000085.
    torch.testing.assert_close(draws / 400, before, rtol=0, atol=0.0005)


def test_it_shrinks_steps_that_are_too_coarse(engine: str) -> None:
    tables = build(engine=engine, scale=0.05, scale_lr=1.0)
    learned = train(tables, range(1500), batch=4)
    fixed = train(build("int8", engine, scale=0.05), range(1500), batch=4)
    assert sum(learned[-100:]) < 0.65 * sum(fixed[-100:])
    assert float(held(tables).scale.median()) < 0.04


def test_it_widens_steps_whose_codes_do_not_reach() -> None:
    tables = build(scale=0.0005, scale_lr=1e-2)
    learned = train(tables, range(600), size=0.5)
    fixed = train(build("int8", scale=0.0005), range(600), size=0.5)
    assert sum(learned[-50:]) < 0.3 * sum(fixed[-50:])
    assert float(held(tables).scale.median()) > 0.002


def test_step_sizes_stay_positive_under_any_learning_rate() -> None:
    tables = build(scale_lr=1.0)
    before = held(tables).scale.clone()
    train(tables, range(1), size=100.0)
    changes = held(tables).scale / before
    assert changes.min() >= 0.5
    assert changes.max() <= 2
    train(tables, range(1, 100), size=100.0)
    assert held(tables).scale.gt(0).all()


def test_a_resumed_training_goes_on_bit_for_bit(engine: str, tmp_path) -> None:
    whole, half = build(engine=engine, scale_lr=1e-3), build(engine=engine, scale_lr=1e-3)
    train(whole, range(30))
    train(half, range(15))
    write_state(half.export_state(), tmp_path)
    resumed = build(engine=engine, scale_lr=1e-3)
    resumed.load_table_state(read_state(tmp_path))
    train(resumed, range(15, 30))
    for name in ("codes", "momentum", "scale", "updates"):
        assert torch.equal(getattr(held(resumed), name), getattr(held(whole), name)), name
    assert held(whole).scale.unique().numel() > 10


def test_served_are_the_trained_codes_and_a_step_size_per_row() -> None:
    tables = build(scale_lr=1e-3)
    train(tables, range(20))
    frozen = freeze(tables, whole_rows(tables))
    model: Any = tables_of(frozen, engine="reference")
    assert torch.equal(held(model).served().dense(), held(tables).gather(torch.arange(IDS)))
    assert serving_of(frozen).rows == IDS * (WIDTH + 4)
    assert training_of(tables.lowering).rows == IDS * (WIDTH + 4)
    bags = {"f": Bags(torch.arange(-2, IDS + 2), torch.arange(IDS + 5))}
    assert torch.equal(model.eval()(bags)["f"], tables.eval()(bags)["f"])


def test_rows_of_one_number_are_floats_since_a_step_size_would_be_larger() -> None:
    tables = build(width=1)
    assert not [m for m in tables.modules() if isinstance(m, AlptTable)]
    assert whole_rows(tables)["t.f"].shape == (IDS, 1)

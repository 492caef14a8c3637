"""What is best at a size is decided by real bytes, and said in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from muxrec.bench.compression.click_task import ClickTask
from muxrec.bench.compression.clicks import ClickData
from muxrec.bench.compression.contestants import FORMATS, Contestant, contestant
from muxrec.bench.compression.markdown import markdown_report
from muxrec.bench.compression.rates import Rate
from muxrec.bench.compression.record import Result
from muxrec.bench.compression.serving import check_format, frozen_tables, served_tables
from muxrec.bench.compression.settings import ClickSettings
from muxrec.bench.compression.summary import Frontier, summarise
from muxrec.bench.compression.sweep import Cell
from muxrec.bench.compression.train import ClickTraining
from muxrec.bench.compression.verdict import verdicts
from muxrec.errors import RecipeError
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.rows import ROW_FORMATS


def results_of(method: str, budget: float, size: int, *qualities: float) -> list[Result]:
    """One result per quality, of seeds 0, 1, ...; the dictionary takes 100 bytes more."""
    return [
        Result(
            task="t",
            data="d",
            method=method,
            budget=budget,
            seed=seed,
            metric="ndcg@10",
            quality=quality,
            validation=0.5,
            others={},
            optimizer="adagrad",
            table_lr=0.1,
            epochs=1,
            best_epoch=1,
            step_ms=1.0,
            width=4,
            parameters=1,
            training_bytes=1,
            serving_bytes=size + 100,
            dictionary_bytes=100,
            label_rule="l",
            split_rule="s",
            settings={},
        )
        for seed, quality in enumerate(qualities)
    ]


def frontier() -> Frontier:
    """int8 at a quarter is as good as full; hashing is behind; robe may be anything."""
    return summarise(
        [
            *results_of("full", 1, 1_000, 0.50, 0.52, 0.51),
            *results_of("full:int8", 1, 250, 0.50, 0.52, 0.5102),
            *results_of("hashed", 0.5, 500, 0.40, 0.42, 0.41),
            *results_of("robe", 0.45, 450, 0.10, 0.90, 0.22),
            *results_of("hashed", 0.2, 200, 0.20, 0.22, 0.21),
            *results_of("narrow", 0.2, 203, 0.10, 0.12, 0.11),
        ]
    )


def test_a_contestant_takes_part_wherever_its_real_bytes_fit() -> None:
    found = frontier()
    names = {
        budget: [(e.method, e.budget) for e in found.within(budget)] for budget in found.budgets
    }
    assert names[1.0] == [
        ("full:int8", 1),
        ("full", 1),
        ("hashed", 0.5),
        ("robe", 0.45),
        ("narrow", 0.2),
    ]
    assert names[0.5] == [("full:int8", 1), ("hashed", 0.5), ("robe", 0.45), ("narrow", 0.2)]
    # 203 of 1,000 bytes are more than 20.2 %.
    assert names[0.2] == [("hashed", 0.2)]


def test_the_best_of_every_size_is_said_with_those_that_are_level() -> None:
    whole, half, _, fifth = verdicts(frontier())
    assert whole == (
        "At 100 % of full tables (1,000 bytes) the best is full:int8: ndcg@10 0.5101 ± 0.0248 in "
        "250 bytes, 350 with the dictionary of ids; full and robe (45 %) are level with it."
    )
    assert half.startswith("At 50 % of full tables (500 bytes) the best is full:int8")
    assert half.endswith("; robe (45 %) is level with it.")
    assert fifth == (
        "At 20 % of full tables (200 bytes) the best is hashed: ndcg@10 0.2100 ± 0.0248 in "
        "200 bytes, 300 with the dictionary of ids; no other is level with it."
    )
    text = markdown_report(frontier(), {})
    assert "| 50 % | 500 | full:int8 | 0.5101 ± 0.0248 | 250 | 350 | robe (45 %) |" in text


def test_without_full_tables_the_budgets_asked_for_decide() -> None:
    found = summarise(results_of("hashed", 0.2, 900, 0.4))
    assert [entry.method for entry in found.within(0.2)] == ["hashed"]
    (said,) = verdicts(found)
    assert said == (
        "At 20 % of full tables the best is hashed: ndcg@10 0.4000 in 900 bytes, 1,000 with the "
        "dictionary of ids; one seed shows no difference clearly."
    )


def test_a_size_that_nobody_fits_is_said() -> None:
    found = summarise([*results_of("full", 1, 1_000, 0.5), *results_of("hashed", 0.1, 150, 0.4)])
    assert verdicts(found)[1] == (
        "At 10 % of full tables (100 bytes) no contestant is small enough."
    )
    assert "| 10 % |" in markdown_report(found, {})


@pytest.mark.parametrize("serve", FORMATS)
def test_names_of_contestants_are_read_back(serve: str) -> None:
    for probes in (1, 4):
        made = Contestant("unified", probes, serve)  # pyright: ignore[reportArgumentType]
        assert contestant(made.name) == made
        assert made.trained == made
    assert contestant(f"full:{serve}").trained == Contestant("full")


@pytest.mark.parametrize("name", ["full:csr", "full:int16", "full:"])
def test_an_unknown_format_is_named(name: str) -> None:
    with pytest.raises(RecipeError, match=f"--methods: .*{name!r}"):
        contestant(name)


def test_served_rows_are_the_numbers_that_the_codes_stand_for(
    planted: ClickData, settings: ClickSettings
) -> None:
    task = ClickTask(planted, settings)
    training = task._train(planted, Cell("full", 1, 0, Rate("adagrad", 0.1)), lambda *_: None)
    tables = training.model.tables
    served = served_tables(frozen_tables(tables, table="table", serve="int4"))
    trained = tables.local_tables()
    for name, rows in served.local_tables().items():
        expected = ROW_FORMATS["int4"].of(trained[name].weight.clone()).dense()
        assert torch.equal(rows.weight, expected)
        assert not torch.equal(rows.weight, trained[name].weight)


def test_click_formats_share_the_training_of_the_full_table(
    planted: ClickData, settings: ClickSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []
    run = ClickTraining.run

    def spy(self: ClickTraining, *rest: object) -> object:
        runs.append(self.model.tables.lowering.declared[0].table.serve_dtype)
        return run(self, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(ClickTraining, "run", spy)
    task, rate = ClickTask(planted, settings), Rate("adagrad", 0.1)
    found = {
        name: task.run(Cell(name, budget, 0, rate), {}, lambda *_: None)
        for name, budget in (("full", 1), ("full:int8", 1), ("unified-2:int8", 0.5))
    }
    assert runs == ["fp32", "int8"]
    whole, small = found["full"], found["full:int8"]
    assert whole.dictionary_bytes == small.dictionary_bytes
    # Rows of eight numbers: a quarter of the bytes, and a step and an offset of two bytes each.
    ids = (whole.serving_bytes - whole.dictionary_bytes) // 32
    assert small.serving_bytes - small.dictionary_bytes == 12 * ids
    assert found["unified-2:int8"].serving_bytes <= 0.5 * 32 * ids


def test_a_format_that_a_method_does_not_serve_is_refused() -> None:
    words = {"item": build_vocabulary("item", np.arange(5_000))}
    features = (FeatureSpec("item", "id", ("item",), "id", table="items"),)
    check_format(features, TableSpec("items", "full", 16, serve_dtype="int8"), words)
    pruned = TableSpec("items", "pep", 16, budget="10%", serve_dtype="int8")
    with pytest.raises(RecipeError, match="pep serves no rows as int8 here, but as csr: leave out"):
        check_format(features, pruned, words)

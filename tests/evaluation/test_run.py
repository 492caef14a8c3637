from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from muxrec.errors import DataError
from muxrec.evaluation.archive import load_study
from muxrec.evaluation.baselines import BASELINES
from muxrec.evaluation.command import compare
from muxrec.evaluation.comparison import compare_runs
from muxrec.evaluation.run import evaluate_run
from muxrec.evaluation.summary import headline, summarise


@pytest.fixture
def evaluated(measured_run):
    return measured_run[1]


def rows_of(report, part="all", truth=0):
    slices = {s["name"]: s for s in report["truths"][truth]["slices"]}
    return {row["name"]: row for row in slices[part]["rows"]}


def test_every_baseline_and_training_has_a_row_or_a_reason(evaluated):
    report = evaluated.report
    rows = set(rows_of(report))
    assert rows | set(report["unavailable"]) == {*BASELINES, "main", "ids only", "permuted_images"}
    assert set(report["unavailable"]) == {"text untrained"}
    assert any("no row: text only (seed 0)." in note for note in report["notes"])
    assert any("No row text untrained" in note for note in report["notes"])


def test_the_trained_tower_that_knows_the_board_wins_and_the_control_does_not(evaluated):
    rows = rows_of(evaluated.report)
    metric = {name: row["metrics"]["recall_at_10"]["mean"] for name, row in rows.items()}
    assert metric["main"] > 0.9
    assert metric["main"] > metric["permuted_images"] + 0.3
    assert rows["permuted_images"]["kind"] == "control"
    control = [n for n in evaluated.report["notes"] if n.startswith("Control: main minus permuted")]
    assert len(control) == 1
    assert "clear" in control[0]


def test_seeds_are_averaged_and_their_spread_is_shown(evaluated):
    rows = rows_of(evaluated.report)
    assert rows["main"]["seeds"] == [0, 1]
    assert rows["main"]["metrics"]["mrr"]["sd"] is not None
    assert rows["ids only"]["metrics"]["mrr"]["sd"] is None


def test_relations_are_a_second_ground_truth(evaluated):
    truths = {truth["name"]: truth for truth in evaluated.report["truths"]}
    assert set(truths) == {"co_engagement", "next", "warm_catalogue"}
    assert [part["name"] for part in truths["warm_catalogue"]["slices"]] == ["all"]
    assert truths["next"]["unknown"] == 24


def test_matryoshka_widths_are_measured_rising_to_the_full_width(evaluated):
    widths = evaluated.report["widths"]
    assert [entry["width"] for entry in widths] == [2, 4, 8]
    # Two numbers tell the sides apart and nothing else: of the 11 equal neighbours the one that is
    # not relevant counts as first, so 9 of 10 are found.
    assert widths[0]["metrics"]["recall_at_10"]["mean"] == pytest.approx(0.9)
    full = rows_of(evaluated.report)["main"]["metrics"]["recall_at_10"]["mean"]
    assert widths[-1]["metrics"]["recall_at_10"]["mean"] == pytest.approx(full)


def test_the_files_say_the_same(evaluated):
    report = json.loads((evaluated.folder / "metrics.json").read_text())
    assert report == json.loads(json.dumps(evaluated.report))
    recall = rows_of(report)["main"]["metrics"]["recall_at_5"]
    line = next(
        text
        for text in (evaluated.folder / "results.md").read_text().splitlines()
        if text.startswith("| **main** |")
    )
    assert f"{100 * recall['mean']:.1f} ±" in line
    assert f"[{100 * recall['low']:.1f}, {100 * recall['high']:.1f}]" in line
    assert headline(report)["recall_at_5"] == recall["mean"]
    assert "coverage_at_10" in headline(report)


def test_an_evaluation_needs_no_torch():
    code = "import sys, muxrec.evaluation.command; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_saved_study_gives_the_same_numbers_again(measured_run):
    run, evaluated = measured_run
    study = load_study(evaluated.folder / "queries.npz")
    again = summarise(study, resamples=run.recipe.evaluation.bootstrap)
    assert again["truths"] == evaluated.report["truths"]
    assert again["exposure"] == evaluated.report["exposure"]


def test_baselines_are_measured_once_per_dataset(measured_run, monkeypatch):
    run, evaluated = measured_run

    def forbidden(view):
        raise AssertionError("measured again")

    measured = {name for name in BASELINES if name not in evaluated.report["unavailable"]}
    for name in measured:
        monkeypatch.setitem(BASELINES, name, forbidden)
    again = evaluate_run(run.recipe, run.runs)
    assert again.report["truths"] == evaluated.report["truths"]


def test_a_damaged_cache_entry_is_measured_again(evaluated, tiny_run):
    evaluate_run(tiny_run.recipe, tiny_run.runs)
    for path in (tiny_run.output / "cache" / "evaluation").glob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    again = evaluate_run(tiny_run.recipe, tiny_run.runs)
    assert again.report["truths"] == evaluated.report["truths"]


def test_validation_goes_to_its_own_folder_and_says_so(tiny_run):
    found = evaluate_run(tiny_run.recipe, tiny_run.runs, split="validation")
    assert found.folder == tiny_run.output / "report" / "validation"
    assert "never as a result" in found.report["notes"][0]


def test_without_a_trained_main_there_is_no_report(tiny_run):
    shutil.rmtree(tiny_run.output / "train" / "main")
    with pytest.raises(
        DataError, match="no main tower of this recipe: run `muxrec train RECIPE` first"
    ):
        evaluate_run(tiny_run.recipe, tiny_run.runs)


def test_a_training_that_was_cut_short_is_not_evaluated(tiny_run):
    (tiny_run.runs[2].folder / "done.json").unlink()
    report = evaluate_run(tiny_run.recipe, tiny_run.runs).report
    assert "ids only" not in rows_of(report)
    assert any("no row: ids only (seed 0), text only" in note for note in report["notes"])


def test_vectors_of_a_changed_recipe_have_no_row(tiny_run):
    given = {}
    for run in tiny_run.runs[:4]:
        given[run.name] = json.loads((run.folder / "done.json").read_text()) | {"recipe_hash": "x"}
        (run.folder / "done.json").write_text(json.dumps(given[run.name]))
    planned = [replace(run, identity=given.get(run.name)) for run in tiny_run.runs]
    assert "ids only" in rows_of(evaluate_run(tiny_run.recipe, planned).report)
    changed = {name: done | {"recipe_hash": "y"} for name, done in given.items()}
    planned[2] = replace(planned[2], identity=changed["ids only"])
    report = evaluate_run(tiny_run.recipe, planned).report
    assert "ids only" not in rows_of(report)
    assert any("Not trained with this recipe, no row: ids only" in n for n in report["notes"])
    planned = [replace(run, identity=changed.get(run.name)) for run in planned]
    with pytest.raises(DataError, match="no main tower of this recipe"):
        evaluate_run(tiny_run.recipe, planned)


def test_a_dataset_of_another_data_section_is_told(evaluated, tiny_run):
    assert not any("another `data` section" in note for note in evaluated.report["notes"])
    pairs = replace(tiny_run.recipe.data.pairs, min_count=2)
    changed = replace(tiny_run.recipe, data=replace(tiny_run.recipe.data, pairs=pairs))
    report = evaluate_run(changed, tiny_run.runs).report
    assert any("another `data` section" in note for note in report["notes"])


def test_vectors_of_another_dataset_are_refused(tiny_run):
    (tiny_run.runs[2].folder / "done.json").write_text(json.dumps({"dataset": "cd" * 32}))
    with pytest.raises(
        DataError, match=r"was trained on dataset cdcdcdcdcdcd.*train ids only again"
    ):
        evaluate_run(tiny_run.recipe, tiny_run.runs)


def test_damaged_vectors_are_named(tiny_run):
    path = tiny_run.runs[0].folder / "vectors.npy"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"vectors\.npy is damaged"):
        evaluate_run(tiny_run.recipe, tiny_run.runs)


def test_a_run_compared_with_itself_does_not_differ(measured_run):
    run, evaluated = measured_run
    first, second = compare_runs([run.output, evaluated.folder], part="warm", resamples=50)
    assert first.levels == second.levels
    assert not first.gaps
    assert all(gap.mean == 0 and not gap.is_clear for gap in second.gaps.values())


def test_compare_prints_the_paired_difference_of_two_runs(measured_run, tmp_path):
    run, _ = measured_run
    other = tmp_path / "other"
    shutil.copytree(run.output, other)
    for seed in (0, 1):
        blind = np.random.default_rng(seed).normal(size=(24, 8)).astype(np.float32)
        np.save(other / "train" / "main" / f"seed={seed}" / "vectors.npy", blind)
    runs = [replace(r, folder=other / r.folder.relative_to(run.output)) for r in run.runs]
    evaluate_run(replace(run.recipe, output=str(other)), runs)
    found = CliRunner().invoke(compare, [str(run.output), str(other)])
    assert found.exit_code == 0, found.output
    gap = next(line for line in found.output.splitlines() if "minus the first" in line)
    assert gap.split()[3].startswith("-")
    assert "*" in gap


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row": "nobody"}, "no row nobody in the report, there is: random, popularity"),
        ({"part": "blue"}, "no slice blue"),
        ({"truth": "none"}, "no ground truth none"),
    ],
)
def test_compare_names_what_is_there(measured_run, options, message):
    run, _ = measured_run
    with pytest.raises(DataError, match=message):
        compare_runs([run.output, run.output], **options)


def test_runs_on_other_answers_are_not_paired(evaluated, tiny_run):
    fewer = replace(tiny_run.recipe, evaluation=replace(tiny_run.recipe.evaluation, max_relevant=2))
    evaluate_run(fewer, tiny_run.runs)
    with pytest.raises(DataError, match="measured on other queries or answers"):
        compare_runs([evaluated.folder, tiny_run.output])


def test_a_missing_or_damaged_archive_is_named(evaluated, tmp_path):
    with pytest.raises(DataError, match=r"queries\.npz does not exist"):
        compare_runs([tmp_path, tmp_path])
    path = tmp_path / "queries.npz"
    path.write_bytes((evaluated.folder / "queries.npz").read_bytes()[:200])
    with pytest.raises(DataError, match=r"queries\.npz is damaged"):
        load_study(path)

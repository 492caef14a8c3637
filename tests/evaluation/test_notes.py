from __future__ import annotations

from dataclasses import replace

import pytest

from muxrec.evaluation.notes import notes_on


def gap(mean, low, high):
    clear = low > 0 or high < 0
    return {"recall_at_5": {"mean": mean, "low": low, "high": high, "clear": clear}}


def report(differences, kinds):
    rows = [{"name": name, "kind": kind} for name, kind in kinds.items()]
    found = [{"name": name, "metrics": metrics} for name, metrics in differences.items()]
    part = {"name": "all", "title": "All queries", "differences": found, "rows": rows}
    truth = {"name": "co_engagement", "unknown": 0, "slices": [part]}
    return {"split": "test", "ks": [5], "truths": [truth], "unavailable": {}}


def test_losses_come_first_and_are_never_left_out(recipe):
    differences = {
        "TF-IDF": gap(-0.031, -0.05, -0.01),
        "popularity": gap(0.2, 0.1, 0.3),
        "cosine": gap(0.01, -0.01, 0.02),
    }
    kinds = dict.fromkeys(differences, "baseline")
    notes = notes_on(report(differences, kinds), recipe, missing={})
    expected = "main is behind TF-IDF (-3.1); ahead of popularity; level with cosine."
    assert notes[1] == f"All queries, recall@5 in points: {expected}"


def test_the_image_gain_is_read_from_the_row_without_pictures_and_from_the_control(recipe):
    ablations = {"no image": ("text", "id"), "text only": ("text",)}
    changed = replace(recipe, evaluation=replace(recipe.evaluation, ablations=ablations))
    differences = {
        "no image": gap(0.012, 0.004, 0.02),
        "text only": gap(0.1, 0.05, 0.15),
        "permuted_images": gap(0.001, -0.01, 0.01),
    }
    kinds = {"no image": "trained", "text only": "trained", "permuted_images": "control"}
    said = notes_on(report(differences, kinds), changed, missing={})
    gain = [note for note in said if note.startswith("Image gain")]
    assert gain == [
        "Image gain: main minus no image is +1.2 points of recall@5 (interval +0.4 to +2.0: clear)."
    ]
    control = next(note for note in said if note.startswith("Control"))
    assert "main minus permuted_images is +0.1 points" in control
    assert "not told from zero" in control


def test_a_slice_without_numbers_is_not_judged(recipe):
    none = {"recall_at_5": {"mean": None, "low": None, "high": None, "clear": False}}
    kinds = {"cosine": "baseline", "permuted_images": "control"}
    notes = notes_on(report(dict.fromkeys(kinds, none), kinds), recipe, missing={})
    assert len(notes) == 1


@pytest.mark.parametrize("missing", [{}, {"ids only": [0, 1]}])
def test_what_is_not_trained_is_named_with_its_seeds(recipe, missing):
    notes = notes_on(report({}, {}), recipe, missing=missing)
    said = [note for note in notes if note.startswith("Not trained with this recipe")]
    line = "Not trained with this recipe, no row: ids only (seed 0, 1)."
    assert said == ([f"{line} `muxrec train RECIPE` trains them."] if missing else [])

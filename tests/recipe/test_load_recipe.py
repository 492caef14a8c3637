"""Recipes from YAML: what is read, what is refused, and how each fault is blamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from muxrec.errors import RecipeError
from muxrec.recipe.load import dump_recipe, load_recipe, output_folder, recipe_hash

Writer = Callable[[str], Path]


def faults_of(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return [line.removeprefix(f"{path.parent}/") for line in str(caught.value).splitlines()]


def test_a_sound_recipe_has_typed_values_and_defaults(sound: str, write_recipe: Writer) -> None:
    recipe = load_recipe(write_recipe(sound))
    assert recipe.features[0].columns == ("item_id",)
    assert recipe.tables[1].rows == 64
    assert recipe.train.epochs == 8
    assert output_folder(recipe) == Path("runs/small")


def test_five_faults_are_told_at_once_with_their_lines(sound: str, write_recipe: Writer) -> None:
    text = sound.replace("split:", "splitt:").replace("kind: id", "kind: idd")
    text = text.replace("width: 4", "width: wide").replace("rows: 64", "rows: 64.5")
    kinds = "'id', 'bag', 'tokens', 'number', 'vector', 'text' or 'image'"
    assert faults_of(write_recipe(text + "train: {lr: fast}\n")) == [
        "recipe.yaml:4: data.splitt: unknown key; did you mean split?",
        f'recipe.yaml:7: features.0.kind: expected {kinds}, got "idd"; did you mean id?',
        'recipe.yaml:16: tables.1.width: expected a valid integer, got "wide"',
        "recipe.yaml:17: tables.1.rows: expected a valid integer, got 64.5",
        'recipe.yaml:18: train.lr: expected a valid number, got "fast"',
    ]


def test_a_missing_key_is_blamed_on_its_section(sound: str, write_recipe: Writer) -> None:
    text = sound.replace("    modality: id\n", "")
    assert faults_of(write_recipe(text)) == [
        "recipe.yaml:6: features.0.modality: is required and was not given"
    ]


def test_a_key_that_stands_twice_is_a_fault(sound: str, write_recipe: Writer) -> None:
    lines = faults_of(write_recipe(sound + "name: again\n"))
    assert lines == ["recipe.yaml:18: name: stands twice, first on line 1"]


def test_faults_of_the_feature_spec_carry_their_line(sound: str, write_recipe: Writer) -> None:
    text = sound.replace("rows: 64", "rows: -5").replace("table: items", "table: item")
    assert faults_of(write_recipe(text)) == [
        "recipe.yaml:17: tables.1.rows: must be in [1, 2**31) for a unified table, got -5",
        "recipe.yaml:10: features.0.table: item is not a declared table (known: items, shared)",
        "recipe.yaml:12: tables: items is read by no feature: remove it or use it",
    ]


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("data.split.train=0.95", "data.split: train + validation must leave a test slice"),
        ("data.split.train=1.5", "data.split.train: expected above 0 and below 1, got 1.5"),
        ("tower.matryoshka=[32, 16]", "tower.matryoshka: expected rising positive numbers"),
        ("tower.matryoshka=[64]", "all below tower.width 64"),
        ("evaluation.ks=[]", "evaluation.ks: expected at least one number"),
        ("tower.modalities=[image]", "that a feature declares (id, text), got ['image']"),
        ("evaluation.ablations={pictures: [image]}", "evaluation.ablations.pictures: expected"),
        ("train.lr=0", "train.lr: expected a number above 0, got 0"),
        ("train.lr=.inf", "train.lr: expected a finite number"),
        ("train.epochs=true", "train.epochs: expected a valid integer, got true"),
        ("name=a b", "name: expected letters, digits, - and _, got 'a b'"),
        ("data.source.kind=generic", "a generic source needs interactions"),
        ("features.0.columns=[a, b]", "features.0.columns: a id feature reads one column"),
        ("features.1.probes=0", "features.1.probes: must be positive, got 0"),
        ("features=[]", "features: expected at least one feature, got none"),
    ],
)
def test_an_override_is_checked_and_blamed_as_such(
    sound: str, write_recipe: Writer, override: str, what: str
) -> None:
    blamed = [line for line in faults_of(write_recipe(sound), override) if what in line]
    assert len(blamed) == 1
    assert blamed[0].startswith(
        (f"--set {override}: ", "recipe.yaml:4: data.split:", "recipe.yaml:3")
    )


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("train.lr", "expected KEY=VALUE such as train.lr=3e-4"),
        ("features.7.probes=2", "features has entries 0 to 1, there is no 7"),
        ("features.words.probes=2", "features has entries 0 to 1, there is no words"),
        ("name.first=a", "name is a single value, first cannot be set below it"),
        ("tower.matryoshka=[1", "not valid YAML: expected ',' or ']'"),
    ],
)
def test_an_override_that_leads_nowhere_is_told(
    sound: str, write_recipe: Writer, override: str, what: str
) -> None:
    assert [what in line for line in faults_of(write_recipe(sound), override)] == [True]


def test_overrides_reach_lists_and_absent_sections(sound: str, write_recipe: Writer) -> None:
    recipe = load_recipe(
        write_recipe(sound), ["features.1.probes=3", "train.lr=3e-4", "train.epochs=2", "output=o"]
    )
    assert recipe.features[1].probes == 3
    assert (recipe.train.lr, recipe.train.epochs) == (3e-4, 2)
    assert output_folder(recipe) == Path("o")


def test_scalars_follow_yaml_1_2(sound: str, write_recipe: Writer) -> None:
    text = sound.replace("name: small", "name: no").replace("path: raw", "path: 2018-09-24")
    recipe = load_recipe(write_recipe(text + "train: {lr: 2e-3, weight_decay: 1}\n"))
    assert (recipe.name, recipe.data.source.path) == ("no", "2018-09-24")
    assert (recipe.train.lr, recipe.train.weight_decay) == (0.002, 1.0)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "recipe.yaml:1: expected a mapping with name, data, features, got NoneType"),
        ("- a\n", "recipe.yaml:1: expected a mapping with name, data, features, got list"),
        ("name: [a\n", "recipe.yaml:2: not valid YAML: expected ',' or ']'"),
        ("a: &x 1\nb: *x\n", "recipe.yaml:2: not valid YAML: aliases are refused"),
        ("a: !!python/name:os.system\n", "recipe.yaml:1: not valid YAML: could not determine"),
        ("name: \x07\n", "recipe.yaml:1: not valid YAML: unacceptable character"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(write_recipe: Writer, text: str, what: str) -> None:
    (line,) = faults_of(write_recipe(text))
    assert line.startswith(what)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert faults_of(tmp_path / "no.yaml") == [
        "no.yaml: cannot be read as a recipe: No such file or directory"
    ]


def test_the_hash_depends_on_what_decides_a_result_only(sound: str, write_recipe: Writer) -> None:
    path = write_recipe(sound)
    plain, moved = load_recipe(path), load_recipe(path, ["output=elsewhere", "tracking.model=m"])
    spelled_out = write_recipe(dump_recipe(plain))
    changed = load_recipe(path, ["train.lr=1e-3"])
    assert recipe_hash(plain) == recipe_hash(moved) == recipe_hash(load_recipe(spelled_out))
    assert recipe_hash(changed) != recipe_hash(plain)
    assert recipe_hash(changed, "data", "features") == recipe_hash(plain, "data", "features")


def test_a_generic_source_may_have_no_catalogue(sound: str, write_recipe: Writer) -> None:
    source = "{kind: generic, interactions: {path: log.parquet}}"
    path = write_recipe(sound.replace("{kind: movielens, path: raw}", source))
    assert load_recipe(path).data.source.items is None
    told = faults_of(path, "data.source.path=x")
    assert told == [
        "--set data.source.path=x: data.source.path: a generic source has no path: remove it"
    ]


def test_every_fault_of_a_divergence_is_told_at_once(sound: str, write_recipe: Writer) -> None:
    options = "{margin: -1, learn_bias: 0.5, biass: 2}"
    text = sound + "objective:\n  divergence: sigmoid\n"
    told = faults_of(write_recipe(f"{text}  divergence_options: {options}\n  logq: 2\n"))
    at = "recipe.yaml:20: objective.divergence_options"
    assert told == [
        "recipe.yaml:21: objective.logq: expected between 0 and 1, got 2.0",
        f"{at}.margin: sigmoid has no such option (known: bias, learn_bias)",
        f"{at}.learn_bias: expected an integer from 0 to 1 (whether the bias is trained), got 0.5",
        f"{at}.biass: sigmoid has no such option (known: bias, learn_bias), did you mean bias",
    ]


def test_an_unknown_divergence_is_told_with_the_known_ones(
    sound: str, write_recipe: Writer
) -> None:
    path = write_recipe(sound + "objective:\n  divergence: sigmoyd\n")
    known = "'cross_entropy', 'sigmoid', 'similarity_distribution', 'triplet' or 'angular_margin'"
    (told,) = faults_of(path)
    blamed = f'recipe.yaml:19: objective.divergence: expected {known}, got "sigmoyd"'
    assert told == f"{blamed}; did you mean sigmoid?"


def test_logq_is_refused_where_scores_are_plain_cosines(sound: str, write_recipe: Writer) -> None:
    text = sound + "objective:\n  divergence: triplet\n  logq: 0.5\n"
    (told,) = faults_of(write_recipe(text))
    assert told.startswith("recipe.yaml:20: objective.logq: triplet compares plain cosines")
    sound_one = load_recipe(
        write_recipe(text.replace("logq: 0.5", "divergence_options: {margin: 1}"))
    )
    assert sound_one.objective.all_divergence_options() == {"margin": 1.0}

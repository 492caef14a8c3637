"""YAML -> Recipe -> YAML is the identity, for every recipe that can be loaded."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from muxrec.recipe.divergences import DIVERGENCE_SPECS
from muxrec.recipe.load import dump_recipe, load_recipe
from muxrec.recipe.model import (
    Data,
    Evaluation,
    Objective,
    Recipe,
    Source,
    TableFile,
    Tower,
    Tracking,
    Train,
)
from muxrec.spec.features import FeatureSpec, TableSpec

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1)
AWKWARD = st.sampled_from(
    ["no", "1e3", "007", "~", "", "${X}", "$${", "a: b", "- x", "#", " ", "\n"]
)
WORD = TEXT | AWKWARD
RATE = st.floats(1e-300, 1e300)


@st.composite
def objectives(draw: st.DrawFn) -> Objective:
    name = draw(st.sampled_from(list(DIVERGENCE_SPECS)))
    known = DIVERGENCE_SPECS[name].options.items()
    given = {
        option: draw(st.floats(limits.low, limits.high))
        for option, limits in known
        if not limits.is_whole and draw(st.booleans())
    }
    return Objective(
        divergence=name, divergence_options=given, learn_temperature=draw(st.booleans())
    )


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    table_file = st.builds(
        TableFile,
        path=WORD,
        format=st.sampled_from(["parquet", "csv", "jsonl"]),
        separator=st.sampled_from(["\t", ",", "::", "|"]),
        columns=st.dictionaries(WORD, WORD, max_size=3),
    )
    source = Source("generic", interactions=draw(table_file), items=draw(table_file))
    names = draw(st.lists(WORD, min_size=1, max_size=4, unique=True))
    features = tuple(
        FeatureSpec(
            name, "tokens", (draw(WORD),), "text", table="t", probes=draw(st.integers(1, 9))
        )
        for name in names
    )
    ablations = draw(st.dictionaries(WORD, st.just(("text",)), max_size=3))
    return Recipe(
        name=draw(st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True)),
        data=Data(source, lookback_days=draw(st.none() | st.integers(1, 10**6))),
        features=features,
        tables=(TableSpec("t", "unified", 4, rows=draw(st.integers(1, 2**31 - 1))),),
        output=draw(st.none() | WORD),
        tower=Tower(width=32, matryoshka=draw(st.sampled_from([(), (8,), (4, 16)]))),
        objective=draw(objectives()),
        train=Train(lr=draw(RATE), table_lr=draw(RATE)),
        evaluation=Evaluation(ablations=ablations),
        tracking=Tracking(uri=draw(st.none() | WORD)),
    )


@settings(max_examples=150, deadline=None)
@given(recipes())
def test_a_dumped_recipe_loads_as_an_equal_one(recipe: Recipe) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(dump_recipe(recipe), encoding="utf-8")
        assert load_recipe(path) == recipe


def test_every_key_of_the_types_is_written(tmp_path: Path) -> None:
    feature = FeatureSpec("w", "tokens", ("title",), "text", table="t")
    table = TableSpec("t", "unified", 4, rows=8)
    recipe = Recipe("r", Data(Source("movielens", path="x")), (feature,), (table,))
    text = dump_recipe(recipe)
    for kind in (Recipe, Data, Source, Tower, Objective, Train, Evaluation, FeatureSpec, TableSpec):
        assert [f.name for f in dataclasses.fields(kind) if f"{f.name}:" not in text] == []

"""From a trained run to a published bundle."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from muxrec.bundle.write import BundleParts, write_bundle
from muxrec.data.snapshot import Snapshot
from muxrec.errors import DataError
from muxrec.evaluation.facts import git_commit
from muxrec.evaluation.summary import headline
from muxrec.export.choose import choose_variant, validation_of
from muxrec.export.parity import Parity
from muxrec.export.pictures import picture_files
from muxrec.export.served import ServedTower, export_and_prove
from muxrec.features.prepare import Prepared, prepare_items
from muxrec.log import event
from muxrec.recipe.load import output_folder, recipe_hash
from muxrec.recipe.model import Recipe
from muxrec.tracking import run_id_of
from muxrec.training.encode import load_model
from muxrec.training.study import Variant

FIXED_COLUMNS = ("item_id", "item_key", "is_cold", "train_events")

log = logging.getLogger("muxrec.export")


@dataclass(frozen=True)
class Exported:
    """A published bundle and the proof that came with it.

    Attributes:
        folder: The bundle.
        seed: Number of the exported repetition.
        validation: Its validation metric, or None.
        parity: Graph against torch.
        quantisation: Served tables against fp32 ones, or None where every format is exact.
    """

    folder: Path
    seed: int
    validation: float | None
    parity: Parity
    quantisation: Parity | None


def export_run(recipe: Recipe, *, seed: int | None = None) -> Exported:
    """Export the main tower of a trained run.

    Args:
        recipe: The run's recipe.
        seed: Repetition to export; None for the best by its validation metric.

    Raises:
        TrainingError: It is not trained.
        BundleError: The graph differs from torch by more than ``recipe.export`` allows, or the disk
            is full; nothing was published then.
        DataError: A display, filter or image column is not in the catalogue.
    """
    output = output_folder(recipe)
    snapshot = Snapshot.open(output / "dataset")
    _check_columns(recipe, snapshot.items())
    prepared = prepare_items(recipe, snapshot, cache=output / "cache")
    variant = choose_variant(recipe, prepared, snapshot.digest, seed=seed)
    model = load_model(variant.folder, variant.recipe, prepared)
    validation = validation_of(variant)
    with tempfile.TemporaryDirectory() as scratch:
        served = export_and_prove(model, prepared.arrays, Path(scratch), limits=recipe.export)
        metrics = {
            **_report_metrics(recipe, snapshot.digest),
            **({} if validation is None else {"validation": validation}),
            **served.metrics,
        }
        parts = replace(
            _parts(recipe, prepared, served),
            metrics=metrics,
            lineage=_lineage(variant, snapshot),
            data_digest=snapshot.digest,
        )
        folder = write_bundle(output / "bundles", parts)
    return Exported(folder, variant.seed, validation, served.parity, served.quantisation)


def _lineage(variant: Variant, snapshot: Snapshot) -> dict[str, str | int | None]:
    dataset = output_folder(variant.recipe) / "dataset"
    return {
        "git_commit": git_commit(),
        "run_id": run_id_of(variant.folder),
        "seed": variant.seed,
        "dataset": snapshot.folder.relative_to(dataset).as_posix(),
    }


def _parts(recipe: Recipe, prepared: Prepared, served: ServedTower) -> BundleParts:
    features = served.features
    text = {f.name: prepared.text_encoders[f.name] for f in features if f.kind == "text"}
    encoders = {name: prepared.encoder.text_encoders[name] for name in text}
    return BundleParts(
        recipe=recipe,
        encoder=replace(prepared.encoder, features=features, text_encoders=encoders, cache=None),
        tower=served.path,
        items=_item_columns(recipe, prepared.table),
        arrays=served.arrays,
        vectors=served.vectors,
        parts=served.parts,
        text_encoders=text,
        images=_pictures(recipe, prepared.table),
    )


def _check_columns(recipe: Recipe, table: pa.Table) -> None:
    """Refuse an unknown column before minutes are spent."""
    image = [recipe.export.image] if recipe.export.image is not None else []
    for key, wanted in {
        "display": recipe.export.display,
        "filters": recipe.export.filters,
        "image": image,
    }.items():
        if missing := [name for name in wanted if name not in table.column_names]:
            raise DataError(
                f"export.{key} names {', '.join(missing)}, which the catalogue does not have "
                f"(it has: {', '.join(table.column_names)})"
            )


def _item_columns(recipe: Recipe, table: pa.Table) -> pa.Table:
    wanted = dict.fromkeys([*FIXED_COLUMNS, *recipe.export.display, *recipe.export.filters])
    return table.select(list(wanted)).combine_chunks()


def _pictures(recipe: Recipe, table: pa.Table) -> Iterator[bytes | None] | None:
    column = recipe.export.image
    if column is None:
        return None
    return picture_files(table.column(column).to_pylist())


def _report_metrics(recipe: Recipe, dataset: str) -> dict[str, float]:
    """The main row of the run's report; empty where there is none of this recipe and dataset."""
    path = output_folder(recipe) / "report" / "metrics.json"
    if not path.is_file():
        log.warning(event("no_report", path=path, advice="run muxrec eval before muxrec export"))
        return {}
    report = json.loads(path.read_text(encoding="utf-8"))
    found = (report.get("dataset"), report.get("facts", {}).get("recipe hash"))
    if found != (dataset, recipe_hash(recipe)):
        log.warning(event("report_of_another_run", path=path, advice="run muxrec eval again"))
        return {}
    return headline(report)

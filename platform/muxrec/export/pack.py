"""From a trained run to a published bundle."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from muxrec.bundle import format as names
from muxrec.bundle.tower import TowerSession
from muxrec.bundle.write import BundleParts, write_bundle
from muxrec.data.snapshot import Snapshot
from muxrec.errors import DataError, TrainingError
from muxrec.evaluation.facts import git_commit
from muxrec.evaluation.summary import headline
from muxrec.export.onnx_graph import export_onnx
from muxrec.export.parity import Parity, max_error, prove_parity, same_top
from muxrec.export.pictures import picture_files
from muxrec.export.quantise import served_model
from muxrec.features.prepare import Prepared, prepare_items
from muxrec.log import event
from muxrec.model import ItemModel
from muxrec.recipe.load import output_folder, recipe_hash
from muxrec.recipe.model import Recipe
from muxrec.tracking import run_id_of
from muxrec.training.build import arrays_of
from muxrec.training.done import is_done, read_done
from muxrec.training.encode import encode_catalogue, load_model
from muxrec.training.job import Job
from muxrec.training.study import MAIN, Variant, variants

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
        quantisation: int8 tables against fp32 ones, or None where no table is int8.
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
    variant = _choose(recipe, prepared, snapshot.digest, seed)
    model = load_model(variant.folder, variant.recipe, prepared)
    done = read_done(variant.folder) or {}
    with tempfile.TemporaryDirectory() as scratch:
        tower = Path(scratch) / names.TOWER
        parts, parity, quantisation = _encode(recipe, model, prepared, tower)
        metrics = {
            **_report_metrics(recipe, snapshot.digest),
            "validation": done.get("validation"),
            "parity": parity.as_metrics(),
            **({"int8": quantisation.as_metrics()} if quantisation else {}),
        }
        lineage = {
            "git_commit": git_commit(),
            "run_id": run_id_of(variant.folder),
            "seed": variant.seed,
            "dataset": snapshot.folder.relative_to(output / "dataset").as_posix(),
        }
        parts = replace(parts, metrics=metrics, lineage=lineage, data_digest=snapshot.digest)
        folder = write_bundle(output / "bundles", parts)
    return Exported(folder, variant.seed, done.get("validation"), parity, quantisation)


def _choose(recipe: Recipe, prepared: Prepared, dataset: str, seed: int | None) -> Variant:
    """The wanted repetition of ``main``, or the best one by its validation metric."""
    mains = [variant for variant in variants(recipe) if variant.name == MAIN]
    wanted = [variant for variant in mains if seed in (None, variant.seed)]
    ready = [variant for variant in wanted if _is_trained(variant, prepared, dataset)]
    if not ready:
        which = f"seed {seed}" if seed is not None else f"any of {len(mains)} seeds"
        raise TrainingError(
            f"{output_folder(recipe)}/train/{MAIN} holds no finished training of this recipe and "
            f"dataset for {which}: run `muxrec train RECIPE`"
        )
    return max(ready, key=lambda variant: (_validation(variant), -variant.seed))


def _is_trained(variant: Variant, prepared: Prepared, dataset: str) -> bool:
    job = Job(variant.recipe, prepared, [], variant.folder, dataset, control=variant.control)
    return is_done(variant.folder, job.identity)


def _validation(variant: Variant) -> float:
    found = (read_done(variant.folder) or {}).get("validation")
    return float("-inf") if found is None else float(found)


def _encode(
    recipe: Recipe, model: ItemModel, prepared: Prepared, path: Path
) -> tuple[BundleParts, Parity, Parity | None]:
    """Export, prove, and encode the catalogue with the graph that will be served."""
    features = model.tower.features
    arrays = arrays_of(prepared.arrays, features)
    served = served_model(model)
    export_onnx(model, arrays, path, opset=recipe.export.opset)
    tower = TowerSession(path, features=features)
    parity, vectors, parts = prove_parity(served, tower, arrays, limits=recipe.export)
    log.info(event("parity", error=parity.max_abs_error, same_top10=parity.same_top10))
    quantisation = None
    if served is not model:
        exact = encode_catalogue(model, arrays)
        error = max_error(exact, (vectors, parts))
        quantisation = Parity(len(arrays), error, same_top(exact[0], vectors, k=10))
    text = {f.name: prepared.text_encoders[f.name] for f in features if f.kind == "text"}
    encoders = {name: prepared.encoder.text_encoders[name] for name in text}
    bundle = BundleParts(
        recipe=recipe,
        encoder=replace(prepared.encoder, features=features, text_encoders=encoders, cache=None),
        tower=path,
        items=_item_columns(recipe, prepared.table),
        arrays=arrays,
        vectors=vectors,
        parts=parts,
        data_digest="",
        text_encoders=text,
        images=_pictures(recipe, prepared.table),
    )
    return bundle, parity, quantisation


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


def _pictures(recipe: Recipe, table: pa.Table) -> Any:
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

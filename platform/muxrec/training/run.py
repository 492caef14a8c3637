"""Train one variant and leave its vectors; skip it where that was done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muxrec.data.snapshot import Snapshot
from muxrec.evaluation.relevance import CO_ENGAGEMENT, build_relevance
from muxrec.features.prepare import Prepared
from muxrec.tables.staging import freezes
from muxrec.training.checkpoint import checkpoint_folder, open_checkpoint
from muxrec.training.done import DONE, is_done, read_done, write_done
from muxrec.training.encode import Vectors, encode_catalogue, served_form
from muxrec.training.history import read_history
from muxrec.training.job import Job
from muxrec.training.loop import Trained, fit
from muxrec.training.ranks import Ranks
from muxrec.training.study import Variant, prepared_for
from muxrec.training.validation import Validation

VECTORS, PARTS = "vectors.npy", "parts.npy"


@dataclass(frozen=True)
class Outcome:
    """What became of one variant.

    Attributes:
        done: Content of ``done.json``.
        is_new: Whether it was trained now.
    """

    done: dict[str, Any]
    is_new: bool


def job_for(variant: Variant, snapshot: Snapshot, prepared: Prepared, *, ranks: Ranks) -> Job:
    """The job of a variant; validation is left out where its period has no queries."""
    mine = prepared_for(variant, prepared)
    truths = build_relevance(snapshot, prepared.table, split="validation", recipe=variant.recipe)
    queries = truths[CO_ENGAGEMENT]
    ks = variant.recipe.evaluation.ks
    return Job(
        recipe=variant.recipe,
        prepared=mine,
        pair_files=snapshot.pair_files("train"),
        folder=variant.folder,
        dataset=snapshot.digest,
        control=variant.control,
        validation=Validation(mine.arrays, queries, ks) if len(queries) else None,
        ranks=ranks,
    )


def earlier_outcome(job: Job) -> Outcome | None:
    """The outcome of this very training where it was done before, else None."""
    folder = job.folder
    has_vectors = all((folder / name).is_file() for name in (VECTORS, PARTS))
    if not job.ranks.from_first(has_vectors and is_done(folder, job.identity)):
        return None
    return Outcome(read_done(folder) or {}, is_new=False)


def train_variant(variant: Variant, job: Job, *, resume: bool = True) -> Outcome:
    """Train a variant to the end and write its vectors, and ``done.json`` last.

    Args:
        variant: The variant.
        job: Its job.
        resume: Go on from its checkpoints; False trains from the start.
    """
    ranks, folder = job.ranks, job.folder
    if ranks.is_first:
        (folder / DONE).unlink(missing_ok=True)
    started = time.perf_counter()
    trained = fit(job, resume=resume)
    vectors, parts = _vectors(trained, job)
    done = _describe(variant, job, trained, seconds=time.perf_counter() - started)
    done["items_without_modality"] = int((~vectors.any(axis=1)).sum())
    if ranks.is_first:
        _save_array(folder / VECTORS, vectors)
        _save_array(folder / PARTS, parts)
        write_done(folder, done)
    ranks.barrier()
    return Outcome(done, is_new=True)


def _vectors(trained: Trained, job: Job) -> tuple[Vectors, Vectors]:
    """The catalogue's vectors, by the tables as they will be served."""
    model = trained.session.model
    if freezes(trained.session.tables.lowering):
        final = open_checkpoint(checkpoint_folder(job.folder, trained.checkpoint))
        model = served_form(final, job.recipe, job.prepared)
    return encode_catalogue(model, job.prepared.arrays)


def _describe(variant: Variant, job: Job, trained: Trained, *, seconds: float) -> dict[str, Any]:
    losses = _last_losses(read_history(job.folder)) if job.ranks.is_first else []
    tower = trained.session.model.tower
    return {
        **job.identity,
        "variant": variant.name,
        "seed": variant.seed,
        "checkpoint_steps": trained.checkpoint,
        "steps": trained.progress.steps,
        "loss": float(np.mean(losses)) if losses else None,
        "validation": trained.progress.best,
        "validation_metric": job.validation.metric if job.validation else None,
        "widths": list(trained.session.objective.widths),
        "modalities": list(tower.modalities),
        "seconds": seconds,
    }


def _last_losses(history: Sequence[dict[str, Any]], count: int = 20) -> list[float]:
    return [record["loss"] for record in history if "loss" in record][-count:]


def _save_array(path: Path, array: npt.NDArray[np.float32]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
    temporary.replace(path)

"""The stages of the tables' training inside the one training loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import cast

import torch

from muxrec.log import event
from muxrec.losses.objective import ContrastiveObjective
from muxrec.model import ItemModel
from muxrec.tables.build import Tables
from muxrec.tables.convert import read_places, read_state
from muxrec.tables.staging import (
    advance,
    keep_maps,
    method_of,
    physical_names,
    places_of,
    restarts,
)
from muxrec.tables.state import TableState
from muxrec.training.build import build_item_tables, build_model
from muxrec.training.checkpoint import Checkpoint
from muxrec.training.job import Job
from muxrec.training.session import TABLES_FOLDER, Session, dense_module, dense_optimizer

log = logging.getLogger("muxrec.training")


def enter_stages(
    session: Session, due: Mapping[str, int], checkpoint: Checkpoint, job: Job
) -> Session:
    """The session with the tables in their next stages.

    What a stage leaves is made from the whole rows in the checkpoint that ended it, so it is the
    same on every rank and after every restart.

    Args:
        session: The session at the end of the stages before.
        due: Table name -> number of the stage that begins.
        checkpoint: The checkpoint that was written just now.
        job: The training.
    """
    old, folder = session.tables, checkpoint.folder / TABLES_FOLDER
    names = physical_names(old.lowering, due)
    rows = {name: found.floats() for name, found in read_state(folder, names=names).tables.items()}
    places = advance(old, due, rows=rows, evaluate=_evaluation(session, job))
    _log_stages(old, due)
    device = next(session.model.tower.parameters()).device
    if restarts(old.lowering, due):
        model = build_model(
            job.recipe, job.prepared, engine=job.recipe.train.engine, device=device, places=places
        )
        return renewed(session, model, session.objective.fresh(), job, is_fresh=True)
    built = build_item_tables(
        job.recipe,
        job.prepared,
        engine=job.recipe.train.engine,
        device=device,
        places=places,
    )
    tables = cast(Tables, built)
    kept = {name for name in tables.row_ranges() if name not in names}
    ranges = {name: span for name, span in tables.row_ranges().items() if name in kept}
    put_rows(tables, read_state(folder, ranges=ranges, names=kept))
    keep_maps(tables, old)
    return renewed(session, ItemModel(built, session.model.tower), session.objective, job)


def at_places(session: Session, checkpoint: Checkpoint, job: Job) -> Session:
    """The session with its tables where a checkpoint has them, to be filled from it."""
    places, now = read_places(checkpoint.folder), places_of(session.tables.lowering)
    if {n: p.stage for n, p in places.items()} == {n: p.stage for n, p in now.items()}:
        return session
    tables = build_item_tables(
        job.recipe,
        job.prepared,
        engine=job.recipe.train.engine,
        device=next(session.model.tower.parameters()).device,
        places=places,
    )
    return renewed(session, ItemModel(tables, session.model.tower), session.objective, job)


def renewed(
    session: Session,
    model: ItemModel,
    objective: ContrastiveObjective,
    job: Job,
    *,
    is_fresh: bool = False,
) -> Session:
    """A session around ``model``.

    Unless it ``is_fresh``, parameters that go on keep their moments: those of the same name and
    shape, whose values ``keep_maps`` took over.
    """
    dense = dense_module(model, objective)
    architecture = cast(Tables, model.tables).vectors.architecture()
    optimizer = dense_optimizer(dense, job.recipe.train, architecture=architecture)
    before = {} if is_fresh else dict(session.dense.named_parameters())
    moments = session.optimizer.state
    for name, parameter in dense.named_parameters():
        old = before.get(name)
        if old is not None and old.shape == parameter.shape and old in moments:
            optimizer.state[parameter] = moments[old]
    model.train(session.model.training)
    return Session(model, objective, optimizer, session.ranks, session.identity)


@torch.no_grad()
def put_rows(tables: Tables, state: TableState) -> None:
    """Write the rows of ``state`` over those of the same names and ranges."""
    for name, held in tables.local_tables().items():
        if name in state.tables and held.stop > held.start:
            held.take(state.tables[name])


def _evaluation(session: Session, job: Job) -> Callable[[], float]:
    """Validation of the model as it is now, or 0 where the data has no validation period."""
    validation = job.validation
    if validation is None:
        return lambda: 0.0
    return lambda: validation(session.model)[validation.metric]


def _log_stages(tables: Tables, due: Mapping[str, int]) -> None:
    for declared in tables.lowering.declared:
        name = declared.table.name
        if name in due:
            stage = method_of(declared).stages_of(declared.table)[due[name]].name
            log.info(event("stage", table=name, method=declared.table.method, begins=stage))

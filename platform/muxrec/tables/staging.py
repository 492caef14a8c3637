"""Where the training of each table is, and how one stage becomes the next.

A training loop asks three things: which stages begin with an epoch (:func:`stages_due`), what the
ended ones leave (:func:`advance`), and what happens after every step (:func:`after_step`,
:func:`is_search_step`). After the last epoch :func:`freeze` gives the form that is served.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from muxrec.errors import RecipeError
from muxrec.tables.bags import Bags
from muxrec.tables.features import has
from muxrec.tables.lowering import Lowering, Place, assemble
from muxrec.tables.methods import METHODS
from muxrec.tables.methods.protocol import Arrays, Declared, Evaluate, Method, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muxrec.tables.build import Tables
    from muxrec.tables.state import TableRows

SEARCH_EVERY = 5
"""In a search stage every fifth step trains the architecture on its batch, and nothing else."""
ARCHITECTURE_LR = 0.01


def first_epochs(stages: Sequence[Stage], epochs: int) -> list[int]:
    """The epoch that each stage begins with, by the stages' shares; each has one at least.

    Raises:
        ValueError: There are fewer epochs than stages.
    """
    if epochs < len(stages):
        raise ValueError(f"{len(stages)} stages need as many epochs, got {epochs}")
    starts, done = [0], 0.0
    for at, stage in enumerate(stages[:-1]):
        done += stage.share
        latest = epochs - (len(stages) - at - 1)
        starts.append(min(latest, max(starts[-1] + 1, round(done * epochs))))
    return starts


def check_epochs(lowering: Lowering, epochs: int) -> None:
    """Refuse trainings that are too short for their tables' stages.

    Raises:
        RecipeError: A method has more stages than there are epochs.
    """
    for declared in lowering.declared:
        stages = method_of(declared).stages_of(declared.table)
        if 0 < epochs < len(stages):
            names = ", ".join(stage.name for stage in stages)
            raise RecipeError(
                f"tables.{declared.table.name} is {declared.table.method} and trains in "
                f"{len(stages)} stages ({names}): train.epochs must be at least {len(stages)}, "
                f"got {epochs}"
            )


def stages_due(lowering: Lowering, *, epoch: int, epochs: int) -> dict[str, int]:
    """Tables that are to enter another stage before ``epoch``, and its number."""
    due = {}
    for declared in lowering.declared:
        starts = first_epochs(method_of(declared).stages_of(declared.table), max(1, epochs))
        stage = sum(start <= epoch for start in starts) - 1
        if stage > declared.stage:
            due[declared.table.name] = declared.stage + 1
    return due


def is_in_last_stages(lowering: Lowering) -> bool:
    """Whether no table has a stage before it; only then is the model what will be served."""
    return all(
        each.stage == len(method_of(each).stages_of(each.table)) - 1 for each in lowering.declared
    )


def stage_share(declared: Declared, *, epoch: int, epochs: int, part: float) -> float:
    """Share of the table's stage that is done after ``part`` of ``epoch``."""
    starts = [*first_epochs(method_of(declared).stages_of(declared.table), epochs), epochs]
    first, last = starts[declared.stage], starts[declared.stage + 1]
    return (epoch + part - first) / (last - first)


def advance(
    tables: Tables, due: Mapping[str, int], *, rows: Arrays, evaluate: Evaluate
) -> dict[str, Place]:
    """Where every declared table is after the stages ``due`` have begun.

    Args:
        tables: The tables at the end of the stages before; every rank calls this alike.
        due: Table name -> number of the stage that begins, of :func:`stages_due`.
        rows: Rows of these tables' physical tables, whole, float32 on the CPU.
        evaluate: Quality of the tables on data that is not trained on, higher is better.

    Returns:
        Table name -> place, for ``build_tables``.
    """
    places, combines = places_of(tables.lowering), trained_maps(tables)
    for declared in tables.lowering.declared:
        name = declared.table.name
        if name in due:
            mine = {r.name: combines[r.name] for r in declared.readers if r.name in combines}
            left = method_of(declared).advance(
                declared, _own(tables, declared, rows), mine, evaluate
            )
            places[name] = Place(due[name], left.carried, left.values)
    return places


def places_of(lowering: Lowering) -> dict[str, Place]:
    """Where every declared table is now."""
    return {each.table.name: Place(each.stage, each.carried) for each in lowering.declared}


def restarts(lowering: Lowering, due: Mapping[str, int]) -> bool:
    """Whether one of the stages that begin starts the rest of the model again."""
    return any(
        method_of(each).stages_of(each.table)[due[each.table.name]].restarts
        for each in lowering.declared
        if each.table.name in due
    )


def physical_names(lowering: Lowering, names: Sequence[str] | Mapping[str, int]) -> set[str]:
    """Physical tables of the declared tables ``names``."""
    return {
        table.name
        for declared, lowered in zip(lowering.declared, lowering.lowered, strict=True)
        if declared.table.name in names
        for table in lowered.tables
    }


@torch.no_grad()
def keep_maps(new: Tables, old: Tables) -> None:
    """Take over what the maps of two stages have in common: the same name and the same shape."""
    before = trained_maps(old)
    for name, module in trained_maps(new).items():
        known = before[name].state_dict() if name in before else {}
        for key, value in module.state_dict().items():
            if key in known and known[key].shape == value.shape:
                value.copy_(known[key])


def trained_maps(tables: Tables) -> dict[str, nn.Module]:
    """The map of each feature that has one, as it is in training."""
    combines = tables.lowering.combines
    maps = zip(tables.vectors.names, tables.vectors.maps, strict=True)
    return {name: module for name, module in maps if name in combines}


def whole_rows(tables: Tables, names: set[str] | None = None) -> dict[str, Tensor]:
    """Copies of whole physical tables held by one process, float32 on the CPU."""
    return {
        name: rows.floats().detach().cpu().float().clone()
        for name, rows in tables.local_tables().items()
        if names is None or name in names
    }


def freeze(tables: Tables, rows: Arrays) -> Lowering:
    """The served form of trained tables, with its values.

    Args:
        tables: The tables at the end of training.
        rows: All physical tables, whole, float32 on the CPU.
    """
    lowering, combines = tables.lowering, trained_maps(tables)
    lowered = tuple(
        method_of(each).freeze(
            each,
            _own(tables, each, rows),
            {r.name: copy.deepcopy(combines[r.name]) for r in each.readers if r.name in combines},
        )
        for each in lowering.declared
    )
    values = {name: value for each in lowered for name, value in each.values.items()}
    frozen = assemble(lowering.features, lowering.declared, lowered, values)
    return replace(frozen, integers=_integers(tables, frozen))


def _integers(tables: Tables, frozen: Lowering) -> dict[str, TableRows]:
    """Rows of integers that are served as trained; as floats they would be rounded again."""
    held = tables.local_tables()
    kept = (group.table for group in frozen.groups if group.table.storage != "fp32")
    return {table.name: held[table.name] for table in kept if table.name in held}


def freezes(lowering: Lowering) -> bool:
    """Whether some table is served in another form than it is trained in."""
    return any(type(method_of(each)).freeze is not Method.freeze for each in lowering.declared)


def is_search_step(lowering: Lowering, step: int) -> bool:
    """Whether step number ``step`` trains the architecture parameters and nothing else."""
    searches = any(
        method_of(each).stages_of(each.table)[each.stage].is_search for each in lowering.declared
    )
    return searches and step % SEARCH_EVERY == SEARCH_EVERY - 1


@contextmanager
def rows_kept(tables: Tables) -> Iterator[None]:
    """Backward leaves all rows as they are."""
    tables.vectors.rows_kept = True
    try:
        yield
    finally:
        tables.vectors.rows_kept = False


@torch.no_grad()
def step_architecture(tables: Tables) -> None:
    """One step of gradient descent on the architecture parameters."""
    for module in filter(lambda each: has(each, "architecture"), tables.vectors.maps):
        own = cast(Any, module)
        rate = own.architecture_lr() if has(module, "architecture_lr") else ARCHITECTURE_LR
        for parameter in own.architecture():
            if parameter.grad is not None:
                parameter.sub_(rate * parameter.grad)
                parameter.grad = None


@torch.no_grad()
def after_step(tables: Tables, *, step: int, epoch: int, epochs: int, part: float) -> None:
    """Call the methods' hooks.

    Args:
        tables: The tables, updated.
        step: Number of the step in the whole training, from 0.
        epoch: The epoch it belongs to.
        epochs: Epochs of the training.
        part: Share of the epoch that is done.
    """
    access = TablesAccess(tables)
    for declared, lowered in zip(tables.lowering.declared, tables.lowering.lowered, strict=True):
        if lowered.hook is not None:
            share = stage_share(declared, epoch=epoch, epochs=epochs, part=part)
            lowered.hook.after_step(access, step=step, share=share)


class TablesAccess:
    """What hooks may do with tables in training; see ``methods.protocol.Access``."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    @cached_property
    def _local(self) -> dict[str, TableRows]:
        """Asked for by few steps' hooks and costly on several processes, so not made before."""
        return self._tables.local_tables()

    def local(self, name: str) -> tuple[int, Tensor, Tensor]:
        """First row held here, the rows and their momentum, writable."""
        rows = self._local[name]
        return rows.start, rows.weight, rows.momentum

    def first_column(self, name: str) -> int:
        """Number of the first column held here."""
        return self._local[name].left

    def is_copy(self, name: str) -> bool:
        """Whether every process holds the same rows."""
        return self._local[name].is_replicated

    @torch.no_grad()
    def read_ids(self, feature: str, ids: Tensor) -> Tensor:
        """The vectors of single ids, float32 ``[N, width]``."""
        offsets = torch.arange(ids.numel() + 1, device=ids.device)
        nothing = Bags(ids.new_empty(0), torch.zeros_like(offsets))
        sparse = dict.fromkeys(self._tables.vectors.names, nothing)
        sparse[feature] = Bags(ids, offsets)
        was_training = self._tables.vectors.training
        self._tables.vectors.eval()
        found = self._tables(sparse)[feature]
        self._tables.vectors.train(was_training)
        return found


def method_of(declared: Declared) -> Method:
    """The declared table's method."""
    return METHODS[declared.table.method]


def _own(tables: Tables, declared: Declared, rows: Arrays) -> dict[str, Tensor]:
    names = physical_names(tables.lowering, [declared.table.name])
    return {name: value for name, value in rows.items() if name in names}

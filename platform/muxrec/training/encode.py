"""The catalogue's vectors from a trained model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from muxrec.data.batch import ItemBatch
from muxrec.errors import TrainingError
from muxrec.features.arrays import ItemArrays
from muxrec.log import event
from muxrec.losses.objective import ContrastiveObjective
from muxrec.model import ItemModel
from muxrec.recipe.model import Recipe
from muxrec.tables.budget import check_frozen
from muxrec.tables.build import Tables, tables_of
from muxrec.tables.convert import read_places
from muxrec.tables.staging import freeze, freezes, whole_rows
from muxrec.towers.matryoshka import trained_widths
from muxrec.training.build import PreparedItems, arrays_of, build_model
from muxrec.training.checkpoint import Checkpoint, checkpoint_folder, open_checkpoint
from muxrec.training.done import read_done
from muxrec.training.session import dense_module, load_weights

Vectors = npt.NDArray[np.float32]

log = logging.getLogger("muxrec.training")


@torch.no_grad()
def encode_catalogue(
    model: ItemModel, arrays: ItemArrays, batch_size: int = 1024
) -> tuple[Vectors, Vectors]:
    """Vectors of all items, dropouts off.

    Args:
        model: A model, on any device; its training mode is put back afterwards.
        arrays: Encoded items, C of them.
        batch_size: Items at a time; vectors do not depend on it beyond rounding.

    Returns:
        ``(vectors, parts)``: float32 ``[C, D]`` and ``[C, M, D]``; see ``TowerOutput``. An item
        without any modality has a vector of zeros; how many there are is logged.
    """
    was_training = model.training
    model.eval()
    device = next(model.tower.parameters()).device
    arrays = arrays_of(arrays, model.tower.features)
    width, modalities = model.tower.settings.width, len(model.tower.modalities)
    vectors = np.empty((len(arrays), width), dtype=np.float32)
    parts = np.empty((len(arrays), modalities, width), dtype=np.float32)
    empty = 0
    for start in range(0, len(arrays), batch_size):
        items = np.arange(start, min(start + batch_size, len(arrays)))
        output = model(ItemBatch.from_arrays(arrays.take(items), device))
        vectors[items] = output.vector.cpu().numpy()
        parts[items] = output.parts.cpu().numpy()
        empty += int((~output.modality_present.any(dim=1)).sum())
    if empty:
        log.info(event("items_without_modality", count=empty, vector="zeros"))
    model.train(was_training)
    return vectors, parts


def load_model(folder: Path, recipe: Recipe, prepared: PreparedItems) -> ItemModel:
    """The trained model of one variant and seed, on the CPU with plain torch tables, dropouts off.

    Args:
        folder: ``train/<variant>/seed=<s>`` of the run.
        recipe: The variant's recipe.
        prepared: The variant's prepared items.

    Raises:
        TrainingError: It was not trained to the end, or for another recipe.
        BundleError: Its checkpoint is damaged.
    """
    done = read_done(folder)
    if done is None:
        raise TrainingError(f"{folder} holds no finished training: run `muxrec train` first")
    checkpoint = open_checkpoint(checkpoint_folder(folder, done["checkpoint_steps"]))
    return served_form(checkpoint, recipe, prepared)


def served_form(checkpoint: Checkpoint, recipe: Recipe, prepared: PreparedItems) -> ItemModel:
    """The model of a checkpoint with its tables in the form that is served, dropouts off.

    Raises:
        TrainingError: The checkpoint belongs to another recipe.
        MuxrecError: A table whose size was found in training is above its budget.
    """
    places = read_places(checkpoint.folder)
    model = build_model(recipe, prepared, engine="reference", places=places)
    objective = ContrastiveObjective(recipe.objective, widths=trained_widths(recipe.tower))
    load_weights(checkpoint, dense_module(model, objective), cast(Tables, model.tables))
    tables = cast(Tables, model.tables)
    if freezes(tables.lowering):
        frozen = freeze(tables, whole_rows(tables))
        model = ItemModel(tables_of(frozen, engine="reference"), model.tower)
    check_frozen(cast(Tables, model.tables).lowering, recipe.tables)
    return model.eval()

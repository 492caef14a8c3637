"""Everything one training holds in memory, and how it goes to disk and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from muxrec.errors import TrainingError
from muxrec.losses.objective import ContrastiveObjective
from muxrec.manifest import published_folder, seal
from muxrec.model import ItemModel
from muxrec.recipe.model import Train
from muxrec.tables.build import Tables
from muxrec.tables.convert import read_state, write_places, write_state
from muxrec.tables.staging import places_of
from muxrec.training.checkpoint import (
    FORMAT_VERSION,
    KIND,
    Checkpoint,
    Progress,
    checkpoint_folder,
)
from muxrec.training.ranks import Ranks

DENSE_FILE = "dense.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
TABLES_FOLDER = "tables"


def dense_module(model: ItemModel, objective: ContrastiveObjective) -> nn.ModuleDict:
    """The dense part under the names that checkpoints use: tower, loss and the tables' maps."""
    maps = cast(Tables, model.tables).vectors
    return nn.ModuleDict({"tower": model.tower, "objective": objective, "maps": maps})


def dense_optimizer(
    dense: nn.Module, train: Train, *, architecture: Iterable[nn.Parameter] = ()
) -> torch.optim.AdamW:
    """AdamW over the dense part but its ``architecture``; weight decay on matrices only."""
    others = {id(parameter) for parameter in architecture}
    trained = [p for p in dense.parameters() if p.requires_grad and id(p) not in others]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.lr)


@dataclass(frozen=True)
class Session:
    """Model, objective and optimisers of one training.

    Attributes:
        model: The item model.
        objective: The loss with its temperature.
        optimizer: AdamW of the dense part.
        ranks: This process among its peers.
        identity: What a checkpoint must share with this training: recipe, data, seed.
    """

    model: ItemModel
    objective: ContrastiveObjective
    optimizer: torch.optim.AdamW
    ranks: Ranks
    identity: dict[str, Any]

    @property
    def tables(self) -> Tables:
        """The tables' engine."""
        return cast(Tables, self.model.tables)

    @property
    def dense(self) -> nn.ModuleDict:
        """The dense part under the names that checkpoints use."""
        return dense_module(self.model, self.objective)

    def save(self, folder: Path, progress: Progress) -> None:
        """Publish ``checkpoints/step=<n>`` below the training's ``folder``, all ranks together."""
        final = checkpoint_folder(folder, progress.steps)
        if not self.ranks.is_first:
            self._save_share(Path(self.ranks.from_first("")))
            self.ranks.barrier()
            return
        with published_folder(final) as temporary:
            self.ranks.from_first(str(temporary))
            self._save_share(temporary)
            save_file(_tensors(self.dense.state_dict()), temporary / DENSE_FILE)
            save_file(self._moments(), temporary / OPTIMIZER_FILE)
            write_places(places_of(self.tables.lowering), temporary)
            body = {"progress": progress.as_json(), **self.identity}
            body["world_size"] = self.ranks.world_size
            seal(temporary, kind=KIND, format_version=FORMAT_VERSION, body=body)
        self.ranks.barrier()

    def _save_share(self, temporary: Path) -> None:
        folder = temporary / TABLES_FOLDER
        folder.mkdir(exist_ok=True)
        write_state(self.tables.view_state(), folder, rank=self.ranks.rank)
        self.ranks.barrier()

    def restore(self, checkpoint: Checkpoint) -> Progress:
        """Take over a checkpoint's weights and moments; returns its progress.

        Raises:
            TrainingError: See ``check_position`` and ``load_weights``.
        """
        progress = check_position(checkpoint, world_size=self.ranks.world_size)
        load_weights(checkpoint, self.dense, self.tables)
        moments = load_file(checkpoint.folder / OPTIMIZER_FILE)
        for name, parameter in self._trained():
            if f"{name}/step" in moments:
                device = parameter.device
                self.optimizer.state[parameter] = {
                    "step": moments[f"{name}/step"],
                    "exp_avg": moments[f"{name}/exp_avg"].to(device),
                    "exp_avg_sq": moments[f"{name}/exp_avg_sq"].to(device),
                }
        return progress

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((n, p) for n, p in self.dense.named_parameters() if p.requires_grad)

    def _moments(self) -> dict[str, Tensor]:
        states = ((name, self.optimizer.state.get(p, {})) for name, p in self._trained())
        return _tensors({f"{name}/{k}": v for name, state in states for k, v in state.items()})


def check_position(checkpoint: Checkpoint, *, world_size: int) -> Progress:
    """The progress of a checkpoint that ``world_size`` ranks may go on from.

    Raises:
        TrainingError: It was written inside an epoch by another number of ranks, whose position in
            the data has no meaning here.
    """
    progress, written_by = checkpoint.progress, checkpoint.manifest["world_size"]
    if progress.step and written_by != world_size:
        raise TrainingError(
            f"{checkpoint.folder} was written inside an epoch by {written_by} ranks, this run has "
            f"{world_size}: resume with {written_by}, or start with --fresh"
        )
    return progress


def load_weights(checkpoint: Checkpoint, dense: nn.Module, tables: Tables) -> None:
    """Fill ``dense`` and ``tables`` from a checkpoint of any engine and any number of ranks.

    Raises:
        TrainingError: The checkpoint belongs to another tower or other tables.
    """
    try:
        dense.load_state_dict(load_file(checkpoint.folder / DENSE_FILE))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise TrainingError(
            f"{checkpoint.folder} holds another tower ({first}): use the recipe it was trained with"
        ) from error
    ranges = tables.row_ranges()
    tables.load_table_state(read_state(checkpoint.folder / TABLES_FOLDER, ranges=ranges))


def _tensors(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in values.items()}

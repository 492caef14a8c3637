"""The item tower: modality encoders, late fusion, one head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from muxrec.errors import TrainingError
from muxrec.features.arrays import ItemArrays
from muxrec.recipe.model import Tower
from muxrec.spec.features import FeatureSpec
from muxrec.towers.first_layers import check_first_layers
from muxrec.towers.fusion import FUSIONS
from muxrec.towers.hiding import hide_modalities
from muxrec.towers.matryoshka import unit
from muxrec.towers.modality import ModalityEncoder
from muxrec.towers.output import MODALITY_ORDER, TowerOutput


def used_features(
    features: tuple[FeatureSpec, ...], modalities: tuple[str, ...] | None
) -> tuple[FeatureSpec, ...]:
    """The features whose modality the tower uses, in declared order.

    Raises:
        TrainingError: A wanted modality has no feature, or nothing is left.
    """
    declared = {feature.modality for feature in features}
    wanted = declared if modalities is None else set(modalities)
    if missing := sorted(wanted - declared):
        raise TrainingError(
            f"tower.modalities names {', '.join(missing)}, but no feature has that modality "
            f"(declared: {', '.join(sorted(declared))})"
        )
    used = tuple(feature for feature in features if feature.modality in wanted)
    if not used:
        raise TrainingError("the tower has no feature: declare one, or name its modality")
    return used


class ItemTower(nn.Module):
    """Inputs of B items -> ``TowerOutput``.

    Args:
        settings: The recipe's tower section.
        features: The features in use, from ``used_features``.
        widths: Feature name -> width of its input; pictures may be left out.
    """

    def __init__(
        self, settings: Tower, features: tuple[FeatureSpec, ...], *, widths: dict[str, int]
    ) -> None:
        super().__init__()
        self.settings = settings
        self.features = features
        used = {feature.modality for feature in features}
        self.modalities = tuple(name for name in MODALITY_ORDER if name in used)
        self.encoders = nn.ModuleDict(
            {
                modality: ModalityEncoder(
                    tuple(f for f in features if f.modality == modality),
                    widths,
                    out=settings.width,
                    hidden=settings.hidden,
                    normalise=settings.normalise,
                    dropout=settings.dropout,
                )
                for modality in self.modalities
            }
        )
        self.fusion = FUSIONS[settings.fusion](len(self.modalities), settings.width)
        self.head = nn.Linear(settings.width, settings.width, bias=False)
        check_first_layers(self, features)

    def fit_inputs(self, arrays: ItemArrays) -> None:
        """Take the standardisation of dense inputs from ``arrays``, the training items."""
        for encoder in self.encoders.values():
            if isinstance(encoder, ModalityEncoder):
                encoder.fit_inputs(arrays)

    def forward_features(
        self,
        looked: dict[str, Tensor],
        sparse_present: dict[str, Tensor],
        dense: dict[str, Tensor],
        dense_present: dict[str, Tensor],
    ) -> TowerOutput:
        """Vectors from looked-up rows and dense values; what the exported graph computes.

        Args:
            looked: Sparse feature -> float32 ``[B, probes * table width]``, zeros for empty bags.
            sparse_present: Sparse feature -> bool ``[B]``, whether its bag holds an id.
            dense: Dense feature -> float32 ``[B, W]`` or uint8 ``[B, 3, S, S]``.
            dense_present: Dense feature -> bool ``[B]``.
        """
        inputs = {**looked, **dense}
        present = {**sparse_present, **dense_present}
        encoded = [self.encoders[name](inputs, present) for name in self.modalities]
        vectors = torch.stack([vector.float() for vector, _ in encoded], dim=1)
        visible = self._visible(torch.stack([is_present for _, is_present in encoded], dim=1))
        vectors = vectors.masked_fill(~visible[:, :, None], 0.0)
        return self._finish(vectors, visible)

    def _visible(self, present: Tensor) -> Tensor:
        if not self.training:
            return present
        id_at = self.modalities.index("id") if "id" in self.modalities else None
        return hide_modalities(
            present,
            id_at=id_at,
            id_dropout=self.settings.id_dropout,
            modality_dropout=self.settings.modality_dropout,
        )

    def _finish(self, vectors: Tensor, visible: Tensor) -> TowerOutput:
        parts = self.head(self.fusion(vectors, visible)).float()
        total = parts.sum(dim=1, keepdim=True)
        norm = torch.linalg.vector_norm(total, dim=-1, keepdim=True)
        parts = parts / norm.clamp_min(1e-6)
        alone = unit(self.head(vectors).float())
        by_modality = {name: alone[:, at] for at, name in enumerate(self.modalities)}
        return TowerOutput(parts.sum(dim=1), parts, by_modality, visible)

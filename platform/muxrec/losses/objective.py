"""The recipe's objective: the engine applied to the fused vector, its prefixes and modalities."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from muxrec.losses.divergences import divergence_of
from muxrec.losses.engine import Target, contrast, target_of
from muxrec.losses.relation import Relation
from muxrec.recipe.divergences import DIVERGENCE_SPECS
from muxrec.recipe.model import Objective
from muxrec.towers.matryoshka import cut
from muxrec.towers.output import TowerOutput
from muxrec_kernels.contrastive_loss import Rules, contrastive_loss
from muxrec_kernels.dispatch import Backend, choose_backend

COLDEST, WARMEST = 0.01, 1.0


class ContrastiveObjective(nn.Module):
    """Loss of a batch of candidates under a relation.

    ``loss = (1 - w) * mean over widths of L(prefix) + w * mean over modalities of L(modality)``,
    with ``w = objective.modality_weight``; NoteLLM-2's 9:1 is ``w = 0.1``.

    Args:
        settings: The recipe's objective section.
        widths: Widths at which the vector is trained, from ``trained_widths``.
        log_inclusion: Log probability of each catalogue item to be a candidate, float32 ``[C]``;
            needed where ``settings.logq`` is not 0.
    """

    log_inclusion: Tensor

    def __init__(
        self, settings: Objective, *, widths: tuple[int, ...], log_inclusion: Tensor | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.widths = widths
        self.divergence = divergence_of(settings)
        self.has_temperature = DIVERGENCE_SPECS[settings.divergence].has_temperature
        start = torch.tensor(math.log(settings.temperature))
        learns = settings.learn_temperature and self.has_temperature
        self.log_temperature = nn.Parameter(start, requires_grad=learns)
        inclusion = torch.zeros(0) if log_inclusion is None else log_inclusion
        self.register_buffer("log_inclusion", inclusion, persistent=False)

    @property
    def temperature(self) -> float:
        """What cosines are divided by now; without meaning where the divergence takes none."""
        return float(self.log_temperature.detach().exp())

    def fresh(self) -> ContrastiveObjective:
        """The objective as it was before training."""
        other = copy.deepcopy(self)
        with torch.no_grad():
            other.log_temperature.fill_(math.log(self.settings.temperature))
        other.divergence = divergence_of(self.settings)
        return other.to(self.log_temperature.device)

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring the temperature back into [0.01, 1]; call after every optimiser step.

        After the step and not inside the forward pass, where a clamp at the bound has no gradient
        and would hold the temperature there for good.
        """
        self.log_temperature.clamp_(math.log(COLDEST), math.log(WARMEST))

    def forward(self, output: TowerOutput, relation: Relation, items: Tensor) -> Tensor:
        """The loss, a float32 scalar.

        Args:
            output: Vectors of the C candidates.
            relation: Relation over them.
            items: Catalogue position of each candidate, int64 ``[C]``.
        """
        share = self.settings.modality_weight
        loss = (1.0 - share) * self._over_widths(output.vector, relation, items)
        if share:
            loss = loss + share * self._over_modalities(output, relation, items)
        return loss

    def _over_widths(self, vectors: Tensor, relation: Relation, items: Tensor) -> Tensor:
        ready = self._ready(relation)
        prefixes = [cut(vectors, width, trained=self.widths) for width in self.widths]
        losses = [self._loss(prefix, ready, relation.queries, items) for prefix in prefixes]
        return torch.stack(losses).mean()

    def _over_modalities(self, output: TowerOutput, relation: Relation, items: Tensor) -> Tensor:
        losses = []
        for at, vectors in enumerate(output.modality_vectors.values()):
            ready = self._ready(relation, ~output.modality_present[:, at])
            losses.append(self._loss(vectors, ready, relation.queries, items))
        return torch.stack(losses).mean()

    def _loss(
        self, vectors: Tensor, ready: Target | Rules, queries: Tensor, items: Tensor
    ) -> Tensor:
        bias = None
        if self.settings.logq:
            bias = self.settings.logq * self.log_inclusion[items]
        if isinstance(ready, Rules):
            rules = ready if bias is None else replace(ready, column_bias=-bias)
            scale = (-self.log_temperature).exp()
            return contrastive_loss(vectors[queries], vectors, rules, scale=scale)
        # Divided by the temperature before the product: C x D numbers instead of Q x C.
        temperature = self.log_temperature.exp() if self.has_temperature else 1.0
        asking = vectors[queries[ready.asking]] / temperature
        scores = asking @ vectors.T
        if bias is not None:
            scores = scores - bias[None, :]
        return contrast(scores, ready, self.divergence, temperature=temperature, correction=bias)

    def _ready(self, relation: Relation, missing: Tensor | None = None) -> Target | Rules:
        """The relation as what computes the loss wants it: lists for the kernel, else matrices.

        The kernel knows the cross-entropy alone; others go through matrices everywhere.
        """
        has_kernel = self.settings.divergence == "cross_entropy"
        if has_kernel and choose_backend(relation.queries.device) is Backend.TRITON:
            return relation.rules(missing)
        return target_of(*relation.dense(missing))

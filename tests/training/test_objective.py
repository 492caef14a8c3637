"""What the objective adds up, and that it does not care about order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from muxrec.data.known_pairs import KnownPairs
from muxrec.data.pairs import PairBatch
from muxrec.losses.engine import contrast, target_of
from muxrec.losses.infonce import cross_entropy
from muxrec.losses.objective import ContrastiveObjective
from muxrec.losses.relation import RELATIONS, Relation, candidates_in_batch
from muxrec.recipe.model import Objective
from muxrec.towers.matryoshka import unit
from muxrec.towers.output import TowerOutput

CATALOGUE, WIDTH = 30, 8


def _pairs() -> PairBatch:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, CATALOGUE, (2, 40))
    return PairBatch(a, b, rng.uniform(0.1, 1.0, 40).astype(np.float32))


def _case(name: str = "multi", batch: int = 40) -> tuple[TowerOutput, Relation, Tensor]:
    """Outputs of two modalities for the candidates of a batch, and their relation."""
    pairs = _pairs()
    candidates = candidates_in_batch(pairs.take(np.arange(batch)))
    relation = {**RELATIONS}[name](candidates, KnownPairs(pairs, CATALOGUE))  # type: ignore[index]
    torch.manual_seed(4)
    size = len(candidates.items)
    present = torch.rand(size, 2) > 0.3
    vectors = unit(torch.randn(size, 2, WIDTH)) * present[:, :, None]
    by_modality = {"text": vectors[:, 0], "image": vectors[:, 1]}
    whole = unit(torch.randn(size, WIDTH)).requires_grad_()
    return (
        TowerOutput(whole, vectors, by_modality, present),
        relation,
        torch.from_numpy(candidates.items),
    )


def _plain(vectors: Tensor, relation: Relation, ignored: Tensor, temperature: float) -> Tensor:
    target = target_of(relation.dense().weight, ignored)
    scores = (vectors[relation.queries] @ vectors.T) / temperature
    return contrast(scores[target.asking], target, cross_entropy)


@pytest.mark.parametrize("name", RELATIONS)
def test_the_loss_is_the_mean_over_widths_and_the_share_of_modalities(name: str) -> None:
    output, relation, items = _case(name)
    settings = Objective(temperature=0.2, modality_weight=0.1)
    found = ContrastiveObjective(settings, widths=(3, WIDTH))(output, relation, items)
    prefixes = [
        _plain(unit(output.vector[:, :width]), relation, relation.dense().ignored, 0.2)
        for width in (3, WIDTH)
    ]
    modalities = []
    for at, vectors in enumerate(output.modality_vectors.values()):
        gone = ~output.modality_present[:, at]
        ignored = relation.dense().ignored | gone[None] | gone[relation.queries][:, None]
        modalities.append(_plain(vectors, relation, ignored, 0.2))
    expected = 0.9 * torch.stack(prefixes).mean() + 0.1 * torch.stack(modalities).mean()
    torch.testing.assert_close(found, expected)


def test_logq_lowers_the_scores_of_likely_candidates() -> None:
    output, relation, items = _case()
    log_inclusion = -torch.rand(CATALOGUE)
    settings = Objective(temperature=0.2, logq=0.5)
    objective = ContrastiveObjective(settings, widths=(WIDTH,), log_inclusion=log_inclusion)
    target = target_of(*relation.dense())
    scores = output.vector @ output.vector.T / 0.2 - 0.5 * log_inclusion[items]
    expected = contrast(scores[target.asking], target, cross_entropy)
    torch.testing.assert_close(objective(output, relation, items), expected)


@pytest.mark.parametrize("name", RELATIONS)
def test_the_order_of_a_batch_changes_nothing(name: str) -> None:
    pairs = _pairs()
    shuffled = pairs.take(np.random.default_rng(0).permutation(len(pairs.a)))
    known = KnownPairs(pairs, CATALOGUE)
    torch.manual_seed(0)
    every = unit(torch.randn(CATALOGUE, WIDTH))
    losses = []
    for batch in (pairs, shuffled):
        candidates = candidates_in_batch(batch)
        relation = {**RELATIONS}[name](candidates, known)  # type: ignore[index]
        vectors = every[torch.from_numpy(candidates.items)]
        losses.append(_plain(vectors, relation, relation.dense().ignored, 0.1))
    # Rows of the single form come in another order, so their mean rounds differently.
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=1e-6)


def test_the_temperature_is_trained_within_its_bounds_or_not_at_all() -> None:
    output, relation, items = _case()
    fixed = ContrastiveObjective(Objective(learn_temperature=False), widths=(WIDTH,))
    fixed(output, relation, items).backward()
    assert fixed.log_temperature.grad is None
    learned = ContrastiveObjective(Objective(temperature=0.05), widths=(WIDTH,))
    learned(output, relation, items).backward()
    assert learned.log_temperature.grad is not None
    assert learned.log_temperature.grad != 0
    for wild, bound in ((-20.0, 0.01), (20.0, 1.0)):
        with torch.no_grad():
            learned.log_temperature.fill_(wild)
        learned.clamp()
        assert math.isclose(learned.temperature, bound, rel_tol=1e-6)


@pytest.mark.parametrize("name", RELATIONS)
def test_kernels_give_the_same_loss_and_gradients_without_any_matrix(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton", reason="triton has wheels for Linux only")
    found = []
    for backend in ("reference", "triton"):
        monkeypatch.setenv("MUXREC_BACKEND", backend)
        if backend == "triton":
            monkeypatch.setattr(Relation, "dense", None)
        output, relation, items = _case(name, batch=9)
        settings = Objective(temperature=0.1, logq=0.5, modality_weight=0.2)
        log_inclusion = torch.linspace(-3.0, -0.1, CATALOGUE)
        objective = ContrastiveObjective(settings, widths=(WIDTH,), log_inclusion=log_inclusion)
        loss = objective(output, relation, items)
        loss.backward()
        gradients = [output.vector.grad, objective.log_temperature.grad]
        found.append([loss.detach(), *gradients])
    for expected, computed in zip(*found, strict=True):
        assert expected is not None
        assert computed is not None
        # Both sum in float32; the temperature's gradient is a sum of terms of both signs.
        torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-6)

"""Every divergence: a contract for all, and each against its formula written out in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from muxrec.losses.divergences import DIVERGENCES, divergence_of
from muxrec.losses.engine import Divergence, contrast, target_of
from muxrec.losses.objective import ContrastiveObjective
from muxrec.losses.relation import Relation
from muxrec.recipe.divergences import DIVERGENCE_SPECS, DivergenceName
from muxrec.recipe.model import Objective
from muxrec.towers.matryoshka import unit
from muxrec.towers.output import TowerOutput

EVERY = pytest.mark.parametrize("name", DIVERGENCES)
Numbers = np.ndarray
_ACTIVE: dict[DivergenceName, dict[str, float]] = {
    "sigmoid": {"bias": -1.0},
    "triplet": {"margin": 1.0},
}


class Case(NamedTuple):
    """Unit vectors of queries and candidates in float64, and the relation between them."""

    queries: Tensor
    candidates: Tensor
    weight: Tensor
    ignored: Tensor

    @property
    def cosines(self) -> Tensor:
        return self.queries @ self.candidates.T


def _case(queries: int = 6, candidates: int = 9, width: int = 4) -> Case:
    """Rows with one, several and no positives; two positives and several negatives are ignored."""
    generator = torch.Generator().manual_seed(7)
    vectors = torch.randn(queries + candidates, width, generator=generator, dtype=torch.float64)
    weight = torch.rand(queries, candidates, generator=generator).double()
    weight *= torch.rand(queries, candidates, generator=generator) > 0.6
    ignored = torch.rand(queries, candidates, generator=generator) > 0.8
    weight[1], ignored[2] = 0.0, True
    weight[0], ignored[0] = 0.0, False
    weight[0, 3] = 0.4
    return Case(unit(vectors[:queries]), unit(vectors[queries:]), weight, ignored)


def _made(name: DivergenceName) -> Divergence:
    """The divergence with options at which few of its terms are 0 or saturated."""
    options = _ACTIVE.get(name, {})
    return divergence_of(Objective(divergence=name, divergence_options=options))


def _loss(name: DivergenceName, case: Case, temperature: Tensor | float = 0.3) -> Tensor:
    target = target_of(case.weight, case.ignored)
    if not DIVERGENCE_SPECS[name].has_temperature:
        temperature = 1.0
    scores = case.cosines[target.asking] / temperature
    return contrast(scores, target, _made(name), temperature=temperature)


def test_a_recipe_can_name_every_divergence_that_there_is() -> None:
    assert list(DIVERGENCES) == list(DIVERGENCE_SPECS) == list(get_args(DivergenceName))


@EVERY
def test_gradients_are_those_of_the_loss(name: DivergenceName) -> None:
    case = _case()

    def loss(queries: Tensor, candidates: Tensor, log_temperature: Tensor) -> Tensor:
        vectors = case._replace(queries=unit(queries), candidates=unit(candidates))
        return _loss(name, vectors, log_temperature.exp())

    inputs = (case.queries, case.candidates, torch.tensor(-1.2, dtype=torch.float64))
    leaves = [value.clone().requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(loss, leaves)
    assert loss(*leaves) > 0


@EVERY
def test_an_ignored_candidate_is_one_that_is_not_there(name: DivergenceName) -> None:
    case = _case(candidates=7)
    gone = torch.tensor([5, 2])
    hidden = case.ignored.index_fill(1, gone, value=True)
    rest = torch.tensor([0, 1, 3, 4, 6])
    fewer = Case(case.queries, case.candidates[rest], case.weight[:, rest], case.ignored[:, rest])
    assert not torch.isclose(_loss(name, case), _loss(name, fewer))
    torch.testing.assert_close(_loss(name, case._replace(ignored=hidden)), _loss(name, fewer))


@EVERY
def test_the_order_of_candidates_and_queries_changes_nothing(name: DivergenceName) -> None:
    case = _case()
    columns, rows = torch.randperm(9), torch.randperm(6)
    moved = Case(
        case.queries[rows],
        case.candidates[columns],
        case.weight[rows][:, columns],
        case.ignored[rows][:, columns],
    )
    torch.testing.assert_close(_loss(name, moved), _loss(name, case))


@EVERY
def test_a_perfect_ranking_costs_less_than_a_wrong_one(name: DivergenceName) -> None:
    weight = torch.eye(4, 8, dtype=torch.float64)
    weight[:, 4:] = 0.5 * weight[:, :4]
    good = 0.9 * (weight > 0) - 0.1
    losses = []
    for cosines in (good, good.roll(1, dims=1)):
        target = target_of(weight, torch.zeros(4, 8).bool())
        temperature = 0.1 if DIVERGENCE_SPECS[name].has_temperature else 1.0
        losses.append(contrast(cosines / temperature, target, _made(name), temperature=temperature))
    assert losses[0] < losses[1]


@EVERY
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize(("queries", "candidates"), [(3, 5), (2, 1)])
def test_equal_cosines_have_finite_gradients(
    name: DivergenceName, value: float, queries: int, candidates: int
) -> None:
    # What the whole catalogue looks like where it has collapsed, or where an item has no vector.
    cosines = torch.full((queries, candidates), value, requires_grad=True)
    log_temperature = torch.tensor(math.log(0.01), requires_grad=True)
    weight = torch.zeros(queries, candidates)
    weight[:, 0] = 1.0
    target = target_of(weight, torch.zeros(queries, candidates).bool())
    tau = log_temperature.exp() if DIVERGENCE_SPECS[name].has_temperature else 1.0
    loss = contrast(cosines / tau, target, _made(name), temperature=tau)
    loss.backward()
    assert loss.isfinite()
    assert cosines.grad is not None
    assert cosines.grad.isfinite().all()
    assert log_temperature.grad is None or log_temperature.grad.isfinite()
    if candidates > 1:
        assert (cosines.grad[:, 0] < 0).all()


@EVERY
@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 0), (3, 4)])
def test_without_any_positive_the_loss_is_a_connected_zero(
    name: DivergenceName, shape: tuple[int, int]
) -> None:
    scores = torch.randn(shape, requires_grad=True)
    target = target_of(torch.zeros(shape), torch.zeros(shape).bool())
    loss = contrast(scores[target.asking], target, _made(name))
    loss.backward()
    assert loss == 0
    assert scores.grad is not None
    assert not scores.grad.any()


@EVERY
def test_the_temperature_is_learned_where_there_is_one(name: DivergenceName) -> None:
    output, relation = _batch()
    objective = ContrastiveObjective(Objective(divergence=name, temperature=0.2), widths=(4,))
    objective(output, relation, torch.arange(6)).backward()
    gradient = objective.log_temperature.grad
    if DIVERGENCE_SPECS[name].has_temperature:
        assert gradient is not None
        assert gradient.isfinite()
        assert gradient != 0
    else:
        assert not objective.log_temperature.requires_grad
        colder = ContrastiveObjective(Objective(divergence=name, temperature=0.02), widths=(4,))
        both = [made(output, relation, torch.arange(6)) for made in (objective, colder)]
        assert torch.equal(*both)


@EVERY
def test_half_precision_scores_are_compared_in_single_precision(name: DivergenceName) -> None:
    case = _case()
    target = target_of(case.weight.float(), case.ignored)
    half = (case.cosines[target.asking] / 0.01).half()  # Up to 100: exp leaves float16's range.
    found = contrast(half, target, _made(name), temperature=0.01)
    assert found.dtype == torch.float32
    assert torch.equal(found, contrast(half.float(), target, _made(name), temperature=0.01))


def _batch() -> tuple[TowerOutput, Relation]:
    """Six items, everyone's positives the two around it in a ring, unequal weights."""
    generator = torch.Generator().manual_seed(3)
    vectors = unit(torch.randn(6, 4, generator=generator)).requires_grad_()
    at = torch.arange(6)
    columns = torch.stack([(at - 1) % 6, (at + 1) % 6], dim=1).sort(dim=1).values
    nothing = torch.zeros(0, dtype=torch.int64)
    relation = Relation(
        at,
        at,
        torch.arange(0, 13, 2),
        columns.flatten(),
        torch.linspace(0.1, 1.2, 12),
        torch.zeros(7, dtype=torch.int64),
        nothing,
    )
    present = torch.ones(6, 1, dtype=torch.bool)
    return TowerOutput(vectors, vectors[:, None], {"text": vectors}, present), relation


@EVERY
def test_the_objective_hands_over_cosines_temperature_and_correction(name: DivergenceName) -> None:
    output, relation = _batch()
    logq = 0.5 if DIVERGENCE_SPECS[name].has_temperature else 0.0
    settings = Objective(divergence=name, temperature=0.2, logq=logq)
    log_inclusion = -torch.arange(6) / 3.0
    objective = ContrastiveObjective(settings, widths=(4,), log_inclusion=log_inclusion)
    cosines = (output.vector @ output.vector.T).detach().double().numpy()
    weight, ignored = (value.numpy() for value in relation.dense())
    scale = {"temperature": 0.2, "correction": 0.5 * log_inclusion.numpy()} if logq else {}
    scale |= {"sigmoid": {"bias": -10.0}, "triplet": {"margin": 0.2}}.get(name, {})
    rows = [_BY_HAND[name](cosines[q], weight[q], ~ignored[q], **scale) for q in range(6)]
    found = objective(output, relation, torch.arange(6)).item()
    # float32 against float64, where scores are up to 5 and log-shares down to -18.
    assert found == pytest.approx(np.mean(rows), rel=1e-5)


def _log_softmax(x: Numbers) -> Numbers:
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


def _cross_entropy(
    cosines: Numbers,
    weight: Numbers,
    seen: Numbers,
    temperature: float = 0.3,
    correction: Numbers | float = 0.0,
) -> float:
    x, w = (cosines / temperature - correction)[seen], weight[seen]
    return float(-(w / w.sum() * _log_softmax(x)).sum())


def _sigmoid(
    cosines: Numbers,
    weight: Numbers,
    seen: Numbers,
    temperature: float = 0.3,
    correction: Numbers | float = 0.0,
    bias: float = -1.0,
) -> float:
    z, w = (cosines / temperature - correction)[seen] + bias, weight[seen]
    yes = w > 0
    terms = np.where(yes, w / w[yes].mean() * np.log1p(np.exp(-z)), np.log1p(np.exp(z)))
    return float(terms.sum())


def _similarity_distribution(
    cosines: Numbers,
    weight: Numbers,
    seen: Numbers,
    temperature: float = 0.3,
    correction: Numbers | float = 0.0,
) -> float:
    x, w = (cosines / temperature - correction)[seen], weight[seen]
    p = np.exp(_log_softmax(x))
    return float((p * (np.log(p) - np.log(w / w.sum() + 1e-8))).sum())


def _triplet(cosines: Numbers, weight: Numbers, seen: Numbers, margin: float = 1.0) -> float:
    distance = 2 - 2 * cosines
    negatives = distance[seen & (weight == 0)]
    total = 0.0
    for d, w in zip(distance[seen & (weight > 0)], weight[seen & (weight > 0)], strict=True):
        farther = negatives[negatives > d]
        if len(negatives):
            chosen = farther.min() if len(farther) else negatives.max()
            total += w * max(0.0, d - chosen + margin)
    return total / weight[seen].sum()


def _angular_margin(
    cosines: Numbers,
    weight: Numbers,
    seen: Numbers,
    temperature: float = 0.3,
    correction: Numbers | float = 0.0,
) -> float:
    angle = np.arccos(cosines)
    past = cosines - 0.5 * math.sin(0.5)
    widened = np.where(angle + 0.5 < math.pi, np.cos(angle + 0.5), past)
    edited = np.where(weight > 0, widened, cosines)
    return _cross_entropy(edited, weight, seen, temperature, correction)


_BY_HAND: dict[DivergenceName, Callable[..., float]] = {
    "cross_entropy": _cross_entropy,
    "sigmoid": _sigmoid,
    "similarity_distribution": _similarity_distribution,
    "triplet": _triplet,
    "angular_margin": _angular_margin,
}


@EVERY
@pytest.mark.parametrize("candidates", [1, 2, 9, 40])
def test_a_divergence_is_its_formula_query_by_query(name: DivergenceName, candidates: int) -> None:
    case = _case(queries=12, candidates=max(candidates, 4))
    case = Case(
        case.queries,
        case.candidates[:candidates],
        case.weight[:, :candidates],
        case.ignored[:, :candidates],
    )
    rows = [
        _BY_HAND[name](cosines, weight, ~ignored)
        for cosines, weight, ignored in zip(
            case.cosines.numpy(), case.weight.numpy(), case.ignored.numpy(), strict=True
        )
        if weight[~ignored].sum() > 0
    ]
    assert rows
    assert _loss(name, case).item() == pytest.approx(np.mean(rows), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("cosines", "chosen"),
    [
        ([0.5, 0.9, 0.45, 0.3], 2),  # The nearest behind the positive, which is the first.
        ([0.1, 0.9, 0.7, 0.3], 3),  # None is behind it: the farthest.
        ([0.5, 0.5, 0.2, 0.3], 3),  # As near as the positive is not behind it.
    ],
)
def test_a_triplet_takes_the_nearest_negative_behind_its_positive(
    cosines: list[float], chosen: int
) -> None:
    scores = torch.tensor([cosines], requires_grad=True)
    target = target_of(torch.eye(1, 4), torch.zeros(1, 4).bool())
    loss = contrast(scores, target, _made("triplet"))
    loss.backward()
    assert loss.item() == pytest.approx(2 * (cosines[chosen] - cosines[0]) + 1.0)
    assert scores.grad is not None
    assert scores.grad.tolist() == [[-2.0, *(2.0 * (at == chosen) for at in (1, 2, 3))]]


def test_triplets_looked_at_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _loss("triplet", _case())
    monkeypatch.setattr("muxrec.losses.triplet._CELLS", 20)
    assert torch.equal(_loss("triplet", _case()), whole)


def test_a_margin_of_zero_is_the_cross_entropy() -> None:
    case = _case()
    settings = Objective(divergence="angular_margin", divergence_options={"margin": 0.0})
    target = target_of(case.weight, case.ignored)
    scores = case.cosines[target.asking] / 0.3
    found = contrast(scores, target, divergence_of(settings), temperature=0.3)
    torch.testing.assert_close(found, _loss("cross_entropy", case))


@pytest.mark.parametrize("learns", [0, 1])
def test_the_bias_of_the_sigmoid_is_trained_or_fixed(learns: int) -> None:
    output, relation = _batch()
    options = {"bias": -2.5, "learn_bias": learns}
    settings = Objective(divergence="sigmoid", divergence_options=options, temperature=0.2)
    objective = ContrastiveObjective(settings, widths=(4,))
    objective(output, relation, torch.arange(6)).backward()
    bias = objective.get_parameter("divergence.bias")
    assert bias.item() == -2.5
    assert (bias.grad is not None and bias.grad != 0) == bool(learns)
    with torch.no_grad():
        bias.fill_(4.0)
    assert objective.fresh().get_parameter("divergence.bias").item() == -2.5
    assert isinstance(objective.divergence, nn.Module)


@EVERY
def test_only_the_cross_entropy_goes_through_the_kernel(
    name: DivergenceName, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton", reason="triton has wheels for Linux only")
    output, relation = _batch()
    objective = ContrastiveObjective(Objective(divergence=name, temperature=0.2), widths=(4,))
    expected = objective(output, relation, torch.arange(6))
    asked: list[str] = []
    dense = Relation.dense
    monkeypatch.setenv("MUXREC_BACKEND", "triton")
    monkeypatch.setattr(Relation, "dense", lambda *a: asked.append(name) or dense(*a))
    found = objective(output, relation, torch.arange(6))
    assert bool(asked) == (name != "cross_entropy")
    torch.testing.assert_close(found, expected)

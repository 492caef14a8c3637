"""Row update, the maths: sum each row's gradients over its lookups, then apply the rule."""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec_kernels.multiplexed_lookup.reference import POOLING_EXPONENTS, bag_scales, slot_lookups
from muxrec_kernels.row_update.rounding import random_words, round_rows
from muxrec_kernels.row_update.rule import ALIGNMENT, RowState, Rule


def update_rows(
    table: Tensor,
    state: RowState,
    rows: Tensor,
    sources: Tensor,
    grad: Tensor,
    *,
    scales: Tensor | None,
    rule: Rule,
) -> None:
    """See :func:`muxrec_kernels.row_update.update_rows`; runs on any device.

    Sums are float32, or float64 where ``table`` is float64: then it is the truth of the tests.
    """
    values = grad[sources.long()].to(torch.promote_types(table.dtype, torch.float32))
    if scales is not None:
        values = values * scales[:, None]
    used, places = rows.long().unique(return_inverse=True)
    sums = values.new_zeros(used.numel(), table.shape[1]).index_add_(0, places, values)
    new = table[used].to(sums.dtype) - row_steps(state, used, sums, rule)
    if table.dtype in (torch.float16, torch.bfloat16):
        is_random = rule.rounding == "stochastic"
        words = random_words(rule, used, table.shape[1]) if is_random else None
        new = round_rows(new, table.dtype, words)
    table[used] = new


def row_steps(state: RowState, used: Tensor, sums: Tensor, rule: Rule) -> Tensor:
    """What the rule takes off each row, ``[U, d]``; the state of these rows is brought forward.

    Args:
        state: The whole table's.
        used: Distinct rows, int64 ``[U]``.
        sums: Their summed gradients, ``[U, d]``.
        rule: The rule.
    """
    if rule.kind == "sgd":
        return rule.lr * sums
    assert state.first is not None
    if rule.kind == "adam":
        assert state.second is not None
        decay, fade = rule.betas
        mean = decay * state.first[used] + (1 - decay) * sums
        square = fade * state.second[used] + (1 - fade) * sums.square()
        state.first[used], state.second[used] = (
            mean.to(state.first.dtype),
            square.to(state.second.dtype),
        )
        root = (square / (1 - fade**rule.step)).sqrt() + rule.eps
        return rule.lr / (1 - decay**rule.step) * mean / root
    squares = sums.square().sum(dim=1) / (-(-sums.shape[1] // ALIGNMENT) * ALIGNMENT)
    if rule.kind == "adagrad":
        momentum, corrected = state.first[used] + squares, 1.0
    else:
        momentum = rule.decay * state.first[used] + (1 - rule.decay) * squares
        corrected = 1 - rule.decay**rule.step
    state.first[used] = momentum.to(state.first.dtype)
    return sums * (rule.lr / ((momentum / corrected).sqrt() + rule.eps))[:, None]


def update_rows_of_lookup(
    table: Tensor,
    state: RowState,
    grad_out: Tensor,
    ids: Tensor,
    offsets: Tensor,
    feature_slots: Tensor,
    slot_seeds: Tensor,
    *,
    batch_size: int,
    weights: Tensor | None,
    pooling: str,
    rule: Rule,
) -> None:
    """See :func:`muxrec_kernels.row_update.update_rows_of_lookup`; runs on any device."""
    slots, width = slot_seeds.numel(), table.shape[1]
    found = slot_lookups(
        ids,
        offsets,
        features_of(feature_slots, slots),
        slot_seeds,
        rows=table.shape[0],
        batch_size=batch_size,
    )
    bags = torch.repeat_interleave(found.offsets.diff())  # Slot-major: slot * B + item.
    sources = bags % batch_size * slots + bags // batch_size
    scales = None
    if pooling != "sum":
        scales = bag_scales(found.offsets, POOLING_EXPONENTS[pooling])[bags]
    if weights is not None:
        used = weights[found.positions]
        scales = used if scales is None else scales * used
    grad = grad_out.reshape(-1, width)
    update_rows(table, state, found.rows, sources, grad, scales=scales, rule=rule)


def slots_of_features(slot_features: Tensor, features: int) -> Tensor:
    """The slots of each feature, int64 ``[F, P]``: P is the most that one has, -1 where none is.

    Made once per model: it waits for the device.

    Args:
        slot_features: Feature of each slot, int64 ``[S]`` in ``[0, F)``.
        features: F.
    """
    mine = [[s for s, f in enumerate(slot_features.tolist()) if f == at] for at in range(features)]
    most = max(map(len, mine), default=0)
    padded = [slots + [-1] * (most - len(slots)) for slots in mine]
    return torch.tensor(padded, dtype=torch.int64, device=slot_features.device).view(features, most)


def features_of(feature_slots: Tensor, slots: int) -> Tensor:
    """Feature of each slot, int64 ``[S]``: the inverse of :func:`slots_of_features`."""
    features, places = (feature_slots >= 0).nonzero(as_tuple=True)
    found = torch.zeros(slots, dtype=torch.int64, device=feature_slots.device)
    return found.index_put_((feature_slots[features, places],), features)

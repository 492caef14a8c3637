"""AUC and log loss are what their definitions say."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from muxrec.bench.compression.auc import auc, log_loss

SCORED = st.lists(
    st.tuples(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 3.0]), st.integers(0, 1)),
    min_size=2,
    max_size=40,
)


@given(SCORED)
def test_auc_counts_every_pair_and_ties_half(rows: list[tuple[float, int]]) -> None:
    scores, labels = np.array([s for s, _ in rows]), np.array([y for _, y in rows], np.float32)
    clicks, others = scores[labels == 1], scores[labels == 0]
    assume(len(clicks) and len(others))
    gaps = clicks[:, None] - others[None, :]
    expected = ((gaps > 0).sum() + 0.5 * (gaps == 0).sum()) / gaps.size
    assert auc(scores, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.skipif(not importlib.util.find_spec("sklearn"), reason="scikit-learn is not installed")
def test_auc_and_log_loss_equal_scikit_learn() -> None:
    from sklearn.metrics import log_loss as reference_loss
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    labels = (rng.random(5_000) < 0.2).astype(np.float32)
    logits = np.round(rng.normal(size=5_000) + labels, 2).astype(np.float32)
    assert auc(logits, labels) == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    chances = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert log_loss(logits, labels) == pytest.approx(reference_loss(labels, chances), rel=1e-9)


def test_auc_stays_exact_where_float32_counts_would_not() -> None:
    labels = np.arange(200_001) % 2
    assert auc(labels.astype(np.float32), labels.astype(np.float32)) == 1.0
    assert auc(np.zeros(200_001, np.float32), labels.astype(np.float32)) == 0.5


def test_what_has_no_auc_is_refused() -> None:
    with pytest.raises(ValueError, match="clicks and non-clicks, got 2 and 0"):
        auc(np.array([0.1, 0.2]), np.ones(2))
    with pytest.raises(ValueError, match="finite"):
        auc(np.array([0.1, np.nan]), np.array([0.0, 1.0]))


def test_log_loss_of_large_logits_is_finite() -> None:
    assert log_loss(np.array([-1e4, 1e4]), np.array([0.0, 1.0])) == 0
    assert log_loss(np.array([1e4]), np.array([0.0])) == pytest.approx(1e4)

"""Item-item neighbours by the ``implicit`` package, turned into a scorer."""

from __future__ import annotations

import warnings

import scipy.sparse as sp
from implicit.nearest_neighbours import ItemItemRecommender

from muxrec.evaluation.baselines.view import BaselineUnavailableError, TrainingView
from muxrec.evaluation.scoring import Scorer, SparseScorer

# The package keeps K neighbours per item, the item itself among them; far above any usual cut-off.
NEIGHBOURS = 1000


def neighbour_scorer(method: type[ItemItemRecommender], view: TrainingView) -> Scorer:
    """Fits ``method`` on the training events and scores by its similarity matrix.

    Raises:
        BaselineUnavailableError: No training event passes ``data.pairs.min_weight``.
    """
    user_items = view.user_items()
    if not user_items.nnz:
        raise BaselineUnavailableError("no training event has at least data.pairs.min_weight")
    model = method(K=NEIGHBOURS)
    with warnings.catch_warnings():
        # The package hands its own COO matrix to itself and warns about the conversion.
        warnings.filterwarnings("ignore", message="Method expects CSR input")
        model.fit(user_items, show_progress=False)
    return SparseScorer(sp.csr_array(model.similarity))

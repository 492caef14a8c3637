"""TF-IDF: words in common, no behaviour at all; the level that a content tower has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from muxrec.evaluation.baselines.view import BaselineUnavailableError, TrainingView
from muxrec.evaluation.scoring import NEVER, Positions, Scorer, Scores

_TEXT_KINDS = ("tokens", "text")


@dataclass(frozen=True)
class _SparseVectors:
    """Inner products of sparse rows; nothing in common is no recommendation."""

    rows: sp.csr_matrix
    columns: sp.csc_matrix

    @property
    def count(self) -> int:
        return int(self.rows.indptr.size) - 1

    def __call__(self, queries: Positions) -> Scores:
        scores = (self.rows[queries] @ self.columns).toarray().astype(np.float32)
        scores[scores <= 0] = NEVER
        return scores


def build(view: TrainingView) -> Scorer:
    """Scores by the cosine of TF-IDF vectors of words and word pairs.

    The words are those of the columns that the recipe's ``tokens`` and ``text`` features read.

    Raises:
        BaselineUnavailableError: The recipe has no such feature, or there is no word in them.
    """
    texts = item_texts(view)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    try:
        rows = sp.csr_matrix(vectorizer.fit_transform(texts))
    except ValueError as error:
        raise BaselineUnavailableError(f"the text columns hold no word ({error})") from error
    return _SparseVectors(rows, rows.T.tocsc())


def item_texts(view: TrainingView) -> list[str]:
    """One string per item: its text columns joined by a space, empty where all are missing.

    Raises:
        BaselineUnavailableError: No ``tokens`` or ``text`` feature reads a catalogue column.
    """
    wanted = [c for f in view.recipe.features if f.kind in _TEXT_KINDS for c in f.columns]
    columns = [c for c in dict.fromkeys(wanted) if c in view.items.column_names]
    if not columns:
        raise BaselineUnavailableError("the recipe has no tokens or text feature")
    lists = [_as_texts(view.items[column]) for column in columns]
    return [" ".join(part for part in parts if part) for parts in zip(*lists, strict=True)]


def _as_texts(column: pa.ChunkedArray) -> list[str]:
    values = column.to_pylist()
    return [" ".join(map(str, v)) if isinstance(v, list) else str(v or "") for v in values]

"""Untrained encoders: the prepared vectors of a text or image feature, as they came."""

from __future__ import annotations

import numpy as np

from muxrec.evaluation.baselines.view import BaselineUnavailableError, TrainingView
from muxrec.evaluation.scoring import Scorer, unit_rows, vector_scorer

UNTRAINED_TEXT = "evaluation.untrained_text"


def build_text(view: TrainingView) -> Scorer:
    """Cosine of the vectors of ``evaluation.untrained_text``, else of the first text feature.

    Raises:
        BaselineUnavailableError: The recipe names no text encoder.
    """
    if UNTRAINED_TEXT in view.dense:
        return _cosine(view, UNTRAINED_TEXT)
    return _cosine(view, _first(view, "text"))


def build_image(view: TrainingView) -> Scorer:
    """Cosine of the image descriptors of the first image feature.

    Raises:
        BaselineUnavailableError: No image feature with a fixed descriptor.
    """
    name = _first(view, "image")
    if view.dense[name].values.ndim != 2:
        raise BaselineUnavailableError(
            f"image feature {name} is pixels: it has no untrained vector"
        )
    return _cosine(view, name)


def _first(view: TrainingView, kind: str) -> str:
    names = [f.name for f in view.recipe.features if f.kind == kind and f.name in view.dense]
    if not names:
        raise BaselineUnavailableError(f"the recipe has no prepared {kind} feature")
    return names[0]


def _cosine(view: TrainingView, name: str) -> Scorer:
    dense = view.dense[name]
    return vector_scorer(unit_rows(dense.values.astype(np.float32)), dense.present)

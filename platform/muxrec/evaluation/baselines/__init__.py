"""Ways to rank without training a tower, always printed beside the trained rows."""

from __future__ import annotations

from muxrec.evaluation.baselines import (
    co_occurrence,
    cosine,
    implicit_bm25,
    implicit_cosine,
    popularity,
    random,
    tfidf,
    untrained,
)
from muxrec.evaluation.baselines.view import Baseline

BASELINES: dict[str, Baseline] = {
    "random": random.build,
    "popularity": popularity.build,
    "co-occurrence": co_occurrence.build,
    "cosine": cosine.build,
    "cosine (implicit)": implicit_cosine.build,
    "BM25 (implicit)": implicit_bm25.build,
    "TF-IDF": tfidf.build,
    "text untrained": untrained.build_text,
    "image untrained": untrained.build_image,
}

"""The rules of the item-to-item task in words."""

from __future__ import annotations

import numpy as np

from muxrec.bench.compression.i2i_data import ItemData
from muxrec.evaluation.relevance import Relevance


def relevance_rule(data: ItemData) -> str:
    """What is asked and what is right."""
    evaluation, count = data.recipe.evaluation, len(data.is_cold)
    return (
        f"co-engagement: a query is an item with at least {evaluation.min_events} events in the "
        f"period, right are the up to {evaluation.max_relevant} partners with the best pair score "
        f"of that period; all {count:,} items but the query are ranked by inner product"
    )


def split_rule(data: ItemData) -> str:
    """How the periods were cut."""
    split = data.recipe.data.split
    return (
        f"by time: the first {100 * split.train:g} % of the events train, the next "
        f"{100 * split.validation:g} % are validation, the rest is the test; pairs are mined in "
        "each period alone"
    )


def item_facts(data: ItemData) -> dict[str, str]:
    """Dataset, queries, tower and training."""
    recipe, train = data.recipe, data.recipe.train
    modalities = ", ".join(dict.fromkeys(f.modality for f in recipe.features))
    stop = f", stop after {train.early_stop} without a better one" if train.early_stop else ""
    return {
        "data set": f"recipe {recipe.name}, snapshot {data.digest[:16]}, {len(data.is_cold):,} "
        f"items, {int((~data.is_cold).sum()):,} of them in training pairs (warm)",
        "queries": f"test {_counted(data, data.test)}, validation "
        f"{_counted(data, data.validation)}",
        "width": f"{data.full.width} numbers per item id",
        "model": f"item tower of the recipe on the modalities {modalities}; table "
        f"{data.full.name} is replaced, rows start uniform in [-{data.full.init:g}, "
        f"{data.full.init:g}]",
        "training": f"the loop of `muxrec train`: batch {train.batch_size:,}, {train.epochs} "
        f"epochs{stop}, which a method's stages share; AdamW {train.lr:g} on the dense part, decay "
        f"{train.weight_decay:g}; all rates rise over {train.warmup:g} of the steps and fall by a "
        "cosine; row-wise adagrad or rmsprop on the rows",
        "time per step": "process CPU time of a whole step with its batch on one thread, median",
    }


def _counted(data: ItemData, relevance: Relevance) -> str:
    warm = int(np.count_nonzero(~data.is_cold[relevance.queries]))
    return f"{len(relevance):,} ({warm:,} warm)"

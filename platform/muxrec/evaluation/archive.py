"""A study as one ``.npz``: everything that a table or a comparison of runs is made of."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from muxrec.errors import DataError
from muxrec.evaluation.exposure import Exposure
from muxrec.evaluation.relevance import Relevance
from muxrec.evaluation.slices import Slice
from muxrec.evaluation.study import Measured, Row, Study, Truth

FORMAT = 1
ARCHIVE = "queries.npz"


def save_study(study: Study, path: Path) -> None:
    """Write the study; the file is replaced in one rename."""
    outline = {
        "format": FORMAT,
        "name": study.name,
        "split": study.split,
        "digest": study.digest,
        "ks": study.ks,
        "unavailable": study.unavailable,
        "truths": [_truth_outline(truth) for truth in study.truths],
        "rows": [{"name": r.name, "kind": r.kind, "seeds": list(r.runs)} for r in study.rows],
    }
    arrays: dict[str, Any] = {
        "outline": np.array(json.dumps(outline)),
        "item_keys": study.item_keys,
    }
    for at, truth in enumerate(study.truths):
        arrays |= {f"truth{at}/{name}": value for name, value in _truth_arrays(truth)}
    for at, row in enumerate(study.rows):
        for seed, run in row.runs.items():
            stem = f"row{at}/{seed}"
            arrays |= {f"{stem}/{name}": value for name, value in measured_arrays(run).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez_compressed(temporary, allow_pickle=False, **arrays)
    temporary.replace(path)


def load_study(path: Path) -> Study:
    """Read a study that ``save_study`` wrote.

    Raises:
        DataError: There is no such file, it is damaged, or it is of another format.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist: make it with `muxrec eval RECIPE`")
    try:
        with np.load(path, allow_pickle=False) as archive:
            outline = json.loads(str(archive["outline"]))
            if outline["format"] != FORMAT:
                raise DataError(f"{path} is format {outline['format']}, expected {FORMAT}")
            return _study(outline, archive)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}): run `muxrec eval RECIPE` again") from error


def measured_arrays(run: Measured) -> dict[str, np.ndarray]:
    """A measurement as named arrays."""
    seen = run.exposure
    shares = np.array([seen.coverage, seen.hub_skew, seen.popular_share])
    ranks = {f"ranks/{name}": values for name, values in run.ranks.items()}
    return {"shares": shares, "shown": seen.shown, **ranks}


def measured_from(arrays: Mapping[str, np.ndarray], stem: str, truths: list[str]) -> Measured:
    """The measurement back from its arrays, whose names begin with ``stem``."""
    coverage, hub_skew, popular_share = (float(value) for value in arrays[f"{stem}shares"])
    exposure = Exposure(coverage, hub_skew, popular_share, arrays[f"{stem}shown"])
    return Measured({name: arrays[f"{stem}ranks/{name}"] for name in truths}, exposure)


def _truth_outline(truth: Truth) -> dict[str, Any]:
    slices = [{"name": s.name, "title": s.title, "whole": s.targets is None} for s in truth.slices]
    return {"name": truth.name, "unknown": truth.relevance.unknown, "slices": slices}


def _truth_arrays(truth: Truth) -> Iterator[tuple[str, np.ndarray]]:
    found = truth.relevance
    yield from (("queries", found.queries), ("offsets", found.offsets), ("items", found.items))
    for at, part in enumerate(truth.slices):
        yield f"slice{at}/queries", part.queries
        if part.targets is not None:
            yield f"slice{at}/targets", part.targets


def _study(outline: dict[str, Any], archive: Mapping[str, np.ndarray]) -> Study:
    truths = tuple(
        _truth(entry, archive, f"truth{at}/") for at, entry in enumerate(outline["truths"])
    )
    names = [truth.name for truth in truths]
    rows = tuple(
        Row(
            entry["name"],
            entry["kind"],
            {s: measured_from(archive, f"row{at}/{s}/", names) for s in entry["seeds"]},
        )
        for at, entry in enumerate(outline["rows"])
    )
    return Study(
        name=outline["name"],
        split=outline["split"],
        digest=outline["digest"],
        ks=tuple(outline["ks"]),
        item_keys=archive["item_keys"],
        truths=truths,
        rows=rows,
        unavailable=outline["unavailable"],
    )


def _truth(entry: dict[str, Any], archive: Mapping[str, np.ndarray], stem: str) -> Truth:
    queries, offsets, items = (archive[f"{stem}{n}"] for n in ("queries", "offsets", "items"))
    slices = tuple(
        Slice(
            part["name"],
            part["title"],
            archive[f"{stem}slice{at}/queries"],
            None if part["whole"] else archive[f"{stem}slice{at}/targets"],
        )
        for at, part in enumerate(entry["slices"])
    )
    return Truth(entry["name"], Relevance(queries, offsets, items, entry["unknown"]), slices)

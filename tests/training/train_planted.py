"""Train on the planted catalogue as a process of its own, and die where told.

Usage: train_planted.py FOLDER ENGINE [--die-at STEP | --die-in-save NUMBER]
Run by tests/training/test_resume.py, alone or under torchrun.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from muxrec.training import session
from muxrec.training.encode import encode_catalogue
from muxrec.training.loop import fit
from muxrec.training.ranks import joined_ranks


def _conftest() -> Any:
    path = Path(__file__).with_name("conftest.py")
    spec = importlib.util.spec_from_file_location("planted_conftest", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_in_save(number: int) -> None:
    """Kill this process in checkpoint ``number``, all files written but the manifest."""
    real, saves = session.seal, [0]

    def seal(*args: Any, **options: Any) -> Any:
        saves[0] += 1
        if saves[0] == number:
            _die()
        return real(*args, **options)

    session.seal = seal


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("engine")
    parser.add_argument("--die-at", type=int, default=-1)
    parser.add_argument("--die-in-save", type=int, default=0)
    options = parser.parse_args()
    if options.die_in_save:
        _die_in_save(options.die_in_save)
    planted = _conftest()
    recipe = planted.make_recipe(engine=options.engine, checkpoint_every=4, log_every=1, threads=1)
    with joined_ranks("cpu") as ranks:
        folder = options.folder / f"rank{ranks.rank}"
        job = planted.make_job(folder, recipe, validate=True, ranks=ranks)

        def report(step: int, values: dict[str, float]) -> None:
            if step == options.die_at and "loss" in values:
                _die()

        trained = fit(replace(job, folder=options.folder / "run", report=report))
        vectors, _ = encode_catalogue(trained.session.model, job.prepared.arrays)
        if ranks.is_first:
            np.save(options.folder / "vectors.npy", vectors)


if __name__ == "__main__":
    main()

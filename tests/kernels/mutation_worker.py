"""Measure kernels with seeded defects: ``mutation_worker.py defects.py folder [name ...]``.

Prints a JSON line ``[name, distances]`` per defect; the name ``""`` stands for the sound kernels.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mutant_of(source: str, function: str, sound: str, defect: str) -> str:
    """The kernels' source with one edit inside the function."""
    parts = re.split(r"^(?=@triton\.jit)", source, flags=re.MULTILINE)
    where = [at for at, part in enumerate(parts) if f"\ndef {function}(" in part]
    if len(where) != 1 or sound not in parts[where[0]]:
        raise SystemExit(f"the defect no longer applies to {function}: rewrite it: {sound!r}")
    parts[where[0]] = parts[where[0]].replace(sound, defect)
    return "".join(parts)


def main() -> None:
    listed, folder, *names = sys.argv[1:]
    operation = load(Path(listed))
    source = Path(operation.MODULE.__file__).read_text(encoding="utf-8")
    for at, name in enumerate(names):
        text = mutant_of(source, *operation.DEFECTS[name]) if name else source
        # A folder of its own: sources and compiled modules are cached by their path.
        path = Path(folder) / f"{len(names)}-{at}" / "mutant.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(json.dumps([name, operation.distances(load(path))]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

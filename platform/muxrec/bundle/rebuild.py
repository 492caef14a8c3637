"""A new bundle with the same items and tower and another index."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from muxrec.bundle import format as names
from muxrec.bundle.reader import Bundle
from muxrec.bundle.staging import publish_folder, staging
from muxrec.bundle.write import write_search
from muxrec.recipe.load import load_recipe
from muxrec.recipe.model import Index

REWRITTEN = {names.RECIPE, names.NEIGHBOURS, names.SCORES, names.INDEX, names.GOLDEN}
SEALED = {"files", "kind", "format_version", "hash_version"}
"""What a manifest says because it was sealed, and what therefore does not carry over."""


def rebuild_index(root: Path, bundle: Bundle, settings: Index) -> Path:
    """Publish ``bundle`` with neighbours and index made by ``settings``; returns its folder.

    The bundle itself stays as it is; where its settings are the same already, its own folder comes
    back.

    Args:
        root: Folder of bundles.
        bundle: A verified bundle.
        settings: The recipe's ``index`` section.

    Raises:
        BundleError: The disk is full, or the probe refused the result; nothing was published then.
    """
    recipe = load_recipe(bundle.folder / names.RECIPE)
    if recipe.index == settings:
        return bundle.folder
    with staging(root) as folder:
        for name in bundle.manifest["files"].keys() - REWRITTEN:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.folder / name, folder / name)
        body = {key: value for key, value in bundle.manifest.items() if key not in SEALED}
        body |= write_search(
            folder,
            recipe=replace(recipe, index=settings),
            items=bundle.items,
            vectors=np.array(bundle.vectors),
        )
        return publish_folder(root, folder, body)

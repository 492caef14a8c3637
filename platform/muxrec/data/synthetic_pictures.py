"""Small generated pictures, one texture and colour family per style."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 96
Mask = npt.NDArray[np.bool_]
Grid = npt.NDArray[np.int64]


def _stripes(x: Grid, y: Grid, size: int) -> Mask:
    return (x + y) // size % 2 == 0


def _checks(x: Grid, y: Grid, size: int) -> Mask:
    return (x // size + y // size) % 2 == 0


def _dots(x: Grid, y: Grid, size: int) -> Mask:
    period = 2 * size
    return ((x % period - size) ** 2 + (y % period - size) ** 2) < (size * 0.7) ** 2


def _bars(x: Grid, y: Grid, size: int) -> Mask:  # noqa: ARG001 - one signature for all textures
    return y // size % 2 == 0


STYLES: dict[str, tuple[tuple[int, int, int], Callable[[Grid, Grid, int], Mask]]] = {
    "sunny": ((225, 150, 60), _stripes),
    "marine": ((50, 110, 190), _bars),
    "meadow": ((80, 160, 80), _dots),
    "berry": ((175, 60, 120), _checks),
}
"""Style -> base colour and texture."""


def picture(style: str, *, seed: int) -> Image.Image:
    """A square RGB picture in one of ``STYLES``, ``SIDE`` pixels wide, the same for the same seed.

    Colour, texture size, shift and noise vary, so no two pictures of a style are equal.
    """
    rng = np.random.default_rng(seed)
    base, texture = STYLES[style]
    light = np.clip(np.array(base) + rng.normal(0, 22, 3), 0, 255)
    dark = light * rng.uniform(0.45, 0.75)
    y, x = np.mgrid[0:SIDE, 0:SIDE] + rng.integers(0, SIDE, 2)[:, None, None]
    mask = texture(x, y, int(rng.integers(7, 15)))
    pixels = np.where(mask[..., None], light, dark) + rng.normal(0, 6, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))

"""Pictures to arrays: pixels for a trained network, or fixed descriptors that need no training."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

GRID = (12, 8)
HISTOGRAM_BINS = 4
GRADIENT_GRID = (6, 4)
GRADIENT_BINS = 8
DESCRIPTOR_WIDTH = GRID[0] * GRID[1] * 3 + HISTOGRAM_BINS**3 + 6 * 4 * GRADIENT_BINS
"""Width of ``describe``: a 12 x 8 colour grid, 64 colour bins, 6 x 4 cells of 8 directions."""

MAX_PIXELS = 4096 * 4096

Picture = npt.NDArray[np.uint8]


class UnreadablePictureError(Exception):
    """The file is no picture, is damaged, or is too large."""


def read_picture(source: Path | bytes, size: tuple[int, int]) -> Picture:
    """A picture resized to ``size`` (width, height), uint8 ``[height, width, 3]``.

    Raises:
        UnreadablePictureError: It cannot be decoded, or has more than 4096 x 4096 pixels.
        FileNotFoundError: The file does not exist.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(stream) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise UnreadablePictureError(f"{picture.width} x {picture.height} pixels")
            resized = picture.convert("RGB").resize(size, Image.Resampling.BILINEAR)
            return np.asarray(resized, dtype=np.uint8)
    except FileNotFoundError:
        raise
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise UnreadablePictureError(str(error)) from error


def pixels(source: Path | bytes, size: int) -> Picture:
    """Pixels for a convolution, uint8 ``[3, size, size]``."""
    return np.ascontiguousarray(read_picture(source, (size, size)).transpose(2, 0, 1))


def describe(source: Path | bytes) -> npt.NDArray[np.float32]:
    """Fixed statistics of a picture, float32 ``[544]``, each block of unit root mean square scale.

    Blocks: mean colours on a 12 x 8 grid, a 4 x 4 x 4 colour histogram, and histograms of gradient
    directions on a 6 x 4 grid (weighted by gradient length, square root taken).
    """
    rows, columns = GRID
    picture = read_picture(source, (columns * 8, rows * 8)).astype(np.float32) / np.float32(255)
    grid = picture.reshape(rows, 8, columns, 8, 3).mean(axis=(1, 3)) - 0.5
    blocks = [grid.ravel(), _colour_histogram(picture), _gradient_histogram(picture)]
    return np.concatenate([_unit_scale(block) for block in blocks]).astype(np.float32)


def _unit_scale(block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    scale = np.sqrt((block**2).mean())
    return block / max(float(scale), 1e-6)


def _colour_histogram(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    bins = np.minimum((picture * HISTOGRAM_BINS).astype(np.int64), HISTOGRAM_BINS - 1)
    codes = (bins[..., 0] * HISTOGRAM_BINS + bins[..., 1]) * HISTOGRAM_BINS + bins[..., 2]
    counts = np.bincount(codes.ravel(), minlength=HISTOGRAM_BINS**3)
    return np.sqrt(counts / codes.size).astype(np.float32)


def _gradient_histogram(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    grey = picture.mean(axis=2)
    dy, dx = np.gradient(grey)
    direction = ((np.arctan2(dy, dx) + np.pi) / (2 * np.pi) * GRADIENT_BINS).astype(np.int64)
    direction = np.minimum(direction, GRADIENT_BINS - 1)
    rows, columns = GRADIENT_GRID
    cell_row = np.arange(grey.shape[0]) * rows // grey.shape[0]
    cell_column = np.arange(grey.shape[1]) * columns // grey.shape[1]
    cell = cell_row[:, None] * columns + cell_column
    weights = np.hypot(dx, dy).ravel()
    codes = (cell * GRADIENT_BINS + direction).ravel()
    sums = np.bincount(codes, weights=weights, minlength=rows * columns * GRADIENT_BINS)
    return np.sqrt(sums / max(grey.size, 1)).astype(np.float32)

"""The errors that muxrec raises for what a caller, a file or a recipe can cause."""

from __future__ import annotations


class MuxrecError(Exception):
    """Base of every error with a message meant for the user: one line, what to do in it."""


class RecipeError(MuxrecError):
    """A recipe is wrong. The message holds one line per fault, each ``file:line: path: what``."""


class DataError(MuxrecError):
    """Input data or a dataset snapshot is missing, damaged or breaks its declared schema."""


class BundleError(MuxrecError):
    """A bundle is truncated, edited, mixed or of a format that this version does not know."""


class HashMismatchError(BundleError):
    """Two artifacts were made with different hash specs; their rows cannot be mixed."""


class RegistryError(MuxrecError):
    """The model registry refused, is away, or holds no such version or alias."""


class TrainingError(MuxrecError):
    """Training cannot start or go on: bad resume state, a non-finite loss, an impossible plan."""


class MissingExtraError(MuxrecError):
    """A package of an optional extra is not installed; the message names the extra."""

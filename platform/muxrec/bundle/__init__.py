"""Bundles: everything that a server needs, in one folder that proves itself. No torch in here."""

from muxrec.bundle.reader import Bundle
from muxrec.bundle.tower import TowerSession

__all__ = ["Bundle", "TowerSession"]

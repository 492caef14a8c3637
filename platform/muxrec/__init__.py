"""muxrec: behaviour logs and an item catalogue in, item vectors and served neighbours out."""

__version__ = "0.1.0"

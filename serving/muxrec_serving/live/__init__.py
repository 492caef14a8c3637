"""Upserts and deletions over a bundle, and the encoding of raw items."""

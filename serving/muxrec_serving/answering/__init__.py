"""Neighbours of items and vectors from one immutable view."""

"""Measurements behind the tables in docs/; each checks correctness before it prints a number."""

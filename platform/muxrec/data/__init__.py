"""Datasets: snapshots, batches and pairs, and the made-up world of the demo."""

"""Spark jobs that turn raw logs and a catalogue into checked, split, immutable training data."""

"""What all rooms agree on: features, tables, hash, slots. Numpy and the standard library only."""

"""What all rooms agree on: features, tables, budgets, hash. Numpy and the standard library only."""

"""How good the vectors are: relevance, metrics, intervals, slices, baselines and the report."""

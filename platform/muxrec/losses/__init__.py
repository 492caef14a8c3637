"""One contrastive engine: a score matrix, a relation over it, a divergence between the two."""

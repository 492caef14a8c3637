"""Feature embeddings: declared tables lowered to probes, physical tables and a combination."""

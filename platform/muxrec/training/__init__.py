"""The training loop, its checkpoints, the study's variants and the catalogue's vectors."""

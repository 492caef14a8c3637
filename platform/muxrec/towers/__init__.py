"""The item tower: features -> one vector per modality -> late fusion -> one unit vector."""

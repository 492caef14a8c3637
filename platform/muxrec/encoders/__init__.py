"""Frozen encoders of the user's choice, exported once to ONNX so that no reader needs torch."""

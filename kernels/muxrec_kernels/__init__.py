"""Triton kernels under muxrec's tables: one folder per operation, reference beside kernel."""

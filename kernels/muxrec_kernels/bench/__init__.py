"""``python -m muxrec_kernels.bench``: correctness first, then time against named peers.

Needs torch and triton and nothing else of the platform; peers that are not installed are named with
the reason and left out.
"""

"""XXH64 of 64-bit ids: ``reference`` in torch, ``triton_kernel`` as a device function.

The Triton form is a function that other kernels inline, so that no array of rows is ever stored.
"""

from muxrec_kernels.xxhash64.reference import finish_hashes, hash_rows, mix_ids, reduce_to_rows

__all__ = ["finish_hashes", "hash_rows", "mix_ids", "reduce_to_rows"]

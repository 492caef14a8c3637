"""The common hash in torch, bit-equal with :mod:`muxrec.spec.hashing` and exportable to ONNX.

The arithmetic lies beside the Triton form in ``muxrec_kernels.xxhash64``, which the kernels' own
tests and benchmarks use without the platform; this module is the platform's door to it.
"""

from muxrec_kernels.xxhash64 import finish_hashes, hash_rows, mix_ids, reduce_to_rows

__all__ = ["finish_hashes", "hash_rows", "mix_ids", "reduce_to_rows"]

"""Tensors as a safetensors file, without a second copy of them in memory.

``safetensors.torch.save_file`` turns every tensor into bytes first: a table of 640 MB took another
640 MB while it was saved.

Source: https://huggingface.co/docs/safetensors, "Format": eight bytes with the length of a JSON
header, the header, and the tensors one after another in little-endian order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

BLOCK_ROWS = 65_536
ALIGNMENT = 8
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
}


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors of any strides and device, ``BLOCK_ROWS`` rows at a time.

    Args:
        tensors: Name -> tensor with one dimension at least.
        path: The file; it is replaced.

    Raises:
        KeyError: A tensor's kind of numbers has no place in the format.
    """
    # Larger numbers first: every tensor then begins at a multiple of its numbers' size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, start = {}, 0
    for name, tensor in ordered:
        stop = start + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for _, tensor in ordered:
            for block in tensor.detach().split(BLOCK_ROWS):
                # As bytes, since numpy has no bfloat16.
                stream.write(block.cpu().contiguous().flatten().view(torch.uint8).numpy().data)

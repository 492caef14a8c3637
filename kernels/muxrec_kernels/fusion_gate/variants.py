"""The gate's kernels as they are launched, and what their machine code has to be."""

from __future__ import annotations

from collections.abc import Iterator

from muxrec_kernels.fusion_gate.autograd import WARPS, rows_per_program
from muxrec_kernels.machine_code import WARP, Variant
from muxrec_kernels.tiles import next_power_of_2

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
WRITTEN = {"fp32": "*fp32", "fp16": "*fp16", "bf16": "*i16"}
"""bfloat16 is written as its bits."""
READ = ("logits", "fused", "new", "parts")
STRIDES = ("logits_stride", "fused_stride", "new_stride", "parts_stride", "part_step")
MASK_STRIDES = ("is_fused_stride", "is_new_stride")


def _forward(dtype: str, width: int, parts: int, archs: tuple[int, ...] = (90,)) -> Variant:
    arguments = {
        **_read(dtype, dtype),
        "total": WRITTEN[dtype],
        "out_parts": WRITTEN[dtype],
    }
    return Variant(
        name=f"forward, {dtype} width {width}, {parts} parts",
        kernel="forward_kernel",
        arguments=arguments,
        constants={**_tile(width, parts), "BF16": dtype == "bf16"},
        aligned=_aligned(arguments),
        warps=WARPS,
        wide_loads=(3 + parts) * _wide(width, BYTES[dtype]),
        archs=archs,
    )


def _backward(
    dtype: str, logits: str, width: int, parts: int, archs: tuple[int, ...] = (90,)
) -> Variant:
    gradients = dict.fromkeys(("d_fused", "d_new", "d_parts"), WRITTEN[dtype])
    arguments = {
        **_read(dtype, logits),
        **dict.fromkeys(("grad_total", "grad_parts"), f"*{dtype}"),
        "d_logits": WRITTEN[logits],
        **gradients,
    }
    wide = (4 + 2 * parts) * _wide(width, BYTES[dtype]) + _wide(width, BYTES[logits])
    return Variant(
        name=f"backward, {dtype} with logits of {logits}, width {width}, {parts} parts",
        kernel="backward_kernel",
        arguments=arguments,
        constants={
            **_tile(width, parts),
            "HAS_TOTAL": True,
            "HAS_PARTS": True,
            "LOGITS_BF16": logits == "bf16",
            "BF16": dtype == "bf16",
        },
        aligned=_aligned(arguments),
        warps=WARPS,
        wide_loads=wide,
        archs=archs,
    )


def _read(dtype: str, logits: str) -> dict[str, str]:
    floats = {name: f"*{logits if name == 'logits' else dtype}" for name in READ}
    integers = dict.fromkeys(("batch", *STRIDES, *MASK_STRIDES), "i32")
    return {**floats, "is_fused": "*u8", "is_new": "*u8", **integers}


def _aligned(arguments: dict[str, str]) -> tuple[str, ...]:
    """Everything but the batch and the masks, which are slices of ``[B, M]``."""
    loose = {"batch", "is_fused", "is_new", *MASK_STRIDES}
    return tuple(name for name in arguments if name not in loose)


def _tile(width: int, parts: int) -> dict[str, int]:
    padded, rows = next_power_of_2(width), rows_per_program(width)
    return {"D": width, "D_PADDED": padded, "ROWS": rows, "PARTS": parts}


def _wide(width: int, size: int) -> int:
    """Loads of 16 bytes with which every thread reads its numbers of one tensor."""
    return max(1, rows_per_program(width) * next_power_of_2(width) * size // (16 * WARP * WARPS))


def _variants() -> Iterator[Variant]:
    yield _forward("fp32", 64, 1, archs=(90, 80))
    yield _forward("fp16", 256, 1)
    yield _forward("bf16", 1024, 3)
    yield _backward("fp32", "fp32", 64, 1, archs=(90, 80))
    yield _backward("fp32", "bf16", 256, 2)
    yield _backward("bf16", "bf16", 1024, 1)


VARIANTS = tuple(_variants())

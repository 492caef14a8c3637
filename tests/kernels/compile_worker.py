"""Compile the kernels without the interpreter and print their machine code as JSON lines.

``compile_worker.py '{"arch": 90, "cases": [["fp32", 64, 1.0], ...]}'``: each case is a dtype, a
width and a mean bag length; the dtype ``grad`` stands for the backward kernel.
"""

from __future__ import annotations

import json
import sys

import triton

from muxrec_kernels.machine_code import MachineCode, compile_kernel
from muxrec_kernels.multiplexed_lookup import triton_kernel
from muxrec_kernels.multiplexed_lookup.autograd import Tile, choose_tile, segment_lanes

FORWARD = {
    "ids": "*i64",
    "offsets": "*i64",
    "slot_features": "*i64",
    "slot_seeds": "*i64",
    "weights": "*fp32",
    "out": "*fp32",
    "rows": "i32",
    "batch_size": "i32",
    "slots": "i32",
}


def forward(dtype: str, width: int, tile: Tile, arch: int, weighted: bool) -> MachineCode:
    return compile_kernel(
        triton_kernel.forward_kernel,
        arguments={"table": f"*{dtype}", **FORWARD},
        constants={
            "D": width,
            "D_PADDED": triton.next_power_of_2(width),
            "BAGS": tile.bags,
            "LANES": tile.lanes,
            "WEIGHTED": weighted,
            "EXPONENT": 1,
        },
        aligned=("table", "ids", "offsets", "weights", "out"),
        arch=arch,
        warps=tile.warps,
    )


def segment(width: int, arch: int) -> MachineCode:
    pointers = {"grad_out": "*fp32", "sources": "*i64", "scales": "*fp32", "starts": "*i64"}
    return compile_kernel(
        triton_kernel.segment_kernel,
        arguments={**pointers, "out": "*fp32"},
        constants={
            "D": width,
            "D_PADDED": triton.next_power_of_2(width),
            "LANES": segment_lanes(width),
            "SCALED": True,
        },
        aligned=(*pointers, "out"),
        arch=arch,
        warps=1,
    )


def main() -> None:
    job = json.loads(sys.argv[1])
    for dtype, width, length in job["cases"]:
        tile = choose_tile(width, length)
        pass_name = "forward" if dtype != "grad" else "backward"
        code = (
            segment(width, job["arch"])
            if pass_name == "backward"
            else forward(dtype, width, tile, job["arch"], weighted=length > 1)
        )
        report = {
            "case": [dtype, width, length],
            "tile": tile if pass_name == "forward" else [1, segment_lanes(width), 1],
            "registers": code.registers,
            "stack_bytes": code.stack_bytes,
            "operations": dict(code.operations),
        }
        sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()

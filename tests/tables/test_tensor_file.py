"""Files written block by block are the files that safetensors reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from muxrec.tables import tensor_file
from muxrec.tables.tensor_file import DTYPES, write_tensors


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 7, 8, 20])
def test_rows_of_every_kind_come_back(
    tmp_path: Path, dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_file, "BLOCK_ROWS", 8)
    generator = torch.Generator().manual_seed(rows)
    wide = torch.randint(-99, 99, (rows, 6), generator=generator).to(dtype)
    given = {
        "codes": torch.arange(rows, dtype=torch.int8),
        "weight": wide[:, :5],
        "narrow": wide[:, :1],
        "turned": wide.T,
        "count": torch.tensor([3]),
    }
    write_tensors(given, tmp_path / "t.safetensors")
    found = load_file(tmp_path / "t.safetensors")
    assert found.keys() == given.keys()
    for name, tensor in given.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)

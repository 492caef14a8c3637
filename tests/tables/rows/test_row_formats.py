"""What every format of served rows keeps to."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from muxrec.tables.rows import ROW_FORMATS, blocks

SHAPES = [(1, 1), (1, 32), (7, 3), (50, 8), (33, 5), (9, 300)]
WITH_SCALES = ("int16", "int8", "int4", "int2")


def trained_like(rows: int, width: int, *, seed: int = 0) -> torch.Tensor:
    """Gaussian rows of differing size with pruned numbers, a row of zeros and a constant row."""
    generator = torch.Generator().manual_seed(seed)
    weight = 0.1 * torch.randn(rows, width, generator=generator)
    weight *= torch.rand(rows, 1, generator=generator).exp()
    weight[torch.rand(rows, width, generator=generator) < 0.3] = 0
    weight[rows // 2] = 0
    weight[rows // 3] = 0.25
    return weight


@pytest.mark.parametrize("name", ROW_FORMATS)
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_a_lookup_gives_the_dense_rows_bit_for_bit(name, rows, width):
    served = ROW_FORMATS[name].of(trained_like(rows, width))
    wanted = torch.randint(0, rows, (4, 3, 2), generator=torch.Generator().manual_seed(1))
    found, dense = served(wanted), served.dense()
    assert (found.dtype, found.shape) == (torch.float32, (4, 3, 2, width))
    assert (dense.dtype, dense.shape) == (torch.float32, (rows, width))
    assert torch.equal(found, dense[wanted])
    assert served(wanted[:0]).shape == (0, 3, 2, width)


@pytest.mark.parametrize("name", ROW_FORMATS)
def test_a_row_of_zeros_stays_a_row_of_zeros(name):
    weight = trained_like(50, 8)
    assert not ROW_FORMATS[name].of(weight).dense()[25].any()
    assert not ROW_FORMATS[name].of(torch.zeros(3, 8)).dense().any()


@pytest.mark.parametrize("name", ROW_FORMATS)
def test_a_row_of_equal_numbers_keeps_them(name):
    dense = ROW_FORMATS[name].of(torch.full((3, 8), -0.1)).dense()
    torch.testing.assert_close(dense, torch.full((3, 8), -0.1), rtol=2**-11, atol=0)  # float16


@pytest.mark.parametrize("name", ROW_FORMATS)
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_the_bytes_are_those_of_the_buffers_and_known_before(name, rows, width):
    weight = trained_like(rows, width)
    served = ROW_FORMATS[name].of(weight)
    assert list(served.parameters()) == []
    assert served.served_bytes == sum(buffer.numpy().nbytes for buffer in served.buffers())
    nonzeros = int(torch.count_nonzero(weight))
    assert served.served_bytes == served.bytes_for(rows, width, nonzeros=nonzeros)
    assert served.bytes_for(rows, width) >= served.served_bytes


@pytest.mark.parametrize("name", WITH_SCALES)
@pytest.mark.parametrize(("width", "group"), [(8, 2), (8, 8), (8, 24), (5, 50), (1, 7), (6, 600)])
def test_the_bytes_of_groups_are_those_of_the_buffers_and_known_before(name, width, group):
    served = ROW_FORMATS[name].of(trained_like(50, width), group=group)
    assert served.served_bytes == sum(buffer.numpy().nbytes for buffer in served.buffers())
    assert served.served_bytes == served.bytes_for(50, width, group=group)


@pytest.mark.parametrize(
    ("name", "width", "group", "share"),
    [
        ("fp16", 32, 0, 0.5),
        ("int16", 32, 0, 0.5313),
        ("int8", 32, 0, 0.2813),
        ("int4", 32, 0, 0.1563),
        ("int2", 32, 0, 0.0938),
        ("int8", 4, 0, 0.5),
        ("int8", 4, 64, 0.2657),
        ("int4", 4, 64, 0.1407),
        ("int2", 4, 64, 0.0782),
    ],
)
def test_formats_take_the_share_of_fp32_that_they_say(name, width, group, share):
    served = ROW_FORMATS[name].bytes_for(100_000, width, group=group)
    assert served / ROW_FORMATS["fp32"].bytes_for(100_000, width) == pytest.approx(share, abs=1e-4)


def test_csr_saves_what_pruning_leaves_out():
    weight = torch.randn(2000, 32, generator=torch.Generator().manual_seed(0))
    weight[:, 3:] = 0
    assert ROW_FORMATS["csr"].of(weight).served_bytes < 0.16 * weight.nbytes


@pytest.mark.parametrize("width", [256, 257])
def test_csr_keeps_every_number_in_columns_of_one_or_two_bytes(width):
    weight = trained_like(20, width)
    weight[3, -1] = 7
    served = ROW_FORMATS["csr"].of(weight)
    assert served.columns.element_size() == (1 if width == 256 else 2)
    assert torch.equal(served.dense(), weight)


@pytest.mark.parametrize("name", ROW_FORMATS)
def test_a_copy_gives_the_same_rows(name):
    served = ROW_FORMATS[name].of(trained_like(9, 6))
    twin = copy.deepcopy(served)
    assert torch.equal(twin.dense(), served.dense())
    for buffer in twin.buffers():
        buffer.zero_()
    assert served.dense().any()


@pytest.mark.parametrize("name", ROW_FORMATS)
@pytest.mark.parametrize("group", [0, 4, 112])
def test_the_rows_do_not_depend_on_the_blocks(name, group, monkeypatch):
    weight, group = trained_like(100, 16), group if name in WITH_SCALES else 0
    whole = ROW_FORMATS[name].of(weight, group=group).state_dict()
    monkeypatch.setattr(blocks, "BLOCK", 200)
    parts = ROW_FORMATS[name].of(weight, group=group)
    assert all(torch.equal(parts.state_dict()[key], tensor) for key, tensor in whole.items())
    assert torch.equal(parts(torch.arange(100)), parts.dense())


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor of numbers that an operation makes, beside a table's views."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.found = weight.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                storage = tensor.untyped_storage()
                if storage.data_ptr() != self.weight:
                    self.found = max(self.found, storage.nbytes())
        return made


@pytest.mark.parametrize("name", WITH_SCALES)
@pytest.mark.parametrize("group", [0, 64])
def test_quantising_makes_no_float_array_of_the_tables_size(name, group):
    weight = torch.randn(40_000, 16)
    with LargestTensor(weight) as largest:
        ROW_FORMATS[name].of(weight, group=group)
    # Blocks are 1 MB of float32, the scales of a row 160 kB; the table is 2.6 MB.
    assert 0 < largest.found <= 4 * blocks.BLOCK


@pytest.mark.parametrize("name", ROW_FORMATS)
@pytest.mark.parametrize(
    "weight", [torch.zeros(3), torch.zeros(3, 4).double(), torch.zeros(0, 4), torch.zeros(3, 0)]
)
def test_what_is_no_table_of_float32_is_refused(name, weight):
    with pytest.raises(ValueError, match=rf"{name} rows are made of float32 .* got float"):
        ROW_FORMATS[name].of(weight)


@pytest.mark.parametrize("name", ["fp16", *WITH_SCALES])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -2e38])
def test_numbers_that_a_format_cannot_hold_are_refused_with_their_row(name, number):
    weight = torch.zeros(9, 4)
    weight[6, 1] = number
    with pytest.raises(ValueError, match=rf"{name} rows hold numbers up to .* row 6 has"):
        ROW_FORMATS[name].of(weight)


@pytest.mark.parametrize("name", ROW_FORMATS)
def test_exact_formats_and_no_others_keep_every_number(name):
    exact = ROW_FORMATS[name].is_exact
    assert exact == (name in ("fp32", "csr"))
    weight = torch.tensor([[3.4e38, -1e-45, 1e-38, 0.0], [1.0, -3.4e38, 65505.0, 1 / 3]])
    weight = weight if exact else weight[:, 2:] / 1e36
    assert torch.equal(ROW_FORMATS[name].of(weight).dense(), weight) == exact


@pytest.mark.parametrize("name", ["fp32", "fp16", "csr"])
def test_a_group_of_a_format_without_scales_is_refused(name):
    for make in (
        lambda: ROW_FORMATS[name].of(torch.zeros(3, 4), group=4),
        lambda: ROW_FORMATS[name].bytes_for(3, 4, group=4),
    ):
        with pytest.raises(ValueError, match=f"{name} rows have no scales to share"):
            make()


@pytest.mark.parametrize("name", WITH_SCALES)
@pytest.mark.parametrize("group", [-4, 3, 6, 2**20 + 4])
def test_a_group_that_does_not_fit_the_width_is_refused(name, group):
    for make in (
        lambda: ROW_FORMATS[name].of(torch.zeros(3, 4), group=group),
        lambda: ROW_FORMATS[name].bytes_for(3, 4, group=group),
    ):
        with pytest.raises(ValueError, match=rf"group must .* got {group}"):
            make()

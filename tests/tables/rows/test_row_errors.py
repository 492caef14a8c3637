"""How far the served rows are from the trained ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from muxrec.tables.rows import ROW_FORMATS
from muxrec.tables.rows.levels import fit_levels, nearest_levels

TINY = 2.0**-149
"""Smallest float32 above 0."""


@st.composite
def tables(draw) -> tuple[torch.Tensor, int]:
    """A table of any width in 1..70, its numbers uniform, Gaussian or heavy-tailed, and a group."""
    rows, width = draw(st.integers(1, 20)), draw(st.integers(1, 70))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    weight = torch.randn(rows, width, generator=generator)
    kind = draw(st.sampled_from(["uniform", "gauss", "heavy", "shifted", "pruned"]))
    if kind == "uniform":
        weight = torch.rand(rows, width, generator=generator)
    elif kind == "heavy":
        weight = weight**5
    elif kind == "shifted":
        weight = weight + 5 * torch.randn(rows, 1, generator=generator)
    elif kind == "pruned":
        weight = weight.relu()
    weight = weight * 10.0 ** draw(st.integers(-45, 30))
    weight[draw(st.integers(0, rows - 1))] = 0
    divisors = [size for size in range(1, width) if width % size == 0]
    multiples = [k * width for k in (1, 2, 3, 7, 30)]
    return weight, draw(st.sampled_from([0, *divisors, *multiples]))


def in_groups(tensor: torch.Tensor, group: int) -> list[torch.Tensor]:
    """The numbers of each group, in float64."""
    return list(tensor.double().flatten().split(group or tensor.shape[1]))


@given(tables())
def test_int8_is_within_half_a_step(table):
    weight, group = table
    dense = ROW_FORMATS["int8"].of(weight, group=group).dense()
    for numbers, found in zip(in_groups(weight, group), in_groups(dense, group), strict=True):
        step = numbers.abs().max() / 127
        # Half a step, one float32 rounding of 127 steps, and the scale's own where it is denormal.
        assert (found - numbers).abs().max() <= step * (0.5 + 127 * 2**-23) + 128 * TINY


@given(tables())
def test_int8_rows_are_those_of_the_rows_own_scale(table):
    """The arithmetic of bundles made before groups existed, bit for bit."""
    weight, _ = table
    scales = weight.abs().amax(dim=1) / 127
    steps = torch.where(scales > 0, scales, 1.0)
    codes = torch.round(weight / steps[:, None]).clamp(-127, 127).to(torch.int8)
    served = ROW_FORMATS["int8"].of(weight)
    assert torch.equal(served.codes, codes)
    assert torch.equal(served.scales[:, 0], scales)
    assert torch.equal(served.dense(), codes.float() * scales[:, None])


@pytest.mark.parametrize(("name", "top"), [("int4", 15), ("int2", 3)])
@given(table=tables())
def test_packed_numbers_are_within_half_a_step_of_their_level_or_at_the_end_of_the_levels(
    name, top, table
):
    weight, group = table
    served = ROW_FORMATS[name].of(weight, group=group)
    dense = served.dense()
    unit, size = float(served.unit), float(weight.abs().max())
    levels = (served.levels.double() * unit).view(-1, 2)
    groups = zip(in_groups(weight, group), in_groups(dense, group), levels, strict=True)
    for numbers, found, (step, offset) in groups:
        # One float32 rounding of the level, one of the step for each level where it is denormal,
        # and what float16 cannot tell from 0 in the table's unit.
        rounding = 2**-22 * numbers.abs().max() + 2**-38 * size + 16 * TINY
        assert step >= 0
        inside = numbers.clamp(offset, offset + top * step)
        assert (found - inside).abs().max() <= step / 2 + rounding


@pytest.mark.parametrize(("name", "top"), [("int4", 15), ("int2", 3)])
@given(table=tables())
def test_the_squared_error_is_at_most_that_of_half_steps_from_smallest_to_largest(name, top, table):
    weight, group = table
    dense = ROW_FORMATS[name].of(weight, group=group).dense()
    size = weight.abs().max().double()
    for numbers, found in zip(in_groups(weight, group), in_groups(dense, group), strict=True):
        low, high = numbers.min(), numbers.max()
        # Offset and step are rounded to float16, the step once for every level; where they are
        # denormal, by up to 2**-39 of the largest number.
        rounding = 2**-11 * (low.abs() + high - low) + (1 + top) * 2**-39 * size + 16 * TINY
        error = (found - numbers).square().mean().sqrt()
        assert error <= (high - low) / top / 2 + rounding


@given(tables(), st.sampled_from([15, 3]))
def test_refitting_never_loses_to_levels_from_smallest_to_largest(table, top):
    numbers = table[0] / max(float(table[0].abs().max()), 2**-126)
    low, high = numbers.aminmax(dim=1)
    plain = torch.stack([(high - low) / top, low], dim=1).half()
    fitted = fit_levels(numbers, top)

    def squared_error(levels):
        steps, offsets = levels.float()[:, :1], levels.float()[:, 1:]
        return (nearest_levels(numbers, levels, top) * steps + offsets - numbers).square().sum(1)

    assert (squared_error(fitted) <= squared_error(plain)).all()


@pytest.mark.parametrize(
    ("name", "width", "plain", "limit"),
    [("int4", 4, 0.030, 0.026), ("int4", 32, 0.078, 0.073), ("int2", 4, 0.154, 0.128),
     ("int2", 32, 0.393, 0.31), ("int8", 32, 0.0065, 0.0055)],
)  # fmt: skip
def test_the_error_on_gaussian_rows_is_what_the_docs_say(name, width, plain, limit):
    weight = torch.randn(4000, width, generator=torch.Generator().manual_seed(0))
    error = (ROW_FORMATS[name].of(weight).dense() - weight).square().mean().sqrt()
    assert 0.8 * limit < error < limit < plain


@pytest.mark.parametrize("name", ["int8", "int4", "int2"])
def test_narrower_groups_lose_less(name):
    weight = torch.randn(500, 32, generator=torch.Generator().manual_seed(0)) ** 3
    errors = [
        (ROW_FORMATS[name].of(weight, group=group).dense() - weight).square().mean()
        for group in (4, 8, 32, 320)
    ]
    assert errors == sorted(errors)


@given(st.floats(-65504, 65504, width=32))
def test_fp16_rounds_to_eleven_bits(number):
    found = float(ROW_FORMATS["fp16"].of(torch.tensor([[number]])).dense())
    assert abs(found - number) <= max(2**-11 * abs(number), 2**-25)


@pytest.mark.parametrize("size", [1e30, 1.0, 1e-30, 1e-36])
@pytest.mark.parametrize(("name", "limit"), [("int8", 0.01), ("int4", 0.12), ("int2", 0.4)])
def test_a_table_of_any_magnitude_loses_the_same(name, limit, size):
    weight = torch.randn(200, 16, generator=torch.Generator().manual_seed(0)) * size
    dense = ROW_FORMATS[name].of(weight).dense()
    assert dense.isfinite().all()
    # Of numbers divided by their size first: squares of 1e-30 would be 0.
    lost = (dense / size - weight / size).square().mean().sqrt()
    assert lost < limit


def test_small_rows_beside_huge_ones_keep_their_numbers():
    weight = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    weight[0] *= 1e6
    for name in ("int4", "int2"):
        alone = ROW_FORMATS[name].of(weight[1:]).dense()[0]
        beside = ROW_FORMATS[name].of(weight).dense()[1]
        torch.testing.assert_close(beside, alone, rtol=2**-9, atol=2e-3)  # float16 in other units

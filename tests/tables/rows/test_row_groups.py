"""Which rows share a scale."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from muxrec.tables.rows.groups import ScaleGroups
from muxrec.tables.rows.packing import pack, packed_width, unpack

ROW = st.integers(0, 2**31 - 1)


@given(st.integers(1, 2**20), st.lists(ROW, min_size=1), st.integers(0, 2**31 - 1))
def test_a_rows_line_is_its_number_divided_by_the_rows_of_a_line(each, rows, last):
    groups = ScaleGroups(2**31 - 1, 1, rows_per_line=each)
    # Around the multiples, where a reciprocal that is a little off shows.
    edge = last // each * each
    rows = [*rows, edge, max(0, edge - 1), 2**31 - 1, 0]
    assert groups.line_of(torch.tensor(rows)).tolist() == [row // each for row in rows]


@given(st.integers(1, 5000), st.integers(1, 70), st.integers(1, 400))
def test_blocks_cover_every_row_once_and_cut_no_group(rows, width, each):
    groups = ScaleGroups.of(rows, width, width * each)
    seen = []
    for block, lines in groups.blocks():
        wanted = range(block.start, block.stop)
        assert {row // each for row in wanted} == set(range(lines.start, lines.stop))
        assert len(wanted) % each == 0 or lines.stop - lines.start == 1
        seen += wanted
    assert seen == list(range(rows))


@given(st.sampled_from([2, 4]), st.integers(1, 5), st.integers(1, 70), st.integers(0, 2**31))
def test_packed_codes_come_back(bits, rows, width, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (rows, width), generator=generator, dtype=torch.uint8)
    packed = pack(codes, bits)
    assert (packed.dtype, packed.shape) == (torch.uint8, (rows, packed_width(width, bits)))
    assert packed.shape[1] == -(-width // (8 // bits))
    assert torch.equal(unpack(packed, bits, width), codes.float())

"""The numpy hash against the xxhash package and the golden file."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from muxrec.spec import hashing

INT64 = st.integers(-(2**63), 2**63 - 1)
GOLDEN = Path(__file__).parent.parent / "golden"


def signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


@given(INT64, INT64)
@example(0, 0)
@example(-(2**63), 2**63 - 1)
@example(2**63 - 1, -(2**63))
@example(-1, 42)
def test_an_id_hashes_as_the_xxhash_package_says(number: int, seed: int) -> None:
    expected = signed(xxhash.xxh64_intdigest(struct.pack("<q", number), seed=seed % 2**64))
    assert hashing.hash_ids([number], seed).tolist() == [expected]


def test_a_million_ids_hash_as_the_xxhash_package_says() -> None:
    rng = np.random.default_rng(7)
    ids = rng.integers(-(2**63), 2**63 - 1, size=1_000_000, endpoint=True)
    ids[:5] = [0, -1, 1, -(2**63), 2**63 - 1]
    seed = hashing.probe_seed("item_id", 3)
    data, digest = ids.astype("<i8").tobytes(), xxhash.xxh64_intdigest
    expected = [digest(data[at : at + 8], seed % 2**64) for at in range(0, len(data), 8)]
    found = hashing.hash_ids(ids, seed).view(np.uint64)
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.uint64))


@given(st.lists(st.text(max_size=100), max_size=20))
@example(["", "x" * 31, "x" * 32, "x" * 33, "\x00", "😀" * 9, "e\u0301", "\ufeff"])
def test_strings_of_any_unicode_hash_as_the_xxhash_package_says(values: list[str]) -> None:
    expected = [signed(xxhash.xxh64_intdigest(v.encode(), seed=42)) for v in values]
    assert hashing.string_ids(values).tolist() == expected


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        hashing.string_ids(["ok", "\ud800"])


@given(INT64, st.integers(1, 2**31 - 1))
@example(-1, 2**31 - 1)
@example(0, 1)
def test_a_row_is_the_upper_half_times_rows_shifted(number: int, rows: int) -> None:
    expected = ((number % 2**64 >> 32) * rows) >> 32
    assert hashing.reduce_to_rows([number], rows).tolist() == [expected]
    assert 0 <= expected < rows


@pytest.mark.parametrize("rows", [0, -5, 2**31])
def test_impossible_row_counts_are_refused(rows: int) -> None:
    with pytest.raises(ValueError, match=rf"rows must be in .* got {rows}"):
        hashing.reduce_to_rows([1], rows)


@given(INT64, st.integers(1, 2**30 - 1))
def test_doubling_a_table_sends_row_r_to_2r_or_2r_plus_1(number: int, rows: int) -> None:
    row = hashing.hash_rows([number], name="f", probe=0, rows=rows)[0]
    assert hashing.hash_rows([number], name="f", probe=0, rows=2 * rows)[0] in (
        2 * row,
        2 * row + 1,
    )


def test_the_golden_file_holds() -> None:
    golden = json.loads((GOLDEN / "hash_v1.json").read_text(encoding="utf-8"))
    assert golden["hash_version"] == hashing.HASH_VERSION
    values = [entry["value"] for entry in golden["strings"]]
    assert hashing.string_ids(values).tolist() == [entry["id"] for entry in golden["strings"]]
    for slot in golden["slots"]:
        name, probe = slot["name"], slot["probe"]
        assert hashing.probe_seed(name, probe) == slot["seed"]
        assert hashing.hash_ids(golden["ids"], slot["seed"]).tolist() == slot["hashes"]
        for rows, expected in slot["rows"].items():
            found = hashing.hash_rows(golden["ids"], name=name, probe=probe, rows=int(rows))
            assert found.tolist() == expected


def test_the_golden_file_is_what_its_script_makes(tmp_path: Path) -> None:
    script = (GOLDEN / "make_hash.py").read_text(encoding="utf-8")
    copy = tmp_path / "make_hash.py"
    copy.write_text(script, encoding="utf-8")
    subprocess.run([sys.executable, str(copy)], check=True, timeout=60)
    made = (tmp_path / "hash_v1.json").read_bytes()
    assert made == (GOLDEN / "hash_v1.json").read_bytes()


def test_the_published_vectors_hold() -> None:
    ids = [0, 1, 42, -1, 2**40, 2**63 - 1]
    seed = hashing.probe_seed("user_id", 0)
    assert seed == -3793880238952166718
    assert hashing.hash_ids(ids, seed).tolist() == [
        *(-105004212254072873, 7042251441334557864, -8781385911529709328),
        *(-4453263138870581177, 9157163395747355238, 3180221321655441495),
    ]

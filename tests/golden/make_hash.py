"""Write ``hash_v1.json``: the hash's answers, by the ``xxhash`` package and Python integers alone.

Nothing of muxrec is imported, so the file is a second opinion and not an echo. Run it only when the
hash spec gets a new version:

    python tests/golden/make_hash.py
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import xxhash

OUT = Path(__file__).with_name("hash_v1.json")
BASE_SEED = 42
NAMES = ("user_id", "item_id", "genre", "tagline words", "ключ", "品牌", "")
PROBES = (0, 1, 2, 3, 7, 10)
ROWS = (1, 2, 3, 1000, 100_003, 131_072, 1_000_003, 2**31 - 1)
IDS = (
    *(0, 1, 42, -1, 2**40, 2**63 - 1),
    *(-(2**63), -(2**63) + 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, -(2**32), 10**18, -(10**18), 7),
)
STRINGS = (
    *("", "a", "ab", "abc", "abcd", "abcdefg", "abcdefgh", "The Matrix (1999)"),
    *("é", "e\u0301", "ключ", "品牌", "😀", "\U0010ffff", "\x00", "a\x00b", "\n\t", "\ufeffbom"),
    *("x" * 31, "x" * 32, "x" * 33, "0123456789" * 7, "日本語" * 40),
)


def signed(word: int) -> int:
    """The unsigned 64-bit ``word`` read as a signed one."""
    return word - 2**64 if word >= 2**63 else word


def xxh64(data: bytes, seed: int) -> int:
    """Signed XXH64 of ``data`` with a signed seed."""
    return signed(xxhash.xxh64_intdigest(data, seed=seed % 2**64))


def probe_seed(name: str, probe: int) -> int:
    """Seed of one probe of one feature."""
    return xxh64(struct.pack("<q", probe), xxh64(name.encode(), BASE_SEED))


def slot(name: str, probe: int) -> dict[str, object]:
    """Seed, hashes and rows of one probe of one feature over ``IDS``."""
    seed = probe_seed(name, probe)
    hashes = [xxh64(struct.pack("<q", i), seed) for i in IDS]
    rows = {str(r): [((h % 2**64 >> 32) * r) >> 32 for h in hashes] for r in ROWS}
    return {"name": name, "probe": probe, "seed": seed, "hashes": hashes, "rows": rows}


def golden() -> dict[str, object]:
    """The whole file as one JSON value; integers are signed 64-bit."""
    return {
        "hash_version": "xxh64-mulshift-1",
        "base_seed": BASE_SEED,
        "ids": list(IDS),
        "strings": [{"value": s, "id": xxh64(s.encode(), BASE_SEED)} for s in STRINGS],
        "slots": [slot(name, probe) for name in NAMES for probe in PROBES],
    }


def one_line_per_entry(value: dict[str, object]) -> str:
    """JSON with one line per key and per list entry, so that a diff shows what moved."""
    lines = []
    for key, entry in value.items():
        text = json.dumps(entry)
        if isinstance(entry, list) and isinstance(entry[0], dict):
            text = "[\n" + ",\n".join("  " + json.dumps(each) for each in entry) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    OUT.write_text(one_line_per_entry(golden()), encoding="utf-8")

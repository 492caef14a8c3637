"""The pair loader: everything once, shuffled, resumable, shared among ranks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from muxrec.data.pairs import PairLoader, load_all_pairs
from muxrec.errors import DataError

KEYS = np.array([3, 10, 11, 40, 41, 90], dtype=np.int64)


def _write(folder: Path, rows: int, *, start: int = 0, group: int = 17) -> Path:
    """Pairs whose score numbers them, so that a row can be recognised."""
    rng = np.random.default_rng(start)
    table = pa.table(
        {
            "item_a": rng.choice(KEYS, rows),
            "item_b": rng.choice(KEYS, rows),
            "score": np.arange(start, start + rows, dtype=np.float64),
        }
    )
    path = folder / f"part-{start:05d}.parquet"
    pq.write_table(table, path, row_group_size=group, write_page_checksum=True)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [_write(tmp_path, 205), _write(tmp_path, 100, start=205), _write(tmp_path, 3, start=305)]


def _loader(files: list[Path], seed: int = 7, rank: int = 0, world_size: int = 1) -> PairLoader:
    return PairLoader(
        files, KEYS, batch_size=32, seed=seed, mix=3, rank=rank, world_size=world_size
    )


def _epoch(loader: PairLoader, epoch: int) -> list[list[float]]:
    return [batch.score.tolist() for batch in loader.batches(epoch=epoch)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_an_epoch_holds_every_pair_exactly_once(files: list[Path], world_size: int) -> None:
    ranks = [_loader(files, rank=r, world_size=world_size) for r in range(world_size)]
    batches = [_epoch(loader, 4) for loader in ranks]
    seen = Counter(score for rank in batches for batch in rank for score in batch)
    assert seen == Counter(range(308))
    assert {len(rank) for rank in batches} == {ranks[0].steps_per_epoch}
    sizes = {len(batch) for rank in batches for batch in rank}
    assert max(sizes) <= 32
    assert max(sizes) - min(sizes) <= 2


def test_every_epoch_and_seed_has_its_own_order_and_repeats_it(files: list[Path]) -> None:
    first = _epoch(_loader(files), 0)
    assert first == _epoch(_loader(files), 0)
    assert first != _epoch(_loader(files), 1)
    assert first != _epoch(_loader(files, seed=8), 0)
    scores = [score for batch in first for score in batch]
    assert scores != sorted(scores)


def test_rows_of_different_row_groups_are_mixed(files: list[Path]) -> None:
    batch = _loader(files).batch(epoch=0, step=0)
    assert len({int(score) // 17 for score in batch.score}) > 1


@pytest.mark.parametrize("step", [0, 1, 5, 9])
def test_resuming_at_a_step_gives_the_rest_of_the_epoch(files: list[Path], step: int) -> None:
    whole = _epoch(_loader(files), 2)
    resumed = [b.score.tolist() for b in _loader(files).batches(epoch=2, step=step)]
    assert resumed == whole[step:]


def test_keys_become_positions(files: list[Path]) -> None:
    found = load_all_pairs(files, KEYS)
    table = pq.read_table(sorted(files))
    assert np.array_equal(KEYS[found.a], table["item_a"].to_numpy())
    assert np.array_equal(KEYS[found.b], table["item_b"].to_numpy())


def test_drawing_by_score_prefers_high_scores(files: list[Path]) -> None:
    loader = PairLoader(files, KEYS, batch_size=32, seed=7, by_score=True)
    scores = np.concatenate([b.score for e in range(20) for b in loader.batches(epoch=e)])
    # Scores are 0..307; drawn in proportion to themselves within a mix, their mean is nearer to two
    # thirds of the range than to its middle.
    assert scores.mean() > 185


def test_a_key_outside_the_catalogue_names_the_file(files: list[Path]) -> None:
    with pytest.raises(DataError, match=r"part-00000\.parquet.*item key 3 is not in the catalogue"):
        load_all_pairs(files, KEYS[1:])


def test_flipped_bytes_and_truncated_files_are_refused(files: list[Path]) -> None:
    raw = bytearray(files[0].read_bytes())
    raw[60] ^= 0xFF
    files[0].write_bytes(raw)
    with pytest.raises(DataError, match=r"part-00000\.parquet"):
        load_all_pairs(files, KEYS)
    files[0].write_bytes(raw[:200])
    with pytest.raises(DataError, match=r"part-00000\.parquet"):
        _loader(files)


def test_fewer_pairs_than_ranks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 training pairs for 3 ranks"):
        PairLoader([_write(tmp_path, 2)], KEYS, batch_size=4, seed=0, world_size=3)

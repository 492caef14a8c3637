import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from muxrec.bundle import Bundle
from muxrec.bundle.sample import sample_bundle
from muxrec.errors import BundleError

WRITE_FOR_EVER = """
import sys
from pathlib import Path
from muxrec.bundle.sample import sample_bundle
print("ready", flush=True)
seed = int(sys.argv[2])
while True:
    sample_bundle(Path(sys.argv[1]), count=60, dim=8, neighbours=5, seed=seed)
    print("published", flush=True)
    seed += 1
"""


def published(root):
    return sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def test_kill_at_any_moment_leaves_only_whole_bundles_and_a_sound_pointer(tmp_path):
    rng = np.random.default_rng(1)
    for trial in range(8):
        command = [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path), str(1000 * trial)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            # Half of the writers are killed in their first bundle, half after one or more.
            for _ in range(1 + trial % 2):
                child.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(timeout=0.05 + 1.5 * rng.random())
            child.kill()
        for folder in published(tmp_path):
            Bundle.open(folder)
        if (tmp_path / "CURRENT").exists():
            Bundle.open(tmp_path)
    assert published(tmp_path)
    sample_bundle(tmp_path, count=60, dim=8)
    assert not list(tmp_path.glob(".bundle.*")), "leftovers of killed writers are removed"


@pytest.mark.parametrize("limit", [2_000, 10_000, 30_000])
def test_a_full_disk_publishes_nothing_and_keeps_the_old_bundle(limit, tmp_path):
    old = sample_bundle(tmp_path, count=20, dim=4)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(BundleError, match="disk"):
            sample_bundle(tmp_path, count=500, dim=32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert published(tmp_path) == [old]
    assert Bundle.open(tmp_path).folder == old
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_small_disk_that_fills_up_publishes_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not let tests mount a small disk")
    try:
        old = sample_bundle(disk, count=20, dim=4)
        with pytest.raises(BundleError, match="disk is full"):
            sample_bundle(disk, count=500, dim=32)
        assert published(disk) == [old]
        assert Bundle.open(disk).folder == old
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_root_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "bundles").write_text("")
    with pytest.raises(BundleError, match="cannot hold a bundle"):
        sample_bundle(tmp_path / "bundles", count=3, dim=4)


def test_a_damaged_bundle_of_the_same_name_is_not_overwritten_in_silence(tmp_path):
    folder = sample_bundle(tmp_path, count=20, dim=4)
    (folder / "vectors.npy").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"vectors\.npy"):
        sample_bundle(tmp_path, count=20, dim=4)

"""The largest of the driver runs; `python -m bench.driver_runs` does them all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import guests
from bench.driver_runs import RUNS, do

BY_NAME = {run.name: run for run in RUNS}
TOOLS = ("qemu-img", "e2fsck", "mkfs.ext4")
PATH = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin"
pytestmark = [pytest.mark.slow, pytest.mark.guest]


@pytest.mark.parametrize("name", ["IDE, DMA", "virtio-blk, packed ring", "virtio-net"])
def test_32_mb_and_the_replay(name: str, tmp_path: Path) -> None:
    for tool in TOOLS:
        if shutil.which(tool, path=PATH) is None:
            pytest.skip(f"needs {tool}")
    try:
        done = do(BY_NAME[name], tmp_path)
    except guests.GuestError as error:
        pytest.skip(str(error))
    assert done.instructions > 5_000_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.wbt"]

"""Files that only save time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workbench import cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_the_last_used_of_a_kind_are_kept(folder: Path) -> None:
    cache.store("symbols-1.zst", b"other kind", keep=3)
    for number in range(3):
        cache.store(f"engine-{number}.bin", b"%d" % number, keep=3)
        os.utime(folder / f"engine-{number}.bin", (number, number))
    assert cache.fetch("engine-0.bin") == b"0"  # used just now
    cache.store("engine-3.bin", b"3", keep=3)
    assert sorted(p.name for p in folder.iterdir()) == [
        "engine-0.bin", "engine-2.bin", "engine-3.bin", "symbols-1.zst",
    ]  # fmt: skip
    assert cache.fetch("engine-1.bin") is None


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file" / "below"))
    cache.store("engine-1.bin", b"1", keep=3)
    assert cache.fetch("engine-1.bin") is None

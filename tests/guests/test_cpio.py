"""The archive writer, read back by the system's cpio."""

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from guests.cpio import Archive
from guests.initramfs import INITS, initramfs


def example() -> Archive:
    archive = Archive()
    archive.file("a/b/file", b"hello", mode=0o755)
    archive.symlink("a/link", "b/file")
    archive.char_device("dev/console", 5, 1)
    return archive


def test_layout_of_a_member() -> None:
    data = example().to_bytes()
    assert data.startswith(b"070701" + b"00000001" + b"000041ED")
    assert len(data) % 4 == 0
    assert data.count(b"070701") == 7, "four directories and files, and the trailer"
    assert b"TRAILER!!!" in data[-20:]


def test_equal_descriptions_give_equal_bytes() -> None:
    assert example().to_gzip() == example().to_gzip()


@pytest.mark.parametrize("name", ["", "/absolute", "a/b/file"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a new relative name"):
        example().file(name, b"")


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_it(tmp_path: Path) -> None:
    done = subprocess.run(
        ["cpio", "-id", "--quiet", "--no-absolute-filenames", "a/*"],
        input=example().to_bytes(),
        cwd=tmp_path,
        check=True,
    )
    assert done.returncode == 0
    assert (tmp_path / "a/b/file").read_bytes() == b"hello"
    assert (tmp_path / "a/b/file").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "a/link").readlink() == Path("b/file")


@pytest.mark.parametrize("variant", INITS)
def test_initramfs_has_what_init_needs(variant: str) -> None:
    data = gzip.decompress(initramfs(b"BUSYBOX", variant))
    for name in (b"dev/console\0", b"bin/busybox\0", b"init\0"):
        assert name in data
    assert INITS[variant].encode() in data

"""Random operations on the formats that QEMU's daemon opens for us, compared with a flat copy."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.block.conftest import Tool
from workbench.block.opening import open_image

SIZE = 8 << 20
CHECKED = ("qcow2", "qed", "vmdk", "vdi", "vhdx")  # qemu-img has no check for VHD


@pytest.mark.skipif(shutil.which("qemu-storage-daemon") is None, reason="needs qemu-system-common")
@pytest.mark.parametrize("kind", ["vhdx", "qed", "vmdk", "vdi", "vpc", "qcow2"])
def test_random_operations(kind: str, tmp_path: Path, qemu_img: Tool) -> None:
    path, flat = tmp_path / f"disk.{kind}", tmp_path / "flat"
    options = ("-o", "force_size=on") if kind == "vpc" else ()
    qemu_img("create", "-q", "-f", kind, *options, path, SIZE)
    rng, expected = random.Random(kind), bytearray(SIZE)
    for _ in range(2):  # what was written is there when the image is opened again
        with open_image(path, read_only=False, format_name=kind) as image:
            assert image.size_bytes == SIZE
            assert image.read(0, SIZE) == expected
            for _ in range(60):
                length = 512 * rng.choice((1, 2, 7, 128, 500))
                at = 512 * rng.randrange((SIZE - length) // 512 + 1)
                match rng.randrange(4):
                    case 0:
                        assert image.read(at, length) == expected[at : at + length]
                    case 1:
                        image.write_zeroes(at, length)
                        expected[at : at + length] = bytes(length)
                    case 2:
                        image.flush()
                    case _:
                        data = rng.randbytes(length)
                        image.write(at, data)
                        expected[at : at + length] = data
            image.flush()
    flat.write_bytes(expected)
    if kind in CHECKED:
        qemu_img("check", "-q", "-f", kind, path)
    qemu_img("compare", "-q", "-f", kind, "-F", "raw", path, flat)

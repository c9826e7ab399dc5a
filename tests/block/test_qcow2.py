"""qcow2 images, compared with QEMU's tools: both write, both read, both find the image in order."""

import random
from pathlib import Path

import pytest

from tests.block.conftest import Tool
from workbench.block.opening import open_image
from workbench.block.qcow2.create import create

SIZE = 6 << 20

KINDS = [
    "cluster_size=512",
    "compat=0.10,cluster_size=4k",
    "cluster_size=64k,lazy_refcounts=on",
    "refcount_bits=1,cluster_size=512",
    "refcount_bits=64,cluster_size=1k",
    "cluster_size=2M",
]


def work(path: Path, model: bytearray, rnd: random.Random, count: int) -> None:
    """Random operations on an image, its reads compared with `model`."""
    with open_image(path, read_only=False, allow_backing=True) as image:
        for _ in range(count):
            n = rnd.choice((512, 1024, 4096, 65536, 200 << 10, rnd.randrange(1, 300) * 512))
            at = rnd.randrange((SIZE - n) // 512 + 1) * 512
            kind = rnd.random()
            if kind < 0.5:
                model[at : at + n] = data = rnd.randbytes(n)
                image.write(at, data)
            elif kind < 0.65:
                model[at : at + n] = bytes(n)
                image.write_zeroes(at, n)
            elif kind < 0.97:
                assert image.read(at, n) == model[at : at + n]
            else:
                image.flush()


@pytest.mark.parametrize("backing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_random_operations(
    kind: str, backing: bool, tmp_path: Path, qemu_img: Tool, qemu_io: Tool
) -> None:
    rnd = random.Random(kind)
    path, copy = tmp_path / "a.qcow2", tmp_path / "copy.raw"
    model = bytearray(SIZE)
    options: list[object] = []
    if backing:
        model[: SIZE // 2] = rnd.randbytes(SIZE // 2)
        (tmp_path / "base.raw").write_bytes(model[: SIZE // 2])
        options = ["-b", "base.raw", "-F", "raw"]
    qemu_img("create", "-q", "-f", "qcow2", "-o", kind, *options, path, SIZE)
    for turn in range(3):
        work(path, model, rnd, 120)
        qemu_img("check", path)
        copy.write_bytes(model)
        qemu_img("compare", "-f", "qcow2", "-F", "raw", path, copy)
        if turn == 0 and "bits=1," not in kind:
            qemu_img("snapshot", "-c", "before", path)  # makes every cluster shared
        commands = []
        for _ in range(10):
            n = rnd.randrange(1, 100) * 512
            at, value = rnd.randrange((SIZE - n) // 512 + 1) * 512, rnd.randrange(256)
            if value % 3 == 0:  # which keeps the clusters that are there
                model[at : at + n] = bytes(n)
                commands.append(f"write -z {at} {n}")
            else:
                model[at : at + n] = bytes([value]) * n
                commands.append(f"write -P {value} {at} {n}")
        qemu_io(path, *commands)
    with open_image(path, allow_backing=True) as image:
        assert image.read(0, SIZE) == model


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_compressed_clusters(kind: str, tmp_path: Path, qemu_img: Tool) -> None:
    rnd = random.Random(kind)
    raw, path = tmp_path / "a.raw", tmp_path / "a.qcow2"
    model = bytearray(
        b"".join(bytes([rnd.randrange(8)]) * 997 for _ in range(SIZE // 997 + 1))[:SIZE]
    )
    raw.write_bytes(model)
    option = f"compression_type={kind}"
    qemu_img("convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o", option, raw, path)
    with open_image(path) as image:
        assert image.read(0, SIZE) == model
    work(path, model, rnd, 60)
    qemu_img("check", path)
    raw.write_bytes(model)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", path, raw)


@pytest.mark.parametrize("options", [{}, {"version": 2}, {"cluster_bytes": 512}])
def test_our_new_images(options: dict[str, int], tmp_path: Path, qemu_img: Tool) -> None:
    path = tmp_path / "new.qcow2"
    create(path, SIZE, **options)
    qemu_img("check", path)
    work(path, bytearray(SIZE), random.Random(1), 50)
    qemu_img("check", path)

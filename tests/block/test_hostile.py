"""Images made by changing good ones at random: they work or give a WorkbenchError, nothing else,
with little memory.
"""

import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.block.conftest import Tool
from workbench.block.image import Image
from workbench.block.opening import open_image
from workbench.errors import WorkbenchError

ROUNDS = 100
MOST_BYTES = 1 << 30  # of address space above what the interpreter has
KINDS = {
    "small": ("cluster_size=512", False, True),
    "v2": ("compat=0.10,cluster_size=1k", False, True),
    "zlib": ("cluster_size=64k", True, False),
    "zstd": ("cluster_size=4k,compression_type=zstd", True, False),
    "lazy": ("cluster_size=4k,lazy_refcounts=on", False, True),
    "bits": ("cluster_size=512,refcount_bits=1", False, False),
}


def mutate(image: bytearray, rnd: random.Random) -> bytearray:
    """Change the header or a table, where it hurts."""
    cluster = 1 << image[23]

    def number(at: int) -> int:
        return int.from_bytes(image[at : at + 8], "big") & (1 << 56) - 512

    tables = [number(40), number(48), number(64)]
    tables += [number(t) for t in tables[:2]]
    values = (0, 1, (1 << 64) - 1, 1 << 63, 1 << 62, 512, cluster, cluster | 1 << 63, 1 << 55)
    for _ in range(rnd.randrange(1, 6)):
        at = rnd.randrange(112)
        if rnd.random() < 0.6:
            at = rnd.choice(tables) + rnd.randrange(rnd.choice((8, 64, cluster)))
        if at >= len(image):
            continue
        if rnd.random() < 0.5:
            image[at] = rnd.randrange(256)
        else:
            image[at : at + 8] = rnd.choice((*values, len(image))).to_bytes(8, "big")
    return image[: rnd.randrange(len(image))] if rnd.random() < 0.1 else image


def use(image: Image, rnd: random.Random) -> None:
    for _ in range(12):
        n = min(rnd.choice((512, 4096, 100 * 512)), image.size_bytes)
        at = rnd.randrange(max(1, min(image.size_bytes, 1 << 20) - n + 1)) // 512 * 512
        kind = rnd.randrange(5)
        if kind < 2 or image.read_only:
            image.read(at, n)
        elif kind == 2:
            image.write(at, b"x" * n)
        elif kind == 3:
            image.write_zeroes(at, n)
        else:
            image.flush()
    image.info()


def main(path: str, seed: str) -> None:
    """Runs in a process of its own, with bounded memory."""
    source, target, rnd = Path(path).read_bytes(), Path(path + ".bad"), random.Random(seed)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, used + MOST_BYTES))
    worked = 0
    for _ in range(ROUNDS):
        target.write_bytes(mutate(bytearray(source), rnd))
        try:
            with open_image(target, read_only=rnd.random() < 0.3, format_name="qcow2") as image:
                use(image, rnd)
            worked += 1
        except WorkbenchError:
            pass
    assert 0 < worked < ROUNDS


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_qcow2(kind: str, tmp_path: Path, qemu_img: Tool) -> None:
    options, packed, snapshot = KINDS[kind]
    raw, path = tmp_path / "raw", tmp_path / "good"
    rnd = random.Random(kind)
    raw.write_bytes(b"".join(bytes([rnd.randrange(9)]) * 97 for _ in range(2700))[: 1 << 18])
    flags = ["-c"] if packed else []
    qemu_img("convert", *flags, "-f", "raw", "-O", "qcow2", "-o", options, raw, path)
    if snapshot:
        qemu_img("snapshot", "-c", "s", path)
    if kind == "lazy":
        content = bytearray(path.read_bytes())
        content[79] = 1  # dirty: each opening for writing makes the counts anew
        path.write_bytes(content)
    code = "import sys; from tests.block.test_hostile import main; main(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, path, kind], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

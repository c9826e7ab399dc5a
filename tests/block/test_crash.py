"""SIGKILL at random moments of a write-through run: every flushed sector is there, and QEMU finds
nothing wrong with the image but clusters that nobody uses.
"""

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.block.conftest import Tool
from tests.block.runs import ENDLESS, available, guest, helpers, record, start
from workbench.block.opening import open_image

SECTORS = 16384
STEPS = 40  # operations between two flushes

CHILD = """
import sys
from tests.block.test_crash import operations
from workbench.block.disk import Disk
from workbench.block.opening import open_image
from workbench.core.inputs import Inputs

image = open_image(sys.argv[1], read_only=False)
disk = Disk("drive0", image, Inputs().fetch, write_through=True)
for number, (lba, data) in enumerate(operations(sys.argv[2])):
    if data is None:
        disk.flush()
        print(number, flush=True)
    elif data.count(0) == len(data):
        disk.discard(lba, len(data) // 512)
    else:
        disk.write(lba, data)
"""


def operations(seed: str) -> Iterator[tuple[int, bytes | None]]:
    """An endless row of (lba, data); data None is a flush."""
    rnd = random.Random(seed)
    while True:
        for _ in range(STEPS):
            count = rnd.choice((1, 2, 8, 33, 200))
            lba = rnd.randrange(SECTORS - count)
            data = bytes(512) if rnd.random() < 0.2 else rnd.randbytes(512)
            yield lba, data * count
        yield 0, None


def allowed(seed: str, flushed: int) -> tuple[dict[int, bytes], dict[int, list[bytes]]]:
    """What each sector had at the last flush that returned, and what may have come later."""
    stable: dict[int, bytes] = {}
    later: dict[int, list[bytes]] = {}
    for number, (lba, data) in enumerate(operations(seed)):
        if number > flushed + 5_000:
            break
        for n in range(0 if data is None else len(data) // 512):
            if number < flushed:
                stable[lba + n] = data[:512]
            else:
                later.setdefault(lba + n, []).append(data[:512])
    return stable, later


@pytest.mark.parametrize("seed", ["1", "2"])
@pytest.mark.parametrize(
    "kind", ["cluster_size=64k", "cluster_size=1k", "compat=0.10", "lazy_refcounts=on", "raw"]
)
def test_killed_while_writing(kind: str, seed: str, tmp_path: Path, qemu_img: Tool) -> None:
    rnd = random.Random(kind + seed)
    path = tmp_path / "disk.img"
    raw = kind == "raw"
    options = ["-f", "raw"] if raw else ["-f", "qcow2", "-o", kind]
    qemu_img("create", "-q", *options, path, SECTORS * 512)
    child = subprocess.Popen([sys.executable, "-c", CHILD, path, seed], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        flushed = -1
        for _ in range(rnd.randrange(1, 12)):
            flushed = int(child.stdout.readline())
        try:
            child.wait(rnd.random() * 0.05)
        except subprocess.TimeoutExpired:
            child.kill()
        flushed = max([flushed, *map(int, child.stdout.read().split(b"\n")[:-1])])
    assert child.wait() == -9

    if not raw:
        if kind == "lazy_refcounts=on":
            open_image(path, read_only=False).close()  # which makes the counts anew
        done = subprocess.run(
            [shutil.which("qemu-img") or "", "check", "--output=json", str(path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 3), done.stdout + done.stderr
        report = json.loads(done.stdout)
        assert not report.get("corruptions")
        assert not report["check-errors"]
        if kind == "lazy_refcounts=on":
            assert not report.get("leaks")

    stable, later = allowed(seed, flushed)
    with open_image(path) as image:
        for lba in range(SECTORS):
            data = image.read(lba * 512, 512)
            before = stable.get(lba, bytes(512))
            assert data == before or data in later.get(lba, ()), f"sector {lba}"


@pytest.mark.slow
@pytest.mark.skipif(not available(), reason="needs binutils")
@pytest.mark.parametrize(
    "kind", ["qcow2 cluster_size=512", "qcow2 lazy_refcounts=on", "vdi", "raw"]
)
def test_a_run_is_killed(kind: str, tmp_path: Path, qemu_img: Tool) -> None:
    """SIGKILL of a recording whose guest writes sectors and flushes: each sector that it told
    of is in the image, which QEMU accepts.
    """
    form, _, option = kind.partition(" ")
    (tmp_path / "tmp").mkdir()
    (tmp_path / f"guest{ENDLESS}").write_bytes(guest(ENDLESS))
    path = tmp_path / "disk"
    qemu_img("create", "-q", "-f", form, *(["-o", option] if option else []), path, SECTORS * 512)
    rnd = random.Random(kind)
    run = start(tmp_path, *record(tmp_path, "disk", f",format={form},rw=on", ENDLESS))
    assert run.stdout is not None
    printed = run.stdout.read(4 + rnd.randrange(1, 60))
    try:
        run.wait(rnd.random() * 0.05)
    except subprocess.TimeoutExpired:
        run.kill()
    printed += run.communicate()[0]
    assert run.returncode == -9
    for _ in range(100):  # a helper needs a moment to notice
        if not helpers(tmp_path):
            break
        time.sleep(0.05)
    if form in ("qcow2", "vdi"):
        with open_image(path, read_only=False):  # makes lazy counts anew
            pass
        done = subprocess.run(
            [shutil.which("qemu-img") or "", "check", str(path)], capture_output=True, check=False
        )
        assert done.returncode in (0, 3), done.stdout
    assert printed.count(b".") > 0
    with open_image(path, format_name=form) as image:
        for n in range(8, 8 + printed.count(b".")):
            assert image.read(n * 512, 512) == n.to_bytes(2, "little") * 256, n

"""Power failures: what was written since the last sync may be there or not, in any combination.
Whatever a flush has promised is there, and the image has at most clusters that nobody uses.
"""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.block.conftest import Tool
from workbench.block import opening
from workbench.block.hostfile import HostFile
from workbench.block.opening import open_image

SIZE = 1 << 20
Log = list[tuple[int, bytes] | None]  # a write, or None for a sync


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """Everything that is written to image files, and when they are made stable."""
    entries: Log = []

    class Logged(HostFile):
        def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
            entries.append((offset, bytes(data)))
            super().write(offset, data)

        def sync(self) -> None:
            entries.append(None)
            self._unsynced = False

    monkeypatch.setattr(opening, "HostFile", Logged)
    return entries


def crashed(start: bytes, log: Log, stop: int, rnd: random.Random) -> bytes:
    """The file after a power failure when `stop` entries of the log have been done."""
    stable = max((n for n in range(stop) if log[n] is None), default=0)
    image = bytearray(start)
    for n in range(stop):
        entry = log[n]
        if entry is None or (n > stable and rnd.random() < 0.5):
            continue
        at, data = entry
        image.extend(bytes(max(0, at + len(data) - len(image))))
        image[at : at + len(data)] = data
    return bytes(image)


@pytest.mark.parametrize(
    "kind", ["cluster_size=4k", "cluster_size=512", "compat=0.10", "lazy_refcounts=on", "snapshot"]
)
def test_power_failure(kind: str, tmp_path: Path, qemu_img: Tool, log: Log) -> None:
    rnd = random.Random(kind)
    path, copy = tmp_path / "a.qcow2", tmp_path / "after.qcow2"
    option = "cluster_size=1k" if kind == "snapshot" else kind
    qemu_img("create", "-q", "-f", "qcow2", "-o", option, path, SIZE)
    if kind == "snapshot":
        with open_image(path, read_only=False) as image:
            image.write(0, b"old " * (SIZE // 8))
        qemu_img("snapshot", "-c", "s", path)
        log.clear()
    start = path.read_bytes()
    image = open_image(path, read_only=False)
    base = image.read(0, SIZE)
    history: list[tuple[int, int, bytes]] = []  # entries of the log before it, where, what
    flushes: list[int] = []  # entries of the log when it returned
    for _ in range(120):
        at = rnd.randrange(SIZE // 512 - 40) * 512
        data = rnd.choice((bytes(512), rnd.randbytes(512))) * rnd.choice((1, 2, 8, 40))
        history.append((len(log), at, data))
        if any(data):
            image.write(at, data)
        else:
            image.write_zeroes(at, len(data))
        if rnd.random() < 0.1:
            image.flush()
            flushes.append(len(log))
    image.close()
    before = len(log)
    log_then = list(log)
    for _ in range(12):
        stop = rnd.randrange(before)
        copy.write_bytes(crashed(start, log_then, stop, rnd))
        if kind == "lazy_refcounts=on":
            open_image(copy, read_only=False).close()  # which makes the counts anew
        done = subprocess.run(
            [shutil.which("qemu-img") or "", "check", "--output=json", str(copy)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 3), done.stdout + done.stderr
        assert not json.loads(done.stdout).get("corruptions")
        flushed = max((f for f in flushes if f <= stop), default=0)
        stable, later = dict[int, bytes](), dict[int, list[bytes]]()
        for when, at, data in history:
            for n in range(0, len(data), 512):
                if when < flushed:
                    stable[at + n] = data[n : n + 512]
                elif when < stop:
                    later.setdefault(at + n, []).append(data[n : n + 512])
        with open_image(copy) as image:
            for at in range(0, SIZE, 512):
                found = image.read(at, 512)
                expected = stable.get(at, base[at : at + 512])
                assert found == expected or found in later.get(at, ()), f"byte {at}"

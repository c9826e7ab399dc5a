"""gdb on Debian's kernel while it is recorded: Ctrl-C, the past, devices backwards, and on."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import guests
import workbench.gdbstub as gdbstub
from guests.initramfs import run_option
from tests.cli.conftest import command, environment
from tests.gdbstub.test_gdb import Gdb

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
]
SCRIPT = "dd if=/dev/vda of=/dev/null bs=4k count=32 2>/dev/null; echo read; sleep 1000"


@pytest.fixture
def recorder(tmp_path: Path, guest: Callable[[str], guests.Guest]) -> Iterator[subprocess.Popen]:
    found = guest("cloud")
    (tmp_path / "disk.raw").write_bytes(bytes(8 << 20))
    started = subprocess.Popen(
        [
            *command(False), "record", "--kernel", str(found.kernel),
            "--initrd", str(found.images["drivers"]), "--append",
            f"console=ttyS0 quiet {run_option(SCRIPT)}", "-m", "256", "--seed", "1",
            "--drive", "file=disk.raw,if=virtio,format=raw", "--serial", "stdio",
            "-o", "live.wbt", "--gdb", "unix:gdb", "--wait",
        ],
        cwd=tmp_path, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with started:
        while not (tmp_path / "gdb").exists():
            assert started.poll() is None
            time.sleep(0.05)
        yield started
        started.kill()


def test_a_driver_s_doorbell_backwards_and_on(recorder: subprocess.Popen, tmp_path: Path) -> None:
    gdb = Gdb(str(tmp_path / "gdb"), seconds=120)
    gdb.do(f"source {Path(gdbstub.__file__).with_name('gdb_commands.py')}")
    gdb.do("monitor watch request drive0")
    gdb.do("continue")
    request = gdb.icount()
    assert "(live)" in gdb.do("monitor when")
    gdb.do("continue")
    later = gdb.icount()
    assert later > request
    assert "virtio_blk" in gdb.do("wb-symbols")
    gdb.do("hbreak virtio_queue_rq")
    gdb.do("reverse-continue")
    assert gdb.icount() == later - 1
    assert "virtio_queue_rq" in gdb.do("reverse-continue")
    assert request < gdb.icount() < later
    assert "in the past" in gdb.do("monitor when")
    assert "vda" in gdb.do("monitor info queues") or "drive0" in gdb.do("monitor info queues")
    ran = gdb.do("reverse-finish")
    assert "virtio_queue_rq" not in ran.splitlines()[-1]
    gdb.do("delete")
    gdb.do("reverse-continue")
    assert gdb.icount() == request - 1
    gdb.do("monitor unwatch")
    gdb.interrupted("continue", 3)
    present = gdb.icount()
    assert present > later
    assert "(live)" in gdb.do("monitor when")
    gdb.do("reverse-stepi")
    assert gdb.icount() == present - 1
    gdb.do("set $rax = 1")
    gdb.do("detach")
    assert recorder.stdin is not None
    recorder.stdin.write(b"typed\n")
    recorder.stdin.flush()
    time.sleep(0.5)
    gdb.do(f"target remote {tmp_path / 'gdb'}")
    assert gdb.icount() >= present
    gdb.do("kill")
    output, _ = recorder.communicate(timeout=60)
    gdb.close()
    assert b"read" in output
    again = subprocess.run(
        [*command(False), "replay", "live.wbt", "--serial", "none"],
        cwd=tmp_path, env=environment(), check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert "identical" in again.stderr + again.stdout
    assert again.returncode == 0

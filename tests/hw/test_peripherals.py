"""What the command line can put on the board, under Debian's own drivers; then the replay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from guests.initramfs import run_option
from workbench.core.config import DeviceConfig, DriveConfig, MachineConfig, NicConfig
from workbench.hw.acpi import build_dsdt
from workbench.hw.board import build_pc
from workbench.trace.reader import open_trace

SCRIPT = """\
for d in /sys/bus/virtio/devices/*; do readlink $d; done
head -c 65536 /dev/vda | sha256sum; head -c 65536 /dev/vdb | sha256sum
cat /sys/class/misc/hw_random/rng_current; echo by console > /dev/hvc0
blockdev --getsize64 /dev/sr0
n=0; size() { blockdev --getsize64 /dev/sr0; }
while [ $(size) != 8192 ] && [ $n -lt 99 ]; do sleep 0.1; n=$((n+1)); done
size; head -c 4 /dev/sr0; echo
"""


@pytest.mark.slow
@pytest.mark.guest
def test_over_mmio_with_console_entropy_and_another_disc(guest, tmp_path: Path) -> None:
    made = guest("generic")
    (tmp_path / "a.raw").write_bytes(bytes(1 << 20))
    (tmp_path / "a.iso").write_bytes(b"AAAA" + bytes(4092))
    (tmp_path / "b.iso").write_bytes(b"BBBB" + bytes(8188))

    def workbench(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "workbench", *map(str, arguments)],
            capture_output=True, text=True, cwd=tmp_path, timeout=100,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    shown = workbench(
        "record", "--kernel", made.kernel, "--initrd", made.images["drivers"],
        "--append", f"console=ttyS0 quiet {run_option(SCRIPT)}", "--seed", 3,
        "--drive", "file=a.raw,if=virtio,transport=mmio",
        "--drive", "file=a.raw,if=virtio,transport=mmio,disable-modern=on",
        "--nic", "virtio-net-device,none,packed=on", "--device", "virtio-rng-device",
        "--device", "virtio-console,packed=on,output=file:console.txt",
        "--cdrom", "a.iso", "--cdrom", "b.iso", "--do", "9s insert", "-o", "t.wbt",
    )  # fmt: skip
    zeros = "de2f256064a0af797747c2b97505dc0b9f3df0de4f489eac731c23ae9ca9cc31  -"
    assert shown.count(zeros) == 2, shown
    assert shown.count("/LNRO0005:") == 4
    assert "virtio_rng.0" in shown
    assert [word for word in shown.split() if word in ("4096", "8192")] == ["4096", "8192"]
    assert "BBBB" in shown
    assert (tmp_path / "console.txt").read_text() == "by console\n"
    (tmp_path / "b.iso").unlink()
    assert workbench("replay", "t.wbt").strip() == shown.strip()
    with open_trace(tmp_path / "t.wbt") as trace:
        seen = {row["device"] for row in trace.accesses.to_pylist() if row["kind"] == "mmio"}
        assert {"drive0", "drive1", "net0", "rng0", "console0"} <= seen


def test_too_much_of_it() -> None:
    def build(**parts: object) -> None:
        build_pc(MachineConfig(ram_bytes=16 << 20, **parts))  # type: ignore[arg-type]

    ide = [DriveConfig(f"d{n}", "ide", 0) for n in range(5)]
    with pytest.raises(ValueError, match="expected at most 4 IDE drives"):
        build(drives=tuple(ide))
    over = [DriveConfig(f"d{n}", "virtio", 0, transport="mmio") for n in range(9)]
    with pytest.raises(ValueError, match="expected at most 8 virtio devices over MMIO"):
        build(drives=tuple(over))
    nics = [NicConfig(f"n{n}", "e1000", "52:54:00:00:00:01") for n in range(30)]
    with pytest.raises(ValueError, match="expected at most 29 PCI devices"):
        build(nics=tuple(nics))
    with pytest.raises(ValueError, match="expected a CD-ROM drive before the disc 'x'"):
        build(drives=(DriveConfig("x", "disc", 2048),))


def test_acpi_names_what_is_on_mmio() -> None:
    rng = DeviceConfig("r", "virtio-rng", transport="mmio")
    console = DeviceConfig("c", "virtio-console")
    assert build_dsdt(MachineConfig(devices=(rng, console))).count(b"LNRO0005") == 1

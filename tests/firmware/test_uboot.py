"""U-Boot's own drivers: IDE by PIO, the e1000 with its semaphore, DHCP and ping; as on QEMU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROM = Path("/usr/lib/u-boot/qemu-x86/u-boot.rom")
pytestmark = [pytest.mark.slow, pytest.mark.guest]


def workbench(*arguments: object, text: str = "", status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *map(str, arguments)], input=text.encode(),
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr.decode() + done.stdout.decode()[-2000:]
    return done.stdout.decode(errors="replace")


def test_ide_and_e1000(tmp_path: Path) -> None:
    if not ROM.exists():
        pytest.skip("not installed: u-boot-qemu")
    disk, trace = tmp_path / "disk.img", tmp_path / "uboot.wbt"
    disk.write_bytes(b"read by U-Boot: ".ljust(512, b".") * 2048)
    # Device 1 is not there: U-Boot waits 0.6 s for it, in a loop
    # One line: what comes while a command runs is lost
    commands = "\nide reset; ide read 1000000 0 1; md.b 1000000 10; dhcp; ping 10.0.2.2; reset\n"
    console = workbench(
        "record", "--bios", ROM, "--drive", f"file={disk},if=ide", "--nic", "e1000",
        "--serial", "stdio", "--no-reboot", "--ps-per-insn", "10000", "--max-insns", "1G",
        "-o", trace,
        text=commands,
    )  # fmt: skip
    for text in (
        "eth0: e1000#0",
        "Device 1: not available",
        "1 blocks read: OK",
        "read by U-Boot: ",
        "DHCP client bound to address 10.0.2.15",
        "host 10.0.2.2 is alive",
    ):
        assert text in console, console[-3000:]
    disk.unlink()
    assert "host 10.0.2.2 is alive" in workbench("replay", trace)

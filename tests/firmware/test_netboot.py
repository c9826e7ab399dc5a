"""iPXE in the ROM of a NIC boots from the user network by DHCP and TFTP; replayed without it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.cli.roms import IPXE_FILES, SEABIOS_FILES, first_of

pytestmark = [pytest.mark.slow, pytest.mark.guest]
# A network boot program, entered at 0:7C00: the text to the serial port, then the debug exit.
PROGRAM = bytes.fromhex("be147c 2eac 84c0 7406 baf803 ee ebf4 b010 e6f4 f4") + b"came by net\n\0"
EXIT = 0x10 << 1 | 1


def workbench(status: int, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr + done.stdout[-2000:]
    return done.stdout


@pytest.mark.parametrize("nic", ["e1000", "virtio-net"])
def test_a_program_by_dhcp_and_tftp(tmp_path: Path, nic: str) -> None:
    if first_of(IPXE_FILES[nic]) is None or first_of(SEABIOS_FILES) is None:
        pytest.skip("not installed: ipxe-qemu or seabios")
    served = tmp_path / "tftp"
    served.mkdir()
    (served / "boot.0").write_bytes(PROGRAM.ljust(4096, b"\0"))
    trace = tmp_path / "net.wbt"
    # iPXE waits three seconds for a proxy and polls: the slower the guest, the fewer polls
    console = workbench(
        EXIT,
        "record", "--bios", "seabios", "--boot", "order=n", "--ps-per-insn", "20000", "-m", "64",
        "--max-insns", "2G", "--debug-exit", "-o", trace,
        "--nic", f"{nic},user,tftp={served},bootfile=boot.0",
    )  # fmt: skip
    for text in ("Filename: boot.0", "boot.0... ok", "came by net"):
        assert text in console, console[-2000:]
    shutil.rmtree(served)
    assert "came by net" in workbench(0, "replay", trace)

"""A guest of a hundred bytes that drives an IDE disk: IDENTIFY DEVICE, a bad READ, STANDBY.

`python -m tests.trace.ata_guest OUT.wbt` records it; `traces/v2-ata.wbt` was made so.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.firmware.images import elf, multiboot_header
from workbench.core.config import DriveConfig, MachineConfig
from workbench.trace.guest import Guest
from workbench.trace.session import Limits, Recording

COMMAND_BLOCK, COM1, DEBUG_EXIT = 0x1F0, 0x3F8, 0xF4
BSY = 0x80


def out(port: int, value: int) -> bytes:
    """MOV DX; MOV AL; OUT DX, AL."""
    return b"\x66\xba" + port.to_bytes(2, "little") + b"\xb0" + bytes([value]) + b"\xee"


def wait() -> bytes:
    """Read Status until BSY is 0."""
    return b"\x66\xba" + (COMMAND_BLOCK + 7).to_bytes(2, "little") + b"\xec\xa8\x80\x75\xfb"


def command(code: int, *registers: int) -> bytes:
    """Write the task file from FEATURES on, and the command; wait."""
    values = (*registers, *(0,) * (5 - len(registers)), 0xE0)
    writes = b"".join(out(COMMAND_BLOCK + 1 + n, value) for n, value in enumerate(values))
    return writes + out(COMMAND_BLOCK + 7, code) + wait()


def program() -> bytes:
    """The code, in 32-bit protected mode."""
    take = b"\xbf\x00\x00\x20\x00\xb9\x00\x01\x00\x00\x66\xba\xf0\x01\xfc\xf3\x66\x6d"  # REP INSW
    code = command(0xEC) + take  # IDENTIFY DEVICE
    code += command(0x20, 0, 1, 0xFF, 0xFF, 0xFF)  # READ SECTOR(S)
    code += command(0xE2)  # STANDBY
    return code + out(COM1, ord("\n")) + out(DEBUG_EXIT, 0) + b"\xf4\xeb\xfd"


def recording(path: Path) -> Recording:
    """What would record it."""
    disk = DriveConfig("drive0", "ide", 1 << 20)
    config = MachineConfig(ram_bytes=16 << 20, seed=1, rtc_epoch_s=1_767_225_600, drives=(disk,))
    guest = Guest(elf(multiboot_header(0) + program()), kernel_path="ata.elf")
    limits = Limits(icount=50_000_000, wall_s=60)
    return Recording(str(path), config.to_json(), guest, limits=limits)


if __name__ == "__main__":
    recording(Path(sys.argv[1])).run()

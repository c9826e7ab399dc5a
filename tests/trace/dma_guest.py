"""A guest that drives a disk by DMA, through a page whose mapping changes between two transfers.

Linear 0x400000 is first at 0x300000, then at 0x301000. READ DMA goes to 0x300000, to 0x301000
before it is mapped, to 0x300000 when it no more is, and to 0x301000; WRITE DMA comes out of
0x301000. So a watch on 0x400000 hears of the first, the fourth and the fifth.
"""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

from tests.firmware.images import elf, multiboot_header
from tests.trace.ata_guest import DEBUG_EXIT, command, out
from workbench.block.opening import open_image
from workbench.core.config import DriveConfig, MachineConfig
from workbench.trace.guest import Guest, build_machine
from workbench.trace.session import Limits, Recording

LINEAR, FIRST, SECOND = 0x400000, 0x300000, 0x301000
BMIDE = 0xC000
_ROOT, _TABLE, _PRD = 0x200000, 0x201000, 0x202000


def store(address: int, value: int) -> bytes:
    """MOV dword [address], value."""
    return b"\xc7\x05" + struct.pack("<II", address, value)


def out32(port: int, value: int) -> bytes:
    """MOV DX; MOV EAX; OUT DX, EAX."""
    return struct.pack("<BBHBIB", 0x66, 0xBA, port, 0xB8, value, 0xEF)


def transfer(gpa: int, code: int, direction: int) -> bytes:
    """A sector by DMA: READ DMA (0xC8, direction 8) or WRITE DMA (0xCA, 0)."""
    prd = store(_PRD, gpa) + store(_PRD + 4, 0x8000_0200) + out32(BMIDE + 4, _PRD)
    begin = out(BMIDE + 2, 6) + out(BMIDE, direction) + out(BMIDE, direction | 1)
    return prd + begin + command(code, 0, 1) + out(BMIDE, direction)


def program() -> bytes:
    """The code, in 32-bit protected mode."""
    code = store(_ROOT, 0x83) + store(_ROOT + 4, _TABLE | 3) + store(_TABLE, FIRST | 3)
    code += b"\xb8" + struct.pack("<I", _ROOT) + b"\x0f\x22\xd8"  # mov cr3, eax
    code += b"\xb8\x10\0\0\0\x0f\x22\xe0"  # mov eax, PSE; mov cr4, eax
    code += b"\x0f\x20\xc0\x0d\0\0\0\x80\x0f\x22\xc0"  # or cr0, PG
    code += out32(0xCF8, 0x8000_0920) + out32(0xCFC, BMIDE | 1)
    code += out32(0xCF8, 0x8000_0904) + out32(0xCFC, 5)
    code += transfer(FIRST, 0xC8, 8) + transfer(SECOND, 0xC8, 8)
    code += store(_TABLE, SECOND | 3) + b"\x0f\x01\x3d" + struct.pack("<I", LINEAR)  # invlpg
    code += transfer(FIRST, 0xC8, 8) + transfer(SECOND, 0xC8, 8) + transfer(SECOND, 0xCA, 0)
    return code + out(DEBUG_EXIT, 0) + b"\xf4\xeb\xfd"


def record(path: Path) -> None:
    """Record it."""
    image = path.with_suffix(".raw")
    image.write_bytes(b"disk" * (1 << 18))
    disk = DriveConfig("drive0", "ide", 1 << 20)
    config = MachineConfig(ram_bytes=16 << 20, seed=1, rtc_epoch_s=1_767_225_600, drives=(disk,))
    guest = Guest(elf(multiboot_header(0) + program()), kernel_path="dma.elf")
    limits = Limits(icount=50_000_000, wall_s=60)
    with open_image(image, format_name="raw") as opened:
        build = partial(build_machine, images={"drive0": opened})
        Recording(str(path), config.to_json(), guest, limits=limits, build=build).run()

"""SMBIOS 2.8 tables of the machine (DMTF DSP0134): system, chassis, processor and memory.

The BIOS adds its own structure (type 0) and puts address and checksums into the entry point.
"""

import struct

from workbench.core.config import MachineConfig

__all__ = ["build"]

MAKER = "Workbench"
VERSION = (2, 8)
HANDLES = {
    1: 0x100,
    3: 0x300,
    4: 0x400,
    16: 0x1000,
    17: 0x1100,
    19: 0x1300,
    32: 0x2000,
    127: 0x7F00,
}
NO_ERROR_INFORMATION = 0xFFFE
UNKNOWN = 2


def _structure(kind: int, body: bytes, *strings: str) -> bytes:
    """Header, formatted area and strings (6.1)."""
    header = struct.pack("<BBH", kind, 4 + len(body), HANDLES[kind])
    text = b"".join(s.encode() + b"\0" for s in strings) or b"\0"
    return header + body + text + b"\0"


def _memory(config: MachineConfig) -> list[bytes]:
    """One array with one module, and where it is mapped (7.17, 7.18, 7.20)."""
    kib, mib = config.ram_bytes >> 10, config.ram_bytes >> 20
    array = struct.pack(
        "<BBBIHHQ", 1, 3, 3, min(kib, 0x8000_0000), NO_ERROR_INFORMATION, 1,
        config.ram_bytes if kib >= 0x8000_0000 else 0,
    )  # fmt: skip
    module = struct.pack(
        "<HHHHHBBBBBHHBBBBBIHHHH", HANDLES[16], NO_ERROR_INFORMATION, 0xFFFF, 0xFFFF,
        min(mib, 0x7FFF), 9, 0, 1, 0, 7, 2, 0, 2, 0, 0, 0, 0, mib if mib >= 0x7FFF else 0,
        0, 0, 0, 0,
    )  # fmt: skip
    mapped = struct.pack("<IIHBQQ", 0, kib - 1, HANDLES[16], 1, 0, 0)
    return [
        _structure(16, array),
        _structure(17, module, "DIMM 0", MAKER),
        _structure(19, mapped),
    ]


def _processor() -> bytes:
    """One core in one socket (7.5)."""
    body = struct.pack("<BBBBQBBHHHBBHHHBBBBBBHH", 1, 3, 1, 2, 0, 3, 0, 0, 1000, 1000, 0x41, 1,
        0xFFFF, 0xFFFF, 0xFFFF, 0, 0, 0, 1, 1, 1, UNKNOWN, 1)  # fmt: skip
    return _structure(4, body, "CPU 0", MAKER, MAKER)


def build(config: MachineConfig) -> tuple[bytes, bytes]:
    """Entry point (5.2.1), without addresses and checksums, and the structures."""
    system = struct.pack("<BBBB16sBBB", 1, 2, 3, 0, bytes(16), 6, 0, 0)
    chassis = struct.pack("<BBBBBBBBBIBBBBB", 1, 1, 2, 0, 0, 3, 3, 3, UNKNOWN, 0, 0, 0, 0, 0, 0)
    parts = [
        _structure(1, system, MAKER, f"Workbench {config.board}", "1"),
        _structure(3, chassis, MAKER, "1"),
        _processor(),
        *_memory(config),
        _structure(32, bytes(7)),
        _structure(127, b""),
    ]
    table = b"".join(parts)
    anchor = struct.pack(
        "<4sBBBBHB5s5sBHIHB", b"_SM_", 0, 31, *VERSION, max(map(len, parts)), 0, bytes(5),
        b"_DMI_", 0, len(table), 0, len(parts), VERSION[0] << 4 | VERSION[1],
    )  # fmt: skip
    return anchor, table

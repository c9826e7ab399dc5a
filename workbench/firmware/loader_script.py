"""The script by which a BIOS places ACPI tables: `etc/table-loader` (QEMU's bios-linker-loader
interface, as SeaBIOS executes it).

Each entry has 128 bytes: a command and its arguments. ALLOCATE loads a file into memory,
ADD_POINTER adds the address of one file to a pointer in another one, ADD_CHECKSUM makes a sum zero.
"""

import struct

from workbench.hw.acpi import Relocatable

__all__ = ["RSDP_FILE", "TABLES_FILE", "script"]

TABLES_FILE, RSDP_FILE = "etc/acpi/tables", "etc/acpi/rsdp"
ENTRY_BYTES = 128
ALLOCATE, ADD_POINTER, ADD_CHECKSUM = 1, 2, 3
ZONE_HIGH, ZONE_FSEG = 1, 2


def _entry(layout: str, *values: object) -> bytes:
    return struct.pack(f"<I{layout}", *values).ljust(ENTRY_BYTES, b"\0")


def script(tables: Relocatable) -> bytes:
    """The whole script for a set of tables."""
    main, rsdp = TABLES_FILE.encode(), RSDP_FILE.encode()
    entries = [
        _entry("56sIB", ALLOCATE, rsdp, 16, ZONE_FSEG),
        _entry("56sIB", ALLOCATE, main, 64, ZONE_HIGH),
    ]
    for name, pointers, checksums in (
        (main, tables.pointers, tables.checksums),
        (rsdp, tables.rsdp_pointers, tables.rsdp_checksums),
    ):
        entries += [
            _entry("56s56sIB", ADD_POINTER, name, main, offset, size) for offset, size in pointers
        ]
        entries += [
            _entry("56sIII", ADD_CHECKSUM, name, offset, start, length)
            for offset, start, length in checksums
        ]
    return b"".join(entries)

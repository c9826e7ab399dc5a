"""Small kernel images for the tests of the loaders, and a machine that only remembers."""

import struct

from workbench.firmware import linux
from workbench.firmware.bootstate import E820, Region

MIB = 1 << 20


def memory_map(ram_mib: int) -> list[Region]:
    """Return a memory map as a PC has it, with ACPI tables in the last 64 KiB."""
    top = ram_mib * MIB
    return [
        Region(0, 0x9FC00),
        Region(0x9FC00, 0x400, E820.RESERVED),
        Region(0xF0000, 0x10000, E820.RESERVED),
        Region(MIB, top - MIB - 0x10000),
        Region(top - 0x10000, 0x10000, E820.ACPI),
    ]


def bzimage(code: bytes = b"\x90" * 0x1000, **fields: int) -> bytes:
    """Return a bzImage with a good header; `fields` overrides offsets named as in linux.py."""
    values = {
        "SETUP_SECTS": 3,
        "SYSSIZE": -(-len(code) // 16),
        "BOOT_FLAG": 0xAA55,
        "JUMP": 0x66EB,
        "VERSION": 0x20F,
        "LOADFLAGS": 1,
        "INITRD_ADDR_MAX": 0x7FFFFFFF,
        "KERNEL_ALIGNMENT": 0x200000,
        "RELOCATABLE_KERNEL": 1,
        "XLOADFLAGS": 1,
        "CMDLINE_SIZE": 2047,
        "PREF_ADDRESS": 0x1000000,
        "INIT_SIZE": 0x2000000,
    } | fields
    sizes = {
        "SETUP_SECTS": "B",
        "LOADFLAGS": "B",
        "RELOCATABLE_KERNEL": "B",
        "BOOT_FLAG": "H",
        "JUMP": "H",
        "VERSION": "H",
        "XLOADFLAGS": "H",
        "PREF_ADDRESS": "Q",
    }
    setup = bytearray(2048)
    for name, value in values.items():
        struct.pack_into("<" + sizes.get(name, "I"), setup, getattr(linux, name), value)
    setup[linux.HEADER : linux.HEADER + 4] = b"HdrS"
    return bytes(setup) + code


def multiboot_header(flags: int, *addresses: int) -> bytes:
    """Return a multiboot 1 header."""
    magic = 0x1BADB002
    return struct.pack(f"<3I{len(addresses)}I", magic, flags, -(magic + flags) & 0xFFFFFFFF,
                       *addresses)  # fmt: skip


def elf(
    contents: bytes, *, bits: int = 32, machine: int | None = None, entry: int = 0x10000C,
    vaddr: int = 0x100000, paddr: int = 0x100000, filesz: int | None = None,
    memsz: int | None = None,
) -> bytes:  # fmt: skip
    """Return an ELF file with one segment, which has `contents`."""
    header_bytes, program_bytes = (64, 56) if bits == 64 else (52, 32)
    offset = header_bytes + program_bytes
    if filesz is None:
        filesz = len(contents)
    if memsz is None:
        memsz = filesz
    if machine is None:
        machine = 62 if bits == 64 else 3
    ident = b"\x7fELF" + bytes((bits // 32, 1, 1)) + bytes(9)
    word = "Q" if bits == 64 else "I"
    header = ident + struct.pack(
        f"<HHI{word}{word}{word}IHHHHHH",
        *(2, machine, 1, entry, header_bytes, 0, 0, header_bytes, program_bytes, 1, 0, 0, 0),
    )
    if bits == 64:
        program = struct.pack("<IIQQQQQQ", 1, 7, offset, vaddr, paddr, filesz, memsz, 0x1000)
    else:
        program = struct.pack("<IIIIIIII", 1, offset, vaddr, paddr, filesz, memsz, 7, 0x1000)
    return header + program + contents


class Contents:
    """The memory that a list of (gpa, bytes) makes, to be read back."""

    def __init__(self, parts: list[tuple[int, bytes]]) -> None:
        self._parts = parts

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes from `gpa`; the last part that covers a byte counts."""
        result = bytearray(size)
        for base, data in self._parts:
            low, high = max(base, gpa), min(base + len(data), gpa + size)
            if low < high:
                result[low - gpa : high - gpa] = data[low - base : high - base]
        return bytes(result)

    def unpack(self, layout: str, gpa: int) -> tuple[int, ...]:
        """Return the values of `layout` (as in `struct`) at `gpa`."""
        return struct.unpack(layout, self.read(gpa, struct.calcsize(layout)))

    def text(self, gpa: int) -> bytes:
        """Return the bytes from `gpa` up to a zero byte."""
        return self.read(gpa, 256).partition(b"\0")[0]

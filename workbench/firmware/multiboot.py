"""Load a multiboot 1 guest: ELF32, ELF64, or any file with the address fields ("a.out kludge").

Reference: Multiboot Specification 0.6.96, sections 3.1 (header), 3.2 (machine state) and 3.3 (boot
information). Deliberately not provided: video modes, drive and APM information, symbol tables; a
header that requires one of them is refused. An ELF64 file, which the specification does not
mention, is loaded by its physical addresses and entered like any other in 32-bit protected mode.
"""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from workbench.firmware.bootstate import (
    CODE32,
    CR0_ET,
    CR0_PE,
    DATA32,
    FOUR_GIB,
    MIB,
    RFLAGS_FIXED,
    Allocator,
    BootState,
    Region,
    Segment,
    apply,
    bios_data_area,
    flat_segments,
    memory_map,
    place_acpi_tables,
)
from workbench.firmware.errors import LoaderError

if TYPE_CHECKING:
    from workbench.core.machine import Machine

HEADER_MAGIC = 0x1BADB002
BOOTLOADER_MAGIC = 0x2BADB002
SEARCH_BYTES = 8192
LOADER_NAME = b"Workbench\0"

# Flags of the header (3.1.2); modules are always page aligned and memory is always described.
PAGE_ALIGN = 1 << 0
MEMORY_INFO = 1 << 1
VIDEO_MODE = 1 << 2
ADDRESS_FIELDS = 1 << 16
_REQUIRED = 0xFFFF

# Flags of the boot information (3.3).
INFO_MEMORY = 1 << 0
INFO_CMDLINE = 1 << 2
INFO_MODS = 1 << 3
INFO_MMAP = 1 << 6
INFO_LOADER_NAME = 1 << 9
INFO_BYTES = 120

# Selectors of the temporary descriptor table; a guest must not rely on them (3.2).
_CODE = Segment(0x08, 0, 0xFFFFFFFF, CODE32)
_DATA = Segment(0x10, 0, 0xFFFFFFFF, DATA32)

_PT_LOAD = 1
_EM_386 = 3
_EM_X86_64 = 62


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of the image: `data` at `gpa`, then zeros up to `size` bytes."""

    gpa: int
    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """A checked multiboot image."""

    parts: tuple[Part, ...]
    entry: int

    @classmethod
    def parse(cls, image: bytes) -> "Image":
        """Check `image`; raises `LoaderError` with the reason if it cannot be booted."""
        header = find_header(image)
        if header is None:
            raise LoaderError("the file has no multiboot header in its first 8192 bytes")
        (flags,) = struct.unpack_from("<I", image, header + 4)
        if flags & VIDEO_MODE:
            raise LoaderError("the multiboot guest requires a video mode; there is no display")
        if unknown := flags & _REQUIRED & ~(PAGE_ALIGN | MEMORY_INFO):
            raise LoaderError(f"the multiboot guest requires unknown features: flags {unknown:#x}")
        if flags & ADDRESS_FIELDS:
            return _from_address_fields(image, header)
        return _from_elf(image)


def find_header(image: bytes) -> int | None:
    """Return the offset of the multiboot header, or None."""
    for offset in range(0, min(len(image), SEARCH_BYTES) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", image, offset)
        if magic == HEADER_MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
            return offset
    return None


def load(
    machine: "Machine",
    elf: bytes,
    cmdline: str = "",
    modules: list[tuple[str, bytes]] | None = None,
) -> None:
    """Put a multiboot guest with its modules, given as (name, contents), into `machine`.

    Raises `LoaderError` if the guest is not bootable or does not fit.
    """
    regions = memory_map(machine)
    state = BootState()
    allocator = Allocator(regions)
    place_acpi_tables(machine, state, allocator)
    prepare(Image.parse(elf), cmdline, modules or [], regions, state, allocator)
    apply(machine, state)


def prepare(
    image: Image,
    cmdline: str,
    modules: list[tuple[str, bytes]],
    regions: list[Region],
    state: BootState,
    allocator: Allocator,
) -> None:
    """Add the image, its modules and the boot information to `state`."""
    for part in image.parts:
        if not allocator.is_free(part.gpa, part.size):
            raise LoaderError(
                f"the guest wants {part.size} bytes at {part.gpa:#x}, where it has no free memory: "
                "give it more with -m"
            )
    for part in image.parts:
        allocator.reserve(part.gpa, part.size)
        state.memory.append((part.gpa, part.data + bytes(part.size - len(part.data))))
    state.memory += bios_data_area(regions)
    info_gpa = _boot_information(cmdline.encode(), modules, regions, state, allocator)
    flat_segments(state, _CODE, _DATA, _take(allocator, 24))
    state.registers |= {
        "rip": image.entry,
        "rax": BOOTLOADER_MAGIC,
        "rbx": info_gpa,
        "rflags": RFLAGS_FIXED,
        "cr0": CR0_PE | CR0_ET,
    }


def _boot_information(
    cmdline: bytes,
    modules: list[tuple[str, bytes]],
    regions: list[Region],
    state: BootState,
    allocator: Allocator,
) -> int:
    module_list = b""
    for name, data in modules:
        gpa = allocator.highest(max(len(data), 1))
        if gpa is None:
            raise LoaderError(
                f"the module {name!r} of {len(data)} bytes does not fit: give the guest more "
                "memory with -m"
            )
        state.memory.append((gpa, data))
        module_list += struct.pack(
            "<IIII", gpa, gpa + len(data), _put(state, allocator, name.encode() + b"\0"), 0
        )
    memory_map_entries = b"".join(struct.pack("<IQQI", 20, r.base, r.size, r.type) for r in regions)
    usable = [region for region in regions if region.type == 1]
    lower = max((r.end for r in usable if r.base == 0), default=0)
    upper = max((r.end for r in usable if r.base <= MIB < r.end), default=MIB) - MIB
    info = struct.pack(
        "<7I16xII12xI",
        INFO_MEMORY | INFO_CMDLINE | INFO_MODS | INFO_MMAP | INFO_LOADER_NAME,
        min(lower, 640 << 10) >> 10,
        upper >> 10,
        0,  # boot device: flag not set
        _put(state, allocator, cmdline + b"\0"),
        len(modules),
        _put(state, allocator, module_list),
        len(memory_map_entries),
        _put(state, allocator, memory_map_entries),
        _put(state, allocator, LOADER_NAME),
    )
    return _put(state, allocator, info.ljust(INFO_BYTES, b"\0"))


def _put(state: BootState, allocator: Allocator, data: bytes) -> int:
    gpa = _take(allocator, len(data))
    state.memory.append((gpa, data))
    return gpa


def _take(allocator: Allocator, size: int) -> int:
    gpa = allocator.lowest(max(size, 1), align=16)
    if gpa is None:
        raise LoaderError("the guest has no memory left for the multiboot information")
    return gpa


def _from_address_fields(image: bytes, header: int) -> Image:
    if len(image) < header + 32:
        raise LoaderError("the multiboot header is cut off")
    header_addr, load_addr, load_end, bss_end, entry = struct.unpack_from("<5I", image, header + 12)
    start = header - (header_addr - load_addr)
    end = start + (load_end - load_addr) if load_end else len(image)
    if load_addr > header_addr or not 0 <= start <= end <= len(image):
        raise LoaderError("the multiboot header's addresses lie outside the file")
    size = max(bss_end - load_addr if bss_end else 0, end - start)
    return Image((Part(load_addr, size, image[start:end]),), entry)


def _from_elf(image: bytes) -> Image:
    wide = _elf_class(image) == 64
    machine = int.from_bytes(image[18:20], "little")
    if machine not in (_EM_386, _EM_X86_64):
        raise LoaderError(f"the ELF file is for another processor (e_machine {machine})")
    header = "<QQQIHHH" if wide else "<IIIIHHH"
    if len(image) < 24 + struct.calcsize(header):
        raise LoaderError("the ELF file is cut off in its header")
    entry, table, _, _, _, entry_size, count = struct.unpack_from(header, image, 24)
    program = "<IIQQQQQ" if wide else "<IIIIII"
    if entry_size < struct.calcsize(program) or table + entry_size * count > len(image):
        raise LoaderError("the ELF file is cut off in its program headers")
    parts = []
    physical_entry = entry
    for n in range(count):
        values = struct.unpack_from(program, image, table + n * entry_size)
        if values[0] != _PT_LOAD:
            continue
        if wide:
            _, _, offset, vaddr, paddr, filesz, memsz = values
        else:
            _, offset, vaddr, paddr, filesz, memsz = values
        if filesz > memsz or offset + filesz > len(image):
            raise LoaderError("the ELF file is cut off: a segment lies outside of it")
        if paddr + memsz > FOUR_GIB:
            raise LoaderError(f"the ELF file has a segment at {paddr:#x}, above 4 GiB")
        if vaddr <= entry < vaddr + memsz:
            physical_entry = entry - vaddr + paddr
        if memsz:
            parts.append(Part(paddr, memsz, image[offset : offset + filesz]))
    if not parts:
        raise LoaderError("the ELF file has nothing to load")
    if not any(part.gpa <= physical_entry < part.gpa + part.size for part in parts):
        raise LoaderError(f"the ELF file's entry point {entry:#x} is in none of its segments")
    return Image(tuple(parts), physical_entry)


def _elf_class(image: bytes) -> Literal[32, 64]:
    if len(image) < 20 or image[:4] != b"\x7fELF" or image[5] != 1 or image[4] not in (1, 2):
        raise LoaderError(
            "the multiboot guest is neither a little-endian ELF file nor has it "
            "the address fields in its header"
        )
    return 64 if image[4] == 2 else 32

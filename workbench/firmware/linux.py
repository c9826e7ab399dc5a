"""Load a Linux bzImage by its 64-bit or 32-bit boot protocol.

Reference: the kernel's ``Documentation/arch/x86/boot.rst`` ("64-bit BOOT PROTOCOL" and "32-bit BOOT
PROTOCOL", protocol 2.12 and later) and ``zero-page.rst``. A 64-bit kernel is entered at its 64-bit
entry point with an identity mapping of the first 4 GiB, a 32-bit one in protected mode without
paging; the real-mode part is not run. Not modelled: EFI hand-over, kernels
above 4 GiB, ``setup_data`` chains.
"""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.firmware.bootstate import (
    CODE32,
    CODE64,
    CR0_ET,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    DATA32,
    EFER_LMA,
    EFER_LME,
    FOUR_GIB,
    MIB,
    PAGE_BYTES,
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

# Offsets in the setup header, which has the same place in the image and in boot_params.
SETUP_SECTS = 0x1F1
SYSSIZE = 0x1F4
BOOT_FLAG = 0x1FE
JUMP = 0x200
HEADER = 0x202
VERSION = 0x206
TYPE_OF_LOADER = 0x210
LOADFLAGS = 0x211
CODE32_START = 0x214
RAMDISK_IMAGE = 0x218
RAMDISK_SIZE = 0x21C
CMD_LINE_PTR = 0x228
INITRD_ADDR_MAX = 0x22C
KERNEL_ALIGNMENT = 0x230
RELOCATABLE_KERNEL = 0x234
XLOADFLAGS = 0x236
CMDLINE_SIZE = 0x238
PREF_ADDRESS = 0x258
INIT_SIZE = 0x260

# Offsets in boot_params outside the setup header.
ACPI_RSDP_ADDR = 0x070
E820_ENTRIES = 0x1E8
E820_TABLE = 0x2D0
E820_MAX_ENTRIES = 128

XLF_KERNEL_64 = 1 << 0
LOADFLAGS_LOADED_HIGH = 1 << 0
LOADER_UNDEFINED = 0xFF
OLDEST_VERSION = 0x20C
ENTRY_64 = 0x200

# Where the loader puts its own things, below 640 KiB and above the BIOS data area.
GDT_GPA = 0x1000
PAGE_TABLES_GPA = 0x2000  # PML4, PDPT and four page directories
BOOT_PARAMS_GPA = 0x10000
CMDLINE_GPA = 0x20000
_LOW_END = 0x30000

_BOOT_CS64 = Segment(0x10, 0, 0xFFFFFFFF, CODE64)
_BOOT_CS32 = Segment(0x10, 0, 0xFFFFFFFF, CODE32)
_BOOT_DS = Segment(0x18, 0, 0xFFFFFFFF, DATA32)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A checked bzImage: what its setup header says, and its protected-mode part."""

    setup: bytes
    code: bytes
    version: int
    is_64bit: bool
    alignment: int
    relocatable: bool
    pref_address: int
    init_size: int
    initrd_addr_max: int
    cmdline_size: int

    @classmethod
    def parse(cls, image: bytes) -> "Kernel":
        """Check `image`; raises `LoaderError` with the reason if it cannot be booted."""
        if not is_bzimage(image):
            raise LoaderError(f"the kernel is no Linux kernel image: {_looks_like(image)}")
        version = _u16(image, VERSION)
        if version < OLDEST_VERSION:
            raise LoaderError(
                f"the kernel has boot protocol {version >> 8}.{version & 0xFF:02}; "
                "2.12 or later (Linux 3.8) is needed"
            )
        if not image[LOADFLAGS] & LOADFLAGS_LOADED_HIGH:
            raise LoaderError("the kernel is a zImage; a bzImage is needed")
        setup_bytes = ((image[SETUP_SECTS] or 4) + 1) * 512
        code_bytes = _u32(image, SYSSIZE) * 16
        if code_bytes <= ENTRY_64 or len(image) < setup_bytes + code_bytes - 15:
            raise LoaderError(
                f"the kernel is cut off: its header announces {setup_bytes + code_bytes} bytes, "
                f"the file has {len(image)}"
            )
        alignment = _u32(image, KERNEL_ALIGNMENT)
        if alignment == 0 or alignment & (alignment - 1):
            raise LoaderError(f"the kernel's header is damaged: its alignment is {alignment:#x}")
        return cls(
            setup=image[:setup_bytes],
            code=image[setup_bytes:],
            version=version,
            is_64bit=bool(_u16(image, XLOADFLAGS) & XLF_KERNEL_64),
            alignment=max(alignment, PAGE_BYTES),
            relocatable=bool(image[RELOCATABLE_KERNEL]),
            pref_address=_u64(image, PREF_ADDRESS),
            init_size=max(_u32(image, INIT_SIZE), len(image) - setup_bytes),
            initrd_addr_max=_u32(image, INITRD_ADDR_MAX),
            cmdline_size=_u32(image, CMDLINE_SIZE),
        )


def is_bzimage(image: bytes) -> bool:
    """Tell whether `image` has the signatures of a Linux setup header."""
    return (
        len(image) >= INIT_SIZE + 4
        and _u16(image, BOOT_FLAG) == 0xAA55
        and image[HEADER : HEADER + 4] == b"HdrS"
    )


def load(machine: "Machine", kernel: bytes, initrd: bytes | None, cmdline: str) -> None:
    """Put a bzImage, its initrd and its command line into `machine`, ready to run.

    Raises `LoaderError` if the kernel is not bootable or does not fit.
    """
    regions = memory_map(machine)
    state = BootState()
    allocator = Allocator(regions)
    rsdp_gpa = place_acpi_tables(machine, state, allocator)
    prepare(Kernel.parse(kernel), initrd, cmdline, regions, state, allocator, rsdp_gpa)
    apply(machine, state)


def prepare(
    kernel: Kernel,
    initrd: bytes | None,
    cmdline: str,
    regions: list[Region],
    state: BootState,
    allocator: Allocator,
    rsdp_gpa: int,
) -> None:
    """Add the kernel and what it is handed to `state`."""
    command = cmdline.encode()
    if b"\0" in command or len(command) > min(kernel.cmdline_size, _LOW_END - CMDLINE_GPA - 1):
        raise LoaderError(
            f"the kernel takes a command line of at most {kernel.cmdline_size} bytes "
            f"without NUL, not one of {len(command)}"
        )
    if not allocator.is_free(GDT_GPA, _LOW_END - GDT_GPA):
        raise LoaderError("the guest has too little memory below 640 KiB for a Linux kernel")
    allocator.reserve(0, _LOW_END)
    load_gpa = _place_kernel(kernel, allocator, regions)
    initrd_gpa = _place_initrd(kernel, initrd or b"", allocator, regions)

    state.memory += bios_data_area(regions)
    state.memory += [
        (load_gpa, kernel.code),
        (CMDLINE_GPA, command + b"\0"),
    ]
    if initrd:
        state.memory.append((initrd_gpa, initrd))
    params = boot_params(kernel, regions)
    struct.pack_into("<Q", params, ACPI_RSDP_ADDR, rsdp_gpa)
    struct.pack_into("<I", params, CODE32_START, load_gpa)
    struct.pack_into("<I", params, RAMDISK_IMAGE, initrd_gpa)
    struct.pack_into("<I", params, RAMDISK_SIZE, len(initrd or b""))
    struct.pack_into("<I", params, CMD_LINE_PTR, CMDLINE_GPA)
    state.memory.append((BOOT_PARAMS_GPA, bytes(params)))

    (_enter_64 if kernel.is_64bit else _enter_32)(state, load_gpa)
    state.registers |= {
        "rsi": BOOT_PARAMS_GPA,
        "rsp": BOOT_PARAMS_GPA,
        "rflags": RFLAGS_FIXED,
    }


def _enter_64(state: BootState, load_gpa: int) -> None:
    state.memory.append((PAGE_TABLES_GPA, identity_map(PAGE_TABLES_GPA)))
    flat_segments(state, _BOOT_CS64, _BOOT_DS, GDT_GPA)
    state.registers |= {
        "rip": load_gpa + ENTRY_64,
        "cr3": PAGE_TABLES_GPA,
        "cr4": CR4_PAE,
        "efer": EFER_LME | EFER_LMA,
        "cr0": CR0_PE | CR0_ET | CR0_NE | CR0_PG,
    }


def _enter_32(state: BootState, load_gpa: int) -> None:
    flat_segments(state, _BOOT_CS32, _BOOT_DS, GDT_GPA)
    state.registers |= {"rip": load_gpa, "cr0": CR0_PE | CR0_ET | CR0_NE}


def boot_params(kernel: Kernel, regions: list[Region]) -> bytearray:
    """Return the zero page with the kernel's own setup header and the memory map filled in."""
    params = bytearray(PAGE_BYTES)
    header_end = min(HEADER + kernel.setup[JUMP + 1], E820_TABLE - 0x40)
    params[SETUP_SECTS:header_end] = kernel.setup[SETUP_SECTS:header_end]
    params[TYPE_OF_LOADER] = LOADER_UNDEFINED
    if len(regions) > E820_MAX_ENTRIES:
        raise LoaderError(f"expected at most {E820_MAX_ENTRIES} regions, not {len(regions)}")
    params[E820_ENTRIES] = len(regions)
    for n, region in enumerate(regions):
        struct.pack_into("<QQI", params, E820_TABLE + 20 * n, region.base, region.size, region.type)
    return params


def identity_map(gpa: int) -> bytes:
    """Return page tables, to be placed at `gpa`, that map 4 GiB to themselves in 2 MiB pages."""
    present_write, large = 0x3, 0x80
    pml4 = [gpa + PAGE_BYTES | present_write] + [0] * 511
    pdpt = [gpa + (2 + n) * PAGE_BYTES | present_write for n in range(4)] + [0] * 508
    directories = [n * 2 * MIB | present_write | large for n in range(4 * 512)]
    return struct.pack(f"<{6 * 512}Q", *pml4, *pdpt, *directories)


def _place_kernel(kernel: Kernel, allocator: Allocator, regions: list[Region]) -> int:
    wanted = kernel.pref_address
    if kernel.relocatable:
        wanted = -(-wanted // kernel.alignment) * kernel.alignment
    if allocator.is_free(wanted, kernel.init_size):
        allocator.reserve(wanted, kernel.init_size)
        return wanted
    # loaded below its preferred address it would move itself up to there (boot.rst, pref_address)
    found = (
        allocator.lowest(kernel.init_size, kernel.alignment, minimum=wanted)
        if kernel.relocatable
        else None
    )
    if found is None:
        raise LoaderError(
            f"the kernel needs {_mib(kernel.init_size)} MiB of memory in one piece above "
            f"{_mib(wanted)} MiB to unpack itself, and the guest has {_ram_mib(regions)} MiB in "
            "all: give it more with -m"
        )
    return found


def _place_initrd(
    kernel: Kernel, initrd: bytes, allocator: Allocator, regions: list[Region]
) -> int:
    if not initrd:
        return 0
    end = min(kernel.initrd_addr_max + 1, FOUR_GIB)
    found = allocator.highest(len(initrd), PAGE_BYTES, end)
    if found is None or found < MIB:
        raise LoaderError(
            f"the initrd of {_mib(len(initrd))} MiB does not fit beside the kernel, which needs "
            f"{_mib(kernel.init_size)} MiB of the guest's {_ram_mib(regions)} MiB: "
            "give it more with -m"
        )
    return found


def _looks_like(image: bytes) -> str:
    kinds = {
        b"": "the file is empty",
        b"\x7fELF": "it is an ELF file without a multiboot header",
        b"\x1f\x8b": "it is compressed with gzip",
        b"\xfd7zXZ": "it is compressed with xz",
        b"\x28\xb5\x2f\xfd": "it is compressed with zstd",
        b"070701": "it is a cpio archive, perhaps the initrd",
        b"!<arch>": "it is a Debian package or a static library",
    }
    for magic, kind in kinds.items():
        if image.startswith(magic) if magic else not image:
            return kind
    if len(image) < INIT_SIZE + 4:
        return f"it has only {len(image)} bytes"
    return "it has no setup header (a vmlinuz or bzImage has one at offset 0x1f1)"


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // MIB)


def _ram_mib(regions: list[Region]) -> int:
    return _mib(sum(region.size for region in regions if region.type == 1))


def _u16(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 2], "little")


def _u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def _u64(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "little")

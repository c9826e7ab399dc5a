"""A kernel that a BIOS boots: fw_cfg items for QEMU's option ROM `linuxboot_dma.bin`.

The BIOS runs the ROM as a boot device; it fetches the items, puts them where they say, and enters
the kernel's real-mode part as a boot loader would (``Documentation/arch/x86/boot.rst``, "THE
REAL-MODE KERNEL HEADER"; keys: QEMU's fw_cfg specification).
"""

from __future__ import annotations

import struct

from workbench.firmware.errors import LoaderError
from workbench.firmware.linux import (
    CMD_LINE_PTR,
    LOADFLAGS,
    LOADFLAGS_LOADED_HIGH,
    RAMDISK_IMAGE,
    TYPE_OF_LOADER,
    Kernel,
    is_bzimage,
)
from workbench.hw.layout import LOW_RAM_LIMIT

__all__ = ["ROM_NAME", "items"]

ROM_NAME = "linuxboot_dma.bin"

KERNEL_ADDR, KERNEL_SIZE, INITRD_ADDR, INITRD_SIZE = 0x07, 0x08, 0x0A, 0x0B
KERNEL_DATA, INITRD_DATA, CMDLINE_ADDR, CMDLINE_SIZE, CMDLINE_DATA = 0x11, 0x12, 0x13, 0x14, 0x15
SETUP_ADDR, SETUP_SIZE, SETUP_DATA = 0x16, 0x17, 0x18

SETUP_GPA, CMDLINE_GPA, KERNEL_GPA, LOW_END = 0x1_0000, 0x2_0000, 0x10_0000, 0x8_0000
HEAP_END_PTR = 0x224
CAN_USE_HEAP = 1 << 7
LOADER_QEMU = 0xB0  # the ROM is QEMU's
PAGE = 0x1000
BIOS_TABLES_BYTES = 1 << 20  # at the end of RAM, where a BIOS has its tables


def items(image: bytes, initrd: bytes | None, cmdline: str, ram_bytes: int) -> dict[int, bytes]:
    """The items by key; raises `LoaderError` for what cannot be booted so."""
    if not is_bzimage(image):
        raise LoaderError(
            "expected a Linux bzImage to boot through a BIOS; other kernels start without --bios"
        )
    kernel = Kernel.parse(image)
    command = cmdline.encode()
    most = min(kernel.cmdline_size, LOW_END - CMDLINE_GPA - 1)
    if b"\0" in command or len(command) > most:
        raise LoaderError(
            f"the kernel takes a command line of at most {most} bytes without NUL, not one of "
            f"{len(command)}"
        )
    if len(kernel.setup) > CMDLINE_GPA - SETUP_GPA - 0x4000:
        raise LoaderError(f"the kernel's real-mode part is too long: {len(kernel.setup):,} bytes")
    ramdisk = initrd or b""
    end = min(kernel.initrd_addr_max + 1, min(ram_bytes, LOW_RAM_LIMIT) - BIOS_TABLES_BYTES)
    at = end - len(ramdisk) & ~(PAGE - 1)
    if at < KERNEL_GPA + kernel.init_size:
        raise LoaderError(
            f"the kernel needs {kernel.init_size >> 20} MiB and its initrd {len(ramdisk) >> 20} "
            f"MiB beside it, and the guest has {ram_bytes >> 20} MiB: give it more with -m"
        )
    setup = bytearray(kernel.setup)
    setup[TYPE_OF_LOADER] = LOADER_QEMU
    setup[LOADFLAGS] |= LOADFLAGS_LOADED_HIGH | CAN_USE_HEAP
    struct.pack_into("<H", setup, HEAP_END_PTR, CMDLINE_GPA - SETUP_GPA - 0x200)
    struct.pack_into("<I", setup, CMD_LINE_PTR, CMDLINE_GPA)
    struct.pack_into("<II", setup, RAMDISK_IMAGE, at if ramdisk else 0, len(ramdisk))
    numbers = {
        KERNEL_ADDR: KERNEL_GPA,
        KERNEL_SIZE: len(kernel.code),
        INITRD_ADDR: at if ramdisk else 0,
        INITRD_SIZE: len(ramdisk),
        CMDLINE_ADDR: CMDLINE_GPA,
        CMDLINE_SIZE: len(command) + 1,
        SETUP_ADDR: SETUP_GPA,
        SETUP_SIZE: len(setup),
    }
    found = {key: struct.pack("<I", value) for key, value in numbers.items()}
    found |= {
        KERNEL_DATA: kernel.code,
        INITRD_DATA: ramdisk,
        CMDLINE_DATA: command + b"\0",
        SETUP_DATA: bytes(setup),
    }
    return found

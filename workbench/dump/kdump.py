"""A guest's memory in kdump's compressed form, as makedumpfile and QEMU's `-z` write it.

Header, sub header and notes, two bitmaps of pages, a descriptor for each page, pages compressed by
zlib (makedumpfile's IMPLEMENTATION and diskdump_mod.h, header version 6). Pages of zeros share one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Final

from workbench.dump.linux import UTS_BYTES
from workbench.dump.memory import PAGE, ranges, runs

if TYPE_CHECKING:
    from workbench.core.machine import Machine
    from workbench.dump.linux import Kernel

__all__ = ["write_kdump"]

_VERSION: Final = 6
_ZLIB: Final = 1  # DUMP_DH_COMPRESSED_ZLIB
_HEADER: Final = struct.Struct("<8si390s6x2Q10I")
_SUB_HEADER: Final = struct.Struct("<Qii11Q")
_PAGE_DESC: Final = struct.Struct("<QIIQ")
_LEVEL: Final = 1  # fast: pages of a kernel hardly become smaller by more


def write_kdump(
    machine: Machine,
    file: IO[bytes],
    notes: bytes,
    kernel: Kernel | None,
    progress: Callable[[int], None],
) -> None:
    """Write all of RAM to a file in which one can seek."""
    found = ranges(machine)
    pages = sum(-(-length // PAGE) for _, length in found)
    end = -(-max(start + length for start, length in found) // PAGE)
    text = b"" if kernel is None else kernel.vmcoreinfo
    notes_at = PAGE + _SUB_HEADER.size
    sub_blocks = -(-(_SUB_HEADER.size + len(notes)) // PAGE)
    bitmap_blocks = -(-end // (8 * PAGE))
    base = 0 if kernel is None else kernel.number("NUMBER(phys_base)") or 0
    file.write(_header(kernel, sub_blocks, 2 * bitmap_blocks, end, pages).ljust(PAGE, b"\0"))
    place = notes_at + notes.find(text) if text else 0
    sub = _SUB_HEADER.pack(
        base & (1 << 64) - 1, 0, 0, 0, 0, place, len(text), notes_at, len(notes), 0, 0, 0, end, end
    )  # fmt: skip
    file.write((sub + notes).ljust(sub_blocks * PAGE, b"\0"))
    bitmap = _bitmap(found, bitmap_blocks * PAGE)
    file.write(bitmap)
    file.write(bitmap)
    at = file.tell()
    _pages(machine, file, at, at + pages * _PAGE_DESC.size, progress)


def _header(
    kernel: Kernel | None, sub_blocks: int, bitmap_blocks: int, end: int, pages: int
) -> bytes:
    """`struct disk_dump_header`: no time of day, for a dump of a moment is always the same."""
    names = bytes(UTS_BYTES) if kernel is None else kernel.utsname
    return _HEADER.pack(
        b"KDUMP   ", _VERSION, names, 0, 0, _ZLIB, PAGE,
        sub_blocks, bitmap_blocks, min(end, (1 << 32) - 1), pages, 0, pages, 0, 1,
    )  # fmt: skip


def _bitmap(found: list[tuple[int, int]], size: int) -> bytes:
    """A bit for each page of RAM."""
    bits = bytearray(size)
    for start, length in found:
        first, behind = start // PAGE, -(-(start + length) // PAGE)
        while first < behind and first % 8:
            bits[first // 8] |= 1 << first % 8
            first += 1
        whole = behind // 8
        if whole > first // 8:
            bits[first // 8 : whole] = b"\xff" * (whole - first // 8)
            first = whole * 8
        for page in range(first, behind):
            bits[page // 8] |= 1 << page % 8
    return bytes(bits)


def _pages(
    machine: Machine, file: IO[bytes], descs_at: int, at: int, progress: Callable[[int], None]
) -> None:
    empty, page_desc = zlib.compress(bytes(PAGE), _LEVEL), _PAGE_DESC.pack
    zeros = page_desc(at, len(empty), _ZLIB, 0)
    file.seek(at)
    file.write(empty)
    at += len(empty)
    for start, length in ranges(machine):
        for _, size, data in runs(machine, start, length):
            descs, out = [], []
            if not data:
                descs = [zeros] * -(-size // PAGE)
            for place in range(0, len(data), PAGE):
                page = data[place : place + PAGE].ljust(PAGE, b"\0")
                packed = zlib.compress(page, _LEVEL)
                flags = _ZLIB
                if len(packed) >= PAGE:
                    packed, flags = page, 0
                descs.append(page_desc(at, len(packed), flags, 0))
                out.append(packed)
                at += len(packed)
            file.write(b"".join(out))
            file.seek(descs_at)
            descs_at += file.write(b"".join(descs))
            file.seek(at)
            progress(size)

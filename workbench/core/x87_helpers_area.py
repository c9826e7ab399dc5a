"""Blocks of guest memory that one instruction reads or writes whole: FNSAVE, FXSAVE, XSAVE areas.

`area_open` gives a host address at which the whole block can be read (and written): in guest RAM
itself where the block lies in one page, else a copy, which `area_close` writes back.  All faults
are found by `area_open`.  A page that is not RAM reads as ones and ignores writes: no device of a
PC has such a block, and its accesses would be far more than an instruction may make.
"""

from __future__ import annotations

from typing import Any

from workbench.core import mmu
from workbench.core.lang import fn, inline, select, store, u8, u64
from workbench.core.layout import CPU, EXIT_EXCEPTION

AREA_BYTES = 1024  # room that a caller gives for the copy


@inline
def _part(base: Any, addr: Any, access: int, at: Any) -> Any:
    """Host address of one byte, 0 where there is no RAM, or 1 with a fault noted."""
    cpu = CPU.view(base)
    host = mmu.probe(base, addr, access, at)
    return select((host == 0) & (cpu.exit_reason == EXIT_EXCEPTION), u64(1), host)


@inline
def _room(addr: Any, size: Any) -> Any:
    """How many of `size` bytes at `addr` lie in its page."""
    room = 0x1000 - (addr & mmu.PAGE)
    return select(room < size, room, size)


@inline
def _copy_in(host: Any, to: Any, n: Any) -> None:
    """`n` bytes of RAM, or ones where `host` is 0."""
    if host != 0:
        mmu.copy_bytes(host, to, n)
    else:
        i = u64(0)
        while i < n:
            store(to + i, u8(0xFF))
            i += 1


@inline
def _open(base: Any, at: Any, addr: Any, size: Any, copy: Any, access: int) -> Any:
    cpu = CPU.view(base)
    cpu.exit_reason = 0  # `probe` notes a fault there, and nothing when it meets a device
    host = _part(base, addr, access, at)
    if host == 1:
        return u64(0)
    first = _room(addr, size)
    if host != 0 and first == size:
        if access == mmu.WRITE:
            mmu.wrote_code(base, host, size)
        return host
    _copy_in(host, copy, first)
    if first != size:
        host = _part(base, addr + first, access, at)
        if host == 1:
            return u64(0)
        _copy_in(host, copy + first, size - first)
    return copy


@fn("ptr", "i32", "i64", "i64", "i64", ret="i64")
def area_open_read(base: Any, at: Any, addr: Any, size: Any, copy: Any) -> Any:
    """Host address of `size` bytes at linear `addr` for reading, or 0 with a fault noted."""
    return _open(base, at, addr, size, copy, mmu.READ)


@fn("ptr", "i32", "i64", "i64", "i64", ret="i64")
def area_open_write(base: Any, at: Any, addr: Any, size: Any, copy: Any) -> Any:
    """The same for reading and writing; `area_close` must follow."""
    return _open(base, at, addr, size, copy, mmu.WRITE)


@fn("ptr", "i32", "i64", "i64", "i64", "i64")
def area_close(base: Any, at: Any, addr: Any, size: Any, copy: Any, opened: Any) -> None:
    """Write a copy back to guest memory; nothing to do when `area_open_write` gave RAM itself."""
    if opened != copy:
        return
    first = _room(addr, size)
    host = mmu.probe(base, addr, mmu.WRITE, at)
    if host != 0:
        mmu.wrote_code(base, host, first)
        mmu.copy_bytes(copy, host, first)
    if first != size:
        host = mmu.probe(base, addr + first, mmu.WRITE, at)
        if host != 0:
            mmu.wrote_code(base, host, size - first)
            mmu.copy_bytes(copy + first, host, size - first)


@inline
def aligned(addr: Any, to: int) -> Any:
    """Is `addr` a multiple of `to`?  (i1)"""
    return (addr & (to - 1)) == 0

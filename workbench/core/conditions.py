"""Conditions of breakpoints, evaluated where they are hit: compiled helpers of the run loop.

They are bytecode of gdb's agent expressions ("Debugging with GDB", appendix F). What this does not
know (division, device memory, a page crossing, code that is not 64-bit, whatever is malformed) is
left to the debugger: the condition counts as one that holds, and it is looked at again there.
Reading memory here sets no Accessed bit and fills no TLB.

The table at `cond_table`: for each breakpoint, in their order, where its conditions are (bytes from
the start of the table, 0 none); there their number, and for each its length and its code, each
padded to 8 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.core import mmu
from workbench.core.lang import fn, inline, load, offset, select, u1, u32, u64, unlikely
from workbench.core.layout import COND_REGISTERS, COND_STACK, CPU, EFER_LMA

MOST_TABLE_BYTES = 1 << 20
_MOST_STEPS = 2000
_PAD = 16  # an operand that is cut off is read from here


def table_of(addresses: Sequence[int], conditions: Mapping[int, Sequence[bytes]]) -> bytes:
    """The table for breakpoints at these addresses; one whose code has no room has no condition."""
    starts, body = [], bytearray()
    for address in addresses:
        codes = conditions.get(address, ())
        size = sum(len(code) + 16 for code in codes)
        if not codes or len(body) + size > MOST_TABLE_BYTES:
            starts.append(0)
            continue
        starts.append(8 * len(addresses) + len(body))
        body += struct.pack("<Q", len(codes))
        for code in codes:
            body += struct.pack("<Q", len(code)) + code + bytes(-len(code) % 8)
    return struct.pack(f"<{len(starts)}Q", *starts) + bytes(body) + bytes(_PAD)


@fn("ptr", "i64", ret="i64")
def peek_host(base: Any, linear: Any) -> Any:
    """Host address of a linear one, by page tables of 64-bit mode; 0 where there is no RAM."""
    cpu = CPU.view(base)
    if (cpu.efer & EFER_LMA) == 0:
        return u64(0)
    if linear.sar(47) + 1 > 1:
        return u64(0)
    table = cpu.cr3 & mmu.ADDRESS
    found = u64(0)
    done = u1(0)
    for shift in (39, 30, 21, 12):
        if not done:
            pte = mmu.read_pte(cpu, table | (((linear >> shift) & 511) << 3), 8)
            if (pte & mmu.PTE_P) == 0:
                return u64(0)
            low = (1 << shift) - 1
            if shift == 12:
                found = (pte & mmu.ADDRESS) | (linear & low)
            elif shift < 39 and (pte & mmu.PTE_PS) != 0:
                found = (pte & (mmu.ADDRESS & ~low)) | (linear & low)
                done = u1(1)
            else:
                table = pte & mmu.ADDRESS
    return mmu.host_of(cpu, found)


@inline
def big_endian(at: Any, size: int) -> Any:
    """An operand in the code."""
    value = u64(0)
    for n in range(size):
        value = (value << 8) | load(at + n, "i8").zx(64)
    return value


@inline
def extend(value: Any, bits: Any, signed: int) -> Any:
    """The low bits of a value; 0 bits, or 64 and more, leave it as it is."""
    away = (64 - bits) & 63
    up = value << away
    low = up.sar(away) if signed else up >> away
    return select((bits == 0) | (bits >= 64), value, low)


@fn("ptr", "i64", "i64", ret="i32")
def holds(base: Any, code: Any, length: Any) -> Any:
    """Does the condition hold?  0 no, 1 yes or not known here."""
    cpu = CPU.view(base)
    at = u64(0)
    depth = u64(0)
    steps = u64(0)
    while steps < _MOST_STEPS:
        steps += 1
        if (at >= length) | (depth >= COND_STACK - 2):
            return u32(1)
        op = load(code + at, "i8")
        here = code + at + 1
        at += 1
        # what the operation takes stands in a and b: the top, and the one below it
        a = u64(0)
        b = u64(0)
        if depth >= 1:
            a = cpu.cond_stack[depth - 1]
        if depth >= 2:
            b = cpu.cond_stack[depth - 2]
        needs = u64(0)
        taken = u64(0)
        result = u64(0)
        gives = u64(1)
        if op == 0x27:  # end
            return select(depth == 0, u32(0), (a != 0).zx(32))
        if ((op >= 0x02) & (op <= 0x15)) & (op != 0x0E) & (op != 0x12):
            needs = u64(2)
            taken = u64(2)
            if op == 0x02:
                result = b + a
            elif op == 0x03:
                result = b - a
            elif op == 0x04:
                result = b * a
            elif op == 0x09:
                result = select(a < 64, b << (a & 63), u64(0))
            elif op == 0x0A:
                result = b.sar(select(a < 63, a, u64(63)))
            elif op == 0x0B:
                result = select(a < 64, b >> (a & 63), u64(0))
            elif op == 0x0F:
                result = b & a
            elif op == 0x10:
                result = b | a
            elif op == 0x11:
                result = b ^ a
            elif op == 0x13:
                result = (b == a).zx(64)
            elif op == 0x14:
                result = b.slt(a).zx(64)
            elif op == 0x15:
                result = (b < a).zx(64)
            else:
                return u32(1)
        elif (op == 0x0E) | (op == 0x12):  # log_not, bit_not
            needs = u64(1)
            taken = u64(1)
            result = select(op == 0x0E, (a == 0).zx(64), ~a)
        elif (op == 0x16) | (op == 0x2A):  # ext, zero_ext
            needs = u64(1)
            taken = u64(1)
            bits = big_endian(here, 1)
            result = select(op == 0x16, extend(a, bits, 1), extend(a, bits, 0))
            at += 1
        elif (op >= 0x17) & (op <= 0x1A):  # ref8 to ref64
            needs = u64(1)
            taken = u64(1)
            size = u64(1) << (op - 0x17).zx(64)
            if (a & mmu.PAGE) + size > 0x1000:
                return u32(1)
            host = peek_host(base, a)
            if host == 0:
                return u32(1)
            i = u64(0)
            while i < size:
                result |= load(host + i, "i8").zx(64) << (i * 8)
                i += 1
        elif (op == 0x20) | (op == 0x21):  # if_goto, goto
            target = big_endian(here, 2)
            at += 2
            gives = u64(0)
            if op == 0x21:
                at = target
            else:
                needs = u64(1)
                taken = u64(1)
                if a != 0:
                    at = target
        elif op == 0x22:  # const8 to const64
            result = big_endian(here, 1)
            at += 1
        elif op == 0x23:
            result = big_endian(here, 2)
            at += 2
        elif op == 0x24:
            result = big_endian(here, 4)
            at += 4
        elif op == 0x25:
            result = big_endian(here, 8)
            at += 8
        elif op == 0x26:  # reg
            number = big_endian(here, 2)
            at += 2
            if number >= COND_REGISTERS:
                return u32(1)
            place = cpu.cond_reg[number].zx(64)
            if place == 0:
                return u32(1)
            result = load(offset(base, place - 1), "i64")
        elif op == 0x28:  # dup
            needs = u64(1)
            result = a
        elif op == 0x29:  # pop
            needs = u64(1)
            taken = u64(1)
            gives = u64(0)
        elif op == 0x2B:  # swap
            needs = u64(2)
            taken = u64(1)
            if depth >= 2:
                cpu.cond_stack[depth - 2] = a
            result = b
        else:
            return u32(1)
        if unlikely(depth < needs):
            return u32(1)
        depth = depth - taken
        if gives != 0:
            cpu.cond_stack[depth] = result
            depth += 1
    return u32(1)


@fn("ptr", "i64", ret="i64")
def point_at(base: Any, linear: Any) -> Any:
    """The number of the breakpoint at this address, from 1; 0 if there is none."""
    cpu = CPU.view(base)
    low = u64(0)
    high = cpu.bp_count.zx(64)
    while low < high:
        middle = (low + high) >> 1
        found = load(cpu.bp_table + middle * 8, "i64")
        if found == linear:
            return middle + 1
        if found < linear:
            low = middle + 1
        else:
            high = middle
    return u64(0)


@fn("ptr", "i64", ret="i32")
def condition_at(base: Any, linear: Any) -> Any:
    """Is there a breakpoint at this address?  0 no, 1 yes, 2 yes but none of its conditions
    holds.
    """
    cpu = CPU.view(base)
    number = point_at(base, linear)
    if number == 0:
        return u32(0)
    table = cpu.cond_table
    if table == 0:
        return u32(1)
    start = load(table + (number - 1) * 8, "i64")
    if start == 0:
        return u32(1)
    at = table + start
    left = load(at, "i64")
    at += 8
    while left != 0:
        length = load(at, "i64")
        if holds(base, at + 8, length) != 0:
            return u32(1)
        at = at + 8 + ((length + 7) & ~7)
        left -= 1
    return u32(2)


__all__ = ["MOST_TABLE_BYTES", "condition_at", "holds", "peek_host", "point_at", "table_of"]

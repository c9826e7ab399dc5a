"""IN, OUT, INS, OUTS and the I/O permission bitmap (SDM volume 1, chapter 19).

Protocol with Python.  The instruction leaves with EXIT_PIO before anything has changed; `exit_info`
is ``[port, size in bytes, is_write, value, count, linear]``.  Python makes the access, calls
``cpu.access_result`` and runs on: the same instruction is executed again and completes.

* IN, OUT: count is 0, linear 0; value is what OUT writes; the result of IN is the access result.
* INS, OUTS: count is 1 or more, linear the linear address of the first element, value the distance
  from one element to the next (+size or -size, by DF, as a 64-bit number).  Python moves `count`
  elements between the port and memory (``cpu.read_linear``, ``cpu.write_linear``) and gives *one*
  access result, of any value.  All elements are on one page, checked for that access (an
  element that crosses pages comes alone, with both checked).  RSI or RDI and RCX move when
  the instruction is executed again.  A repeated instruction retires once for each such exit.
"""

from __future__ import annotations

from typing import Any

from workbench.core import mmu, polls, segload
from workbench.core.lang import fn, inline, load, select, u32, u64, unlikely
from workbench.core.layout import (
    ATTR_UNUSABLE,
    CPU,
    CR0_PE,
    DF,
    ES,
    EXIT_EXCEPTION,
    EXIT_PIO,
    GP,
    RAX,
    RCX,
    RDI,
    RDX,
    RSI,
    TR,
    VM,
)
from workbench.core.opcodes import row
from workbench.core.sem_int import set_part
from workbench.core.sem_string import FAULTED, RAM, advance, place, width_mask
from workbench.core.stencil import op

TSS_MAP_BASE = 102  # offset of the I/O map base in a 32- or 64-bit TSS
LAST_TSS_TYPE = 8 | 1  # 9 and 11: 32- or 64-bit TSS, available or busy


@fn("ptr", "i64", "i64", ret="i32")
def io_allowed(base: Any, port: Any, size: Any) -> Any:
    """May the program access these ports?  1, or 0 with #GP(0) noted."""
    cpu = CPU.view(base)
    if (cpu.cr0 & CR0_PE) == 0:
        return u32(1)
    in_vm86 = (cpu.eflags & VM) != 0
    if not in_vm86 and cpu.cpl <= ((cpu.eflags >> 12) & 3).tr(32):
        return u32(1)
    attr = cpu.seg_attr[TR]
    limit = cpu.seg_limit[TR].zx(64)
    bad = (
        ((attr & ATTR_UNUSABLE) != 0) | ((attr & 13) != LAST_TSS_TYPE) | (limit < TSS_MAP_BASE + 1)
    )
    if not bad:
        tss = cpu.seg_base[TR]
        p = segload.sys_load(base, tss + TSS_MAP_BASE, u32(2), segload.kernel_mmu(cpu))
        if p == 0:
            return u32(0)
        at = load(p, "i16").zx(64) + (port >> 3)
        if at + 1 <= limit:
            p2 = segload.sys_load(base, tss + at, u32(2), segload.kernel_mmu(cpu))
            if p2 == 0:
                return u32(0)
            denied = (load(p2, "i16").zx(64) >> (port & 7)) & ((u64(1) << size) - 1)
            if denied == 0:
                return u32(1)
    mmu.raise_exception(base, GP, 0)
    return u32(0)


@fn("ptr", "i64", "i64", "i64", "i64", "i64", "i64", ret="i32")
def port_access(
    base: Any, port: Any, size: Any, is_write: Any, value: Any, icount: Any, pc: Any
) -> Any:
    """IN or OUT: 1 when it was made (acc_value has the result), 0 to leave."""
    cpu = CPU.view(base)
    if io_allowed(base, port, size) == 0:
        return u32(0)
    if mmu.access_done(base, port, size, icount) != 0:
        return u32(1)
    if is_write == 0:
        if polls.polled(base, port | polls.PORT, size, icount, pc) != 0:
            return u32(1)
    cpu.exit_reason = EXIT_PIO
    cpu.exit_info[2] = is_write
    cpu.exit_info[3] = value
    cpu.exit_info[4] = 0
    cpu.exit_info[5] = 0
    return u32(0)


@inline
def after_access(s: Any) -> None:
    """Look at interrupts at once: the device may have raised one."""
    if unlikely(s.cpu.irq_pending != 0):
        s.to_dispatcher(s.next_pc)


@inline
def port_size(s: Any) -> int:
    """Ports are at most 32 bits wide."""
    return 4 if s.size == 8 else s.size


@inline
def do_in(s: Any, port: Any) -> None:
    size = port_size(s)
    if unlikely(port_access(s.base, port, u64(size), u64(0), u64(0), s.icount, s.pc) == 0):
        s.fault()
    set_part(s, RAX, s.cpu.acc_value[s.cpu.acc_cursor - 1].to(size * 8))
    after_access(s)


@inline
def do_out(s: Any, port: Any) -> None:
    size = port_size(s)
    value = s.cpu.gpr[RAX] & ((1 << (size * 8)) - 1)
    if unlikely(port_access(s.base, port, u64(size), u64(1), value, s.icount, s.pc) == 0):
        s.fault()
    after_access(s)


@op("in_imm", faults=True, writes_mem=True)
def in_imm(s: Any, a: Any, n: Any) -> None:
    do_in(s, s.imm & 0xFF)


@op("in_dx", faults=True, writes_mem=True)
def in_dx(s: Any, a: Any) -> None:
    do_in(s, s.cpu.gpr[RDX] & 0xFFFF)


@op("out_imm", faults=True, writes_mem=True)
def out_imm(s: Any, a: Any, n: Any) -> None:
    do_out(s, s.imm & 0xFF)


@op("out_dx", faults=True, writes_mem=True)
def out_dx(s: Any, a: Any) -> None:
    do_out(s, s.cpu.gpr[RDX] & 0xFFFF)


row("E4", "in_imm", "Ab,Ib")
row("E5", "in_imm", "Av,Ib")
row("EC", "in_dx", "Ab")
row("ED", "in_dx", "Av")
row("E6", "out_imm", "Ab,Ib")
row("E7", "out_imm", "Av,Ib")
row("EE", "out_dx", "Ab")
row("EF", "out_dx", "Av")


# --------------------------------------------------------------------------- string forms

LEAVE, DONE, MORE = 0, 1, 2


@inline
def string_access(
    base: Any, how: Any, seg: Any, asize: Any, icount: Any, size: int, rep: int, write: int
) -> Any:
    """INS (`write` 1: to memory) or OUTS; LEAVE, DONE or MORE."""
    cpu = CPU.view(base)
    reg = RDI if write else RSI
    mask = width_mask(asize)
    down = (cpu.eflags & DF) != 0
    count = cpu.gpr[RCX] & mask if rep else u64(1)
    result = u32(DONE)
    if count != 0:
        result = u32(LEAVE)
        port = cpu.gpr[RDX] & 0xFFFF
        if io_allowed(base, port, u64(size)) != 0:
            state, linear, k, _ = place(
                base, how, seg, cpu.gpr[reg] & mask, size, write, mask, down, count, icount
            )
            if state != FAULTED:
                ok = u32(1)
                if state != RAM:
                    k = u64(1)
                    ok = element_reachable(
                        base, how, linear, u64(size), u32(mmu.WRITE if write else mmu.READ)
                    )
                if ok != 0:
                    if mmu.access_done(base, port, u64(size), icount) != 0:
                        step = k * size
                        advance(cpu, reg, asize, mask, select(down, -step, step))
                        if rep:
                            advance(cpu, RCX, asize, mask, -k)
                        result = select(k < count, u32(MORE), u32(DONE))
                    else:
                        cpu.exit_reason = EXIT_PIO
                        cpu.exit_info[2] = 1 - write
                        cpu.exit_info[3] = select(down, u64(-size), u64(size))
                        cpu.exit_info[4] = k
                        cpu.exit_info[5] = linear
    return result


@fn("ptr", "i32", "i64", "i64", "i32", ret="i32")
def element_reachable(base: Any, how: Any, linear: Any, size: Any, access: Any) -> Any:
    """May an element that crosses pages or is no RAM be accessed?  1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    if mmu.probe(base, linear, access, how) == 0 and cpu.exit_reason == EXIT_EXCEPTION:
        return u32(0)
    if ((linear & mmu.PAGE) + size) > 0x1000:
        last = linear + size - 1
        if mmu.probe(base, last, access, how) == 0 and cpu.exit_reason == EXIT_EXCEPTION:
            return u32(0)
    return u32(1)


def _string(size: int, rep: int, write: int) -> Any:
    @fn(
        "ptr",
        "i32",
        "i32",
        "i64",
        "i64",
        ret="i32",
        name=f"{'ins' if write else 'outs'}_{size}_{rep}",
    )
    def run(base: Any, how: Any, seg: Any, asize: Any, icount: Any) -> Any:
        return string_access(base, how, seg, asize, icount, size, rep, write)

    return run


INS = {(size, rep): _string(size, rep, 1) for size in (1, 2, 4) for rep in (0, 1)}
OUTS = {(size, rep): _string(size, rep, 0) for size in (1, 2, 4) for rep in (0, 1)}


@inline
def string_finish(s: Any, result: Any) -> None:
    """The way on after an exit's worth of elements."""
    if unlikely(result == LEAVE):
        s.fault()
    if unlikely(result == MORE):
        s.to_dispatcher(s.pc)
    after_access(s)


@op("ins", mem=True, slow_only=True, writes_mem=True)
def ins(s: Any, rep: int) -> None:
    string_finish(s, INS[(port_size(s), rep)](s.base, s.mmu, u32(ES), s.hole("LENGTH"), s.icount))


@op("outs", mem=True, slow_only=True, writes_mem=True)
def outs(s: Any, rep: int) -> None:
    seg = s.hole("SEGNO").tr(32)
    string_finish(s, OUTS[(port_size(s), rep)](s.base, s.mmu, seg, s.hole("LENGTH"), s.icount))


for _code, _name in ((0x6C, "ins"), (0x6E, "outs")):
    for _prefix, _rep in (("NP", 0), ("66", 0), ("F3", 1), ("F2", 1)):
        row(f"{_prefix} {_code:02X}", _name, "", size=1, extra=_rep)
        row(f"{_prefix} {_code + 1:02X}", _name, "", extra=_rep)

"""String instructions: MOVS, CMPS, SCAS, LODS, STOS with REP, REPE, REPNE (SDM volume 2).

One execution does one *chunk* of a repeated instruction: at most 4096 bytes, and it ends before and
after an element that touches a device, so that the accesses of one element belong to one retired
instruction.  If elements are left, the registers hold the progress and the same instruction is
executed again, as one more retired instruction: interrupts land between chunks.  Where chunks end
depends on nothing but architectural state.  After a fault RSI, RDI and RCX hold the progress up to
the element that faults, and the flags are those from before the instruction (4.2, CMPS and SCAS).
"""

from __future__ import annotations

from typing import Any

from workbench.core import mmu
from workbench.core.flags import cc_code
from workbench.core.lang import Fn, fn, inline, load, select, store, u1, u32, u64, unlikely
from workbench.core.layout import (
    CC_SUB,
    CPU,
    DF,
    ES,
    EXIT_EXCEPTION,
    FS,
    MODE_FLAT,
    RAX,
    RCX,
    RDI,
    RSI,
    WATCH_READ,
    WATCH_WRITE,
)
from workbench.core.opcodes import row
from workbench.core.segments import BAD, in_64bit, seg_linear
from workbench.core.stencil import op

CHUNK_BYTES = 4096
LEAVE, DONE, MORE = 0, 1, 2  # what a helper returns
FAULTED, RAM, SLOW = 0, 1, 2  # what `place` finds
ONCE, REPE, REPNE = 0, 1, 2  # the op's static parameter
WHILE_BOUNCED = 48  # where in `bounce` an element waits to be stored
LOG2 = {1: 0, 2: 1, 4: 2, 8: 3}


@inline
def width_mask(asize: Any) -> Any:
    """The bits of an address size in bytes."""
    return select(asize == 8, u64(-1), select(asize == 4, u64(0xFFFFFFFF), u64(0xFFFF)))


@inline
def advance(cpu: Any, reg: int, asize: Any, mask: Any, by: Any) -> None:
    """Add to a register with the width of the address size."""
    old = cpu.gpr[reg]
    new = (old + by) & mask
    cpu.gpr[reg] = select(asize == 2, (old & ~0xFFFF) | new, new)


@inline
def smaller(a: Any, b: Any) -> Any:
    return select(a < b, a, b)


@inline
def place(
    base: Any,
    how: Any,
    seg: Any,
    off: Any,
    size: int,
    write: int,
    mask: Any,
    down: Any,
    left: Any,
    icount: Any,
) -> Any:
    """Where the next elements at offset `off` of a segment are.

    (RAM, linear address, elements, at most `left` and up to the end of the page, host address)
    or (SLOW, linear, 0, 0) for an element that crosses pages or is no RAM, or (FAULTED, ...).
    """
    cpu = CPU.view(base)
    state = u32(FAULTED)
    k = u64(0)
    host = u64(0)
    linear = seg_linear(base, seg, off, u32(size), u32(write))
    if linear != BAD:
        state = u32(SLOW)
        at = linear & mmu.PAGE
        if at + size <= 0x1000:
            k = u64(1)
            last = (
                mask  # offset in the segment that a run may reach; one that expands down has none
            )
            runs = u1(1)
            if (in_64bit(cpu) | (((cpu.mode & MODE_FLAT) != 0) & (seg < FS))) ^ 1:
                last = smaller(mask, cpu.seg_limit[seg].zx(64))
                runs = (cpu.seg_attr[seg] & 12) != 4
            if runs:
                if down:
                    k = smaller(at >> LOG2[size], off >> LOG2[size]) + 1
                elif last - off >= size:
                    # Added last: from offset 0 there are 2**64 bytes to the end of 64 bits.
                    k = 1 + smaller(
                        (0x1000 - size - at) >> LOG2[size],
                        (last - off - (size - 1)) >> LOG2[size],
                    )
            k = smaller(k, left)
            host = mmu.probe(base, linear, u32(mmu.WRITE if write else mmu.READ), how)
            if host != 0:
                state = u32(RAM)
                access = WATCH_WRITE if write else WATCH_READ
                start = lowest(linear, k, size, down)
                mmu.note_watch(cpu, base, start, k * size, access, icount)
            elif cpu.exit_reason == EXIT_EXCEPTION:
                state = u32(FAULTED)
    return state, linear, k, host


@inline
def touched_device(cpu: Any, icount: Any) -> Any:
    """Has this execution made a device access?"""
    return (cpu.acc_icount == icount) & (cpu.acc_count != 0)


@inline
def slow_element(base: Any, how: Any, linear: Any, size: int, icount: Any) -> Any:
    """Host address of an element that may be anywhere, or 0."""
    return mmu.slow_load(base, how, linear, u64(size), icount)


@inline
def store_element(base: Any, how: Any, linear: Any, x: Any, size: int, icount: Any) -> Any:
    """Store an element that may be anywhere; 1 or 0."""
    at = mmu.bounce_at(CPU.view(base), u64(WHILE_BOUNCED))
    store(at, x)
    return mmu.slow_store(base, how, linear, at, u64(size), icount)


@inline
def copy_elements(source: Any, target: Any, k: Any, size: int, down: Any) -> None:
    """`k` elements in their order; the result is exact for overlapping places too."""
    n = k * size
    i = u64(0)
    if down:
        while i < n:
            store(target - i, load(source - i, f"i{size * 8}"))
            i += size
    else:
        if target - source >= 16:
            while i + 16 <= n:
                store(target + i, load(source + i, "<2 x i64>"))
                i += 16
        while i < n:
            store(target + i, load(source + i, f"i{size * 8}"))
            i += size


@inline
def fill_elements(target: Any, x: Any, k: Any, size: int) -> None:
    """`k` copies of `x` upwards from `target`."""
    n = k * size
    i = u64(0)
    wide = x.zx(64) * (0xFFFFFFFFFFFFFFFF // ((1 << (size * 8)) - 1))
    while i + 8 <= n:
        store(target + i, wide)
        i += 8
    while i < n:
        store(target + i, x)
        i += size


@inline
def lowest(host: Any, k: Any, size: int, down: Any) -> Any:
    """Lowest address of `k` elements of which `host` is the first."""
    return select(down, host - (k - 1) * size, host)


def _movs(size: int, rep: int) -> Fn:
    @fn("ptr", "i32", "i32", "i64", "i64", ret="i32", name=f"movs_{size}_{rep}")
    def movs(base: Any, how: Any, seg: Any, asize: Any, icount: Any) -> Any:
        """MOVS: [rDI] of ES = [rSI] of `seg`."""
        cpu = CPU.view(base)
        mask = width_mask(asize)
        down = (cpu.eflags & DF) != 0
        count = cpu.gpr[RCX] & mask if rep else u64(1)
        limit = smaller(count, u64(CHUNK_BYTES // size))
        done = u64(0)
        stop = u1(0)
        while done < limit and not stop:
            state, source, k, host = place(
                base, how, seg, cpu.gpr[RSI] & mask, size, 0, mask, down, limit - done, icount
            )
            if state == FAULTED:
                return u32(LEAVE)
            state2, target, k2, host2 = place(
                base, how, u32(ES), cpu.gpr[RDI] & mask, size, 1, mask, down, k, icount
            )
            if state2 == FAULTED:
                return u32(LEAVE)
            if (state == RAM) & (state2 == RAM):
                k = k2
                mmu.wrote_code(base, lowest(host2, k, size, down), k * size)
                copy_elements(host, host2, k, size, down)
            else:
                if done != 0:
                    return u32(MORE)
                p = slow_element(base, how, source, size, icount)
                if p == 0:
                    return u32(LEAVE)
                if store_element(base, how, target, load(p, f"i{size * 8}"), size, icount) == 0:
                    return u32(LEAVE)
                k = u64(1)
                stop = touched_device(cpu, icount)
            by = select(down, -(k * size), k * size)
            advance(cpu, RSI, asize, mask, by)
            advance(cpu, RDI, asize, mask, by)
            if rep:
                advance(cpu, RCX, asize, mask, -k)
            done += k
        return select(done < count, u32(MORE), u32(DONE))

    return movs


def _stos(size: int, rep: int) -> Fn:
    @fn("ptr", "i32", "i64", "i64", ret="i32", name=f"stos_{size}_{rep}")
    def stos(base: Any, how: Any, asize: Any, icount: Any) -> Any:
        """STOS: [rDI] of ES = the accumulator."""
        cpu = CPU.view(base)
        mask = width_mask(asize)
        down = (cpu.eflags & DF) != 0
        count = cpu.gpr[RCX] & mask if rep else u64(1)
        limit = smaller(count, u64(CHUNK_BYTES // size))
        x = cpu.gpr[RAX].to(size * 8)
        done = u64(0)
        stop = u1(0)
        while done < limit and not stop:
            state, target, k, host = place(
                base, how, u32(ES), cpu.gpr[RDI] & mask, size, 1, mask, down, limit - done, icount
            )
            if state == FAULTED:
                return u32(LEAVE)
            if state == RAM:
                start = lowest(host, k, size, down)
                mmu.wrote_code(base, start, k * size)
                fill_elements(start, x, k, size)
            else:
                if done != 0:
                    return u32(MORE)
                if store_element(base, how, target, x, size, icount) == 0:
                    return u32(LEAVE)
                k = u64(1)
                stop = touched_device(cpu, icount)
            advance(cpu, RDI, asize, mask, select(down, -(k * size), k * size))
            if rep:
                advance(cpu, RCX, asize, mask, -k)
            done += k
        return select(done < count, u32(MORE), u32(DONE))

    return stos


def _lods(size: int, rep: int) -> Fn:
    @fn("ptr", "i32", "i32", "i64", "i64", ret="i32", name=f"lods_{size}_{rep}")
    def lods(base: Any, how: Any, seg: Any, asize: Any, icount: Any) -> Any:
        """LODS: the accumulator = [rSI] of `seg`."""
        cpu = CPU.view(base)
        mask = width_mask(asize)
        down = (cpu.eflags & DF) != 0
        count = cpu.gpr[RCX] & mask if rep else u64(1)
        limit = smaller(count, u64(CHUNK_BYTES // size))
        done = u64(0)
        stop = u1(0)
        while done < limit and not stop:
            state, source, k, host = place(
                base, how, seg, cpu.gpr[RSI] & mask, size, 0, mask, down, limit - done, icount
            )
            if state == FAULTED:
                return u32(LEAVE)
            by = select(down, -(k * size), k * size)
            if state == RAM:
                host = select(down, host - (k - 1) * size, host + (k - 1) * size)
            else:
                if done != 0:
                    return u32(MORE)
                host = slow_element(base, how, source, size, icount)
                if host == 0:
                    return u32(LEAVE)
                k = u64(1)
                by = select(down, u64(-size), u64(size))
                stop = touched_device(cpu, icount)
            x = load(host, f"i{size * 8}")
            if size >= 4:
                cpu.gpr[RAX] = x.zx(64)
            else:
                cpu.gpr[RAX] = (cpu.gpr[RAX] & ~((1 << (size * 8)) - 1)) | x.zx(64)
            advance(cpu, RSI, asize, mask, by)
            if rep:
                advance(cpu, RCX, asize, mask, -k)
            done += k
        return select(done < count, u32(MORE), u32(DONE))

    return lods


def _compare(size: int, rep: int, memory: bool) -> Fn:
    """CMPS ([rSI] of `seg` with [rDI] of ES) if `memory`, else SCAS (accumulator with [rDI])."""
    name = f"{'cmps' if memory else 'scas'}_{size}_{rep}"

    @fn("ptr", "i32", "i32", "i64", "i64", ret="i32", name=name)
    def compare(base: Any, how: Any, seg: Any, asize: Any, icount: Any) -> Any:
        cpu = CPU.view(base)
        ty = f"i{size * 8}"
        mask = width_mask(asize)
        down = (cpu.eflags & DF) != 0
        count = cpu.gpr[RCX] & mask if rep else u64(1)
        limit = smaller(count, u64(CHUNK_BYTES // size))
        step = select(down, u64(-size), u64(size))
        a = cpu.gpr[RAX].to(size * 8)
        b = a & 0
        done = u64(0)
        stop = u1(0)  # the chunk ends here
        found = u1(0)  # the whole instruction ends here
        while done < limit and not stop:
            state = u32(RAM)
            source = u64(0)
            k = limit - done
            host = u64(0)
            if memory:
                state, source, k, host = place(
                    base, how, seg, cpu.gpr[RSI] & mask, size, 0, mask, down, k, icount
                )
                if state == FAULTED:
                    return u32(LEAVE)
            state2, target, k2, host2 = place(
                base, how, u32(ES), cpu.gpr[RDI] & mask, size, 0, mask, down, k, icount
            )
            if state2 == FAULTED:
                return u32(LEAVE)
            i = u64(0)
            if (state == RAM) & (state2 == RAM):
                while i < k2 and not found:
                    if memory:
                        a = load(host + i * step, ty)
                    b = load(host2 + i * step, ty)
                    i += 1
                    if rep == REPE:
                        found = a != b
                    elif rep == REPNE:
                        found = a == b
            else:
                if done != 0:
                    stop = u1(1)
                else:
                    if memory:
                        p = slow_element(base, how, source, size, icount)
                        if p == 0:
                            return u32(LEAVE)
                        a = load(p, ty)
                    p2 = slow_element(base, how, target, size, icount)
                    if p2 == 0:
                        return u32(LEAVE)
                    b = load(p2, ty)
                    i = u64(1)
                    stop = touched_device(cpu, icount)
                    if rep == REPE:
                        found = a != b
                    elif rep == REPNE:
                        found = a == b
            if memory:
                advance(cpu, RSI, asize, mask, i * step)
            advance(cpu, RDI, asize, mask, i * step)
            if rep:
                advance(cpu, RCX, asize, mask, -i)
            done += i
            stop |= found
        if done != 0:
            cpu.cc_dst = (a - b).zx(64)
            cpu.cc_src = b.zx(64)
            cpu.cc_op = cc_code(CC_SUB, size)
        return select((done < count) & (found ^ 1), u32(MORE), u32(DONE))

    return compare


SIZES = (1, 2, 4, 8)
MOVS = {(size, rep): _movs(size, rep) for size in SIZES for rep in (ONCE, REPE)}
STOS = {(size, rep): _stos(size, rep) for size in SIZES for rep in (ONCE, REPE)}
LODS = {(size, rep): _lods(size, rep) for size in SIZES for rep in (ONCE, REPE)}
CMPS = {(size, rep): _compare(size, rep, True) for size in SIZES for rep in (ONCE, REPE, REPNE)}
SCAS = {(size, rep): _compare(size, rep, False) for size in SIZES for rep in (ONCE, REPE, REPNE)}


@inline
def finish(s: Any, result: Any) -> None:
    """The way on after a chunk."""
    if unlikely(result == LEAVE):
        s.fault()
    if unlikely(result == MORE):
        s.to_dispatcher(s.pc)


@op("movs", mem=True, slow_only=True, writes_mem=True)
def movs(s: Any, rep: int) -> None:
    seg = s.hole("SEGNO").tr(32)
    finish(s, MOVS[(s.size, rep)](s.base, s.mmu, seg, s.hole("LENGTH"), s.icount))


@op("stos", mem=True, slow_only=True, writes_mem=True)
def stos(s: Any, rep: int) -> None:
    finish(s, STOS[(s.size, rep)](s.base, s.mmu, s.hole("LENGTH"), s.icount))


# The next ones write no memory, but their block must end where the instruction may be repeated.
@op("lods", mem=True, slow_only=True, writes_mem=True)
def lods(s: Any, rep: int) -> None:
    seg = s.hole("SEGNO").tr(32)
    finish(s, LODS[(s.size, rep)](s.base, s.mmu, seg, s.hole("LENGTH"), s.icount))


@op("cmps", flags="p", mem=True, slow_only=True, writes_mem=True)
def cmps(s: Any, rep: int) -> None:
    seg = s.hole("SEGNO").tr(32)
    finish(s, CMPS[(s.size, rep)](s.base, s.mmu, seg, s.hole("LENGTH"), s.icount))


@op("scas", flags="p", mem=True, slow_only=True, writes_mem=True)
def scas(s: Any, rep: int) -> None:
    finish(s, SCAS[(s.size, rep)](s.base, s.mmu, u32(ES), s.hole("LENGTH"), s.icount))


for _code, _name in (
    (0xA4, "movs"),
    (0xA6, "cmps"),
    (0xAA, "stos"),
    (0xAC, "lods"),
    (0xAE, "scas"),
):
    _last = REPNE if _name in ("cmps", "scas") else REPE
    for _prefix, _rep in (("NP", ONCE), ("66", ONCE), ("F3", REPE), ("F2", _last)):
        row(f"{_prefix} {_code:02X}", _name, "", size=1, extra=_rep)
        row(f"{_prefix} {_code + 1:02X}", _name, "", extra=_rep)

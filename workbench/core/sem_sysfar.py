"""Far transfers: IRET, far RET/JMP/CALL, INT, SYSCALL and SYSENTER families (SDM volume 2)."""

from __future__ import annotations

from typing import Any

from workbench.core import deliver, segload, transfers
from workbench.core.lang import inline, select, u64, unlikely
from workbench.core.layout import GP, IOPL, TRAP_LOST, VM, ZF
from workbench.core.opcodes import row
from workbench.core.sem_sys import finish, need_protected
from workbench.core.stencil import op


@op("syscall", ends=True)
def syscall(s: Any) -> None:
    finish(s, transfers.syscall(s.base, s.next_pc))


row("0F 05", "syscall")


@op("sysret", ends=True)
def sysret(s: Any) -> None:
    finish(s, transfers.sysret64(s.base) if s.size == 8 else transfers.sysret32(s.base))


row("0F 07", "sysret")


@op("iret", slow_only=True, mem=True, writes_mem=True, ends=True)
def iret(s: Any) -> None:
    finish(s, transfers.IRET[s.size](s.base, s.next_pc))


row("CF", "iret")


@op("retf", slow_only=True, mem=True, writes_mem=True, ends=True)
def retf(s: Any) -> None:
    finish(s, transfers.RETF[s.size](s.base, u64(0)))


@op("retf_imm", slow_only=True, mem=True, writes_mem=True, ends=True)
def retf_imm(s: Any, unused: Any, extra: Any) -> None:
    finish(s, transfers.RETF[s.size](s.base, s.imm & 0xFFFF))


row("CB", "retf")
row("CA", "retf_imm", "Av,Iw")


@inline
def software(s: Any, vector: Any, kind: int) -> None:
    """An interrupt by an instruction, whose single-step trap is lost (SDM volume 3, 17.3.1.4)."""
    s.cpu.rip = s.next_pc
    s.cpu.trap_dropped = TRAP_LOST
    finish(s, deliver.deliver_once(s.base, vector, 0, 0, kind))


@op("int_n", slow_only=True, mem=True, writes_mem=True, ends=True)
def int_n(s: Any, vector: Any) -> None:
    """INT n; in virtual-8086 mode it needs IOPL 3."""
    if unlikely(((s.cpu.eflags & VM) != 0) & ((s.cpu.eflags & IOPL) != IOPL)):
        s.exception(GP, 0)
    software(s, s.imm.tr(32) & 0xFF, deliver.SOFTWARE)


row("CD", "int_n", "Ib")


@op("int_fixed", slow_only=True, mem=True, writes_mem=True, ends=True)
def int_fixed(s: Any, extra: int) -> None:
    """INT3 (`extra` 3) and INT1 (1)."""
    kind = deliver.BREAKPOINT if extra == 3 else deliver.ICEBP
    if extra == 1:  # one #DB also for what MOV SS has held back
        deliver.db_trap(s.base, s.cpu.dr_hits)
        s.cpu.dr_hits = 0
    software(s, extra, kind)


row("CC", "int_fixed", extra=3)
row("F1", "int_fixed", extra=1)


@op("into", slow_only=True, mem=True, writes_mem=True, ends=True, flags="r")
def into(s: Any) -> None:
    if (s.flags_get() & 0x800) == 0:
        s.to_dispatcher(s.next_pc)
    software(s, 4, deliver.BREAKPOINT)


row("CE", "into", not64=True)


@op("sysenter", ends=True)
def sysenter(s: Any) -> None:
    finish(s, transfers.sysenter(s.base))


@op("sysexit", ends=True)
def sysexit(s: Any) -> None:
    finish(s, transfers.sysexit(s.base))


row("0F 34", "sysenter")
row("0F 35", "sysexit")


@op("far_imm", slow_only=True, mem=True, writes_mem=True, ends=True)
def far_imm(s: Any, extra: int, unused: Any, pointer: Any) -> None:
    """JMP (`extra` 0) and CALL (1) to ptr16:16 or ptr16:32."""
    target = s.imm & ((1 << (s.size * 8)) - 1)
    finish(
        s,
        transfers.FAR[s.size, extra == 1](
            s.base, s.hole("DISP").tr(32) & 0xFFFF, target, s.next_pc
        ),
    )


row("EA", "far_imm", "Av,Ap", not64=True, extra=0)
row("9A", "far_imm", "Av,Ap", not64=True, extra=1)


@op("far_mem", slow_only=True, mem=True, writes_beside=True, ends=True)
def far_mem(s: Any, extra: int, place: Any) -> None:
    """JMP (`extra` 0) and CALL (1) to a far pointer in memory."""
    target = s.load(s.addr, f"i{s.size * 8}").zx(64)
    selector = s.load(s.addr + s.size, "i16").zx(32)
    finish(s, transfers.FAR[s.size, extra == 1](s.base, selector, target, s.next_pc))


row("FF /5 mem", "far_mem", "Mp", extra=0)
row("FF /3 mem", "far_mem", "Mp", extra=1)


@op("lar", slow_only=True, flags="rw")
def lar(s: Any, extra: int, dst: Any, src: Any) -> None:
    """LAR (`extra` 0) and LSL (1)."""
    need_protected(s)
    d = segload.examine(s.base, src.get("i16").zx(32), extra)
    if unlikely(d == segload.NONE):
        s.fault()
    flags = s.flags_get() & ~ZF
    if d != 0:
        low = d.tr(32)
        high = (d >> 32).tr(32)
        value = high & 0x00F0FF00 if extra == 0 else segload.limit_of(low, high)
        dst.put(value.to(s.size * 8))
        flags |= ZF
    s.flags_set(flags)


row("0F 02", "lar", "Gv,Ew", extra=0)
row("0F 03", "lar", "Gv,Ew", extra=1)


@op("verify", slow_only=True, flags="rw")
def verify(s: Any, extra: int, src: Any) -> None:
    """VERR (`extra` 2) and VERW (3)."""
    need_protected(s)
    d = segload.examine(s.base, src.get("i16").zx(32), extra)
    if unlikely(d == segload.NONE):
        s.fault()
    s.flags_set((s.flags_get() & ~ZF) | select(d != 0, u64(ZF), u64(0)))


row("0F 00 /4", "verify", "Ew", extra=2)
row("0F 00 /5", "verify", "Ew", extra=3)


@op("arpl", flags="rw")
def arpl(s: Any, dst: Any, src: Any) -> None:
    need_protected(s)
    old = dst.rmw("i16")
    other = src.get("i16")
    lower = (old & 3) < (other & 3)
    dst.put(select(lower, (old & ~3) | (other & 3), old))
    s.flags_set((s.flags_get() & ~ZF) | select(lower, u64(ZF), u64(0)))


row("63", "arpl", "Ew,Gw", not64=True)

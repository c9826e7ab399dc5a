"""Far transfers: IRET, far RET/JMP/CALL, INT, SYSCALL and SYSENTER families (SDM volume 2)."""
from __future__ import annotations

from typing import Any

from workbench.core import deliver, segload, transfers
from workbench.core.lang import inline, u32, u64, unlikely
from workbench.core.layout import GP, IOPL, VM
from workbench.core.opcodes import row
from workbench.core.sem_sys import finish
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
    finish(s, transfers.IRET_PROTECTED[s.size](s.base))


row("CF", "iret")


@op("retf", slow_only=True, mem=True, writes_mem=True, ends=True)
def retf(s: Any) -> None:
    finish(s, transfers.RETF_PROTECTED[s.size](s.base, u64(0)))


@op("retf_imm", slow_only=True, mem=True, writes_mem=True, ends=True)
def retf_imm(s: Any, unused: Any, extra: Any) -> None:
    finish(s, transfers.RETF_PROTECTED[s.size](s.base, s.imm & 0xFFFF))


row("CB", "retf")
row("CA", "retf_imm", "Av,Iw")


@op("int_n", slow_only=True, mem=True, writes_mem=True, ends=True)
def int_n(s: Any, vector: Any) -> None:
    """INT n; in virtual-8086 mode it needs IOPL 3."""
    if unlikely(((s.cpu.eflags & VM) != 0) & ((s.cpu.eflags & IOPL) != IOPL)):
        s.exception(GP, 0)
    s.cpu.rip = s.next_pc
    finish(s, deliver.deliver_once(s.base, s.imm.tr(32) & 0xFF, 0, 0, deliver.SOFTWARE))


row("CD", "int_n", "Ib")


@op("int_fixed", slow_only=True, mem=True, writes_mem=True, ends=True)
def int_fixed(s: Any, extra: int) -> None:
    """INT3 (`extra` 3) and INT1 (1)."""
    s.cpu.rip = s.next_pc
    kind = deliver.BREAKPOINT if extra == 3 else deliver.ICEBP
    finish(s, deliver.deliver_once(s.base, extra, 0, 0, kind))


row("CC", "int_fixed", extra=3)
row("F1", "int_fixed", extra=1)


@op("into", slow_only=True, mem=True, writes_mem=True, ends=True, flags="r")
def into(s: Any) -> None:
    if (s.flags_get() & 0x800) == 0:
        s.to_dispatcher(s.next_pc)
    s.cpu.rip = s.next_pc
    finish(s, deliver.deliver_once(s.base, 4, 0, 0, deliver.BREAKPOINT))


row("CE", "into", not64=True)

__all__ = ["inline", "segload", "u32"]

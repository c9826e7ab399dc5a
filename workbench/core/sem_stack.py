"""PUSHF and POPF, CLI and STI, PUSHA and POPA, ENTER (SDM volume 2)."""

from __future__ import annotations

from typing import Any

from workbench.core import mmu, segload
from workbench.core.flags import set_eflags_arith
from workbench.core.lang import fn, inline, u32, u64, unlikely
from workbench.core.layout import (
    AC,
    AF,
    ARITH,
    CF,
    CPU,
    DF,
    GP,
    ID,
    IF,
    IOPL,
    NT,
    OF,
    PF,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RF,
    RSI,
    RSP,
    SF,
    TF,
    VM,
    ZF,
)
from workbench.core.opcodes import row
from workbench.core.stencil import op

STATUS = CF | PF | AF | ZF | SF | OF
ALWAYS = STATUS | TF | DF | NT


@inline
def iopl(cpu: Any) -> Any:
    """IOPL as i32."""
    return ((cpu.eflags >> 12) & 3).tr(32)


@inline
def need_iopl3_in_vm86(s: Any) -> None:
    """#GP(0) in virtual-8086 mode with IOPL below 3 (there is no VME)."""
    if unlikely(((s.cpu.eflags & VM) != 0) & (iopl(s.cpu) != 3)):
        s.exception(GP, 0)


@op("pushf", mem=True, stack=True, flags="r", faults=True)
def pushf(s: Any) -> None:
    """VM and RF read as zero."""
    need_iopl3_in_vm86(s)
    flags = s.flags_get() | (s.cpu.eflags & ~(ARITH | VM | RF)) | 2
    s.push(flags.to(s.size * 8))


@fn("ptr", "i64", "i64", ret="i32")
def load_eflags(base: Any, value: Any, reach: Any) -> Any:
    """Write the bits of EFLAGS that privilege and `reach` allow; 1 if an event may be due."""
    cpu = CPU.view(base)
    old = cpu.eflags
    can = u64(ALWAYS | AC | ID)
    if cpu.cpl == 0:
        can |= IOPL
    if cpu.cpl <= iopl(cpu):
        can |= IF
    can &= reach
    new = (old & ~(can | RF)) | (value & can & ~STATUS) | 2
    cpu.eflags = new
    set_eflags_arith(cpu, value)
    if ((old ^ new) & AC) != 0:
        segload.update_mode(base)
        return u32(1)
    if (new & TF) != 0:
        return u32(1)
    return ((cpu.irq_pending != 0) & ((new & IF) != 0)).zx(32)


@op("popf", mem=True, stack=True, flags="rw", faults=True, writes_mem=True)
def popf(s: Any) -> None:
    """VM, VIF and VIP stay, RF is cleared; IOPL needs CPL 0 and IF needs CPL <= IOPL."""
    need_iopl3_in_vm86(s)
    value = s.peek(f"i{s.size * 8}")
    s.drop(s.size)
    if load_eflags(s.base, value.zx(64), u64((1 << (s.size * 8)) - 1)) != 0:
        s.to_dispatcher(s.next_pc)


@inline
def need_iopl(s: Any) -> None:
    """#GP(0) unless CPL <= IOPL."""
    if unlikely(s.cpu.cpl > iopl(s.cpu)):
        s.exception(GP, 0)


@op("cli", faults=True)
def cli(s: Any) -> None:
    need_iopl(s)
    s.cpu.eflags = s.cpu.eflags & ~IF


@op("sti", faults=True, writes_mem=True)
def sti(s: Any) -> None:
    """Interrupts are held off for one more instruction if IF was clear; the block ends here."""
    need_iopl(s)
    old = s.cpu.eflags
    if (old & IF) == 0:
        s.cpu.eflags = old | IF
        s.cpu.shadow_icount = s.icount + 1
        if unlikely(s.cpu.irq_pending != 0):
            s.to_dispatcher(s.next_pc)


row("9C", "pushf", "", d64=True)
row("9D", "popf", "", d64=True)
row("FA", "cli")
row("FB", "sti")


# --------------------------------------------------------------------------- PUSHA, POPA, ENTER


@inline
def stack_store(s: Any, sp: Any, value: Any) -> None:
    s.store(s.stack_linear(s.stack_wrap(sp), s.size, True), value)


@op("pusha", mem=True, stack=True)
def pusha(s: Any) -> None:
    sp = s.cpu.gpr[RSP]
    depth = 0
    for reg in (RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI):
        depth += s.size
        stack_store(s, sp - depth, s.cpu.gpr[reg].to(s.size * 8))
    s.set_sp(s.stack_wrap(sp - s.size * 8))


@op("popa", mem=True, stack=True)
def popa(s: Any) -> None:
    """The value for (E)SP is passed over."""
    order = (RDI, RSI, RBP, RSP, RBX, RDX, RCX, RAX)
    values = [s.peek(f"i{s.size * 8}", i * s.size) for i in range(8)]
    for reg, x in zip(order, values, strict=True):
        if reg != RSP:
            if s.size == 2:
                s.cpu.gpr[reg] = (s.cpu.gpr[reg] & ~0xFFFF) | x.zx(64)
            else:
                s.cpu.gpr[reg] = x.zx(64)
    s.drop(s.size * 8)


@op("enter", mem=True, stack=True, slow_only=True, writes_mem=True)
def enter(s: Any, acc: Any, bytes_: Any, depth: Any) -> None:
    """ENTER imm16, imm8: IMM holds both (bits 0-15, 16-23); the accumulator tells the size."""
    ty = s.size * 8
    n = s.imm & 0xFFFF
    level = (s.imm >> 16) & 31
    sp = s.stack_wrap(s.cpu.gpr[RSP] - s.size)
    stack_store(s, sp, s.cpu.gpr[RBP].to(ty))
    frame = sp
    i = u64(1)
    while i < level:
        at = s.stack_wrap(s.cpu.gpr[RBP] - i * s.size)
        x = s.load(s.stack_linear(at, s.size, False), f"i{ty}")
        sp = s.stack_wrap(sp - s.size)
        stack_store(s, sp, x)
        i += 1
    if level != 0:
        sp = s.stack_wrap(sp - s.size)
        stack_store(s, sp, frame.to(ty))
    sp = s.stack_wrap(sp - n)
    # a store to the new top must be possible
    linear = s.stack_linear(sp, s.size, True)
    if unlikely(mmu.slow_probe_write(s.base, s.mmu, linear, u64(s.size)) == 0):
        s.fault()
    s.set_sp(sp)
    if s.size == 2:
        s.cpu.gpr[RBP] = (s.cpu.gpr[RBP] & ~0xFFFF) | (frame & 0xFFFF)
    else:
        s.cpu.gpr[RBP] = frame if s.size == 8 else frame & 0xFFFFFFFF


row("60", "pusha", "", not64=True)
row("61", "popa", "", not64=True)
row("C8", "enter", "Av,Iw,Ib", d64=True)

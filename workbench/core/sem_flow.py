"""Control flow, conditions and the stack (SDM volume 2: Jcc, CALL, RET, LOOPcc, SETcc, PUSH).

The translator makes the jump to a direct target: CONT of ``jmp`` and ``call`` leads there; of
conditional branches CONT is the way on and TAKEN the target.
"""

from __future__ import annotations

from typing import Any

from workbench.core.flags import condition_after, condition_of_bits
from workbench.core.lang import inline, select, u64
from workbench.core.layout import (
    CC_ADD,
    CC_DEC,
    CC_EXPL,
    CC_INC,
    CC_LOGIC,
    CC_SUB,
    RBP,
    RCX,
    RSP,
    ZF,
)
from workbench.core.opcodes import row
from workbench.core.segments import in_64bit
from workbench.core.sem_int import flag_source
from workbench.core.stencil import StencilKey, op

# --------------------------------------------------------------------------- conditions


@op("cond_any", flags="r")
def cond_any(s: Any, cc: Any) -> None:
    """Put condition `cc` into t0, whatever kind the lazy flags are of."""
    c = condition_of_bits(cc, s.flags_get())
    s.next(addr=s.addr, t0=c.zx(64))


@inline
def known_condition(s: Any, cc: int, kind: int) -> None:
    """Put condition `cc` into t0 after an operation of a known kind."""
    c = condition_after(cc, kind, s.size, s.cpu.cc_dst, s.cpu.cc_src)
    s.next(addr=s.addr, t0=c.zx(64))


@op("cond_add", flags="r")
def cond_add(s: Any, cc: Any) -> None:
    known_condition(s, cc, CC_ADD)


@op("cond_sub", flags="r")
def cond_sub(s: Any, cc: Any) -> None:
    known_condition(s, cc, CC_SUB)


@op("cond_logic", flags="r")
def cond_logic(s: Any, cc: Any) -> None:
    known_condition(s, cc, CC_LOGIC)


@op("cond_expl", flags="r")
def cond_expl(s: Any, cc: Any) -> None:
    known_condition(s, cc, CC_EXPL)


@op("cond_inc", flags="r")
def cond_inc(s: Any, cc: Any) -> None:
    known_condition(s, cc, CC_INC)


@op("cond_dec", flags="r")
def cond_dec(s: Any, cc: Any) -> None:
    known_condition(s, cc, CC_DEC)


KINDS = ("add", "sub", "logic", "expl", "inc", "dec")


def cond_keys() -> list[StencilKey]:
    """The stencils that put a condition into t0."""
    keys = [StencilKey("cond_any", "", 8, "", cc) for cc in range(16)]
    keys += [
        StencilKey(f"cond_{kind}", "", size, "", cc)
        for kind in KINDS
        for size in (1, 2, 4, 8)
        for cc in range(16)
    ]
    return keys


@op("setcc", cond=True)
def setcc(s: Any, d: Any) -> None:
    d.put(s.t0.tr(8))


@op("cmovcc", cond=True)
def cmovcc(s: Any, d: Any, a: Any) -> None:
    """The source is read in any case; 32 bits clear the upper half in any case."""
    x = a.get()
    d.put(select((s.t0 & 1) != 0, x, d.get()))


row("0F 90 +cc", "setcc", "Eb")
row("0F 40 +cc", "cmovcc", "Gv,Ev")


# --------------------------------------------------------------------------- direct branches


@op("jmp", ends=True)
def jmp(s: Any, n: Any) -> None:
    s.next()


@op("jcc", cond=True, flags="r", ends=True)
def jcc(s: Any, n: Any) -> None:
    if (s.t0 & 1) == 0:
        s.next()
    s.tail("TAKEN")


@op("call", mem=True, stack=True, ends=True)
def call_(s: Any, n: Any) -> None:
    s.push(s.next_pc.to(s.size * 8))


@inline
def address_mask(s: Any) -> Any:
    """Which bits the address size of this instruction leaves."""
    width = s.hole("LENGTH")
    return select(width == 8, u64(-1), select(width == 4, u64(0xFFFFFFFF), u64(0xFFFF)))


@inline
def set_masked(s: Any, reg: int, value: Any) -> None:
    """Write a register with the width of the address size (32 bits clear the upper half)."""
    narrow = s.hole("LENGTH") == 2
    mask = address_mask(s)
    s.cpu.gpr[reg] = (value & mask) | select(narrow, s.cpu.gpr[reg] & ~0xFFFF, u64(0))


@op("jcxz", ends=True)
def jcxz(s: Any, n: Any) -> None:
    if (s.cpu.gpr[RCX] & address_mask(s)) != 0:
        s.next()
    s.tail("TAKEN")


@inline
def count_down(s: Any) -> Any:
    """Take one from the counter; is it still not zero?"""
    left = (s.cpu.gpr[RCX] - 1) & address_mask(s)
    set_masked(s, RCX, left)
    return left != 0


@op("loop", ends=True)
def loop(s: Any, n: Any) -> None:
    if not (count_down(s)):
        s.next()
    s.tail("TAKEN")


@op("loope", flags="r", ends=True)
def loope(s: Any, n: Any) -> None:
    zero = (s.flags_get() & ZF) != 0
    if not (count_down(s) & zero):
        s.next()
    s.tail("TAKEN")


@op("loopne", flags="r", ends=True)
def loopne(s: Any, n: Any) -> None:
    zero = (s.flags_get() & ZF) != 0
    if not (count_down(s) & (zero ^ 1)):
        s.next()
    s.tail("TAKEN")


row("70 +cc", "jcc", "Jb", f64=True, size=8)
row("0F 80 +cc", "jcc", "Jz", f64=True, size=8)
row("EB", "jmp", "Jb", f64=True, size=8)
row("E9", "jmp", "Jz", f64=True, size=8)
row("E8", "call", "Jz", f64=True)
row("E0", "loopne", "Jb", f64=True, size=8)
row("E1", "loope", "Jb", f64=True, size=8)
row("E2", "loop", "Jb", f64=True, size=8)
row("E3", "jcxz", "Jb", f64=True, size=8)


# --------------------------------------------------------------------------- compare and branch


@inline
def branch(s: Any, cc: int, kind: int, r: Any, b: Any) -> None:
    """The second half of a fused pair: jump if condition `cc` holds after `kind`.

    LLVM makes the jump to CONT, which is written first, the last one: the linker cuts it off.
    """
    if not (condition_after(cc, kind, s.size, r, b)):
        s.next()
    s.tail("TAKEN")


@op("jcc_cmp", flags="w", ends=True)
def jcc_cmp(s: Any, cc: Any, d: Any, a: Any) -> None:
    x = d.get()
    b = a.get()
    r = x - b
    s.flags_lazy(CC_SUB, r, flag_source(s, b))
    branch(s, cc, CC_SUB, r, b)


@op("jcc_test", flags="w", ends=True)
def jcc_test(s: Any, cc: Any, d: Any, a: Any) -> None:
    x = d.get()
    r = x & a.get()
    s.flags_lazy(CC_LOGIC, r)
    branch(s, cc, CC_LOGIC, r, r)


@op("jcc_sub", flags="w", ends=True)
def jcc_sub(s: Any, cc: Any, d: Any, a: Any) -> None:
    x = d.get()
    b = a.get()
    r = x - b
    d.put(r)
    s.flags_lazy(CC_SUB, r, flag_source(s, b))
    branch(s, cc, CC_SUB, r, b)


@op("jcc_add", flags="w", ends=True)
def jcc_add(s: Any, cc: Any, d: Any, a: Any) -> None:
    x = d.get()
    b = a.get()
    r = x + b
    d.put(r)
    s.flags_lazy(CC_ADD, r, flag_source(s, b))
    branch(s, cc, CC_ADD, r, b)


@op("jcc_and", flags="w", ends=True)
def jcc_and(s: Any, cc: Any, d: Any, a: Any) -> None:
    x = d.get()
    r = x & a.get()
    d.put(r)
    s.flags_lazy(CC_LOGIC, r)
    branch(s, cc, CC_LOGIC, r, r)


@op("jcc_dec", flags="rw", ends=True)
def jcc_dec(s: Any, cc: Any, d: Any) -> None:
    r = d.get() - 1
    c = s.kept_carry()
    d.put(r)
    s.increment_flags(CC_DEC, r, c)
    branch(s, cc, CC_DEC, r, c)


@op("jcc_inc", flags="rw", ends=True)
def jcc_inc(s: Any, cc: Any, d: Any) -> None:
    r = d.get() + 1
    c = s.kept_carry()
    d.put(r)
    s.increment_flags(CC_INC, r, c)
    branch(s, cc, CC_INC, r, c)


def fused_keys() -> list[StencilKey]:
    """The stencils of a compare or arithmetic operation and the branch that follows it."""
    forms = {
        "jcc_cmp": ("rr", "ri", "mr", "mi", "rm"),
        "jcc_test": ("rr", "ri", "mr", "mi"),
        "jcc_sub": ("rr", "ri"),
        "jcc_add": ("rr", "ri"),
        "jcc_and": ("rr", "ri"),
        "jcc_dec": ("r",),
        "jcc_inc": ("r",),
    }
    return [
        StencilKey(name, form, size, "", cc)
        for name, some in forms.items()
        for form in some
        for size in (1, 2, 4, 8)
        for cc in range(16)
    ]


# --------------------------------------------------------------------------- indirect branches


@op("jmp_ind", ends=True, stack=True)
def jmp_ind(s: Any, a: Any) -> None:
    s.jump_indirect(a.get().zx(64))


@op("call_ind", mem=True, stack=True, ends=True)
def call_ind(s: Any, a: Any) -> None:
    target = a.get()
    s.push(s.next_pc.to(s.size * 8))
    s.jump_indirect(target.zx(64))


@op("ret", mem=True, stack=True, ends=True)
def ret(s: Any) -> None:
    target = s.peek(f"i{s.size * 8}")
    s.drop(s.size)
    s.jump_indirect(target.zx(64))


@op("ret_imm", mem=True, stack=True, ends=True)
def ret_imm(s: Any, acc: Any, n: Any) -> None:
    """RET imm16; the accumulator operand only tells the operand size."""
    target = s.peek(f"i{s.size * 8}")
    s.drop((s.imm & 0xFFFF) + s.size)
    s.jump_indirect(target.zx(64))


row("FF /4", "jmp_ind", "Ev", f64=True)
row("FF /2", "call_ind", "Ev", f64=True)
row("C3", "ret", "", f64=True)
row("C2", "ret_imm", "Av,Iw", f64=True)


# --------------------------------------------------------------------------- the stack


@op("push", mem=True, stack=True)
def push(s: Any, a: Any) -> None:
    s.push(a.get())


@op("pop", mem=True, stack=True)
def pop(s: Any, d: Any) -> None:
    """POP r and POP m; with RSP as base the address is that of after the pop."""
    x = s.peek(f"i{s.size * 8}")
    if d.is_mem:
        at = s.addr + select(s.hole("BASE") == RSP * 8, u64(s.size), u64(0))
        s.store(select(in_64bit(s.cpu), at, at & 0xFFFFFFFF), x)
        s.drop(s.size)
    else:
        s.drop(s.size)
        d.put(x)


@op("leave", mem=True, stack=True)
def leave(s: Any) -> None:
    frame = s.stack_wrap(s.cpu.gpr[RBP])
    x = s.load(s.stack_linear(frame, s.size, False), f"i{s.size * 8}")
    s.set_sp(s.stack_wrap(frame + s.size))
    if s.size == 2:
        s.cpu.gpr[RBP] = (s.cpu.gpr[RBP] & ~0xFFFF) | x.zx(64)
    else:
        s.cpu.gpr[RBP] = x.zx(64)


row("50 +r", "push", "Zv", d64=True)
row("FF /6", "push", "Ev", d64=True)
row("68", "push", "Iz", d64=True)
row("6A", "push", "Is", d64=True)
row("58 +r", "pop", "Zv", d64=True)
row("8F /0", "pop", "Ev", d64=True)
row("C9", "leave", "", d64=True)

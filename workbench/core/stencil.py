"""What semantics are written in: operands, memory, flags, exits; and the ops that exist.

An *op* is one Python function ``sem(s, *operands)``, registered by `op` and expanded for each
operand
form (``r`` register, ``m`` memory, ``i`` immediate, ``x`` XMM, ``q`` MMX register, ``n`` a number
known to the
translator) and operand size (bytes).  Each expansion is a *stencil*: a small function with holes
that the
translator copies and fills.  All stencils have one signature and end in a tail call:

    cpu (r12), budget (r13), tlb (r14), addr (r15), t0, m, x1, x2

`addr` carries the effective linear address into a stencil with a memory operand, `t0` a condition
(or
a jump target) into the one that uses it, `m` the address that missed in the TLB into its miss stub;
x1 and x2 carry what the stub knows of its instruction.

A *hot* stencil has the TLB look-up inline and leaves for its miss stub when that fails; the stub
fills
the TLB and runs the same stencil again.  So nothing may be changed before the last access that can
fail: first all loads and write checks, then the stores to memory, then registers and flags.  A
*slow*
stencil is the same semantics with every access made by a helper (page crossing, devices, pages that
hold translated code); it runs alone in a block of one instruction.  The same rule holds there,
because an
access to a device leaves, and the instruction is executed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workbench.core import mmu, segments
from workbench.core.flags import (
    cc_code,
    condition_after,
    condition_of_bits,
    eflags_of,
    flags_from,
    set_carry,
    set_carry_overflow,
    set_eflags_arith,
)
from workbench.core.lang import (
    CompileError,
    Emitter,
    Module,
    Val,
    call,
    const,
    fn,
    inline,
    load,
    offset,
    select,
    store,
    u32,
    u64,
    unlikely,
)
from workbench.core.layout import (
    CC_EFLAGS,
    CC_EXPL,
    CF,
    CPU,
    EXIT_NEXT,
    EXIT_SYSTEM,
    JC_BITS,
    RSP,
    SS,
    TLB_ENTRIES,
    TLB_ENTRY,
)

PARAMS = "ptr %cpu, i64 %budget, i64 %tlb, i64 %addr, i64 %t0, i64 %m, i64 %x1, i64 %x2"
TYPES = "ptr, i64, i64, i64, i64, i64, i64, i64"
PAGE = mmu.PAGE

# Holes that the translator fills for each instruction; the order is the index in its value array.
HOLES = (
    "CONT",
    "OP0",
    "OP1",
    "OP2",
    "OP3",
    "IMM",
    "PC",
    "NEXT",
    "LEFT",
    "SELF",
    "TAKEN",
    "FAULT",
    "DISP",
    "BASE",
    "INDEX",
    "SEG",
    "N",
    "OUT",
    "ACC",
    "TARGET",
    "SITE",
    "SEGNO",
    "LENGTH",
    "RM",
)
WIDE_HOLES = {
    "PC",
    "NEXT",
    "TARGET",
    "SITE",
    "SELF",
}  # 64-bit values; the others fit in 32 bits, signed
# A miss leaves through MISS + one of these numbers: log2(size) + 8 * is_write + 16 * (the address
# is `addr`, not `m`).
MISS_KINDS = 32


@dataclass(frozen=True)
class Op:
    """One operation: its semantics and what the translator must know of it.

    flags: "" none; "w" writes all six arithmetic flags whatever the operands; "p" may leave some or
    all
    as they were; "r" reads; "rw", "rp".  cc: the lazy kind that it leaves, if always the same.
    mem: it touches memory besides its ``m`` operand.  slow_only: memory always through the helpers.
    ends: the block ends with it.  stack: it uses the stack through `S.stack_linear`; expanded for
    each kind.  cond: `t0` must hold the condition of the opcode's low four bits.  writes_mem:
    through helpers, also its ``m`` operand if it has one.  writes_beside: elsewhere only (accessed
    bits of descriptors, a stack).
    """

    name: str
    sem: Callable[..., Any]
    flags: str = ""
    cc: int | None = None
    mem: bool = False
    slow_only: bool = False
    ends: bool = False
    cond: bool = False
    lock: bool = False
    stack: bool = False
    faults: bool = False
    writes_mem: bool = False
    writes_beside: bool = False


OPS: dict[str, Op] = {}


def op(name: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register semantics under a name (see `Op` for the options)."""

    def wrap(sem: Callable[..., Any]) -> Callable[..., Any]:
        if name in OPS:
            raise CompileError(f"the op {name} exists twice")
        sem.__wb_inline__ = True  # type: ignore[attr-defined]
        OPS[name] = Op(name, sem, **options)
        return sem

    return wrap


def hole(name: str) -> Val:
    """The value that the translator puts here, as an i64 constant."""
    e = Emitter.current
    if e.fixed is not None:
        return const(e.fixed[name], "i64")
    if name in WIDE_HOLES:  # in the small code model LLVM takes every symbol for 32 bits wide
        return e.val("i64", f'call i64 asm "movabsq $$H_{name}, $0", "=r"()')
    e.module.globals.setdefault(
        f"H_{name}", f"@H_{name} = external dso_local global i8, !absolute_symbol !99"
    )
    return Val(f"ptrtoint (ptr @H_{name} to i64)", "i64")


class Operand:
    """A place that an op reads or writes; `size` in bytes is the default width of an access."""

    def __init__(self, s: S, slot: int, size: int) -> None:
        self.s, self.slot, self.size = s, slot, size

    def _type(self, ty: str | int | None) -> str:
        if ty is None:
            return f"i{self.size * 8}"
        return f"i{ty * 8}" if isinstance(ty, int) else ty


class Reg(Operand):
    """A register (general, MMX or XMM): bytes in the CPU structure, from a byte offset that is a
    hole.
    """

    is_mem = False

    def at(self) -> Val:
        return offset(self.s.base, hole(f"OP{self.slot}"))

    def get(self, ty: str | int | None = None) -> Val:
        return load(self.at(), self._type(ty))

    rmw = get

    def put(self, value: Any, ty: str | int | None = None) -> None:
        """Write; a 32-bit general register is zero-extended to 64 (SDM volume 1, 3.4.1.1)."""
        t = self._type(ty) if not isinstance(value, Val) else value.ty
        v = value if isinstance(value, Val) else const(value, t)
        store(self.at(), v.zx(64) if t == "i32" and self.size == 4 else v)


class Xmm(Reg):
    """An XMM or MMX register: a write changes just as many bytes as the value has."""

    def put(self, value: Any, ty: str | int | None = None) -> None:
        store(self.at(), value)


class Mem(Operand):
    """Memory at the effective address in `addr`."""

    is_mem = True

    def get(self, ty: str | int | None = None) -> Val:
        return self.s.load(self.s.addr, self._type(ty))

    def rmw(self, ty: str | int | None = None) -> Val:
        """Load for a read-modify-write: a later `put` cannot fault."""
        return self.s.load_rmw(self.s.addr, self._type(ty))

    def put(self, value: Any, ty: str | int | None = None) -> None:
        v = value if isinstance(value, Val) else const(value, self._type(ty))
        self.s.store(self.s.addr, v)


class Imm(Operand):
    """An immediate (sign-extended by the decoder where the encoding says so)."""

    is_mem = False

    def get(self, ty: str | int | None = None) -> Val:
        bits = int(self._type(ty)[1:])
        if bits not in (8, 32) or Emitter.current.fixed is not None:
            return hole("IMM").to(bits)
        # Said to be unsigned, it becomes a narrow immediate (the decoder extends bytes with zeros).
        name = f"H_IMM{bits // 8}"
        symbol = f"!absolute_symbol !{{i64 0, i64 {1 << bits}}}"
        Emitter.current.module.globals.setdefault(
            name, f"@{name} = external dso_local global i8, {symbol}"
        )
        return Val(f"ptrtoint (ptr @{name} to i64)", "i64").tr(bits)

    def zero_extended(self) -> Val:
        """A 32-bit immediate as i64."""
        if Emitter.current.fixed is not None:
            return hole("IMM") & 0xFFFFFFFF
        return Emitter.current.val("i64", 'call i64 asm "movl $$H_IMM4, ${0:k}", "=r"()')


class S:
    """One stencil being written."""

    def __init__(self, size: int, form: str, slow: bool, flags: bool, stack_kind: int = 0) -> None:
        self.cpu: Any = CPU.view(Val("%cpu", "ptr"))
        self.base = Val("%cpu", "ptr")
        self.budget, self.tlb, self.addr, self.t0 = (
            Val(f"%{n}", "i64") for n in ("budget", "tlb", "addr", "t0")
        )
        self.size, self.form, self.slow, self.want_flags = size, form, slow, flags
        self.stack_kind = stack_kind
        self.rmw_pointer: tuple[Val, str] | None = None

    # -- holes

    @property
    def imm(self) -> Val:
        return hole("IMM")

    @property
    def pc(self) -> Val:
        """Address of this instruction (offset in the code segment)."""
        return hole("PC")

    @property
    def next_pc(self) -> Val:
        return hole("NEXT")

    def hole(self, name: str) -> Val:
        return hole(name)

    @property
    def icount(self) -> Val:
        """Instructions retired before this one."""
        result: Val = self.cpu.end_icount - (self.budget + hole("LEFT"))
        return result

    @property
    def mmu(self) -> Val:
        result: Val = call(mmu.mmu_of, [self.cpu, self.tlb])
        return result

    # -- ways on

    def tail(
        self,
        symbol: str,
        addr: Val | None = None,
        t0: Val | None = None,
        m: Val | None = None,
        budget: Val | None = None,
        tlb: Val | None = None,
        x1: Val | None = None,
        x2: Val | None = None,
    ) -> None:
        """Leave for `symbol`; nothing after it is executed."""
        e = Emitter.current
        e.module.declare(symbol, f"declare dso_local preserve_nonecc void @{symbol}({TYPES})")
        self._jump(f"@{symbol}", addr, t0, m, budget, tlb, x1, x2)

    def tail_to(self, code: Val, addr: Val | None = None, t0: Val | None = None) -> None:
        """Leave for the code at a host address."""
        p = Emitter.current.val("ptr", f"inttoptr i64 {code.ref} to ptr")
        self._jump(p.ref, addr, t0)

    def _jump(
        self,
        target: str,
        addr: Any,
        t0: Any,
        m: Any = None,
        budget: Any = None,
        tlb: Any = None,
        x1: Any = None,
        x2: Any = None,
    ) -> None:
        e = Emitter.current
        if e.closed:
            return
        budget = self.budget if budget is None else budget
        tlb = self.tlb if tlb is None else tlb
        values = [
            budget.ref,
            tlb.ref,
            *("undef" if v is None else v.ref for v in (addr, t0, m, x1, x2)),
        ]
        args = ", ".join(["ptr %cpu", *(f"i64 {v}" for v in values)])
        e.put(f"musttail call preserve_nonecc void {target}({args})")
        e.put("ret void")
        e.closed = True

    def next(self, addr: Val | None = None, t0: Val | None = None) -> None:
        """Go on with the next stencil."""
        self.tail("CONT", addr, t0)

    def to_dispatcher(self, target: Val) -> None:
        """The instruction is done; go on at `target` through the run loop (mode, interrupts, paging
        may differ).
        """
        self.cpu.rip = target
        self.cpu.exit_reason = EXIT_NEXT
        self.cpu.budget = self.budget
        Emitter.current.put("ret void")
        Emitter.current.closed = True

    def jump_indirect(self, target: Val) -> None:
        """The instruction is done; go on at `target` (an offset in CS) through the jump cache."""
        if self.stack_kind == 2:
            self.to_dispatcher(target)
        else:
            call(_jump_indirect, [self, target])

    def leave(self, reason: Any) -> None:
        """The instruction cannot go on here: leave with `reason`, state as before the
        instruction.
        """
        self.cpu.exit_reason = reason
        self.tail("FAULT")

    def fault(self) -> None:
        """Leave; a helper has already noted why."""
        self.tail("FAULT")

    def exception(self, vector: int, error: Any = None) -> None:
        """Raise an exception on this instruction."""
        if error is None:
            mmu.raise_plain.call([self.base, vector])
        else:
            mmu.raise_exception.call([self.base, vector, error])
        self.tail("FAULT")

    def system(self, name: str, *info: Any) -> None:
        """Leave for Python: the handler ``sys_NAME`` executes the instruction (see system.py)."""
        for i, v in enumerate(info):
            self.cpu.exit_info[i] = v.zx(64) if isinstance(v, Val) else v
        self.cpu.exit_insn = system_number(name)
        self.cpu.exit_next = self.next_pc
        self.leave(EXIT_SYSTEM)

    # -- memory

    def load(self, addr: Val, ty: str) -> Val:
        """Load from guest linear memory with the current privilege; faults leave."""
        result: Val = call(_load, [self, addr, ty])
        return result

    def load_rmw(self, addr: Val, ty: str) -> Val:
        """Load after checking that a store to the same place will succeed."""
        result: Val = call(_load_rmw, [self, addr, ty])
        return result

    def store(self, addr: Val, value: Val) -> None:
        """Store to guest linear memory; after `load_rmw` of the same address it cannot fault."""
        call(_store, [self, addr, value])

    # -- the stack (ops with stack=True; `stack_kind` 0 is 64-bit, 1 flat 32-bit, 2 any other)

    def stack_linear(self, sp: Val, size: int, write: bool) -> Val:
        """Linear address of `size` bytes at stack offset `sp`; a limit violation leaves
        with #SS.
        """
        result: Val = call(_stack_linear, [self, sp, size, write])
        return result

    def stack_wrap(self, sp: Val) -> Val:
        """A stack offset cut to the width of the stack pointer."""
        result: Val = call(_stack_wrap, [self, sp])
        return result

    def set_sp(self, sp: Val) -> None:
        """Write the stack pointer (its upper bits stay where the stack is 16 bits wide)."""
        call(_set_sp, [self, sp])

    def push(self, value: Val) -> None:
        """Push `value` (i16, i32 or i64): store first, then RSP."""
        call(_push, [self, value])

    def peek(self, ty: str, depth: int = 0) -> Val:
        """Load from the stack, `depth` bytes above its top; RSP stays."""
        result: Val = call(_peek, [self, ty, depth])
        return result

    def drop(self, n: Any) -> None:
        """Add `n` bytes to RSP."""
        call(_drop, [self, n])

    # -- flags

    def flags_lazy(self, kind: int, dst: Val, src: Any = None, size: int | None = None) -> None:
        """Leave the arithmetic flags as (kind, dst, src); dst and src at operand width."""
        if not self.want_flags:
            return
        cpu = self.cpu
        cpu.cc_dst = dst.zx(64)
        if src is not None:
            cpu.cc_src = src.zx(64) if isinstance(src, Val) else src
        cpu.cc_op = cc_code(kind, size or dst.bits // 8)

    def flags_set(self, bits: Val) -> None:
        """Set all six arithmetic flags to explicit EFLAGS bits (i64)."""
        if self.want_flags:
            call(set_eflags_arith, [self.cpu, bits])

    def flags_get(self) -> Val:
        """The six arithmetic flags as EFLAGS bits."""
        result = eflags_of.call([self.base])
        assert result is not None
        return result

    def flags_carry(self) -> Val:
        """An i64 whose bit 0 is CF (its other bits mean nothing)."""
        result: Val = call(_keep_carry, [self])
        return result

    def kept_carry(self) -> Val:
        """What INC and DEC give to `increment_flags`."""
        return self.flags_carry()

    def set_carry(self, c: Val) -> None:
        """CF = `c` (i64, 0 or 1); the other arithmetic flags stay."""
        set_carry.call([self.base, c])

    def set_carry_overflow(self, carry: Val, over: Val) -> None:
        """CF and OF from bit 0 of two values; the other arithmetic flags stay."""
        bits = (carry & 1).zx(64) | ((over & 1).zx(64) << 11)
        set_carry_overflow.call([self.base, bits])

    def increment_flags(self, kind: int, dst: Val, carry: Any) -> None:
        """The flags of INC or DEC (`kind`), which keep the carry that `kept_carry` gave."""
        self.flags_lazy(kind, dst, carry)


EXPL_FIRST = CC_EXPL * 4  # from this cc_op on, and for CC_EFLAGS, bit 0 of cc_src is CF


@inline
def _keep_carry(s: Any) -> Any:
    kind = s.cpu.cc_op
    if (kind >= EXPL_FIRST) | (kind < 4):
        return s.cpu.cc_src
    return s.flags_get() & CF


@inline
def _jump_indirect(s: Any, target: Any) -> None:
    at = (((target ^ (target >> 12)) << 4) & ((1 << (JC_BITS + 4)) - 16)) | (
        (target >> 63) << (JC_BITS + 4)
    )
    slot = offset(offset(s.base, CPU.offset("jc")), at)
    if unlikely(load(slot, "i64", 8) != (target ^ s.cpu.jc_key)):
        s.to_dispatcher(target)
    s.tail_to(load(offset(slot, 8), "i64", 8))


@inline
def _stack_wrap(s: Any, sp: Any) -> Any:
    if s.stack_kind == 0:
        return sp
    if s.stack_kind == 1:
        return sp & 0xFFFFFFFF
    return sp & segments.stack_mask(s.cpu)


@inline
def _stack_linear(s: Any, sp: Any, size: int, write: bool) -> Any:
    if s.stack_kind < 2:
        return sp
    linear = segments.seg_linear(s.base, SS, sp, size, int(write))
    if unlikely(linear == segments.BAD):
        s.fault()
    return linear


@inline
def _set_sp(s: Any, sp: Any) -> None:
    if s.stack_kind < 2:
        s.cpu.gpr[RSP] = sp
    else:
        mask = segments.stack_mask(s.cpu)
        narrow = mask == 0xFFFF
        old = s.cpu.gpr[RSP]
        s.cpu.gpr[RSP] = select(narrow, (old & ~mask) | (sp & mask), sp & mask)


@inline
def _push(s: Any, value: Any) -> None:
    size = bytes_of(value.ty)
    sp = s.stack_wrap(s.cpu.gpr[RSP] - size)
    s.store(s.stack_linear(sp, size, True), value)
    s.set_sp(sp)


@inline
def _peek(s: Any, ty: str, depth: int) -> Any:
    sp = s.stack_wrap(s.cpu.gpr[RSP] + depth)
    return s.load(s.stack_linear(sp, bytes_of(ty), False), ty)


@inline
def _drop(s: Any, n: Any) -> None:
    s.set_sp(s.stack_wrap(s.cpu.gpr[RSP] + n))


@inline
def _entry(s: Any, addr: Any) -> Any:
    return s.tlb + ((addr >> (12 - 5)) & ((TLB_ENTRIES - 1) * TLB_ENTRY))


def bytes_of(ty: str) -> int:
    """Size in memory of a type."""
    from workbench.core.lang import bits_of

    return bits_of(ty) // 8


def log2(n: int) -> int:
    return n.bit_length() - 1


@inline
def _lookup(s: Any, addr: Any, size: int, write: int) -> Any:
    """Host address of `addr`, through the TLB; a miss leaves for the miss stub."""
    entry = _entry(s, addr)
    tag = load(entry + 8 * write, "i64", 8)
    want = (addr + (size - 1)) & ~PAGE if size > 1 else addr & ~PAGE
    if tag != want:  # no branch weight: LLVM then folds the jump to the stub into the branch
        kind = log2(size) + 8 * write
        if addr.ref == s.addr.ref:
            s.tail(f"MISS{kind + 16}", addr=s.addr, t0=s.t0)
        else:
            s.tail(f"MISS{kind}", addr=s.addr, t0=s.t0, m=addr)
    return addr + load(entry + 24, "i64", 8)


@inline
def _load(s: Any, addr: Any, ty: str) -> Any:
    size = bytes_of(ty)
    if s.slow:
        p = mmu.slow_load(s.base, s.mmu, addr, u64(size), s.icount)
        if unlikely(p == 0):
            s.fault()
        return load(p, ty)
    return load(_lookup(s, addr, size, 0), ty)


@inline
def _load_rmw(s: Any, addr: Any, ty: str) -> Any:
    size = bytes_of(ty)
    if s.slow:
        if unlikely(mmu.slow_probe_write(s.base, s.mmu, addr, u64(size)) == 0):
            s.fault()
        p = mmu.slow_load(s.base, s.mmu, addr, u64(size), s.icount)
        if unlikely(p == 0):
            s.fault()
        return load(p, ty)
    host = _lookup(s, addr, size, 1)
    s.rmw_pointer = (host, addr.ref)
    return load(host, ty)


@inline
def _store(s: Any, addr: Any, value: Any) -> None:
    size = bytes_of(value.ty)
    if s.slow:
        spot = Emitter.current.fresh()
        Emitter.current.allocas.append(f"  {spot} = alloca {value.ty}, align 16")
        at = Val(spot, "ptr")
        store(at, value)
        if unlikely(mmu.slow_store(s.base, s.mmu, addr, address(at), u64(size), s.icount) == 0):
            s.fault()
    elif s.rmw_pointer is not None and s.rmw_pointer[1] == addr.ref:
        store(s.rmw_pointer[0], value)
    else:
        store(_lookup(s, addr, size, 1), value)


def address(p: Val) -> Val:
    return Emitter.current.val("i64", f"ptrtoint ptr {p.ref} to i64")


SYSTEM_NAMES: list[str] = []


def system_number(name: str) -> int:
    """Number of a Python handler; the order of first use, stored with the compiled stencils."""
    if name not in SYSTEM_NAMES:
        SYSTEM_NAMES.append(name)
    return SYSTEM_NAMES.index(name)


OPERANDS: dict[str, Callable[[S, int, int], Operand]] = {
    "r": Reg,
    "m": Mem,
    "i": Imm,
    "x": Xmm,
    "q": Xmm,
    "n": Imm,
}


@dataclass(frozen=True, order=True)
class StencilKey:
    """Names one stencil: op, operand form, size in bytes, and the variant ("", "nf" or "slow")."""

    op: str
    form: str
    size: int
    variant: str = ""
    extra: int = -1
    stack: int = 0

    @property
    def symbol(self) -> str:
        tail = f"_x{self.extra}" if self.extra >= 0 else ""
        kind = f"_k{self.stack}" if self.stack else ""
        return f"s_{self.op}_{self.form or 'z'}_{self.size}_{self.variant or 'f'}{tail}{kind}"


def emit_stencil(module: Module, key: StencilKey) -> None:
    """Write the function of one stencil into `module`."""
    o = OPS[key.op]
    s = S(
        key.size,
        key.form,
        slow=key.variant == "slow" or o.slow_only,
        flags=key.variant != "nf",
        stack_kind=key.stack,
    )
    operands = [OPERANDS[letter](s, i, key.size) for i, letter in enumerate(key.form)]

    def body() -> None:
        extra = [key.extra] if key.extra >= 0 else []
        call(o.sem, [s, *extra, *operands])
        if not Emitter.current.closed:
            s.next()

    emit_raw(module, key.symbol, body)


def emit_raw(module: Module, symbol: str, body: Callable[[], None]) -> None:
    """Write a function with the stencil signature."""
    attributes = f'nounwind optsize "no-jump-tables"="true" section ".text.{symbol}"'
    head = f"define dso_local preserve_nonecc void @{symbol}({PARAMS}) {attributes}"
    module.define(symbol, head, body)


__all__ = [
    "CC_EFLAGS",
    "HOLES",
    "OPS",
    "Imm",
    "Mem",
    "Op",
    "Operand",
    "Reg",
    "S",
    "StencilKey",
    "Xmm",
    "condition_after",
    "condition_of_bits",
    "emit_raw",
    "emit_stencil",
    "field",
    "flags_from",
    "fn",
    "hole",
    "op",
    "u32",
]

"""The LLVM text of a region: a loop of guest code, made of the same semantics as stencils.

Operands are constants, general registers and flags are values of LLVM's over the whole region.
Every basic block takes its instructions off the budget at its start, as a translated block does,
and every way out leaves the state that stencils would have left there: a region is a faster copy of
blocks of one page, and nothing can tell that it ran.

What the flags are is known while compiling (`Flags`); their values are computed at the ways out, or
where something looks at them. An instruction accesses memory once at most, so that a miss in the
TLB need not start it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workbench.core import mmu
from workbench.core.flags import (
    cc_code,
    condition_after,
    condition_of_bits,
    eflags_of,
    flags_from,
)
from workbench.core.lang import (
    CompileError,
    Emitter,
    Module,
    Val,
    call,
    const,
    load,
    offset,
    store,
    u32,
)
from workbench.core.layout import (
    AF,
    CC_EFLAGS,
    CC_EXPL,
    CF,
    CPU,
    EXIT_BUDGET,
    FS,
    OF,
    PF,
    SF,
    TLB_ENTRIES,
    TLB_ENTRY,
    ZF,
)
from workbench.core.regions.shape import (
    BASE,
    EA64,
    EA_NONE,
    EA_RIP,
    Block,
    Insn,
    chain_name,
)
from workbench.core.runloop import tlb_miss
from workbench.core.stencil import (
    EXPL_FIRST,
    OPERANDS,
    OPS,
    PARAMS,
    TYPES,
    S,
    bytes_of,
    log2,
)

SYMBOL = "region"
ARITH = CF | PF | AF | ZF | SF | OF
SOMETIMES = ("shl_cl", "shr_cl", "sar_cl", "rol_cl", "ror_cl", "shld_cl", "shrd_cl")
"""They change the flags or do not."""


class Flags:
    """What the arithmetic flags are at one place; here: what the lazy state in variables says."""

    def __init__(self, op: Val, dst: Val, src: Val) -> None:
        self.op, self.dst, self.src = op, dst, src

    def bits(self) -> Val:
        """As bits of EFLAGS."""
        e = Emitter.current
        for name, value in (("cc_op", self.op), ("cc_dst", self.dst), ("cc_src", self.src)):
            at = e.val("ptr", f"getelementptr i8, ptr %cpu, i64 {CPU.offset(name)}")
            store(at, value)
        result = eflags_of.call([Val("%cpu", "ptr")])
        assert result is not None
        return result

    def carry(self) -> Val:
        """CF in bit 0 of an i64, which has other bits."""
        e = Emitter.current
        slow, join = e.label("slow"), e.label("join")
        there = (self.op >= EXPL_FIRST) | (self.op < 4)
        before = e.block
        e.cond_branch(there, join, slow, True)
        e.open(slow)
        bits = self.bits()
        end = e.block
        e.branch(join)
        e.open(join)
        return e.val("i64", f"phi i64 [ {self.src.ref}, %{before} ], [ {bits.ref}, %{end} ]")

    def condition(self, cc: int) -> Val:
        """Condition `cc` (the low four bits of Jcc) as i1."""
        if cc >> 1 == 1:
            c = (self.carry() & 1) != 0
            return c ^ 1 if cc & 1 else c
        result: Val = call(condition_of_bits, [cc, self.bits()])
        return result

    def lazy(self) -> tuple[Any, Any, Any]:
        """cc_op, cc_dst, cc_src."""
        return self.op, self.dst, self.src


class Lazy(Flags):
    """A known kind and size; `base` is what INC and DEC take the carry from."""

    def __init__(self, kind: int, size: int, dst: Val, src: Any, base: Flags | None = None) -> None:
        self.kind, self.size, self.dst = kind, size, dst
        self.source, self.base = src, base

    def _src(self, needed: bool = True) -> Val:
        if self.base is not None:
            return self.base.carry() if needed else const(0, "i64")
        if isinstance(self.source, Val):
            return self.source
        return const(self.source or 0, "i64")

    def bits(self) -> Val:
        result: Val = call(flags_from, [self.kind, self.size, self.dst, self._src()])
        return result

    def carry(self) -> Val:
        if self.base is not None:
            return self.base.carry()
        if self.kind >= CC_EXPL:
            return self._src()
        return self.condition(2).zx(64)

    def condition(self, cc: int) -> Val:
        src = self._src(cc >> 1 in (1, 3))
        result: Val = call(condition_after, [cc, self.kind, self.size, self.dst, src])
        return result

    def lazy(self) -> tuple[Any, Any, Any]:
        return cc_code(self.kind, self.size), self.dst, self._src()


class Changed(Flags):
    """Flags of `base` with others in some places: CF, or CF and OF."""

    def __init__(self, base: Flags, carry: Val, over: Val | None) -> None:
        self.base, self.new_carry, self.over = base, carry, over

    def bits(self) -> Val:
        old = self.base.bits()
        if self.over is None:
            return (old & ~CF) | self.new_carry
        return (old & ~(CF | OF)) | self.new_carry | (self.over << 11)

    def carry(self) -> Val:
        return self.new_carry

    def condition(self, cc: int) -> Val:
        if cc >> 1 == 1:
            c = self.new_carry != 0
            return c ^ 1 if cc & 1 else c
        if cc >> 1 in (2, 4, 5):
            return self.base.condition(cc)
        result: Val = call(condition_of_bits, [cc, self.bits()])
        return result

    def lazy(self) -> tuple[Any, Any, Any]:
        return CC_EFLAGS * 4, const(0, "i64"), self.bits()


class Explicit(Flags):
    """Bits of EFLAGS."""

    def __init__(self, bits: Val) -> None:
        self.value = bits

    def bits(self) -> Val:
        return self.value & ARITH

    def carry(self) -> Val:
        return self.value

    def condition(self, cc: int) -> Val:
        result: Val = call(condition_of_bits, [cc, self.value])
        return result

    def lazy(self) -> tuple[Any, Any, Any]:
        return CC_EFLAGS * 4, const(0, "i64"), self.bits()


@dataclass
class _Places:
    """The variables that registers are kept in."""

    names: dict[str, int] = field(default_factory=dict)  # pointer in the text: register

    def __call__(self, at: int) -> Val:
        first = CPU.offset("gpr")
        if first <= at < first + 128:
            n, byte = divmod(at - first, 8)
            if byte == 0:
                return Val(f"%g{n}", "ptr")
            e = Emitter.current
            p = e.val("ptr", f"getelementptr i8, ptr %g{n}, i64 {byte}")
            self.names[p.ref] = n
            return p
        return Emitter.current.val("ptr", f"getelementptr i8, ptr %cpu, i64 {at}")


class _Done(Exception):
    """Nothing more is to be done for an instruction, as for a shift by zero."""


class Writer(S):
    """Writes the blocks of a region; for the semantics it is the stencil of the present
    instruction."""

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__(8, "", slow=False, flags=True)
        self.blocks = {block.pc: block for block in blocks}
        self.order = blocks
        self.places = _Places()
        self.flags: Flags | None = None
        self.in_variables = False
        self.exits: dict[int, str] = {}
        self.later: list[Callable[[], None]] = []
        self.fault_label = self.next_label = ""
        self.insn = blocks[0].insns[0]
        self.left = 0
        into: dict[int, list[int]] = {}
        for block in blocks:
            for way in block.ways():
                into.setdefault(way, []).append(block.pc)
        into.setdefault(blocks[0].pc, []).append(-1)
        self.only_from = {pc: froms[0] for pc, froms in into.items() if len(froms) == 1}
        self.flags_after: dict[int, Flags] = {}

    # -- the whole

    def write(self) -> None:
        """Write the function's body."""
        e = Emitter.current
        e.place = self.places
        e.fixed = {}
        for n in range(16):
            e.allocas.append(f"  %g{n} = alloca i64, align 8")
        for name in ("op", "dst", "src", "budget", "pc", "left"):
            e.allocas.append(f"  %f_{name} = alloca i64, align 8")
        for n in range(16):
            self._variable(f"g{n}", self._raw("gpr", n, "i64"))
        for name in ("op", "dst", "src"):
            self._variable(f"f_{name}", self._raw(f"cc_{name}", 0, "i64"))
        self._variable("f_budget", Val("%budget", "i64"))
        self.page = e.val("i64", f'call i64 asm "movabsq $${BASE}, $0", "=r"()')
        e.branch(_label(self.order[0].pc))
        for block in self._in_order():
            self._block(block)
        for thunk in self.later:
            thunk()
        for pc, label in self.exits.items():
            e.open(label)
            self.restore(e)
            args = f"ptr %cpu, i64 {self._value('f_budget').ref}, i64 %tlb" + ", i64 undef" * 5
            name = chain_name(pc)
            e.module.declare(name, f"declare dso_local preserve_nonecc void @{name}({TYPES})")
            e.put(f"musttail call preserve_nonecc void @{name}({args})")
            e.put("ret void")
            e.closed = True
        e.open("leave")
        self.restore(e)
        self._set_raw("rip", self._value("f_pc"))
        self._set_raw("budget", self._value("f_budget") + self._value("f_left"))
        e.put("ret void")
        e.closed = True

    def _in_order(self) -> list[Block]:
        """Blocks so that the only one before another is written before it."""
        out: list[Block] = []
        done: set[int] = set()

        def visit(block: Block) -> None:
            before = self.only_from.get(block.pc)
            if block.pc in done:
                return
            done.add(block.pc)
            if before is not None and before in self.blocks and before not in done:
                visit(self.blocks[before])
            out.append(block)

        for block in self.order:
            visit(block)
        return out

    def restore(self, e: Emitter) -> None:
        """Write registers and flags back; what no instruction writes is dropped at the end."""
        for n in range(16):
            value = self._value(f"g{n}")
            at = e.val("ptr", f"getelementptr i8, ptr %cpu, i64 {CPU.offset('gpr', n)}")
            e.put(f"store i64 {value.ref}, ptr {at.ref}, align 8 ; back {n}")
        for name in ("op", "dst", "src"):
            self._set_raw(f"cc_{name}", self._value(f"f_{name}"))

    def _raw(self, name: str, index: int, ty: str) -> Val:
        e = Emitter.current
        at = e.val("ptr", f"getelementptr i8, ptr %cpu, i64 {CPU.offset(name, index)}")
        return load(at, ty, 8)

    def _set_raw(self, name: str, value: Val) -> None:
        e = Emitter.current
        at = e.val("ptr", f"getelementptr i8, ptr %cpu, i64 {CPU.offset(name)}")
        store(at, value, 4)

    def _variable(self, name: str, value: Val) -> None:
        Emitter.current.put(f"store i64 {value.ref}, ptr %{name}")

    def _value(self, name: str) -> Val:
        return Emitter.current.val("i64", f"load i64, ptr %{name}")

    # -- blocks

    def _block(self, block: Block) -> None:
        e = Emitter.current
        e.open(_label(block.pc))
        before = self.only_from.get(block.pc)
        inherited = self.flags_after.get(before) if before is not None else None
        self.flags = inherited or self._from_variables()
        old = self._value("f_budget")
        self.budget = old - len(block.insns)
        out = self._out(block.pc, self.flags)
        go = e.label("go")
        e.cond_branch(self.budget.slt(0), out, go, False)
        e.open(go)
        self._variable("f_budget", self.budget)
        for n, insn in enumerate(block.insns):
            self.left = len(block.insns) - n
            if insn.ends:
                self._jump_insn(block, insn)
                return
            self._insn(insn)
        self._go(block, block.insns[-1].next)

    def _from_variables(self) -> Flags:
        return Flags(*(self._value(f"f_{name}") for name in ("op", "dst", "src")))

    def _jump_insn(self, block: Block, insn: Insn) -> None:
        e = Emitter.current
        if insn.op == "jmp":
            self._go(block, insn.target)
            return
        assert self.flags is not None
        taken, on = e.label("taken"), e.label("on")
        e.cond_branch(self.flags.condition(insn.cond), taken, on)
        flags = self.flags
        for label, pc in ((taken, insn.target), (on, insn.next)):
            e.open(label)
            self.flags = flags
            self._go(block, pc)

    def _go(self, block: Block, pc: int) -> None:
        """Go on at `pc`, in the region or outside."""
        e = Emitter.current
        assert self.flags is not None
        if pc in self.blocks and self.only_from.get(pc) == block.pc:
            self.flags_after[block.pc] = self.flags
        else:
            self._keep(self.flags)
        if pc in self.blocks:
            e.branch(_label(pc))
        else:
            e.branch(self.exits.setdefault(pc, chain_name(pc).lower()))

    def _keep(self, flags: Flags) -> None:
        """Put the flags into the variables."""
        if type(flags) is Flags and flags.op.ref.startswith("%"):
            return  # they are there already
        for name, value in zip(("op", "dst", "src"), flags.lazy(), strict=True):
            self._variable(f"f_{name}", value if isinstance(value, Val) else const(value, "i64"))

    def _out(self, pc: int, flags: Flags) -> str:
        """The label of code that leaves before `pc` because the budget does not reach."""
        label = Emitter.current.label("out")

        def write() -> None:
            e = Emitter.current
            e.open(label)
            self._keep(flags)
            self._set_raw("exit_reason", u32(EXIT_BUDGET))
            self._variable("f_pc", self.page + pc)
            self._variable("f_left", const(0, "i64"))
            e.branch("leave")

        self.later.append(write)
        return label

    # -- instructions

    def _insn(self, insn: Insn) -> None:
        e = Emitter.current
        if insn.nop:
            return
        e.fixed = {**insn.holes, "LEFT": self.left}
        self.insn = insn
        self.size, self.form = insn.size, insn.form
        self.rmw_pointer = None
        self.fault_label = ""
        assert self.flags is not None
        o = OPS[insn.op]
        if o.cond:
            self.t0 = self.flags.condition(insn.cond).zx(64)
        if insn.ea != EA_NONE:
            self.addr = self._address(insn)
        self.in_variables = insn.op in SOMETIMES
        if self.in_variables:
            self._keep(self.flags)
            self.flags = self._from_variables()
        operands = [OPERANDS[letter](self, i, insn.size) for i, letter in enumerate(insn.form)]
        self.next_label = ""
        with contextlib.suppress(_Done):
            call(o.sem, [self, *operands])
        if self.next_label:
            e.branch(self.next_label)
            e.open(self.next_label)
        if e.closed:
            raise CompileError(f"{insn.op} does not go on")
        if self.in_variables:
            self.flags = self._from_variables()
        e.fixed = {}

    def _address(self, insn: Insn) -> Val:
        if insn.ea == EA_RIP:
            at = self.page + (insn.next + insn.holes["DISP"])
        else:
            form = insn.ea - EA64
            at = const(insn.holes["DISP"], "i64")
            if 0 < form < 6:
                at = load(offset(self.base, insn.holes["BASE"]), "i64") + at
            if form >= 2:
                index = load(offset(self.base, insn.holes["INDEX"]), "i64")
                at = at + (index << (form - 2) % 4)
        if insn.op != "lea" and insn.segment >= FS:
            at = at + self._raw("seg_base", insn.segment, "i64")
        return at

    def tail(self, symbol: str, *args: Any, **more: Any) -> None:
        """Leave with a fault, or go on with the next instruction at once."""
        e = Emitter.current
        if e.closed:
            return
        if symbol == "FAULT":
            e.branch(self._fault())
        elif symbol != "CONT":
            raise CompileError(f"{symbol} in a region")
        elif self.in_variables:  # under a condition, perhaps
            self.next_label = self.next_label or e.label("next")
            e.branch(self.next_label)
        else:
            raise _Done

    def _fault(self) -> str:
        if self.fault_label:
            return self.fault_label
        label = self.fault_label = Emitter.current.label("fault")
        pc, left, flags = self.insn.pc, self.left, self.flags
        assert flags is not None

        def write() -> None:
            e = Emitter.current
            e.open(label)
            self._keep(flags)
            self._variable("f_pc", self.page + pc)
            self._variable("f_left", const(left, "i64"))
            e.branch("leave")

        self.later.append(write)
        return label

    # -- memory

    def load(self, addr: Val, ty: str) -> Val:
        """Load from guest memory."""
        return load(self._host(addr, bytes_of(ty), 0), ty)

    def load_rmw(self, addr: Val, ty: str) -> Val:
        """Load what will be stored to."""
        host = self._host(addr, bytes_of(ty), 1)
        self.rmw_pointer = (host, addr.ref)
        return load(host, ty)

    def store(self, addr: Val, value: Val) -> None:
        """Store to guest memory."""
        if self.rmw_pointer is not None and self.rmw_pointer[1] == addr.ref:
            store(self.rmw_pointer[0], value)
        else:
            store(self._host(addr, bytes_of(value.ty), 1), value)

    def _host(self, addr: Val, size: int, write: int) -> Val:
        e = Emitter.current
        entry = self.tlb + ((addr >> (12 - 5)) & ((TLB_ENTRIES - 1) * TLB_ENTRY))
        tag = load(entry + 8 * write, "i64", 8)
        want = (addr + (size - 1)) & ~mmu.PAGE
        hit, miss, filled, join = (e.label(x) for x in ("hit", "miss", "filled", "join"))
        e.cond_branch(tag == want, hit, miss, True)
        e.open(miss)
        kind = const(log2(size) + 8 * write, "i64")
        pc = self.page + self.insn.pc
        done = tlb_miss.call([self.base, self.tlb, addr, kind, pc, self.budget])
        assert done is not None
        e.cond_branch(done == 0, self._fault(), filled)
        e.open(filled)
        after = load(entry + 24, "i64", 8)
        e.branch(join)
        e.open(hit)
        usual = load(entry + 24, "i64", 8)
        e.branch(join)
        e.open(join)
        by = e.val("i64", f"phi i64 [ {usual.ref}, %{hit} ], [ {after.ref}, %{filled} ]")
        return addr + by

    # -- flags

    def flags_lazy(self, kind: int, dst: Val, src: Any = None, size: int | None = None) -> None:
        """Note what the flags are."""
        source = src.zx(64) if isinstance(src, Val) else src
        self._become(Lazy(kind, size or dst.bits // 8, dst.zx(64), source))

    def increment_flags(self, kind: int, dst: Val, carry: Any) -> None:
        """INC and DEC: the carry is looked for when it is needed."""
        self._become(Lazy(kind, dst.bits // 8, dst.zx(64), None, self.flags))

    def flags_set(self, bits: Val) -> None:
        """Set all six flags."""
        self._become(Explicit(bits))

    def set_carry(self, c: Val) -> None:
        """Change CF."""
        assert self.flags is not None
        self._become(Changed(self.flags, c, None))

    def set_carry_overflow(self, carry: Val, over: Val) -> None:
        """Change CF and OF."""
        assert self.flags is not None
        self._become(Changed(self.flags, (carry & 1).zx(64), (over & 1).zx(64)))

    def _become(self, flags: Flags) -> None:
        if self.in_variables:
            self._keep(flags)
        else:
            self.flags = flags

    def flags_get(self) -> Val:
        """The flags as bits."""
        assert self.flags is not None
        return self.flags.bits()

    def flags_carry(self) -> Val:
        """CF in bit 0."""
        assert self.flags is not None
        return self.flags.carry()

    def kept_carry(self) -> Val:
        """Nobody needs it: see `increment_flags`."""
        return const(0, "i64")


def _label(pc: int) -> str:
    return f"b_{pc:x}"


def module_text(blocks: list[Block]) -> str:
    """The LLVM module of a region that is entered at the first of `blocks`."""
    module = Module()
    module.extern_all = True
    writer = Writer(blocks)
    head = (
        f"define dso_local preserve_nonecc void @{SYMBOL}({PARAMS}) "
        f'nounwind "no-jump-tables"="true" section ".text.{SYMBOL}"'
    )
    module.define(SYMBOL, head, writer.write)
    text = module.text()
    # registers that are only read need not be written back
    written = {int(x) for x in _stores(text, writer.places.names)}
    lines = [x for x in text.split("\n") if "; back " not in x or int(x.split()[-1]) in written]
    return "\n".join(lines)


def _stores(text: str, names: dict[str, int]) -> set[int]:
    """Registers that are stored to elsewhere than at the entry."""
    counts = dict.fromkeys(range(16), -1)
    for line in text.split("\n"):
        if line.startswith("  store ") and "; back" not in line:
            pointer = line.split("ptr ")[1].split(",")[0].strip()
            if pointer[:2] == "%g" and pointer[2:].isdigit():
                counts[int(pointer[2:])] += 1
            elif pointer in names:
                counts[names[pointer]] += 1
    return {n for n, count in counts.items() if count > 0}


__all__ = ["SYMBOL", "module_text"]

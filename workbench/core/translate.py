"""Guest bytes to host code: the decoder, and the translator that copies stencils and fills their holes.

All of it is compiled (see lang.py); its tables are made by tables.py.  A block is a run of guest
instructions on one page; it is entered at its start only, and left by a direct jump to another block
of the same page (patched in when that block exists), through the jump cache, or to the run loop.
An instruction that crosses a page stands alone in its block.

Block record, 8 words: next in hash | position in RAM of the first byte | virtual pc | mode | code |
RAM pages (two i32, -1 none) | next in the pages' lists (two i32) | address of its way out when dropped.
A page list links (block index << 1 | which of its two pages).
"""
from __future__ import annotations

from typing import Any

from workbench.core import mmu
from workbench.core.lang import Layout, Val, address_of, fn, inline, load, select, store, u1, u8, u32, u64, unlikely
from workbench.core.layout import (
    CPU, CS, DS, EXIT_CODE_FULL, EXIT_EXCEPTION, EXIT_MMIO, FS, GP, JC_BITS, MMU_KERNEL, MMU_USER, MODE_CPL3,
    MODE_FLAT, MODE_SLOW, MODE_SS32, SS, UD,
)
from workbench.core.stencil import HOLES

H = {name: i for i, name in enumerate(HOLES)}
MISS_INDEX = 64        # value indices 64..95: miss stubs by kind
FIXED_INDEX = 128      # value indices from here: addresses that never change
MAX_INSNS = 64
HASH_BITS = 16
PAGE = mmu.PAGE

# What an entry of the opcode table says (16 i32 each).
ENTRY = Layout("entry", [
    ("hot", "i32"), ("nf", "i32"), ("slow", "i32"), ("flags", "i32"), ("cc", "i32"), ("ops", "i32", 4),
    ("imm", "i32"), ("imm2", "i32"), ("access", "i32"), ("fuse", "i32"), ("osize", "i32"), ("number", "i32"), ("spare", "i32"),
])
(F_MEM, F_ENDS, F_READS, F_WRITES, F_PARTIAL, F_FAULTS, F_COND, F_LOCK, F_LEA, F_JUMP, F_CALL, F_BRANCH, F_SSE,
 F_MMX, F_STORES, F_XCHG90, F_MOFFS, F_VALID, F_TAKEN) = (1 << i for i in range(19))
(D_NONE, D_E, D_E8, D_G, D_G8, D_Z, D_Z8, D_ACC, D_CL, D_V, D_W, D_P, D_Q, D_SREG, D_CREG) = range(15)
(I_NONE, I_B, I_S, I_W, I_Z, I_V, I_JB, I_JZ, I_O, I_FAR, I_D, I_Q) = range(12)

# Special stencils: indices in `eatab` (i32 stencil numbers).
EA_COUNT = 30          # address size (3) * form (none, base, base+index*1/2/4/8, index*1/2/4/8)
(X_SEG64, X_SEGLEGACY, X_ABS, X_PROLOGUE, X_MISS, X_MISSADDR, X_FAULT, X_OUT, X_DROP, X_CHAIN, X_SSE, X_MMX, X_UD,
 X_GOTO0, X_GOTO2, X_RETIRE) = range(EA_COUNT, EA_COUNT + 16)
X_COND = 64            # + cc_op * 16 + condition; cc_op 0: any
X_FUSED = X_COND + 28 * 16

INSN = Layout("insn", [
    ("pc", "i64"), ("next", "i64"), ("entry", "i64"), ("op", "i64", 4), ("imm", "i64"), ("ea", "i64"), ("disp", "i64"),
    ("base", "i64"), ("index", "i64"), ("segment", "i64"), ("asize", "i64"), ("rm", "i64"), ("target", "i64"),
    ("cond", "i64"), ("live", "i64"), ("lock", "i64"), ("osz", "i64"), ("nop", "i64"), ("length", "i64"), ("spare", "i64", 2),
])
EA_NONE, EA_RIP, EA_FORM0 = -1, 64, 0

STENCIL = Layout("stencil", [("code", "i32"), ("size", "i32"), ("reloc", "i32"), ("relocs", "i32"),
                             ("faults", "i32"), ("spare", "i32", 11)])
RELOC = Layout("reloc", [("at", "i32"), ("kind", "i32"), ("value", "i32"), ("addend", "i32")])
RELOC_BYTES = 16
STUB = Layout("stub", [("patch", "i64"), ("kind", "i64"), ("insn", "i64"), ("self", "i64"), ("left", "i64"), ("target", "i64"), ("spare", "i64", 2)])
STUB_MISS, STUB_FAULT, STUB_CHAIN, STUB_GOTO = range(4)
MAX_STUBS = 512


@fn("ptr", "i64", "i64", "i64", "i64", ret="i64")
def decode(base: Any, p: Any, avail: Any, pc: Any, rec: Any) -> Any:
    """Decode the instruction at host address `p`, of which `avail` bytes are there, into record `rec`.

    Its length; 0 when it is undefined; 16 or more when it needs more than `avail` bytes (up to 15).
    """
    cpu = CPU.view(base)
    insn = INSN.view(rec)
    mode = cpu.mode & 3
    is64 = mode == 2
    at = u64(0)
    osz16 = mode == 0                        # default operand size
    asize = select(is64, u64(8), select(mode == 1, u64(4), u64(2)))
    rex = u32(0)
    op66 = u1(0)
    rep = u32(0)
    seg = u64(255)
    lock = u1(0)
    opcode = u32(0)
    scanning = u1(1)
    while scanning:
        if at >= avail:
            return at + 16
        if at >= 15:
            return u64(0)
        opcode = load(p + at, "i8").zx(32)
        at += 1
        if is64 and (opcode & 0xF0) == 0x40:
            rex = opcode
            if at >= avail:
                return at + 16
            opcode = load(p + at, "i8").zx(32)
            known = ((opcode == 0x66) | (opcode == 0x67) | (opcode == 0xF0) | (opcode == 0xF2) | (opcode == 0xF3)
                     | (opcode == 0x2E) | (opcode == 0x36) | (opcode == 0x3E) | (opcode == 0x26) | (opcode == 0x64)
                     | (opcode == 0x65) | ((opcode & 0xF0) == 0x40))
            if not known:
                at += 1
                scanning = u1(0)
            else:
                rex = u32(0)
        elif opcode == 0x66:
            op66 = u1(1)
        elif opcode == 0x67:
            asize = select(is64, u64(4), select(mode == 1, u64(2), u64(4)))
        elif opcode == 0xF0:
            lock = u1(1)
        elif opcode == 0xF3:
            rep = u32(2)
        elif opcode == 0xF2:
            rep = u32(3)
        elif opcode == 0x2E:
            seg = select(is64, seg, u64(1))
        elif opcode == 0x36:
            seg = select(is64, seg, u64(2))
        elif opcode == 0x3E:
            seg = select(is64, seg, u64(3))
        elif opcode == 0x26:
            seg = select(is64, seg, u64(0))
        elif opcode == 0x64:
            seg = u64(4)
        elif opcode == 0x65:
            seg = u64(5)
        else:
            scanning = u1(0)
    table = u32(0)
    if opcode == 0x0F:
        if at >= avail:
            return at + 16
        opcode = load(p + at, "i8").zx(32)
        at += 1
        table = u32(1)
        if opcode == 0x38 or opcode == 0x3A:
            table = select(opcode == 0x38, u32(2), u32(3))
            if at >= avail:
                return at + 16
            opcode = load(p + at, "i8").zx(32)
            at += 1
    if (rex & 8) != 0:
        osz = u32(2)
    else:
        osz = select(osz16 ^ op66, u32(0), u32(1))
    prefix = select(rep != 0, rep, select(op66, u32(1), u32(0)))
    optable = cpu.optable
    modrm = u32(0xC0)
    has = load(optable + (table * 256 + opcode).zx(64), "i8") != 0
    if has:
        if at >= avail:
            return at + 16
        modrm = load(p + at, "i8").zx(32)
        at += 1
    reg = (modrm >> 3) & 7
    rm = modrm & 7
    mod = modrm >> 6
    # MOV to and from control and debug registers ignore ModRM.mod (SDM volume 2, MOV CR)
    if table == 1 and opcode >= 0x20 and opcode <= 0x23:
        mod = u32(3)
    is_reg = mod == 3
    cls = select(is64, u32(0), select((cpu.mode & (MODE_FLAT | MODE_SS32)) == (MODE_FLAT | MODE_SS32), u32(1), u32(2)))
    row = opcode
    if is_reg and has:
        if table == 0 and (opcode & 0xF8) == 0xD8:
            fpu = (opcode & 7) * 64 + (modrm & 63)
            table = 4 + (fpu >> 8)
            row = fpu & 255
            reg = u32(0)
        elif table == 1 and (opcode == 0x01 or opcode == 0xAE):
            if opcode == 0x01 and reg == 4 or opcode == 0x01 and reg == 6:
                row = opcode
            else:
                table = select(opcode == 0x01, u32(6), u32(7))
                row = modrm & 63
                reg = u32(0)
    index = (cls << 19) | (table << 16) | (row << 8) | (reg << 5) | (is_reg.zx(32) << 4) | (prefix << 2) | osz
    number = load(optable + 1024 + index.zx(64) * 2, "i16")
    entry_at = cpu.entries + number.zx(64) * ENTRY.size
    entry = ENTRY.view(entry_at)
    flags = entry.flags
    insn.pc = pc
    insn.entry = entry_at
    insn.asize = asize
    insn.rm = rm.zx(64)
    insn.osz = entry.osize.zx(64)
    insn.cond = (opcode & 15).zx(64)
    insn.lock = lock.zx(64)
    insn.ea = EA_NONE
    insn.disp = 0
    insn.base = 0
    insn.index = 0
    insn.nop = 0
    insn.target = 0
    default_seg = u64(DS)
    rex_r = ((rex & 4) << 1)
    rex_b = ((rex & 1) << 3)
    # the address
    if has and not is_reg:
        if asize == 2:
            disp = u64(0)
            form_base = u64(0)
            form_index = u64(0)
            form = u64(1)
            if rm < 4:
                form = u64(2)
                form_base = select(rm < 2, u64(3), u64(5))
                form_index = select((rm & 1) == 0, u64(6), u64(7))
            elif rm == 4:
                form_base = u64(6)
            elif rm == 5:
                form_base = u64(7)
            elif rm == 6:
                form_base = u64(5)
                if mod == 0:
                    form = u64(0)
            else:
                form_base = u64(3)
            if form != 0 and form_base == 5:
                default_seg = u64(SS)
            if mod == 1:
                if at + 1 > avail:
                    return at + 17
                disp = load(p + at, "i8").sx(64)
                at += 1
            elif mod == 2 or form == 0:
                if at + 2 > avail:
                    return at + 18
                disp = load(p + at, "i16").sx(64)
                at += 2
            insn.disp = disp
            insn.base = form_base * 8
            insn.index = form_index * 8
            insn.ea = form
        else:
            disp = u64(0)
            form = u64(1)
            form_base = (rm | rex_b).zx(64)
            form_index = u64(0)
            no_base = u1(0)
            rip = u1(0)
            if rm == 4:
                if at >= avail:
                    return at + 16
                sib = load(p + at, "i8").zx(32)
                at += 1
                form_base = ((sib & 7) | rex_b).zx(64)
                form_index = (((sib >> 3) & 7) | ((rex & 2) << 2)).zx(64)
                no_base = ((sib & 7) == 5) & (mod == 0)
                if form_index != 4:
                    form = 2 + (sib >> 6).zx(64) + select(no_base, u64(4), u64(0))
                else:
                    form = select(no_base, u64(0), u64(1))
            elif rm == 5 and mod == 0:
                no_base = u1(1)
                rip = is64
                form = u64(0)
            if mod == 1:
                if at >= avail:
                    return at + 16
                disp = load(p + at, "i8").sx(64)
                at += 1
            elif mod == 2 or no_base:
                if at + 4 > avail:
                    return at + 20
                disp = load(p + at, "i32").sx(64)
                at += 4
            if not no_base and (form_base == 4 or form_base == 5):
                default_seg = u64(SS)
            insn.disp = disp
            insn.base = form_base * 8
            insn.index = form_index * 8
            insn.ea = select(rip, u64(EA_RIP), form + select(asize == 8, u64(20), u64(10)))
    insn.segment = select(seg == 255, default_seg | 128, seg)
    # immediates
    imm = u64(0)
    shift = u64(0)
    which = u32(0)
    while which < 2:
        kind = select(which == 0, entry.imm, entry.imm2)
        n = u64(0)
        value = u64(0)
        if kind != I_NONE:
            if kind == I_B or kind == I_S or kind == I_JB:
                n = u64(1)
            elif kind == I_W:
                n = u64(2)
            elif kind == I_D:
                n = u64(4)
            elif kind == I_Q:
                n = u64(8)
            elif kind == I_Z:
                n = select(entry.osize == 2, u64(2), u64(4))
            elif kind == I_JZ:
                n = select(entry.osize == 2, u64(2), u64(4))
            elif kind == I_V:
                n = entry.osize.zx(64)
            elif kind == I_O:
                n = asize
            else:
                n = select(entry.osize == 2, u64(4), u64(6))
            if at + n > avail:
                return at + n + 16
            if n == 1:
                value = load(p + at, "i8").sx(64)
                if kind == I_B:
                    value = value & 0xFF
            elif n == 2:
                value = load(p + at, "i16").sx(64)
                if kind == I_W or kind == I_O:
                    value = value & 0xFFFF
            elif n == 4 and kind != I_FAR:
                value = load(p + at, "i32").sx(64)
                if kind == I_O:
                    value = value & 0xFFFFFFFF
            elif n == 8:
                value = load(p + at, "i64")
            elif n == 4:
                value = load(p + at, "i16").zx(64)
                insn.disp = load(p + at + 2, "i16").zx(64)
            else:
                value = load(p + at, "i32").zx(64)
                insn.disp = load(p + at + 4, "i16").zx(64)
            at += n
            imm |= value << shift
            shift = u64(16)
        which += 1
    if at > 15:
        return u64(0)
    nxt = pc + at
    if not is64:
        nxt = select(mode == 0, nxt & 0xFFFFFFFF, nxt & 0xFFFFFFFF)
    insn.next = nxt
    insn.length = at
    if (flags & F_MOFFS) != 0:
        insn.ea = EA_RIP
        insn.disp = imm - nxt
        if seg == 255:
            insn.segment = u64(DS | 128)
        imm = u64(0)
    if (flags & (F_JUMP | F_CALL | F_BRANCH)) != 0:
        target = nxt + imm
        if not is64:
            target = select(entry.osize == 2, target & 0xFFFF, target & 0xFFFFFFFF)
        insn.target = target
    else:
        insn.target = imm                    # for MOV r64, imm64: the only wide immediate
    # operands
    k = u32(0)
    while k < 4:
        d = entry.ops[k]
        v = u64(0)
        if d == D_E:
            v = (rm | rex_b).zx(64) * 8
        elif d == D_G:
            v = (reg | rex_r).zx(64) * 8
        elif d == D_Z:
            v = ((opcode & 7) | rex_b).zx(64) * 8
        elif d == D_E8 or d == D_G8 or d == D_Z8:
            r = select(d == D_E8, rm | rex_b, select(d == D_G8, reg | rex_r, (opcode & 7) | rex_b))
            v = r.zx(64) * 8
            if rex == 0 and r >= 4:
                v = (r - 4).zx(64) * 8 + 1
        elif d == D_CL:
            v = u64(8)
        elif d == D_V:
            v = (reg | rex_r).zx(64) * 16 + CPU.offset("xmm")
        elif d == D_W:
            v = (rm | rex_b).zx(64) * 16 + CPU.offset("xmm")
        elif d == D_P:
            v = reg.zx(64) * 16 + CPU.offset("fpr")
        elif d == D_Q:
            v = rm.zx(64) * 16 + CPU.offset("fpr")
        elif d == D_SREG:
            imm = reg.zx(64)
        elif d == D_CREG:
            imm = (reg | rex_r).zx(64)
        insn.op[k] = v
        k += 1
    if entry.number.slt(0) ^ 1:
        imm = entry.number.zx(64)
    insn.imm = imm
    if (flags & F_XCHG90) != 0 and opcode == 0x90 and (rex & 1) == 0:
        insn.nop = 1
    if (flags & F_VALID) == 0:
        return u64(0)
    if lock and ((flags & F_LOCK) == 0 or is_reg):
        return u64(0)
    return at


@inline
def put_value(cpu: Any, name: str, value: Any) -> None:
    """Set the value of a hole for the next stencils."""
    store(cpu.symbols + H[name] * 8, value)


@fn("ptr", "i32", "i64", "i64", "i64", ret="i64")
def emit(base: Any, number: Any, code: Any, insn: Any, left: Any) -> Any:
    """Copy stencil `number` to `code` and fill its holes; the address behind it."""
    cpu = CPU.view(base)
    st = STENCIL.view(cpu.stencils + number.zx(64) * STENCIL.size)
    source = cpu.stencil_code + st.code.zx(64)
    size = st.size.zx(64)
    i = u64(0)
    while i < size:
        store(code + i, load(source + i, "i64"))
        i += 8
    after = code + size
    symbols = cpu.symbols
    store(symbols + H["CONT"] * 8, after)
    store(symbols + H["SELF"] * 8, code)
    r = cpu.relocs + st.reloc.zx(64) * RELOC_BYTES
    end = r + st.relocs.zx(64) * RELOC_BYTES
    while r < end:
        at = code + load(r, "i32").zx(64)
        kind = load(r + 4, "i32")
        value = load(r + 8, "i32")
        addend = load(r + 12, "i32").sx(64)
        if kind == 0:
            is_miss = (value >= MISS_INDEX) & (value < MISS_INDEX + 32)
            if is_miss | (value == H["FAULT"]) | (value == H["TAKEN"]):
                # walk_page is free while translating: it counts the stubs to come
                n = cpu.walk_page
                stub = STUB.view(cpu.stubs + n * STUB.size)
                stub.patch = at
                stub.insn = insn
                stub.self = code
                stub.left = left
                stub.kind = select(is_miss, (value - MISS_INDEX).zx(64) << 8, select(
                    value == H["FAULT"], u64(STUB_FAULT), u64(STUB_CHAIN)))
                stub.target = load(insn + INSN.offset("target"), "i64")
                cpu.walk_page = n + 1
            else:
                store(at, (load(symbols + value.zx(64) * 8, "i64") + addend - at).tr(32))
        elif kind == 1:
            store(at, (load(symbols + value.zx(64) * 8, "i64") + addend).tr(32))
        elif kind == 3:
            store(at, (load(symbols + value.zx(64) * 8, "i64") + addend).tr(8))
        elif kind == 4:
            store(at, (load(symbols + value.zx(64) * 8, "i64") + addend).tr(16))
        else:
            store(at, load(symbols + value.zx(64) * 8, "i64") + addend)
        r += RELOC_BYTES
    return after


@inline
def special(cpu: Any, index: Any) -> Any:
    """Stencil number of a special stencil."""
    return load(cpu.eatab + index * 4, "i32")


@inline
def add_chain(cpu: Any, code: Any, insn: Any, target: Any) -> Any:
    """Emit a jump that will be chained to the block at `target`; the address behind it."""
    store(code, u8(0xE9))
    n = cpu.walk_page
    stub = STUB.view(cpu.stubs + n * STUB.size)
    stub.patch = code + 1
    stub.insn = insn
    stub.kind = STUB_CHAIN
    stub.target = target
    cpu.walk_page = n + 1
    return code + 5


@fn("ptr", "i64", "i64", "i64", "i64", "i32", "i32", ret="i64")
def translate(base: Any, pc: Any, linear: Any, host: Any, block_at: Any, slow: Any, limit: Any) -> Any:
    """Translate the block at `pc`; its code address, or 0 with an exception or EXIT_CODE_FULL noted.

    `host` is where its first byte is, `block_at` the record to fill (0: a temporary block in the
    scratch buffer, that nothing else will find), `limit` the greatest number of instructions.
    """
    cpu = CPU.view(base)
    code = cpu.code_next
    if block_at == 0:
        code = cpu.scratch_code
    elif code + 256 * 1024 > cpu.code_end:
        cpu.exit_reason = EXIT_CODE_FULL
        return u64(0)
    mode = cpu.mode
    is64 = (mode & 3) == 2
    legacy = (is64 ^ 1)
    checked = legacy & ((mode & MODE_FLAT) == 0)
    plain_stack = is64 | ((mode & (MODE_FLAT | MODE_SS32)) == (MODE_FLAT | MODE_SS32))
    insns = cpu.insns
    room = 0x1000 - (host & PAGE)       # bytes on this page
    used = u64(0)
    n = u64(0)
    crossing = u64(0)
    undefined = u1(0)
    ended = u1(0)
    second = u64(0)
    at_pc = pc
    more = u1(1)
    # 1. decode
    while more:
        rec = insns + n * INSN.size
        length = decode(base, host + used, room - used, at_pc, rec)
        if length >= 16:
            # it does not end on this page
            if n != 0:
                more = u1(0)
                length = u64(0)
                at_pc = at_pc
            else:
                user = cpu.cpl == 3
                other = (linear & ~PAGE) + 0x1000
                if legacy:
                    other = other & 0xFFFFFFFF
                second = mmu.probe(base, other, mmu.FETCH, select(user, u32(MMU_USER), u32(MMU_KERNEL)))
                if second == 0:
                    if cpu.exit_reason == EXIT_MMIO:
                        mmu.raise_plain(base, UD)
                    return u64(0)
                buffer = address_of(cpu.bounce.at(0))
                i = u64(0)
                while i < 16:
                    store(buffer + i, load(select(i < room, host + i, second + i - room), "i8"))
                    i += 1
                length = decode(base, buffer, u64(15), at_pc, rec)
                if length >= 16:
                    length = u64(0)
                crossing = u64(1)
                if length == 0:
                    undefined = u1(1)
                n = u64(1)
                used = room
                more = u1(0)
                at_pc = at_pc + length
        elif length == 0:
            undefined = (n == 0)
            more = u1(0)
            if n == 0:
                n = u64(1)
        else:
            n += 1
            used += length
            at_pc += length
            flags = load(load(rec + INSN.offset("entry"), "i64") + ENTRY.offset("flags"), "i32")
            if (flags & (F_ENDS | F_STORES)) != 0:
                more = u1(0)
                ended = (flags & F_ENDS) != 0
            if n >= limit.zx(64) or used >= room:
                more = u1(0)
    if undefined:
        # keep the bytes for people, then #UD
        i = u64(0)
        while i < 15:
            cpu.last_bytes[i] = load(select(i < room, host + i, select(second == 0, host, second + i - room)), "i8")
            i += 1
        mmu.raise_plain(base, UD)
        return u64(0)
    # 2. which flags are looked at, backwards
    live = u64(1)
    k = n
    while k > 0:
        k -= 1
        rec = insns + k * INSN.size
        entry = ENTRY.view(load(rec + INSN.offset("entry"), "i64"))
        flags = entry.flags
        store(rec + INSN.offset("live"), live)
        if (flags & F_WRITES) != 0:
            live = u64(0)
        if (flags & (F_READS | F_FAULTS | F_PARTIAL)) != 0:
            live = u64(1)
    # 3. emit
    cpu.walk_page = 0
    start = code
    symbols = cpu.symbols
    put_value(cpu, "N", n)
    put_value(cpu, "PC", pc)
    out_patch = u64(0)
    code = emit(base, special(cpu, X_PROLOGUE), code, insns, n)
    known = u64(0)                      # cc_op that the last instruction left, 0 unknown
    checked_sse = u1(0)
    checked_mmx = u1(0)
    fused = u1(0)
    k = u64(0)
    while k < n:
        rec = insns + k * INSN.size
        insn = INSN.view(rec)
        entry = ENTRY.view(insn.entry)
        flags = entry.flags
        left = n - k
        put_value(cpu, "PC", insn.pc)
        put_value(cpu, "NEXT", insn.next)
        put_value(cpu, "LEFT", left)
        put_value(cpu, "OP0", insn.op[0])
        put_value(cpu, "OP1", insn.op[1])
        put_value(cpu, "OP2", insn.op[2])
        put_value(cpu, "OP3", insn.op[3])
        put_value(cpu, "IMM", insn.imm)
        put_value(cpu, "LENGTH", insn.asize)
        put_value(cpu, "RM", insn.rm)
        segment = insn.segment & 7
        put_value(cpu, "SEGNO", segment)
        put_value(cpu, "SEG", segment * 8 + CPU.offset("seg_base"))
        put_value(cpu, "DISP", insn.disp)
        put_value(cpu, "BASE", insn.base)
        put_value(cpu, "INDEX", insn.index)
        put_value(cpu, "TARGET", insn.target)
        if (flags & F_SSE) != 0 and not checked_sse:
            code = emit(base, special(cpu, X_SSE), code, rec, left)
            checked_sse = u1(1)
        if (flags & F_MMX) != 0 and not checked_mmx:
            code = emit(base, special(cpu, X_MMX), code, rec, left)
            checked_mmx = u1(1)
        # the condition first: the address stencils pass it on
        if (flags & F_COND) != 0:
            code = emit(base, special(cpu, X_COND + known * 16 + insn.cond), code, rec, left)
        ea = insn.ea
        if ea != u64(EA_NONE):
            if ea == EA_RIP:
                address = insn.next + insn.disp
                if legacy:
                    address = address & 0xFFFFFFFF
                elif insn.asize == 4 and (flags & F_MOFFS) == 0:
                    address = address & 0xFFFFFFFF
                put_value(cpu, "TARGET", address)
                code = emit(base, special(cpu, u64(X_ABS)), code, rec, left)
                put_value(cpu, "TARGET", insn.target)
            else:
                code = emit(base, special(cpu, ea), code, rec, left)
            if (flags & F_LEA) == 0:
                if is64:
                    if segment >= FS:
                        code = emit(base, special(cpu, u64(X_SEG64)), code, rec, left)
                elif checked | (segment >= FS):
                    put_value(cpu, "ACC", entry.access.zx(64))
                    code = emit(base, special(cpu, u64(X_SEGLEGACY)), code, rec, left)
        number = entry.hot
        if slow != 0 and entry.slow.slt(0) ^ 1:
            number = entry.slow
        elif insn.live == 0 and entry.nf.slt(0) ^ 1:
            number = entry.nf
        # compare and branch in one
        if slow == 0 and entry.fuse.slt(0) ^ 1 and k + 2 == n:
            follow = INSN.view(rec + INSN.size)
            fflags = load(follow.entry + ENTRY.offset("flags"), "i32")
            if (fflags & F_BRANCH) != 0 and (fflags & F_COND) != 0:
                fuse = special(cpu, X_FUSED + entry.fuse.zx(64) * 16 + follow.cond)
                if fuse.slt(0) ^ 1:
                    number = fuse
                    insn.target = follow.target
                    insn.next = follow.next
                    insn.spare[0] = follow.entry
                    fused = u1(1)
        if insn.nop != 0:
            known = known
        else:
            code = emit(base, number, code, rec, left)
        if (flags & (F_WRITES | F_PARTIAL)) != 0:
            known = select(entry.cc.slt(0) | ((flags & F_PARTIAL) != 0), u64(0), entry.cc.zx(64))
            if insn.live == 0:
                known = u64(0)
        k += 1
        if fused:
            k = n
    # 4. the way on
    last_rec = insns + (n - 1) * INSN.size
    if fused:
        last_rec = insns + (n - 2) * INSN.size
    last = INSN.view(last_rec)
    lflags = load(last.entry + ENTRY.offset("flags"), "i32")
    if fused:
        lflags = u32(F_BRANCH | F_ENDS)
    page = pc & ~PAGE
    if ended & ((lflags & (F_JUMP | F_CALL | F_BRANCH)) == 0):
        page = page
    else:
        target = last.next
        if (lflags & (F_JUMP | F_CALL)) != 0:
            target = last.target
        code = add_chain(cpu, code, last_rec, target)
    # 5. the stubs
    i = u64(0)
    while i < cpu.walk_page:
        stub = STUB.view(cpu.stubs + i * STUB.size)
        kind = stub.kind
        patch = stub.patch
        store(patch, (code - patch - 4).tr(32))
        if kind == STUB_CHAIN:
            target = stub.target
            put_value(cpu, "TARGET", target)
            if (((target ^ pc) & ~PAGE) == 0) & plain_stack & (block_at != 0):
                put_value(cpu, "SITE", patch)
                code = emit(base, special(cpu, u64(X_CHAIN)), code, last_rec, u64(0))
            else:
                code = emit(base, special(cpu, select(plain_stack, u64(X_GOTO0), u64(X_GOTO2))), code, last_rec, u64(0))
        else:
            rec = stub.insn
            put_value(cpu, "PC", load(rec, "i64"))
            put_value(cpu, "LEFT", stub.left)
            if kind == STUB_FAULT:
                code = emit(base, special(cpu, u64(X_FAULT)), code, rec, u64(0))
            else:
                miss = kind >> 8
                which = select((miss & 16) != 0, u64(X_MISSADDR), u64(X_MISS))
                put_value(cpu, "SITE", stub.self | (stub.left << 32) | ((miss & 15) << 48))
                code = emit(base, special(cpu, which), code, rec, u64(0))
        i += 1
    put_value(cpu, "PC", pc)
    put_value(cpu, "N", n)
    out = code
    code = emit(base, special(cpu, u64(X_OUT)), code, insns, u64(0))
    patch = load(symbols + H["OUT"] * 8, "i64")
    drop = code
    code = emit(base, special(cpu, u64(X_DROP)), code, insns, u64(0))
    # the prologue's jump to OUT: its place is fixed in that stencil
    st = STENCIL.view(cpu.stencils + special(cpu, u64(X_PROLOGUE)).zx(64) * STENCIL.size)
    r = cpu.relocs + st.reloc.zx(64) * RELOC_BYTES
    end = r + st.relocs.zx(64) * RELOC_BYTES
    while r < end:
        if load(r + 8, "i32") == H["OUT"]:
            at = start + load(r, "i32").zx(64)
            store(at, (out - at - 4).tr(32))
        r += RELOC_BYTES
    cpu.n_insns = cpu.n_insns + n
    if block_at == 0:
        return start
    cpu.code_next = (code + 15) & ~15
    cpu.n_blocks = cpu.n_blocks + 1
    # 6. the record
    index = (block_at - cpu.blocks) >> 6
    ram = cpu.ram
    first_page = (host - ram) >> 12
    position = host - ram
    store(block_at + 8, position)
    store(block_at + 16, pc)
    store(block_at + 24, (mode | select(slow != 0, u32(MODE_SLOW), u32(0))).zx(64))
    store(block_at + 32, start)
    store(block_at + 40, first_page.tr(32))
    store(block_at + 44, u32(-1))
    store(block_at + 56, drop)
    note_page(cpu, base, block_at, index, 0, first_page, host & PAGE, used - 1 + (host & PAGE))
    if crossing != 0:
        second_page = (second - ram) >> 12
        store(block_at + 44, second_page.tr(32))
        note_page(cpu, base, block_at, index, 1, second_page, u64(0), u64(15))
    slot = cpu.block_hash + hash_of(position, pc, load(block_at + 24, "i64")) * 4
    store(block_at, load(slot, "i32").zx(64))
    store(slot, index.tr(32))
    return start


@inline
def note_page(cpu: Any, base: Any, block_at: Any, index: Any, which: int, page: Any, first: Any, last: Any) -> None:
    """Link a block into a RAM page's list and mark the 64-byte chunks from byte `first` to `last`."""
    span = (u64(-1) << (first >> 6)) & (u64(-1) >> (63 - (last >> 6)))
    mask = load(cpu.page_code + page * 8, "i64")
    if mask == 0:
        mmu.forget_writable(base, cpu.ram + page * 4096)
    store(cpu.page_code + page * 8, mask | span)
    store(block_at + 48 + which * 4, load(cpu.page_head + page * 8, "i64").tr(32))
    store(cpu.page_head + page * 8, index * 2 + which)


@inline
def hash_of(position: Any, pc: Any, mode: Any) -> Any:
    """Slot of the block table."""
    h = position ^ (position >> 13) ^ (pc >> 12) ^ (mode << 9)
    return h & ((1 << HASH_BITS) - 1)


@fn("ptr", "i32", ret="i64")
def find_code(base: Any, slow: Any) -> Any:
    """Code for the instruction at RIP, translated now if need be; 0 with the reason noted."""
    cpu = CPU.view(base)
    pc = cpu.rip
    mode = cpu.mode
    is64 = (mode & 3) == 2
    linear = pc
    if not is64:
        if unlikely(pc > cpu.seg_limit[CS].zx(64)):
            mmu.raise_exception(base, GP, 0)
            return u64(0)
        linear = (pc + cpu.seg_base[CS]) & 0xFFFFFFFF
    which = select(cpu.cpl == 3, u32(MMU_USER), u32(MMU_KERNEL))
    host = mmu.probe(base, linear, mmu.FETCH, which)
    if unlikely(host == 0):
        if cpu.exit_reason == EXIT_MMIO:
            mmu.raise_plain(base, UD)
        return u64(0)
    position = host - cpu.ram
    key = (mode | select(slow != 0, u32(MODE_SLOW), u32(0))).zx(64)
    slot = cpu.block_hash + hash_of(position, pc, key) * 4
    n = load(slot, "i32").zx(64)
    code = u64(0)
    crossing = u1(0)
    while n != 0:
        block = cpu.blocks + (n << 6)
        n = load(block, "i64")
        if load(block + 8, "i64") == position and load(block + 16, "i64") == pc and load(block + 24, "i64") == key:
            second = load(block + 44, "i32")
            fits = u1(1)
            if second != u32(-1):
                other = (linear & ~PAGE) + 0x1000
                if not is64:
                    other = other & 0xFFFFFFFF
                there = mmu.probe(base, other, mmu.FETCH, which)
                if there == 0:
                    if cpu.exit_reason == EXIT_MMIO:
                        mmu.raise_plain(base, UD)
                    return u64(0)
                fits = ((there - cpu.ram) >> 12).tr(32) == second
                crossing = u1(1)
                mmu.note_executed(cpu, other)
            if fits:
                code = load(block + 32, "i64")
                n = u64(0)
    if code == 0:
        index = cpu.block_count
        if index >= cpu.block_max:
            cpu.exit_reason = EXIT_CODE_FULL
            return u64(0)
        block = cpu.blocks + (index << 6)
        code = translate(base, pc, linear, host, block, slow, select(slow != 0, u32(1), cpu.max_insns))
        if code == 0:
            return u64(0)
        cpu.block_count = index + 1
        crossing = load(block + 44, "i32") != u32(-1)
    mmu.note_executed(cpu, linear)
    if crossing:
        mmu.note_executed(cpu, linear + 0x1000)
    if slow == 0:
        site = cpu.chain_site
        if site != 0:
            if not crossing:
                store(site, (code - site - 4).tr(32))
                cpu.n_chains = cpu.n_chains + 1
        at = (((pc ^ (pc >> 12)) << 4) & ((1 << (JC_BITS + 4)) - 16)) | ((pc >> 63) << (JC_BITS + 4))
        store(address_of(cpu.jc.at(0)) + at, pc ^ cpu.jc_key)
        store(address_of(cpu.jc.at(0)) + at + 8, code)
    cpu.chain_site = 0
    return code


__all__ = ["EXIT_EXCEPTION", "MAX_INSNS", "MODE_CPL3", "Val"]

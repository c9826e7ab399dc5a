"""The instruction decoder: guest bytes to an instruction record, driven by the opcode table.

It is compiled (see lang.py); the table is made by tables.py.  Instruction format: SDM volume 2, 2.1
and 2.2.
"""

from __future__ import annotations

from typing import Any

from workbench.core.lang import Layout, fn, load, select, u1, u32, u64
from workbench.core.layout import CPU, DS, MODE_FLAT, MODE_SS32, SS

# What an entry of the opcode table says (16 i32 each).
ENTRY = Layout(
    "entry",
    [
        ("hot", "i32"),
        ("nf", "i32"),
        ("slow", "i32"),
        ("flags", "i32"),
        ("cc", "i32"),
        ("ops", "i32", 4),
        ("imm", "i32"),
        ("imm2", "i32"),
        ("access", "i32"),
        ("fuse", "i32"),
        ("osize", "i32"),
        ("number", "i32"),
        ("spare", "i32"),
    ],
)
(
    F_MEM,
    F_ENDS,
    F_READS,
    F_WRITES,
    F_PARTIAL,
    F_FAULTS,
    F_COND,
    F_LOCK,
    F_LEA,
    F_JUMP,
    F_CALL,
    F_BRANCH,
    F_SSE,
    F_MMX,
    F_STORES,
    F_XCHG90,
    F_MOFFS,
    F_VALID,
    F_TAKEN,
) = (1 << i for i in range(19))
(D_NONE, D_E, D_E8, D_G, D_G8, D_Z, D_Z8, D_ACC, D_CL, D_V, D_W, D_P, D_Q, D_SREG, D_CREG) = range(
    15
)
(I_NONE, I_B, I_S, I_W, I_Z, I_V, I_JB, I_JZ, I_O, I_FAR, I_D, I_Q) = range(12)

INSN = Layout(
    "insn",
    [
        ("pc", "i64"),
        ("next", "i64"),
        ("entry", "i64"),
        ("op", "i64", 4),
        ("imm", "i64"),
        ("ea", "i64"),
        ("disp", "i64"),
        ("base", "i64"),
        ("index", "i64"),
        ("segment", "i64"),
        ("asize", "i64"),
        ("rm", "i64"),
        ("target", "i64"),
        ("cond", "i64"),
        ("live", "i64"),
        ("lock", "i64"),
        ("osz", "i64"),
        ("nop", "i64"),
        ("length", "i64"),
        ("spare", "i64", 2),
    ],
)
EA_NONE, EA_RIP, EA_FORM0 = -1, 64, 0


TOO_LONG = 255


@fn("ptr", "i64", "i64", "i64", "i64", ret="i64")
def decode(base: Any, p: Any, avail: Any, pc: Any, rec: Any) -> Any:
    """Decode the instruction at host address `p`, of which `avail` bytes are there, into record
    `rec`.

    Its length; 0 when it is undefined; TOO_LONG when it has more than 15 bytes; else 16 or more
    when it needs more than `avail` bytes (up to 15).
    """
    cpu = CPU.view(base)
    insn = INSN.view(rec)
    mode = cpu.mode & 3
    is64 = mode == 2
    at = u64(0)
    osz16 = mode == 0  # default operand size
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
            return u64(TOO_LONG)
        opcode = load(p + at, "i8").zx(32)
        at += 1
        if is64 and (opcode & 0xF0) == 0x40:
            rex = opcode
            if at >= avail:
                return at + 16
            opcode = load(p + at, "i8").zx(32)
            known = (
                (opcode == 0x66)
                | (opcode == 0x67)
                | (opcode == 0xF0)
                | (opcode == 0xF2)
                | (opcode == 0xF3)
                | (opcode == 0x2E)
                | (opcode == 0x36)
                | (opcode == 0x3E)
                | (opcode == 0x26)
                | (opcode == 0x64)
                | (opcode == 0x65)
                | ((opcode & 0xF0) == 0x40)
            )
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
    cls = select(
        is64,
        u32(0),
        select((cpu.mode & (MODE_FLAT | MODE_SS32)) == (MODE_FLAT | MODE_SS32), u32(1), u32(2)),
    )
    row = opcode
    if is_reg and has:
        if table == 0 and (opcode & 0xF8) == 0xD8:
            fpu = (opcode & 7) * 64 + (modrm & 63)
            table = 4 + (fpu >> 8)
            row = fpu & 255
            reg = u32(0)
        elif table == 1 and (opcode == 0x01 or opcode == 0xAE):
            if (opcode == 0x01 and reg == 4) or (opcode == 0x01 and reg == 6):
                row = opcode
            else:
                table = select(opcode == 0x01, u32(6), u32(7))
                row = modrm & 63
                reg = u32(0)
    index = (
        (cls << 19)
        | (table << 16)
        | (row << 8)
        | (reg << 5)
        | (is_reg.zx(32) << 4)
        | (prefix << 2)
        | osz
    )
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
    rex_r = (rex & 4) << 1
    rex_b = (rex & 1) << 3
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
            elif kind == I_Z or kind == I_JZ:
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
        return u64(TOO_LONG)
    nxt = pc + at
    if not is64:
        nxt = nxt & 0xFFFFFFFF
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
        insn.target = imm  # for MOV r64, imm64: the only wide immediate
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

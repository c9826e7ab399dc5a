"""The decoder's tables out of the rows (see optable.py for the index, translate.py for an
entry).
"""

from __future__ import annotations

import array
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.core import decode as dec
from workbench.core import translate as t
from workbench.core.flags import cc_code
from workbench.core.layout import CC_LOGIC
from workbench.core.linker import Linked
from workbench.core.opcodes import Row
from workbench.core.optable import Variant, parse_encoding, stencil_keys, variants
from workbench.core.stencil import OPS, StencilKey

SLOTS = 1 << 21
DESCRIPTORS = {
    "E": dec.D_E,
    "G": dec.D_G,
    "Z": dec.D_Z,
    "A": dec.D_ACC,
    "R": dec.D_E,
    "L": dec.D_CL,
    "V": dec.D_V,
    "W": dec.D_W,
    "U": dec.D_W,
    "P": dec.D_P,
    "Q": dec.D_Q,
    "N": dec.D_Q,
    "S": dec.D_SREG,
    "C": dec.D_CREG,
    "D": dec.D_CREG,
}
BYTE_DESCRIPTORS = {dec.D_E: dec.D_E8, dec.D_G: dec.D_G8, dec.D_Z: dec.D_Z8}
IMMEDIATES = {
    "Ib": dec.I_B,
    "Is": dec.I_S,
    "Iw": dec.I_W,
    "Iz": dec.I_Z,
    "Iv": dec.I_V,
    "Id": dec.I_D,
    "Iq": dec.I_Q,
    "Jb": dec.I_JB,
    "Jz": dec.I_JZ,
    "Ap": dec.I_FAR,
}
FUSED = {
    "cmp": "jcc_cmp",
    "test": "jcc_test",
    "sub": "jcc_sub",
    "add": "jcc_add",
    "and": "jcc_and",
    "dec": "jcc_dec",
    "inc": "jcc_inc",
    "and_": "jcc_and",
}

# They store at an address that they make out of the one in `addr`.
STORES_BESIDE = ("bts", "btr", "btc", "pop")


@dataclass
class Tables:
    """Byte strings as translate.py reads them."""

    entries: bytes
    optable: bytes
    eatab: bytes


def entry_bytes(
    v: Variant, linked: Linked, fuse: dict[tuple[str, str, int], int], sse: set[str], mmx: set[str]
) -> bytes:
    """One entry of the opcode table."""
    op = OPS[v.row.op]
    keys = {k.variant: k.symbol for k in stencil_keys(v)}
    hot = linked.numbers[keys[""]]
    nf = linked.numbers[keys["nf"]] if "nf" in keys else -1
    slow = linked.numbers[keys["slow"]] if "slow" in keys else -1
    flags = dec.F_VALID
    operands = [o for o in v.row.operands.split(",") if o]
    jump = any(o[0] == "J" for o in operands)
    if "m" in v.form:
        flags |= dec.F_MEM
    if op.ends or jump:
        flags |= dec.F_ENDS
    if "r" in op.flags:
        flags |= dec.F_READS
    if "w" in op.flags:
        flags |= dec.F_WRITES
    if "p" in op.flags:
        flags |= dec.F_PARTIAL | dec.F_READS
    if linked.faults[keys[""]] or op.ends or op.mem or "m" in v.form or jump:
        flags |= dec.F_FAULTS
    if op.cond:
        flags |= dec.F_COND | dec.F_READS
    if op.lock and "m" in v.form:
        flags |= dec.F_LOCK
    if v.row.op in ("lea", "nop"):
        flags = (flags | dec.F_LEA) & ~dec.F_FAULTS
    if jump:
        if v.row.op == "jmp":
            flags |= dec.F_JUMP
        elif v.row.op == "call":
            flags |= dec.F_CALL
        else:
            flags |= dec.F_BRANCH
    if v.row.op in sse:
        flags |= dec.F_SSE | dec.F_FAULTS
    if v.row.op in mmx:
        flags |= dec.F_MMX | dec.F_FAULTS
    if op.writes_mem or op.writes_beside:
        flags |= dec.F_STORES
    if parse_encoding(v.row.encoding).map == 0 and v.row.encoding.startswith("90"):
        flags |= dec.F_XCHG90
    if any(o[0] == "O" for o in operands):
        flags |= dec.F_MOFFS
    descriptors = [0, 0, 0, 0]
    immediates = [dec.I_NONE, dec.I_NONE]
    number = -1
    count = 0
    for i, o in enumerate(operands):
        if o[0].isdigit():
            number = int(o, 0)
        elif o == "CL":
            descriptors[i] = dec.D_CL
        elif o[0] in "IJ" or o == "Ap":
            immediates[count] = IMMEDIATES[o]
            count += 1
        elif o[0] == "O":
            immediates[count] = dec.I_O
            count += 1
        elif o[0] == "M" or (o[0] in "EWQ" and "m" in v.form and v.form[i] == "m"):
            pass
        else:
            d = DESCRIPTORS[o[0]]
            if o[1:] == "b" and d in BYTE_DESCRIPTORS:
                d = BYTE_DESCRIPTORS[d]
            descriptors[i] = d
    cc = -1
    if op.cc is not None:
        cc = cc_code(op.cc, min(v.size, 8))
    access = min(v.size, 255)
    memory = [i for i, o in enumerate(operands) if v.form[i] == "m"]
    if memory and len(operands[memory[0]]) > 1:
        letter = operands[memory[0]][1:]
        access = {"b": 1, "w": 2, "d": 4, "q": 8, "x": 16, "t": 10, "p": v.osz + 2}.get(
            letter, v.osz if letter in ("v", "z", "y") else v.size
        )
    if memory and (
        linked.stores[keys[""]] or (op.slow_only and op.writes_mem) or v.row.op in STORES_BESIDE
    ):
        access |= 0x100
    fused = fuse.get((v.row.op, v.form, v.size), -1)
    return struct.pack(
        "<16i", hot, nf, slow, flags, cc, *descriptors, *immediates, access, fused, v.osz, number, 0
    )


def build_tables(rows: Sequence[Row], keys: list[StencilKey], linked: Linked) -> Tables:
    """All tables."""
    from workbench.core.sse_helpers import NEEDS_MMX, NEEDS_SSE

    present = {k.symbol for k in keys}
    fuse_ids: dict[tuple[str, str, int], int] = {}
    fuse_rows: list[list[int]] = []
    for op_name, fused_name in FUSED.items():
        if op_name not in OPS or fused_name not in OPS:
            continue
        for form in ("rr", "ri", "mr", "mi", "rm", "r", "m"):
            for size in (1, 2, 4, 8):
                symbols = [StencilKey(fused_name, form, size, "", cc).symbol for cc in range(16)]
                if symbols[0] in present:
                    fuse_ids[(op_name, form, size)] = len(fuse_rows)
                    fuse_rows.append([linked.numbers.get(s, -1) for s in symbols])
    eatab = [-1] * (t.X_FUSED + 16 * len(fuse_rows))
    for index, symbol in linked.specials.items():
        eatab[index] = linked.numbers[symbol]
    eatab[t.X_SSE] = linked.numbers[StencilKey("sse_check", "", 8).symbol]
    eatab[t.X_MMX] = linked.numbers[StencilKey("mmx_check", "", 8).symbol]
    kinds = {
        1: "cond_add",
        2: "cond_sub",
        CC_LOGIC: "cond_logic",
        4: "cond_expl",
        5: "cond_inc",
        6: "cond_dec",
    }
    for code in range(28):
        for cc in range(16):
            key = StencilKey("cond_any", "", 8, "", cc).symbol
            if code >= 4:
                special = StencilKey(kinds[code >> 2], "", 1 << (code & 3), "", cc).symbol
                key = special if special in linked.numbers else key
            eatab[t.X_COND + code * 16 + cc] = linked.numbers[key]
    for n, line in enumerate(fuse_rows):
        for cc, number in enumerate(line):
            eatab[t.X_FUSED + n * 16 + cc] = number

    entries = [bytes(64)]
    known = {entries[0]: 0}
    has_modrm = bytearray(1024)
    table = array.array("H", bytes(2 * SLOTS))
    weak: list[tuple[int, int]] = []
    taken: dict[int, int] = {}
    for r in rows:
        enc = parse_encoding(r.encoding)
        operands = [o for o in r.operands.split(",") if o]
        uses_modrm = (
            any(o[0] in "EGMRVWUPQNS" or (o[0] in "CD" and o != "CL") for o in operands)
            or enc.reg is not None
            or enc.mod != ""
            or enc.map >= 4
        )
        if uses_modrm and enc.map < 4:
            for n in range(enc.span):
                has_modrm[enc.map * 256 + enc.opcode + n] = 1
        if enc.map in (4, 5):
            for n in range(8):
                has_modrm[0xD8 + n] = 1
        if enc.map in (6, 7):
            has_modrm[256 + (0x01 if enc.map == 6 else 0xAE)] = 1
        scalable = any(o[1:] in ("v", "z", "y") for o in operands)
        for v in variants(r):
            data = entry_bytes(v, linked, fuse_ids, NEEDS_SSE, NEEDS_MMX)
            number = known.setdefault(data, len(entries))
            if number == len(entries):
                entries.append(data)
            regs = [enc.reg] if enc.reg is not None else ([0] if enc.map >= 4 else range(8))
            if not uses_modrm:
                regs = [0]
            prefixes = [enc.prefix] if enc.prefix is not None else [0, 1, 2, 3]
            for n in range(enc.span):
                base = (v.mode << 19) | (enc.map << 16) | ((enc.opcode + n) << 8)
                for reg in regs:
                    for prefix in prefixes:
                        mod3 = 0 if v.is_mem else 1
                        if not uses_modrm:
                            reg = 0
                        index = base | ((reg or 0) << 5) | (mod3 << 4) | (prefix << 2) | v.slot
                        strong = 1 if enc.prefix is not None else 0
                        if taken.get(index, -1) <= strong:
                            taken[index] = strong
                            table[index] = number
                    if enc.prefix == 0 and (enc.map == 0 or scalable):
                        weak.append(
                            (
                                base
                                | ((reg or 0) << 5)
                                | ((0 if v.is_mem else 1) << 4)
                                | (1 << 2)
                                | v.slot,
                                number,
                            )
                        )
    for index, number in weak:
        if index not in taken:
            table[index] = number
    return Tables(
        b"".join(entries),
        bytes(has_modrm) + table.tobytes(),
        struct.pack(f"<{len(eatab)}i", *eatab),
    )

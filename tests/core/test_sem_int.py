"""Every row of the integer instructions, with random operands, against Unicorn in three modes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

pytest.importorskip("unicorn")

from tests.core.oracle import CODE, DATA, Pair
from workbench.core.build import import_semantics
from workbench.core.layout import AF, ARITH, CF, DF, OF, PF, SF, ZF
from workbench.core.opcodes import ROWS, Row
from workbench.core.optable import parse_encoding
from workbench.core.stencil import OPS

import_semantics()

MODULES = {
    f"workbench.core.sem_{n}"
    for n in ("int", "move", "muldiv", "shift", "bits", "string", "flow", "stack")
}
# Unicorn does not know that F6 /1 is F6 /0.
MY_ROWS = [
    r for r in ROWS if OPS[r.op].sem.__module__ in MODULES and r.encoding not in ("F6 /1", "F7 /1")
]
PREFIX_BYTES = {0: b"", 1: b"\x66", 2: b"\xf3", 3: b"\xf2"}
STRINGS = {"movs", "cmps", "scas", "lods", "stos"}
BRANCHES = {"jmp_ind", "call_ind", "ret", "ret_imm"}
SLOT = DATA + 0x2000  # where the address of code is kept, for indirect branches
TARGET = CODE + 0x40
EDGES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0x7FFFFFFFFFFFFFFF,
    0x8000000000000000,
    0xFFFFFFFFFFFFFFFF,
    0x99,
    0x9A,
)
# Flags that the SDM leaves undefined, whatever the operands.
UNDEFINED = {
    "and": AF,
    "or": AF,
    "xor": AF,
    "test": AF,
    "mul": SF | ZF | AF | PF,
    "imul1": SF | ZF | AF | PF,
    "imul2": SF | ZF | AF | PF,
    "imul3": SF | ZF | AF | PF,
    "div": ARITH,
    "idiv": ARITH,
    "bsf": ARITH & ~ZF,
    "bsr": ARITH & ~ZF,
    "bt": OF | SF | AF | PF,
    "bts": OF | SF | AF | PF,
    "btr": OF | SF | AF | PF,
    "btc": OF | SF | AF | PF,
    "aam": OF | AF | CF,
    "aad": OF | AF | CF,
    "daa": OF,
    "das": OF,
    "aaa": OF | SF | ZF | PF,
    "aas": OF | SF | ZF | PF,
}


@dataclass
class Case:
    """One instruction to try."""

    code: bytes
    osz: int
    imm: int
    base: int | None


def value(rng: random.Random, bits: int) -> int:
    """A random number, often an edge or a small one."""
    kind = rng.randrange(4)
    if kind == 0:
        v = rng.choice(EDGES)
    elif kind == 1:
        v = rng.getrandbits(rng.randrange(1, bits + 1))
    else:
        v = rng.getrandbits(bits)
    return v & ((1 << bits) - 1)


def immediate(rng: random.Random, letter: str, osz: int, is64: bool) -> bytes:
    """An immediate of a size letter."""
    n = {"b": 1, "s": 1, "w": 2, "z": min(osz, 4), "v": osz, "d": 4}[letter]
    return value(rng, n * 8).to_bytes(n, "little")


def encode(rng: random.Random, r: Row, mode: int, osz: int, memory: bool) -> Case | None:
    """A random instance of a row; None if there is none of that kind."""
    enc = parse_encoding(r.encoding)
    operands = [o for o in r.operands.split(",") if o]
    is64 = mode == 64
    if (is64 and r.not64) or (not is64 and (r.only64 or osz == 8)):
        return None
    if mode == 16 and r.op in ("popcnt", "movbe", "crc32"):
        return None  # Unicorn goes by the operand size of 32-bit code
    needs = any(o[0] in "EGMR" for o in operands) or enc.reg is not None or enc.mod
    can_memory = any(o[0] in "EM" for o in operands) and enc.mod != "mod3"
    if memory and not can_memory:
        return None
    if not memory and (enc.mod == "mem" or any(o[0] == "M" for o in operands)):
        return None
    prefix = b""
    small = osz == 2
    if r.f64 and is64 and small:
        return None  # processors of different makers do not agree
    if small != (mode == 16) and osz != 8:
        prefix = b"\x66"
    if (enc.prefix == 1 and prefix != b"\x66") or (enc.prefix == 0 and prefix == b"\x66"):
        return None
    if enc.prefix in (2, 3):
        prefix += PREFIX_BYTES[enc.prefix]
    o = OPS[r.op]
    if memory and o.lock and r.op != "neg" and operands[0][0] in "EM" and rng.random() < 0.2:
        prefix += b"\xf0"
    if (memory or r.op in STRINGS) and rng.random() < 0.2:
        prefix += rng.choice((b"\x2e", b"\x36", b"\x26", b"\x64", b"\x65", b"\x3e"))
    if (memory and is64 and r.op != "lea") or r.op in (*STRINGS, "jcxz", "loop"):
        prefix += rng.choice((b"", b"", b"", b"\x67"))
    rex = (
        0x40 | (8 if osz == 8 else 0) | rng.getrandbits(3)
        if is64 and (osz == 8 or rng.random() < 0.5)
        else 0
    )
    if memory:
        rex &= ~3
    if enc.reg is not None:
        rex &= ~4
    if r.op in ("lahf", "sahf"):
        rex = 0  # with REX, Unicorn takes SPL for AH
    n = rng.randrange(enc.span)
    if r.encoding[0] == "4" and is64:
        return None
    escape = {0: b"", 1: b"\x0f", 2: b"\x0f\x38", 3: b"\x0f\x3a"}.get(enc.map)
    opcode = enc.opcode + n
    tail = b""
    if enc.map == 7:
        escape, opcode, needs = b"\x0f", 0xAE, False
        tail = bytes([0xC0 | enc.opcode + rng.randrange(8)])
    assert escape is not None
    base: int | None = None
    if needs:
        reg = enc.reg if enc.reg is not None else rng.randrange(8)
        if memory and mode == 16:
            tail = bytes([0x40 | reg << 3 | 7, rng.getrandbits(8)])
            base = 3
        elif memory:
            base = rng.choice((3, 5, 6, 7))
            tail = bytes([0x40 | reg << 3 | base, rng.getrandbits(8)])
        else:
            tail = bytes([0xC0 | reg << 3 | rng.randrange(8)])
    imm = 0
    for x in operands:
        if x[0] == "I":
            data = immediate(rng, x[1], osz, is64)
            if r.op in ("enter", "ret_imm"):
                data = bytes([data[0] & (0x7F if len(data) == 2 else 3)]) + bytes(len(data) - 1)
            imm = data[0]
            tail += data
        elif x[0] == "J":
            size = 1 if x[1] == "b" else min(osz, 4)
            tail += rng.randrange(0x60).to_bytes(size, "little")
        elif x[0] == "O":
            tail += (DATA + 0x800 + rng.randrange(64)).to_bytes(mode // 8, "little")
    return Case(
        prefix + (bytes([rex]) if rex else b"") + escape + bytes([opcode]) + tail, osz, imm, base
    )


def registers(
    rng: random.Random, r: Row, mode: int, case: Case, names: list[str]
) -> dict[str, int]:
    """Values for all registers, with those that are addresses in the data."""
    bits = 64 if mode == 64 else 32
    regs = {n: value(rng, bits) for n in names}
    regs["rsp"] = (
        SLOT if r.op in BRANCHES else DATA + 0x1800 + rng.randrange(0x100) * rng.choice((1, 8))
    )
    if r.op in ("leave", "enter"):
        regs["rbp"] = DATA + 0x1900
    if r.op in ("bt", "bts", "btr", "btc"):
        for n in names:
            if n != "rsp":
                regs[n] = rng.randrange(-2000, 2000) & ((1 << bits) - 1)
    if r.op in ("div", "idiv") and rng.random() < 0.7:
        regs["rdx"] = rng.choice((0, 0, 1, 3, (1 << bits) - 1))
    if r.op in STRINGS:
        for n in ("rsi", "rdi"):
            regs[n] = DATA + rng.choice((0x1F00, 0x2F80, 0x3100)) + rng.randrange(0x100)
        regs["rcx"] = rng.choice((0, 1, 2, 3, 7, 33, 60))
        if rng.random() < 0.3:
            regs["rdi"] = regs["rsi"] + rng.randrange(-20, 20)
    if r.op == "xlat":
        regs["rbx"] = DATA + 0x900
    if r.op in BRANCHES:
        for n in names:
            if n != "rsp":
                regs[n] = TARGET
    if r.op in ("loop", "loope", "loopne", "jcxz"):
        regs["rcx"] = rng.choice((0, 1, 2, 0x10000, 0xFFFFFFFF))
    if case.base is not None:
        disp = case.code[tail_at(case.code, r, case.osz)]
        target = (
            SLOT
            if r.op in BRANCHES
            else DATA + rng.choice((0x1100, 0x2000 - 4, 0x1000, 0x1FC0)) + rng.randrange(8)
        )
        regs[names[case.base]] = (target - (disp - 256 if disp > 127 else disp)) & ((1 << bits) - 1)
    return regs


def tail_at(code: bytes, r: Row, osz: int) -> int:
    """Where the displacement byte is: behind the immediates, counted from the end."""
    n = 0
    for o in r.operands.split(","):
        if o and o[0] == "I":
            n += {"b": 1, "s": 1, "w": 2, "z": min(osz, 4), "v": osz}[o[1]]
    return len(code) - n - 1


def flag_mask(r: Row, case: Case, regs: dict[str, int]) -> int:
    """The flags to compare."""
    mask = ARITH & ~UNDEFINED.get(r.op, 0)
    name, _, by = r.op.partition("_")
    if name in ("shl", "shr", "sar", "rol", "ror", "rcl", "rcr", "shld", "shrd"):
        size = 8 if r.operands.startswith("Eb") else case.osz * 8
        count = {"imm": case.imm, "cl": regs["rcx"], "1": 1}[by] & (63 if size == 64 else 31)
        if count:
            if name in ("shl", "shr", "sar", "shld", "shrd"):
                mask &= ~AF
            if count != 1:
                mask &= ~OF
            if count >= size and name in ("shl", "shr"):
                mask &= ~CF
    return mask


def cases(rng: random.Random, mode: int, rounds: int) -> Iterator[tuple[Row, Case]]:
    """Instances of all rows."""
    for r in MY_ROWS:
        for osz in (2, 4, 8):
            for memory in (False, True):
                for _ in range(rounds):
                    case = encode(rng, r, mode, osz, memory)
                    if case is not None:
                        yield r, case


def skip(r: Row, case: Case, regs: dict[str, int]) -> bool:
    """What the SDM leaves undefined, or Unicorn does not know."""
    if r.op == "bswap" and case.osz == 2:
        return True
    if r.encoding in ("0F 18", "0F 0D") and case.base is None:
        return True
    if r.op == "cmpxchg" and case.osz == 4 and case.base is None:
        return True  # Unicorn clears the upper halves of both registers, processors of just one
    if r.op.startswith("sh") and r.op[3:] in ("d_imm", "d_cl") and case.osz == 2:
        return (case.imm if r.op.endswith("imm") else regs["rcx"]) & 31 > 16
    return False


PLAIN = (
    "add",
    "or",
    "adc",
    "sbb",
    "and",
    "sub",
    "xor",
    "cmp",
    "test",
    "inc",
    "dec",
    "neg",
    "mov",
    "lea",
    "xadd",
    "imul2",
    "shl_1",
    "shr_imm",
    "sar_cl",
    "rol_imm",
    "rcr_1",
    "shld_imm",
    "bt",
    "bts",
    "cmc",
    "clc",
    "setcc",
    "cmovcc",
    "cmpxchg",
    "lahf",
    "sahf",
)


def try_sequences(mode: int, rounds: int, seed: int) -> list[str]:
    """A few instructions and a branch, `rounds` times: what differs."""
    rng = random.Random(seed)
    pair = Pair(mode)
    kinds = [r for r in MY_ROWS if r.op in PLAIN and r.encoding[0] not in "4"]
    branches = [r for r in MY_ROWS if r.op in ("jcc", "loop", "jcxz", "jmp", "setcc")]
    sizes = (2, 4, 8) if mode == 64 else (2, 4)
    wrong: list[str] = []
    for _ in range(rounds):
        rows = [rng.choice(kinds) for _ in range(rng.randrange(1, 5))] + [rng.choice(branches)]
        code = b""
        count = 0
        for r in rows:
            case = encode(rng, r, mode, rng.choice(sizes), False)
            if case is None or b"\xf0" in case.code[:2]:
                continue
            # no undefined flags
            shift = r.op in ("shr_imm", "sar_cl", "rol_imm", "shld_imm")
            if r.op in UNDEFINED or shift:
                follow = encode(rng, next(k for k in kinds if k.op == "add"), mode, 4, False)
                assert follow is not None
                code += case.code + follow.code
                count += 2
            elif skip(r, case, {"rcx": 0}):
                continue
            else:
                code += case.code
                count += 1
        if not code:
            continue
        regs = {n: value(rng, 64 if mode == 64 else 32) for n in pair.names}
        regs["rsp"] = DATA + 0x1800
        flags = rng.getrandbits(12) & ARITH
        bad = pair.difference(code, regs, flags, ARITH, count)
        if bad:
            wrong.append(f"{code.hex()} {[r.op for r in rows]} {bad} flags={flags:x} {regs}")
    return wrong


def try_pairs(mode: int, rounds: int, seed: int) -> list[str]:
    """A compare with memory and each branch, SETcc and CMOVcc after it: what differs."""
    rng = random.Random(seed)
    pair = Pair(mode)
    rows = [r for r in MY_ROWS if r.op in ("cmp", "test", "sub", "add", "and", "inc", "dec")]
    wrong: list[str] = []
    for r in rows:
        for osz in (2, 4, 8):
            for cc in range(16 * rounds):
                case = encode(rng, r, mode, osz, True)
                if case is None or b"\xf0" in case.code[:2]:
                    continue
                after = rng.choice((b"\x70%c\x05", b"\x0f\x90%c", b"\x0f\x40%c"))
                follow = bytearray(after.replace(b"%c", b"\xc1" if after[0] == 0x0F else b""))
                follow[-2 if after[0] == 0x70 else 1] |= cc & 15
                regs = registers(rng, r, mode, case, pair.names)
                flags = rng.getrandbits(12) & ARITH
                mask = ARITH & ~UNDEFINED.get(r.op, 0)
                bad = pair.difference(case.code + bytes(follow), regs, flags, mask, 2)
                if bad:
                    wrong.append(f"{case.code.hex()} {follow.hex()} {bad}")
    return wrong


def try_rows(
    mode: int, rounds: int, seed: int, selectors: dict[str, int] | None = None
) -> list[str]:
    """Each row in all its forms, `rounds` times: what differs."""
    rng = random.Random(seed)
    pair = Pair(mode, selectors=selectors)
    at = SLOT - DATA
    pair.memory = pair.memory[:at] + TARGET.to_bytes(8, "little") + pair.memory[at + 8 :]
    wrong: dict[str, str] = {}
    tried = 0
    for r, case in cases(rng, mode, rounds):
        regs = registers(rng, r, mode, case, pair.names)
        if skip(r, case, regs) or (selectors and r.op in BRANCHES):
            continue
        flags = rng.getrandbits(12) & ARITH | (DF if r.op in STRINGS and rng.random() < 0.4 else 0)
        bad = pair.difference(
            case.code, regs, flags, flag_mask(r, case, regs), whole=r.op in STRINGS
        )
        tried += 1
        if bad and len(wrong) < 40:
            wrong.setdefault(
                f"{r.op} {r.operands} {case.osz}", f"{case.code.hex()} {bad} cl={regs['rcx']:x}"
            )
    assert tried > 300 * rounds
    return [f"{k}: {v}" for k, v in wrong.items()]


@pytest.mark.parametrize("mode", [64, 32, 16])
def test_rows(mode: int) -> None:
    """One instruction of every kind leaves the same state."""
    wrong = try_rows(mode, rounds=3, seed=5)
    assert not wrong, "\n".join(wrong)


def test_segment_bases() -> None:
    """Operands, string operands and the stack are each in their own segment."""
    selectors = {"ds": 0x10, "es": 0x21, "ss": 0x32, "fs": 0x43, "gs": 0x54}
    wrong = try_rows(16, rounds=2, seed=7, selectors=selectors)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("mode", [64, 32, 16])
def test_sequences(mode: int) -> None:
    """Dead flags are left out, conditions and compares are fused, and nothing of that shows."""
    wrong = try_sequences(mode, rounds=1500, seed=6)
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:12])


@pytest.mark.parametrize("mode", [64, 32, 16])
def test_conditions_after_memory_operands(mode: int) -> None:
    """Every condition after every kind of flags, with operands in memory."""
    wrong = try_pairs(mode, rounds=1, seed=8)
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:12])


def test_pop_to_memory_addressed_by_the_stack_pointer() -> None:
    """The address of POP m counts from after the pop (SDM volume 2, POP)."""
    pair = Pair(64)
    regs = dict.fromkeys(pair.names, 0) | {"rsp": DATA + 0x1800, "rcx": 16}
    for code in ("8f0424", "8f442408", "8f440c08", "ff742408", "668f0424"):
        assert pair.difference(bytes.fromhex(code), regs, 0, ARITH) == [], code

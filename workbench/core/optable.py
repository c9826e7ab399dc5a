"""From the rows of the opcode map to stencils and to the decoder's table.

The decoder finds an entry by one index made of what a prefix parser and the ModRM byte tell:

    mode class (2 bits) | map (3) | opcode (8) | ModRM.reg (3) | ModRM.mod == 3 (1)
        | prefix (2) | operand size (2)

mode class: 0 64-bit, 1 legacy with a flat 32-bit stack, 2 other legacy, 3 unused.
map: 0 one byte, 1 ``0F``, 2 ``0F 38``, 3 ``0F 3A``; 4 and 5 x87 with mod 3 (opcode = the low three
bits
of the opcode * 64 + the low six bits of ModRM); 6 ``0F 01`` and 7 ``0F AE`` with mod 3 (opcode =
the
low six bits of ModRM).
prefix: 0 none, 1 66, 2 F3, 3 F2.  operand size: 0 16, 1 32, 2 64.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from workbench.core.opcodes import Row
from workbench.core.stencil import OPS, StencilKey

SIZES = {"b": 1, "w": 2, "d": 4, "q": 8, "x": 16, "t": 10, "a": 64}
FORM = {
    "E": "r",
    "G": "r",
    "Z": "r",
    "A": "r",
    "R": "r",
    "L": "r",
    "M": "m",
    "O": "m",
    "I": "i",
    "J": "n",
    "V": "x",
    "W": "x",
    "U": "x",
    "P": "q",
    "Q": "q",
    "N": "q",
    "S": "n",
    "C": "n",
    "D": "n",
}
PREFIXES = {"NP": 0, "66": 1, "F3": 2, "F2": 3}


@dataclass(frozen=True)
class Encoding:
    """A row's encoding string, parsed."""

    prefix: int | None
    map: int
    opcode: int
    reg: int | None
    span: int  # 8 for +r, 16 for +cc, else 1
    mod: str  # "", "mod3", "mem"
    rm: int | None


def parse_encoding(text: str) -> Encoding:
    """Parse ``"66 0F 3A 17 /2 mem"``; a wrong string is a ValueError."""
    prefix, reg, rm, span, mod = None, None, None, 1, ""
    opcode_bytes: list[int] = []
    for i, word in enumerate(text.split()):
        if i == 0 and word in PREFIXES and (word == "NP" or len(text.split()) > 1):
            prefix = PREFIXES[word]
        elif word.startswith("/"):
            reg = int(word[1:])
        elif word == "+r":
            span = 8
        elif word == "+cc":
            span = 16
        elif word in ("mod3", "mem"):
            mod = word
        elif word.startswith("rm="):
            rm = int(word[3:])
        else:
            opcode_bytes.append(int(word, 16))
    table = 0
    if 0xD8 <= opcode_bytes[0] <= 0xDF and mod == "mod3" and len(opcode_bytes) == 1:
        base = (opcode_bytes[0] & 7) * 64 + (reg or 0) * 8 + (rm or 0)
        return Encoding(
            prefix, 4 + (base >> 8), base & 255, None, 1 if rm is not None else 8, mod, None
        )
    if (
        opcode_bytes[0] == 0x0F
        and len(opcode_bytes) == 2
        and opcode_bytes[1] in (0x01, 0xAE)
        and mod == "mod3"
    ):
        at = (reg or 0) * 8 + (rm or 0)
        span = 1 if rm is not None else 8
        return Encoding(
            prefix,
            6 if opcode_bytes[1] == 1 else 7,
            at,
            None,
            64 if reg is None else span,
            mod,
            None,
        )
    if opcode_bytes[0] == 0x0F and len(opcode_bytes) > 1:
        table = {0x38: 2, 0x3A: 3}.get(opcode_bytes[1], 1) if len(opcode_bytes) > 2 else 1
    return Encoding(prefix, table, opcode_bytes[-1], reg, span, mod, rm)


@dataclass(frozen=True)
class Variant:
    """A row for one mode class, operand size (2, 4, 8) and choice of register or memory."""

    row: Row
    mode: int
    osz: int
    is_mem: bool
    form: str
    size: int
    slot: int  # operand size index of the table: 0, 1, 2 for 16, 32, 64


def operand_size(letter: str, osz: int) -> int:
    """Bytes of an operand size letter."""
    if letter in ("v", "z", "s", "p"):
        return osz
    if letter == "y":
        return 8 if osz == 8 else 4
    return SIZES[letter]


def variants(row: Row) -> Iterable[Variant]:
    """All the ways in which a row appears."""
    enc = parse_encoding(row.encoding)
    operands = [o for o in row.operands.split(",") if o]
    can_reg = enc.mod != "mem" and not any(o[0] == "M" for o in operands)
    can_mem = enc.mod != "mod3" and any(o[0] in "EMWQ" for o in operands)
    if not any(o[0] in "EMWQRUN" for o in operands):  # no ModRM operand: mod does not matter
        can_reg, can_mem = enc.mod != "mem", enc.mod == "mem"
    for mode in (0, 1, 2):
        if (mode == 0 and row.not64) or (mode != 0 and row.only64):
            continue
        for osz in (2, 4, 8):
            if osz == 8 and mode != 0:
                continue
            real = osz
            if mode == 0 and (row.f64 or (row.d64 and osz == 4)):
                real = 8
            for is_mem in (False, True):
                if not (can_mem if is_mem else can_reg):
                    continue
                form = ""
                for o in operands:
                    if o[0].isdigit() or o == "Ap":
                        form += "n"
                    elif o == "CL":
                        form += "r"
                    elif is_mem and o[0] in "EMWQ":
                        form += "m"
                    else:
                        form += FORM[o[0]]
                size = row.size
                if not size:
                    sized = [
                        o
                        for o in operands
                        if not o[0].isdigit() and len(o) > 1 and o not in ("CL", "Ap")
                    ]
                    size = operand_size(sized[0][1], real) if sized else real
                yield Variant(row, mode, real, is_mem, form, size, {2: 0, 4: 1, 8: 2}[osz])


def stencil_keys(v: Variant) -> list[StencilKey]:
    """The stencils that a variant needs: with flags, without, slow."""
    o = OPS[v.row.op]
    stack = v.mode if o.stack else 0
    touches = "m" in v.form or o.mem
    keys = [StencilKey(v.row.op, v.form, v.size, "", v.row.extra, stack)]
    if "w" in o.flags:
        keys.append(StencilKey(v.row.op, v.form, v.size, "nf", v.row.extra, stack))
    if touches and not o.slow_only:
        keys.append(StencilKey(v.row.op, v.form, v.size, "slow", v.row.extra, stack))
    return keys


def keys_of_rows(rows: Iterable[Row]) -> list[StencilKey]:
    """Every stencil of some rows, in a fixed order, once."""
    seen: dict[StencilKey, None] = {}
    for r in rows:
        for v in variants(r):
            for k in stencil_keys(v):
                seen.setdefault(k)
    return list(seen)

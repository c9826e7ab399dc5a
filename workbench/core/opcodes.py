"""The opcode map: one row for an encoding (SDM volume 2, appendix A), from which the decoder is
built.

A row is ``row(encoding, op, operands, **options)``.

encoding   hex bytes, as ``"0F AF"``; a mandatory prefix first (``NP 66 F3 F2``); ``/3`` selects by
           ModRM.reg, ``+r`` covers eight opcodes with a register in the low bits, ``+cc`` sixteen
           with a
           condition; ``mod3`` and ``mem`` restrict ModRM.mod; ``rm=1`` (with mod3) restricts
           ModRM.rm.
operands   comma-separated, first the destination; a letter for where, a letter for the size:
           E ModRM.rm (register or memory), G ModRM.reg, M memory only, R ModRM.rm register only,
           Z opcode register, A accumulator, I immediate, J relative target, O absolute offset,
           V XMM by reg, W XMM by rm or memory, U XMM by rm only, P MMX by reg, Q MMX by rm or
           memory, N MMX by rm only,
           S segment register by reg, C control register, D debug register; a plain number is passed
           on as the
           immediate.  Sizes: b 1, w 2, d 4, q 8, x 16, v operand size (2, 4, 8), y 4 or 8, z
           immediate of v
           (at most 4 bytes, sign-extended), s immediate byte sign-extended, p far pointer.
           For V W P Q the size letter is the width of the memory operand.
options    only64, not64, size=N (force the op's size), d64 (default operand size is 8 in 64-bit
mode),
           f64 (always 8 there), extra=N (static parameter of the op).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One encoding; see the module."""

    encoding: str
    op: str
    operands: str = ""
    only64: bool = False
    not64: bool = False
    size: int = 0
    d64: bool = False
    f64: bool = False
    extra: int = -1


ROWS: list[Row] = []


def row(encoding: str, op: str, operands: str = "", **options: Any) -> Row:
    """Add a row to the map."""
    r = Row(encoding, op, operands, **options)
    ROWS.append(r)
    return r

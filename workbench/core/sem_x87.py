"""x87: which encodings exist, and the stencils that hand them to the host's FPU (see x87_helpers).

SDM volume 2, appendix A.5.  The tables name every form for people; the machine needs only its
number.  Forms that the SDM leaves out but processors since the 80387 execute are marked as aliases.
"""

from __future__ import annotations

from typing import Any

from workbench.core.lang import unlikely
from workbench.core.opcodes import row
from workbench.core.optable import SIZES
from workbench.core.stencil import op
from workbench.core.x87_helpers import (
    x87_compare,
    x87_from_memory,
    x87_move_if,
    x87_register,
    x87_to_memory,
)

ARITHMETIC = ("fadd", "fmul", "fcom", "fcomp", "fsub", "fsubr", "fdiv", "fdivr")

# Register forms with ST(i) in ModRM.rm: opcode -> reg -> name.
STACK_FORMS: dict[int, dict[int, str]] = {
    0xD8: dict(enumerate(ARITHMETIC)),
    0xD9: {0: "fld", 1: "fxch", 3: "fstp (alias)"},
    0xDA: {0: "fcmovb", 1: "fcmove", 2: "fcmovbe", 3: "fcmovu"},
    0xDB: {0: "fcmovnb", 1: "fcmovne", 2: "fcmovnbe", 3: "fcmovnu", 5: "fucomi", 6: "fcomi"},
    0xDC: {
        0: "fadd",
        1: "fmul",
        2: "fcom (alias)",
        3: "fcomp (alias)",
        4: "fsubr",
        5: "fsub",
        6: "fdivr",
        7: "fdiv",
    },
    0xDD: {0: "ffree", 1: "fxch (alias)", 2: "fst", 3: "fstp", 4: "fucom", 5: "fucomp"},
    0xDE: {
        0: "faddp",
        1: "fmulp",
        2: "fcomp (alias)",
        4: "fsubrp",
        5: "fsubp",
        6: "fdivrp",
        7: "fdivp",
    },
    0xDF: {
        0: "ffreep (alias)",
        1: "fxch (alias)",
        2: "fstp (alias)",
        3: "fstp (alias)",
        5: "fucomip",
        6: "fcomip",
    },
}

# Register forms without a register: the two bytes -> name.
SINGLE_FORMS: dict[int, str] = {
    0xD9D0: "fnop",
    0xD9E0: "fchs",
    0xD9E1: "fabs",
    0xD9E4: "ftst",
    0xD9E5: "fxam",
    0xD9E8: "fld1",
    0xD9E9: "fldl2t",
    0xD9EA: "fldl2e",
    0xD9EB: "fldpi",
    0xD9EC: "fldlg2",
    0xD9ED: "fldln2",
    0xD9EE: "fldz",
    0xD9F0: "f2xm1",
    0xD9F1: "fyl2x",
    0xD9F2: "fptan",
    0xD9F3: "fpatan",
    0xD9F4: "fxtract",
    0xD9F5: "fprem1",
    0xD9F6: "fdecstp",
    0xD9F7: "fincstp",
    0xD9F8: "fprem",
    0xD9F9: "fyl2xp1",
    0xD9FA: "fsqrt",
    0xD9FB: "fsincos",
    0xD9FC: "frndint",
    0xD9FD: "fscale",
    0xD9FE: "fsin",
    0xD9FF: "fcos",
    0xDAE9: "fucompp",
    0xDED9: "fcompp",
}

# Memory forms: (opcode, reg) -> name, size letter of the operand.
LOADS: dict[tuple[int, int], tuple[str, str]] = {
    (0xD9, 0): ("fld", "d"),
    (0xDD, 0): ("fld", "q"),
    (0xDB, 5): ("fld", "t"),
    (0xDB, 0): ("fild", "d"),
    (0xDF, 0): ("fild", "w"),
    (0xDF, 5): ("fild", "q"),
    (0xDF, 4): ("fbld", "t"),
    **{(0xD8, i): (n, "d") for i, n in enumerate(ARITHMETIC)},
    **{(0xDC, i): (n, "q") for i, n in enumerate(ARITHMETIC)},
    **{(0xDA, i): ("fi" + n[1:], "d") for i, n in enumerate(ARITHMETIC)},
    **{(0xDE, i): ("fi" + n[1:], "w") for i, n in enumerate(ARITHMETIC)},
}
STORES: dict[tuple[int, int], tuple[str, str]] = {
    (0xD9, 2): ("fst", "d"),
    (0xD9, 3): ("fstp", "d"),
    (0xDD, 2): ("fst", "q"),
    (0xDD, 3): ("fstp", "q"),
    (0xDB, 7): ("fstp", "t"),
    (0xDF, 6): ("fbstp", "t"),
    (0xDB, 1): ("fisttp", "d"),
    (0xDB, 2): ("fist", "d"),
    (0xDB, 3): ("fistp", "d"),
    (0xDD, 1): ("fisttp", "q"),
    (0xDF, 7): ("fistp", "q"),
    (0xDF, 1): ("fisttp", "w"),
    (0xDF, 2): ("fist", "w"),
    (0xDF, 3): ("fistp", "w"),
}


@op("x87_register", faults=True)
def x87_register_op(s: Any, code: Any) -> None:
    """A register form; the number of the register is in the hole RM."""
    if unlikely(x87_register(s.base, code.get("i64"), s.hole("RM"), s.pc) == 0):
        s.fault()


@op("x87_move_if", flags="r", faults=True)
def x87_move_if_op(s: Any, code: Any) -> None:
    """FCMOVcc."""
    if unlikely(x87_move_if(s.base, code.get("i64"), s.hole("RM"), s.pc) == 0):
        s.fault()


@op("x87_compare", flags="p", faults=True)
def x87_compare_op(s: Any, code: Any) -> None:
    """FCOMI, FCOMIP, FUCOMI, FUCOMIP."""
    if unlikely(x87_compare(s.base, code.get("i64"), s.hole("RM"), s.pc) == 0):
        s.fault()


@op("x87_load", slow_only=True)
def x87_load_op(s: Any, code: Any, a: Any) -> None:
    """A memory form that reads.

    The number stands before the operand, because the first operand is taken for the destination.
    """
    if unlikely(x87_from_memory(s.base, s.mmu, s.addr, code.get("i64"), s.icount, s.pc) == 0):
        s.fault()


@op("x87_store", slow_only=True, writes_mem=True)
def x87_store_op(s: Any, d: Any, code: Any) -> None:
    """A memory form that writes."""
    if unlikely(x87_to_memory(s.base, s.mmu, s.addr, code.get("i64"), s.icount, s.pc) == 0):
        s.fault()


def memory_code(opcode: int, reg: int, size_bytes: int) -> int:
    """The number that `x87_from_memory` and `x87_to_memory` take."""
    return ((opcode & 7) * 8 + reg) * 16 + size_bytes


def _stack_op(name: str) -> str:
    if name.startswith("fcmov"):
        return "x87_move_if"
    return "x87_compare" if name in ("fcomi", "fcomip", "fucomi", "fucomip") else "x87_register"


for _opcode, _forms in STACK_FORMS.items():
    for _reg, _name in _forms.items():
        row(
            f"{_opcode:02X} /{_reg} mod3",
            _stack_op(_name),
            f"{(_opcode & 7) * 64 + _reg * 8}",
            size=4,
        )
for _code in SINGLE_FORMS:
    _opcode, _reg, _rm = _code >> 8, (_code >> 3) & 7, _code & 7
    row(
        f"{_opcode:02X} /{_reg} mod3 rm={_rm}",
        "x87_register",
        f"{(_opcode & 7) * 64 + _reg * 8}",
        size=4,
    )
for (_opcode, _reg), (_, _letter) in LOADS.items():
    row(
        f"{_opcode:02X} /{_reg} mem",
        "x87_load",
        f"{memory_code(_opcode, _reg, SIZES[_letter])},M{_letter}",
        size=8,
    )
for (_opcode, _reg), (_, _letter) in STORES.items():
    row(
        f"{_opcode:02X} /{_reg} mem",
        "x87_store",
        f"M{_letter},{memory_code(_opcode, _reg, SIZES[_letter])}",
        size=8,
    )

"""Floating-point arithmetic, comparison and logic of SSE, SSE2, SSE3 and SSE4.1."""

from __future__ import annotations

from typing import Any

from workbench.core.opcodes import row
from workbench.core.sse_approx import approximate
from workbench.core.sse_helpers import NONE, PD, PS, SD, SS, V, fp, native, source, sse_op

# name suffix: (mandatory prefix, size letter, bytes of a memory operand, what can underflow)
FORMS = {
    "ps": ("NP", "x", 16, PS),
    "pd": ("66", "x", 16, PD),
    "ss": ("F3", "d", 4, SS),
    "sd": ("F2", "q", 8, SD),
}
# encoding byte, can the result underflow?
BASIC = {
    "add": (0x58, True),
    "mul": (0x59, True),
    "sub": (0x5C, True),
    "min": (0x5D, False),
    "div": (0x5E, True),
    "max": (0x5F, False),
}
ROUND = {"ps": 0x08, "pd": 0x09, "ss": 0x0A, "sd": 0x0B}


def arithmetic(
    name: str,
    encoding: str,
    size: int,
    letter: str,
    tiny: int = NONE,
    imm: bool = False,
    one: bool = False,
) -> None:
    """An instruction of two operands; with `one` the old destination does not take part."""
    text = f"{name} {'$$H_IMM, ' if imm else ''}{'$1' if one else '$2'}, $0"

    def operate(s: Any, d: Any, a: Any) -> None:
        b = source(s, a, size)
        if one:
            d.put(fp(s, text, "=x,x", V, (b,), tiny))
        else:
            d.put(fp(s, text, "=x,0,x", V, (d.get(V), b), tiny))

    operate.__wb_inline__ = True  # type: ignore[attr-defined]
    if imm:

        @sse_op(name)
        def sem_imm(s: Any, d: Any, a: Any, i: Any) -> None:
            operate(s, d, a)

        row(encoding, name, f"V{letter},W{letter},Ib")
    else:

        @sse_op(name)
        def sem(s: Any, d: Any, a: Any) -> None:
            operate(s, d, a)

        row(encoding, name, f"V{letter},W{letter}")


for _suffix, (_prefix, _letter, _size, _tiny) in FORMS.items():
    for _name, (_code, _underflows) in BASIC.items():
        arithmetic(
            f"{_name}{_suffix}",
            f"{_prefix} 0F {_code:02X}",
            _size,
            _letter,
            _tiny if _underflows else NONE,
        )
    arithmetic(f"cmp{_suffix}", f"{_prefix} 0F C2", _size, _letter, imm=True)
    _packed = _size == 16
    arithmetic(f"sqrt{_suffix}", f"{_prefix} 0F 51", _size, _letter, one=_packed)
    arithmetic(
        f"round{_suffix}", f"66 0F 3A {ROUND[_suffix]:02X}", _size, _letter, imm=True, one=_packed
    )
for _suffix, _prefix, _tiny in (("ps", "F2", PS), ("pd", "66", PD)):
    arithmetic(f"hadd{_suffix}", f"{_prefix} 0F 7C", 16, "x", _tiny)
    arithmetic(f"hsub{_suffix}", f"{_prefix} 0F 7D", 16, "x", _tiny)
    arithmetic(f"addsub{_suffix}", f"{_prefix} 0F D0", 16, "x", _tiny)
arithmetic("dpps", "66 0F 3A 40", 16, "x", PS, imm=True)
arithmetic("dppd", "66 0F 3A 41", 16, "x", PD, imm=True)

# -- comparisons that set EFLAGS


def comparison(name: str, encoding: str, size: int, letter: str) -> None:
    """ZF PF CF from the comparison, OF SF AF cleared; LAHF brings them out of the host's flags."""

    @sse_op(name, flags="w")
    def sem(s: Any, d: Any, a: Any) -> None:
        b = source(s, a, size)
        text = f"{name} $2, $1\\0Alahf"
        ax = fp(s, text, "={eax},x,x,~{flags}", "i32", (d.get(V), b))
        s.flags_set((ax >> 8).zx(64) & 0x45)

    row(encoding, name, f"V{letter},W{letter}")


comparison("ucomiss", "NP 0F 2E", 4, "d")
comparison("comiss", "NP 0F 2F", 4, "d")
comparison("ucomisd", "66 0F 2E", 8, "q")
comparison("comisd", "66 0F 2F", 8, "q")

# -- logic: the same for both formats


def logic(name: str, code: int) -> None:
    """A bitwise operation of 128 bits."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any) -> None:
        b = source(s, a)
        d.put(native(f"{name} $2, $0", "=x,0,x", V, (d.get(V), b)))

    row(f"NP 0F {code:02X}", name, "Vx,Wx")
    row(f"66 0F {code:02X}", name, "Vx,Wx")


for _name, _code in (("andps", 0x54), ("andnps", 0x55), ("orps", 0x56), ("xorps", 0x57)):
    logic(_name, _code)

# -- approximations


def approximation(name: str, code: int, root: bool) -> None:
    """RCP or RSQRT, packed and scalar; no exceptions, no rounding control (SDM volume 2)."""

    @sse_op(f"{name}ps")
    def packed(s: Any, d: Any, a: Any) -> None:
        v = source(s, a).bitcast("<4 x i32>")
        r = v
        for i in range(4):
            r = r.with_lane(i, approximate(v.lane(i), int(root)))
        d.put(r)

    @sse_op(f"{name}ss")
    def scalar(s: Any, d: Any, a: Any) -> None:
        r = approximate(source(s, a, 4).bitcast("<4 x i32>").lane(0), int(root))
        d.put(d.get("<4 x i32>").with_lane(0, r))

    row(f"NP 0F {code:02X}", f"{name}ps", "Vx,Wx")
    row(f"F3 0F {code:02X}", f"{name}ss", "Vd,Wd")


approximation("rsqrt", 0x52, True)
approximation("rcp", 0x53, False)

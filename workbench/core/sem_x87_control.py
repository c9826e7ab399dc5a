"""x87 control: WAIT FNINIT FNCLEX FNSTCW FLDCW FNSTSW FNSTENV FLDENV FNSAVE FRSTOR (SDM volume 2).

Those with N in their name do not wait: a pending exception does not stop them.  A row that only
reads memory has a number before its operand: the first operand is taken for the destination.
"""

from __future__ import annotations

from typing import Any

from workbench.core import mmu
from workbench.core.lang import fn, load, store, u32, unlikely
from workbench.core.layout import CPU, RAX
from workbench.core.opcodes import row
from workbench.core.stencil import op
from workbench.core.x87_helpers import (
    SW_CONDITIONS,
    scratch,
    status_word,
    x87_available,
    x87_ready,
    x87_wait,
)
from workbench.core.x87_helpers_env import (
    fpu_reset,
    set_control_word,
    x87_ldenv14,
    x87_ldenv28,
    x87_rstor94,
    x87_rstor108,
    x87_save94,
    x87_save108,
    x87_stenv14,
    x87_stenv28,
)


@op("x87_wait", faults=True)
def x87_wait_op(s: Any) -> None:
    """WAIT."""
    if unlikely(x87_wait(s.base) == 0):
        s.fault()


row("9B", "x87_wait", size=4)


@op("x87_none", faults=True)
def x87_none_op(s: Any) -> None:
    """FNENI, FNDISI, FNSETPM of the 8087 and 80287: without effect since the 80387."""
    if unlikely(x87_available(s.base) == 0):
        s.fault()


row("DB /4 mod3 rm=0", "x87_none", size=4)
row("DB /4 mod3 rm=1", "x87_none", size=4)
row("DB /4 mod3 rm=4", "x87_none", size=4)


@op("fnclex", faults=True)
def fnclex(s: Any) -> None:
    """FNCLEX: C0-C3 stay (they are undefined by the SDM, kept by processors)."""
    if unlikely(x87_available(s.base) == 0):
        s.fault()
    s.cpu.fpu_sw = s.cpu.fpu_sw & SW_CONDITIONS


row("DB /4 mod3 rm=2", "fnclex", size=4)


@op("fninit", faults=True)
def fninit(s: Any) -> None:
    """FNINIT."""
    if unlikely(x87_available(s.base) == 0):
        s.fault()
    fpu_reset(s.cpu)


row("DB /4 mod3 rm=3", "fninit", size=4)


@op("fnstsw_ax", faults=True)
def fnstsw_ax(s: Any) -> None:
    """FNSTSW AX."""
    if unlikely(x87_available(s.base) == 0):
        s.fault()
    store(s.cpu.gpr.at(RAX), status_word(s.cpu).tr(16))


row("DF /4 mod3 rm=0", "fnstsw_ax", size=2)


@fn("ptr", "i32", "i64", "i32", "i64", ret="i32")
def x87_store_word(base: Any, at: Any, addr: Any, status: Any, icount: Any) -> Any:
    """FNSTCW, or FNSTSW to memory."""
    if x87_available(base) == 0:
        return u32(0)
    cpu = CPU.view(base)
    word = scratch(2)
    if status != 0:
        store(word, status_word(cpu).tr(16))
    else:
        store(word, cpu.fpu_cw.tr(16))
    return mmu.slow_store(base, at, addr, word, 2, icount)


@op("x87_store_word", slow_only=True, writes_mem=True)
def x87_store_word_op(s: Any, status: int, d: Any) -> None:
    """FNSTCW and FNSTSW to memory."""
    if unlikely(x87_store_word(s.base, s.mmu, s.addr, status, s.icount) == 0):
        s.fault()


row("D9 /7 mem", "x87_store_word", "Mw", extra=0)
row("DD /7 mem", "x87_store_word", "Mw", extra=1)


@fn("ptr", "i32", "i64", "i64", ret="i32")
def x87_load_control(base: Any, at: Any, addr: Any, icount: Any) -> Any:
    """FLDCW."""
    if x87_ready(base) == 0:
        return u32(0)
    p = mmu.slow_load(base, at, addr, 2, icount)
    if p == 0:
        return u32(0)
    set_control_word(CPU.view(base), load(p, "i16").zx(32))
    return u32(1)


@op("fldcw", slow_only=True)
def fldcw(s: Any, n: Any, a: Any) -> None:
    """FLDCW."""
    if unlikely(x87_load_control(s.base, s.mmu, s.addr, s.icount) == 0):
        s.fault()


row("D9 /5 mem", "fldcw", "0,Mw")

STATE_HELPERS = {
    "fnstenv": (x87_stenv14, x87_stenv28),
    "fnsave": (x87_save94, x87_save108),
    "fldenv": (x87_ldenv14, x87_ldenv28),
    "frstor": (x87_rstor94, x87_rstor108),
}


@op("fnstenv", slow_only=True, writes_mem=True)
def fnstenv(s: Any, d: Any) -> None:
    """FNSTENV."""
    if unlikely(STATE_HELPERS["fnstenv"][s.size != 2](s.base, s.mmu, s.addr) == 0):
        s.fault()


@op("fnsave", slow_only=True, writes_mem=True)
def fnsave(s: Any, d: Any) -> None:
    """FNSAVE."""
    if unlikely(STATE_HELPERS["fnsave"][s.size != 2](s.base, s.mmu, s.addr) == 0):
        s.fault()


@op("fldenv", slow_only=True)
def fldenv(s: Any, n: Any, a: Any) -> None:
    """FLDENV."""
    if unlikely(STATE_HELPERS["fldenv"][s.size != 2](s.base, s.mmu, s.addr) == 0):
        s.fault()


@op("frstor", slow_only=True)
def frstor(s: Any, n: Any, a: Any) -> None:
    """FRSTOR."""
    if unlikely(STATE_HELPERS["frstor"][s.size != 2](s.base, s.mmu, s.addr) == 0):
        s.fault()


row("D9 /6 mem", "fnstenv", "Mv")
row("DD /6 mem", "fnsave", "Mv")
row("D9 /4 mem", "fldenv", "0,Mv")
row("DD /4 mem", "frstor", "0,Mv")

"""Local APIC: xAPIC page, x2APIC MSRs, timer with TSC deadline, and the INTR pin of the CPU.

Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3A (order number 253668),
chapter "Advanced Programmable Interrupt Controller (APIC)"; section numbers are those of revision
079, where it is chapter 11.

One processor, so IPIs to others go nowhere. The 8259's output arrives at LINT0 (virtual wire mode)
or, while the APIC is globally disabled, directly at INTR: `pending` and `acknowledge` speak for
both. Deliberately not modelled: SMI delivery, CMCI, focus processor checking, EOI-broadcast
suppression, ESR "illegal register address", lowest-priority arbitration (there is nobody to
arbitrate with), INIT and start-up IPIs, which have no absent processor to reach, and #GP for writes
to reserved bits or read-only MSRs in x2APIC mode, which are ignored.
"""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from workbench.core.clock import PS_PER_SECOND, Clock
from workbench.core.irq import IrqLine
from workbench.core.regs import (
    RO,
    WO,
    Field,
    Reg,
    RegBank,
    RegMap,
    array,
    on_command,
    on_read,
    on_write,
)
from workbench.core.state import sized

__all__ = ["IA32_APIC_BASE", "IA32_TSC_DEADLINE", "MAP", "X2APIC_FIRST", "Lapic", "LapicState"]

IA32_APIC_BASE: Final = 0x1B
IA32_TSC_DEADLINE: Final = 0x6E0
X2APIC_FIRST: Final = (
    0x800  # MSR of the register at offset 0; each 16 bytes of the page are one MSR
)

APIC_BASE_BSP: Final = 1 << 8
APIC_BASE_EXTD: Final = 1 << 10
APIC_BASE_EN: Final = 1 << 11
APIC_BASE_ADDRESS: Final = 0xF_FFFF_F000

MASKED: Final = 1 << 16
SVR_ENABLE: Final = 1 << 8

DM_FIXED, DM_LOWEST, DM_SMI, DM_NMI, DM_INIT, DM_SIPI, DM_EXTINT = 0, 1, 2, 4, 5, 6, 7
_DELIVERY = {
    0: "Fixed",
    1: "LowestPriority",
    2: "SMI",
    4: "NMI",
    5: "INIT",
    6: "StartUp",
    7: "ExtINT",
}
ONE_SHOT, PERIODIC, TSC_DEADLINE = 0, 1, 2

ESR_SEND_ILLEGAL_VECTOR: Final = 1 << 5
ESR_RECEIVE_ILLEGAL_VECTOR: Final = 1 << 6

_VECTOR = Field("VECTOR", 0, 8)
_DM = Field("DM", 8, 3, values=_DELIVERY)
_STATUS = Field("DS", 12, access=RO)
_MASK = Field("MASK", 16)
_LVT = (_VECTOR, _DM, _STATUS, _MASK)
_LVT_LINT = (
    _VECTOR,
    _DM,
    _STATUS,
    Field("POL", 13),
    Field("RIRR", 14, access=RO),
    Field("TM", 15),
    _MASK,
)

ID = Reg("ID", 0x20, 4, access=RO, fields=(Field("APIC_ID", 24, 8),), ref="SDM 3A 11.4.6")
VERSION = Reg(
    "VERSION", 0x30, 4, 0x0005_0014, RO,
    (Field("VERSION", 0, 8), Field("MAX_LVT", 16, 8), Field("EOI_SUPPRESS", 24)),
    "SDM 3A 11.4.8",
)  # fmt: skip
TPR = Reg("TPR", 0x80, 4, fields=(Field("SUB", 0, 4), Field("CLASS", 4, 4)), ref="SDM 3A 11.8.3.1")
APR = Reg("APR", 0x90, 4, access=RO, ref="SDM 3A 11.6.2.4")
PPR = Reg(
    "PPR",
    0xA0,
    4,
    access=RO,
    fields=(Field("SUB", 0, 4), Field("CLASS", 4, 4)),
    ref="SDM 3A 11.8.3.1",
)
EOI = Reg("EOI", 0xB0, 4, access=WO, ref="SDM 3A 11.8.5")
RRD = Reg("RRD", 0xC0, 4, access=RO, ref="SDM 3A 11.4.1")
LDR = Reg("LDR", 0xD0, 4, fields=(Field("LOGICAL_ID", 24, 8),), ref="SDM 3A 11.6.2.2")
DFR = Reg(
    "DFR", 0xE0, 4, 0xFFFF_FFFF,
    fields=(Field("ONES", 0, 28, RO), Field("MODEL", 28, 4, values={0xF: "flat", 0: "cluster"})),
    ref="SDM 3A 11.6.2.2",
)  # fmt: skip
SVR = Reg(
    "SVR", 0xF0, 4, 0xFF,
    fields=(_VECTOR, Field("ENABLE", 8), Field("FOCUS_DISABLE", 9)),
    ref="SDM 3A 11.9",
)  # fmt: skip
ISR = array("ISR", 0x100, 4, 8, 0x10, access=RO, ref="SDM 3A 11.8.4")
TMR = array("TMR", 0x180, 4, 8, 0x10, access=RO, ref="SDM 3A 11.8.4")
IRR = array("IRR", 0x200, 4, 8, 0x10, access=RO, ref="SDM 3A 11.8.4")
ESR = Reg(
    "ESR", 0x280, 4,
    fields=(
        Field("SEND_ILLEGAL_VECTOR", 5),
        Field("RECEIVE_ILLEGAL_VECTOR", 6),
        Field("ILLEGAL_REGISTER", 7),
    ),
    ref="SDM 3A 11.5.3",
)  # fmt: skip
ICR_LOW = Reg(
    "ICR_LOW", 0x300, 4,
    fields=(
        _VECTOR,
        _DM,
        Field("LOGICAL", 11),
        _STATUS,
        Field("LEVEL", 14),
        Field("TM", 15),
        Field("SHORTHAND", 18, 2, values={1: "self", 2: "all", 3: "others"}),
    ),
    ref="SDM 3A 11.6.1",
)  # fmt: skip
ICR_HIGH = Reg("ICR_HIGH", 0x310, 4, ref="SDM 3A 11.6.1")
LVT_TIMER = Reg(
    "LVT_TIMER", 0x320, 4, MASKED,
    fields=(
        _VECTOR,
        _STATUS,
        _MASK,
        Field("MODE", 17, 2, values={0: "one-shot", 1: "periodic", 2: "TSC-deadline"}),
    ),
    ref="SDM 3A 11.5.1",
)  # fmt: skip
LVT_THERMAL = Reg("LVT_THERMAL", 0x330, 4, MASKED, fields=_LVT, ref="SDM 3A 11.5.1")
LVT_PERF = Reg("LVT_PERF", 0x340, 4, MASKED, fields=_LVT, ref="SDM 3A 11.5.1")
LVT_LINT0 = Reg("LVT_LINT0", 0x350, 4, MASKED, fields=_LVT_LINT, ref="SDM 3A 11.5.1")
LVT_LINT1 = Reg("LVT_LINT1", 0x360, 4, MASKED, fields=_LVT_LINT, ref="SDM 3A 11.5.1")
LVT_ERROR = Reg(
    "LVT_ERROR", 0x370, 4, MASKED, fields=(_VECTOR, _STATUS, _MASK), ref="SDM 3A 11.5.1"
)
TMICT = Reg("TMICT", 0x380, 4, ref="SDM 3A 11.5.4")
TMCCT = Reg("TMCCT", 0x390, 4, access=RO, ref="SDM 3A 11.5.4")
TDCR = Reg("TDCR", 0x3E0, 4, fields=(Field("DIV10", 0, 2), Field("DIV2", 3)), ref="SDM 3A 11.5.4")
SELF_IPI = Reg(
    "SELF_IPI", 0x3F0, 4, access=WO, fields=(_VECTOR,), when="x2apic", ref="SDM 3A 11.12.11"
)

_LVTS = (LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR)
_DIVIDE = {0x0: 2, 0x1: 4, 0x2: 8, 0x3: 16, 0x8: 32, 0x9: 64, 0xA: 128, 0xB: 1}

MAP = RegMap(
    "lapic",
    0x1000,
    (
        ID, VERSION, TPR, APR, PPR, EOI, RRD, LDR, DFR, SVR, *ISR, *TMR, *IRR, ESR, ICR_LOW,
        ICR_HIGH, *_LVTS, TMICT, TMCCT, TDCR, SELF_IPI,
    ),
    ref="SDM 3A table 11-1",
)  # fmt: skip


@dataclass(slots=True)
class LapicState:
    """Registers (names of the map), MSRs, and the levels at the pins."""

    apic_base: int = 0xFEE0_0000 | APIC_BASE_EN | APIC_BASE_BSP
    tpr: int = 0
    ldr: int = 0
    dfr: int = 0xFFFF_FFFF
    svr: int = 0xFF
    isr: list[int] = sized(8)
    tmr: list[int] = sized(8)
    irr: list[int] = sized(8)
    esr: int = 0
    esr_pending: int = 0
    icr_low: int = 0
    icr_high: int = 0
    lvt_timer: int = MASKED
    lvt_thermal: int = MASKED
    lvt_perf: int = MASKED
    lvt_lint0: int = MASKED
    lvt_lint1: int = MASKED
    lvt_error: int = MASKED
    tmict: int = 0
    tdcr: int = 0
    tsc_deadline: int = 0
    lint: list[int] = field(default_factory=lambda: [0, 0], metadata={"length": 2})


def _highest(words: list[int]) -> int:
    """Number of the highest bit set in eight 32-bit words, or -1."""
    for i in (7, 6, 5, 4, 3, 2, 1, 0):
        if words[i]:
            return (i << 5) + words[i].bit_length() - 1
    return -1


class Lapic(RegBank[LapicState]):
    """The local APIC of the one processor; also the interrupt controller that the CPU asks."""

    MAP = MAP
    STATE = LapicState

    def __init__(
        self,
        clock: Clock,
        *,
        set_intr: Callable[[bool], None],
        set_nmi: Callable[[], None] = lambda: None,
        tsc_ps: Callable[[int], int] = lambda tsc: tsc * 1000,
        timer_hz: int = 1_000_000_000,
        apic_id: int = 0,
        name: str = "lapic",
    ) -> None:
        """`tsc_ps(v)` is the guest time at which the TSC reaches v; `timer_hz` divides 1e12."""
        # Wires
        self.apic_id = apic_id
        self.clock = clock
        self.intr = IrqLine("INTR", set_intr)
        self.set_nmi = set_nmi
        self.pic_acknowledge: Callable[[], int] = lambda: 0xFF
        self.eoi_broadcast: Callable[[int], None] = lambda vector: None
        self.on_apic_base: Callable[[], None] = lambda: None
        self._tsc_ps = tsc_ps
        self._count_ps = PS_PER_SECOND // timer_hz
        self.timer = clock.timer(f"{name}.timer", self._timer_expired)
        # State
        super().__init__(name)

    # -- life ------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Power-up reset; the levels at LINT0 and LINT1 stay, they belong to others."""
        lint = self.state.lint
        self._replace(LapicState(lint=lint))

    def _replace(self, state: LapicState) -> None:
        self.timer.cancel()
        self.set_state(state)
        self.on_apic_base()
        self._sync_irq()

    def restore(self, data: dict[str, Any]) -> None:
        """Take a saved state; INTR keeps its level without an edge."""
        super().restore(data)
        self.on_apic_base()
        self.intr.restore(self.pending())

    # -- modes -----------------------------------------------------------------------------------

    @property
    def window_base(self) -> int | None:
        """Address of the xAPIC page, None while it is not mapped (disabled or x2APIC)."""
        base = self.state.apic_base
        if base & (APIC_BASE_EN | APIC_BASE_EXTD) == APIC_BASE_EN:
            return base & APIC_BASE_ADDRESS
        return None

    @property
    def x2apic(self) -> bool:
        """Whether registers are reached by MSR."""
        return bool(self.state.apic_base & APIC_BASE_EXTD)

    def when(self) -> str | None:
        """x2APIC mode has one more register."""
        return "x2apic" if self.x2apic else None

    def read_apic_base(self) -> int:
        """IA32_APIC_BASE (11.4.3)."""
        return self.state.apic_base

    def write_apic_base(self, value: int) -> None:
        """IA32_APIC_BASE (11.4.3); transitions that 11.12.5 forbids are ignored."""
        state = self.state
        old = state.apic_base
        new = value & (APIC_BASE_ADDRESS | APIC_BASE_EN | APIC_BASE_EXTD) | old & APIC_BASE_BSP
        was_x2, is_x2 = old & APIC_BASE_EXTD, new & APIC_BASE_EXTD
        if (is_x2 and not new & APIC_BASE_EN) or (was_x2 and not is_x2 and new & APIC_BASE_EN):
            return
        if is_x2 and not was_x2 and not old & APIC_BASE_EN:
            return
        if not new & APIC_BASE_EN:
            self._replace(LapicState(apic_base=new, lint=state.lint))
            return
        state.apic_base = new
        if is_x2 and not was_x2:
            state.ldr = (self.apic_id >> 4) << 16 | 1 << (self.apic_id & 0xF)
            state.icr_high = 0
        self.reselect()
        self.on_apic_base()
        self._sync_irq()

    # -- the CPU's side --------------------------------------------------------------------------

    def pending(self) -> bool:
        """Level of INTR."""
        state = self.state
        if state.lint[0] and self._extint_open():
            return True
        if not state.svr & SVR_ENABLE:
            return False
        top = _highest(state.irr)
        return top >= 0 and top >> 4 > self._ppr() >> 4

    def acknowledge(self) -> int:
        """Interrupt acknowledge cycle: gives the vector (11.8.4)."""
        state = self.state
        if state.svr & SVR_ENABLE:
            top = _highest(state.irr)
            if top >= 0 and top >> 4 > self._ppr() >> 4:
                word, bit = top >> 5, 1 << (top & 31)
                state.irr[word] &= ~bit
                state.isr[word] |= bit
                self._sync_irq()
                return top
        if state.lint[0] and self._extint_open():
            vector = self.pic_acknowledge()
            self._sync_irq()
            return vector
        return state.svr & 0xFF

    def read_cr8(self) -> int:
        """CR8 is the class of the TPR (11.8.6)."""
        return self.state.tpr >> 4

    def write_cr8(self, value: int) -> None:
        """CR8 is the class of the TPR (11.8.6)."""
        self.state.tpr = (value & 0xF) << 4
        self._sync_irq()

    def _extint_open(self) -> bool:
        state = self.state
        if not state.apic_base & APIC_BASE_EN:
            return True
        return state.lvt_lint0 & (MASKED | 0x700) == DM_EXTINT << 8

    def _ppr(self) -> int:
        """Processor priority (11.8.3.1)."""
        tpr, isr = self.state.tpr, _highest(self.state.isr)
        return tpr if isr < 0 or tpr >> 4 >= isr >> 4 else isr & 0xF0

    def _sync_irq(self) -> None:
        self.intr.set(self.pending())

    # -- arrival of interrupts -------------------------------------------------------------------

    def set_lint(self, pin: int, level: bool) -> None:
        """Level at LINT0 (the 8259's INTR) or LINT1 (NMI)."""
        state = self.state
        rising = level and not state.lint[pin]
        state.lint[pin] = int(level)
        lvt = state.lvt_lint1 if pin else state.lvt_lint0
        if rising and not lvt & MASKED and state.apic_base & APIC_BASE_EN:
            mode = lvt >> 8 & 7
            if mode == DM_NMI:
                self.set_nmi()
            elif mode == DM_FIXED:
                self._accept(lvt & 0xFF, False)
        self._sync_irq()

    def _matches(self, destination: int, logical: bool) -> bool:
        """Whether a message to an 8-bit (x2APIC: 32-bit) destination is for us (11.6.2)."""
        state = self.state
        if self.x2apic:
            if destination in (0xFF, 0xFFFF_FFFF):
                return True
            if not logical:
                return destination == self.apic_id
            return destination >> 16 == state.ldr >> 16 and bool(destination & state.ldr & 0xFFFF)
        if destination == 0xFF:
            return True
        if not logical:
            return destination == self.apic_id
        mine = state.ldr >> 24
        if state.dfr >> 28 == 0xF:
            return bool(mine & destination)
        return mine >> 4 == destination >> 4 and bool(mine & destination & 0xF)

    def deliver(self, destination: int, logical: bool, mode: int, vector: int, level: bool) -> bool:
        """A message from the I/O APIC or an MSI; tells whether somebody took it."""
        if not self.state.apic_base & APIC_BASE_EN or not self._matches(destination, logical):
            return False
        if mode in (DM_FIXED, DM_LOWEST):
            if not self.state.svr & SVR_ENABLE:
                return False
            self._accept(vector, level)
        elif mode == DM_NMI:
            self.set_nmi()
        return True

    def msi(self, address: int, data: int) -> None:
        """A memory write to 0xFEExxxxx by a device (11.11)."""
        self.deliver(
            address >> 12 & 0xFF,
            bool(address & 4),
            data >> 8 & 7,
            data & 0xFF,
            bool(data & 0x8000),
        )

    def _accept(self, vector: int, level: bool) -> None:
        if vector < 16:
            self._error(ESR_RECEIVE_ILLEGAL_VECTOR)
            return
        state = self.state
        word, bit = vector >> 5, 1 << (vector & 31)
        state.irr[word] |= bit
        if level:
            state.tmr[word] |= bit
        else:
            state.tmr[word] &= ~bit
        self._sync_irq()

    def _error(self, bit: int) -> None:
        """Note an error; LVT_ERROR fires with the first of its kind (11.5.3)."""
        state = self.state
        if state.esr_pending & bit:
            return
        state.esr_pending |= bit
        vector = state.lvt_error & 0xFF
        if not state.lvt_error & MASKED and vector >= 16:
            self._accept(vector, False)

    # -- registers -------------------------------------------------------------------------------

    @on_read(ID)
    def _read_id(self) -> int:
        return self.apic_id if self.x2apic else self.apic_id << 24

    @on_read(PPR)
    def _read_ppr(self) -> int:
        return self._ppr()

    @on_write(TPR)
    def _write_tpr(self, old: int, new: int) -> None:
        self._sync_irq()

    @on_command(EOI)
    def _write_eoi(self, value: int) -> None:
        state = self.state
        isr = state.isr
        top = _highest(isr)
        if top < 0:
            return
        word, bit = top >> 5, 1 << (top & 31)
        isr[word] &= ~bit
        if state.tmr[word] & bit:
            self.eoi_broadcast(top)
        self._sync_irq()

    @on_write(LDR)
    def _write_ldr(self, old: int, new: int) -> None:
        if self.x2apic:
            self.state.ldr = old

    @on_write(SVR)
    def _write_svr(self, old: int, new: int) -> None:
        if not new & SVR_ENABLE:
            state = self.state
            for reg in _LVTS:
                setattr(state, reg.attr, getattr(state, reg.attr) | MASKED)
        self._sync_irq()

    @on_write(ESR)
    def _write_esr(self, old: int, new: int) -> None:
        self.state.esr, self.state.esr_pending = self.state.esr_pending, 0

    @on_write(ICR_LOW)
    def _write_icr(self, old: int, new: int) -> None:
        mode, shorthand = new >> 8 & 7, new >> 18 & 3
        high = self.state.icr_high
        if shorthand == 3:
            return
        if not shorthand and not self._matches(
            high if self.x2apic else high >> 24, bool(new & 0x800)
        ):
            return
        self._ipi_to_self(mode, new & 0xFF)

    def _ipi_to_self(self, mode: int, vector: int) -> None:
        if mode in (DM_FIXED, DM_LOWEST):
            if vector < 16:
                self._error(ESR_SEND_ILLEGAL_VECTOR)
            elif self.state.svr & SVR_ENABLE:
                self._accept(vector, False)
        elif mode == DM_NMI:
            self.set_nmi()

    @on_command(SELF_IPI)
    def _write_self_ipi(self, value: int) -> None:
        self._ipi_to_self(DM_FIXED, value & 0xFF)

    @on_write(LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR)
    def _write_lvt(self, old: int, new: int) -> None:
        self._hold_masks()
        self._sync_irq()

    def _hold_masks(self) -> None:
        """While software-disabled, mask bits cannot be cleared (11.4.7.2)."""
        state = self.state
        if not state.svr & SVR_ENABLE:
            for reg in _LVTS:
                setattr(state, reg.attr, getattr(state, reg.attr) | MASKED)

    # -- timer (11.5.4) --------------------------------------------------------------------------

    def _mode(self) -> int:
        return self.state.lvt_timer >> 17 & 3

    def _tick_ps(self) -> int:
        return _DIVIDE[self.state.tdcr & 0xB] * self._count_ps

    @on_write(LVT_TIMER)
    def _write_lvt_timer(self, old: int, new: int) -> None:
        if (old ^ new) >> 17 & 3:
            self.timer.cancel()
            self.state.tmict = 0
            self.state.tsc_deadline = 0
        self._hold_masks()

    @on_write(TMICT)
    def _write_tmict(self, old: int, new: int) -> None:
        if self._mode() == TSC_DEADLINE:
            self.state.tmict = 0
        elif new:
            self.timer.arm(self.clock.now_ps + new * self._tick_ps())
        else:
            self.timer.cancel()

    def _current_count(self, tick_ps: int) -> int:
        deadline = self.timer.deadline_ps
        if deadline is None or self._mode() == TSC_DEADLINE:
            return 0
        return max(0, -((self.clock.now_ps - deadline) // tick_ps))

    @on_read(TMCCT)
    def _read_tmcct(self) -> int:
        return self._current_count(self._tick_ps())

    @on_write(TDCR)
    def _write_tdcr(self, old: int, new: int) -> None:
        if self.timer.deadline_ps is not None and self._mode() != TSC_DEADLINE:
            count = self._current_count(_DIVIDE[old & 0xB] * self._count_ps)
            self.timer.arm(self.clock.now_ps + count * self._tick_ps())

    def read_tsc_deadline(self) -> int:
        """IA32_TSC_DEADLINE: 0 unless armed."""
        return self.state.tsc_deadline

    def write_tsc_deadline(self, value: int) -> None:
        """IA32_TSC_DEADLINE: arm, or disarm with 0; ignored in the other modes (11.5.4.1)."""
        state = self.state
        if state.lvt_timer >> 17 & 3 != TSC_DEADLINE:
            return
        state.tsc_deadline = value
        if value:
            self.timer.arm(self._tsc_ps(value))
        else:
            self.timer.cancel()

    def _timer_expired(self) -> None:
        state = self.state
        mode = state.lvt_timer >> 17 & 3
        if mode == TSC_DEADLINE:
            state.tsc_deadline = 0
        elif mode == PERIODIC and state.tmict:
            period_ps = state.tmict * self._tick_ps()
            late_ps = self.clock.now_ps - self.timer.fired_ps
            self.timer.arm(self.timer.fired_ps + (late_ps // period_ps + 1) * period_ps)
        if not state.lvt_timer & MASKED:
            self._accept(state.lvt_timer & 0xFF, False)

    # -- MSRs ------------------------------------------------------------------------------------

    def msrs(self) -> dict[int, tuple[Callable[[], int], Callable[[int], None]]]:
        """The MSRs that always exist."""
        return {
            IA32_APIC_BASE: (self.read_apic_base, self.write_apic_base),
            IA32_TSC_DEADLINE: (self.read_tsc_deadline, self.write_tsc_deadline),
        }

    def x2apic_msrs(self) -> dict[int, tuple[Callable[[], int], Callable[[int], None]]]:
        """The MSRs that exist in x2APIC mode (table 11-6)."""
        absent = (DFR, APR, RRD, ICR_HIGH)
        msrs = {
            X2APIC_FIRST + (reg.offset >> 4): self._msr_pair(reg)
            for reg in MAP.regs
            if reg not in absent
        }
        msrs[X2APIC_FIRST + (ICR_LOW.offset >> 4)] = (self._read_icr_msr, self._write_icr_msr)
        return msrs

    def _msr_pair(self, reg: Reg) -> tuple[Callable[[], int], Callable[[int], None]]:
        offset = reg.offset
        return lambda: self.read(offset, 4), lambda value: self.write(
            offset, 4, value & 0xFFFF_FFFF
        )

    def _read_icr_msr(self) -> int:
        return self.state.icr_high << 32 | self.state.icr_low

    def _write_icr_msr(self, value: int) -> None:
        self.state.icr_high = value >> 32
        self.write(ICR_LOW.offset, 4, value & 0xFFFF_FFFF)

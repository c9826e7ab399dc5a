"""High precision event timers (IA-PC HPET specification 1.0a): three comparators, 100 MHz.

All three can be periodic and 32 bits wide. Without legacy replacement they go to the I/O APIC pins
20 to 23; with it timer 0 takes IRQ 0 from the 8254 and timer 1 takes IRQ 8 from the RTC.
Deliberately not modelled: FSB interrupts (not offered) and the counter's drift.
"""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from workbench.core.clock import Clock
from workbench.core.irq import IrqLine
from workbench.core.regs import (
    RESERVED,
    RO,
    W1C,
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
from workbench.hw.layout import HPET_PERIOD_PS

__all__ = ["MAP", "ROUTES", "TIMERS", "Hpet", "HpetState", "LegacyGate"]

TIMERS: Final = 3
ROUTES: Final = (20, 21, 22, 23)  # I/O APIC pins that INT_ROUTE may name

ENABLE_CNF, LEG_RT_CNF = 1 << 0, 1 << 1
INT_TYPE_CNF, INT_ENB_CNF, TYPE_CNF = 1 << 1, 1 << 2, 1 << 3
VAL_SET_CNF, MODE32_CNF = 1 << 6, 1 << 8
_ROUTE_CAP = sum(1 << pin for pin in ROUTES) << 32
_TN_RESET = _ROUTE_CAP | 1 << 5 | 1 << 4

GCAP_ID = Reg(
    "GCAP_ID", 0x000, 8, (HPET_PERIOD_PS * 1000) << 32 | 0x8086_A201, RO,
    (
        Field("REV_ID", 0, 8),
        Field("NUM_TIM_CAP", 8, 5),
        Field("COUNT_SIZE_CAP", 13),
        Field("LEG_RT_CAP", 15),
        Field("VENDOR_ID", 16, 16),
        Field("COUNTER_CLK_PERIOD", 32, 32),
    ),
    "IA-PC HPET 2.3.4",
)  # fmt: skip
GEN_CONF = Reg(
    "GEN_CONF", 0x010, 8,
    fields=(Field("ENABLE_CNF", 0), Field("LEG_RT_CNF", 1)),
    ref="IA-PC HPET 2.3.5",
)  # fmt: skip
GINTR_STA = Reg(
    "GINTR_STA", 0x020, 8, access=W1C,
    fields=tuple(Field(f"T{n}_INT_STS", n) for n in range(TIMERS)),
    ref="IA-PC HPET 2.3.6",
)  # fmt: skip
MAIN_CNT = Reg("MAIN_CNT", 0x0F0, 8, ref="IA-PC HPET 2.3.7")
TN_CONF = array(
    "TN_CONF", 0x100, 8, TIMERS, 0x20, reset=_TN_RESET,
    fields=(
        Field("INT_TYPE_CNF", 1, values={1: "level"}),
        Field("INT_ENB_CNF", 2),
        Field("TYPE_CNF", 3, values={1: "periodic"}),
        Field("PER_INT_CAP", 4, access=RO),
        Field("SIZE_CAP", 5, access=RO),
        Field("VAL_SET_CNF", 6),
        Field("32MODE_CNF", 8),
        Field("INT_ROUTE_CNF", 9, 5),
        Field("FSB_EN_CNF", 14, access=RO),
        Field("FSB_INT_DEL_CAP", 15, access=RO),
        Field("INT_ROUTE_CAP", 32, 32, RO),
    ),
    ref="IA-PC HPET 2.3.8",
)  # fmt: skip
TN_COMP = array("TN_COMP", 0x108, 8, TIMERS, 0x20, reset=(1 << 64) - 1, ref="IA-PC HPET 2.3.9")
TN_FSB = array("TN_FSB", 0x110, 8, TIMERS, 0x20, access=RESERVED, ref="IA-PC HPET 2.3.10")

MAP = RegMap(
    "hpet",
    0x400,
    (GCAP_ID, GEN_CONF, GINTR_STA, MAIN_CNT, *TN_CONF, *TN_COMP, *TN_FSB),
    ref="IA-PC HPET table 2",
)


@dataclass(slots=True)
class HpetState:
    """Registers; `main_cnt` is the counter's value at guest time `since_ps`."""

    gen_conf: int = 0
    gintr_sta: int = 0
    main_cnt: int = 0
    since_ps: int = 0
    tn_conf: list[int] = sized(TIMERS, _TN_RESET)
    tn_comp: list[int] = sized(TIMERS, (1 << 64) - 1)
    period: list[int] = sized(TIMERS)
    driven: list[int] = sized(TIMERS)  # level that each timer drives


class LegacyGate(IrqLine):
    """The 8254's (RTC's) line to IRQ 0 (8), as long as the HPET does not take its place (2.4.1)."""

    __slots__ = ("_out", "_taken")

    def __init__(self, out: IrqLine) -> None:
        super().__init__(out.name, self._changed)
        self._out = out
        self._taken = False

    def _changed(self, level: bool) -> None:
        self._out.set(level and not self._taken)

    def take(self, taken: bool) -> None:
        """Cut or mend the connection."""
        self._taken = taken
        self._changed(self.level)

    def restore(self, level: bool) -> None:
        super().restore(level)
        self._out.restore(self.level and not self._taken)

    def restore_taken(self, taken: bool) -> None:
        """Like `take`, without an edge."""
        self._taken = taken
        self.restore(self.level)


class Hpet(RegBank[HpetState]):
    """The timer block, with a line for each timer to each I/O APIC pin that it may use."""

    MAP = MAP
    STATE = HpetState

    def __init__(
        self,
        clock: Clock,
        line: Callable[[str, int], IrqLine],
        *,
        legacy: tuple[IrqLine, IrqLine] | None = None,
        gates: tuple[LegacyGate, ...] = (),
        name: str = "hpet",
    ) -> None:
        """`line(name, pin)` makes a driver of an I/O APIC pin; `legacy` are the HPET's lines to
        IRQ 0 and IRQ 8, `gates` the connections that legacy replacement cuts.
        """
        # Wires
        self.clock = clock
        self._gates = gates
        self._lines = [{pin: line(f"{name}.t{n}", pin) for pin in ROUTES} for n in range(TIMERS)]
        self._legacy = legacy
        self._timers = [clock.timer(f"{name}.t{n}", self._callback(n)) for n in range(TIMERS)]
        # State
        super().__init__(name)

    def _callback(self, n: int) -> Callable[[], None]:
        return lambda: self._expired(n)

    def reset(self) -> None:
        """Counter stopped at 0, all timers disabled."""
        for timer in self._timers:
            timer.cancel()
        self.set_state(HpetState())
        for n in range(TIMERS):
            self._sync_irq(n)
        self._take_legacy(False)

    def restore(self, data: dict[str, Any]) -> None:
        """Take a saved state; lines get their levels without edges."""
        super().restore(data)
        for gate in self._gates:
            gate.restore_taken(self.legacy_on)
        for n in range(TIMERS):
            chosen = self._line(n)
            for line in (*self._lines[n].values(), *(self._legacy or ())[n : n + 1]):
                line.restore(line is chosen and bool(self.state.driven[n]))

    def _take_legacy(self, taken: bool) -> None:
        for gate in self._gates:
            gate.take(taken)

    @property
    def legacy_on(self) -> bool:
        """Whether legacy replacement routing is on."""
        return bool(self.state.gen_conf & LEG_RT_CNF)

    # -- lines -----------------------------------------------------------------------------------

    def _line(self, n: int) -> IrqLine | None:
        if self.legacy_on and n < 2:
            return self._legacy[n] if self._legacy else None
        return self._lines[n].get(self.state.tn_conf[n] >> 9 & 0x1F)

    def _sync_irq(self, n: int) -> None:
        state = self.state
        conf = state.tn_conf[n]
        if not conf & INT_ENB_CNF:
            state.driven[n] = 0
        elif conf & INT_TYPE_CNF:
            state.driven[n] = state.gintr_sta >> n & 1
        self._drive(n)

    def _drive(self, n: int) -> None:
        level = bool(self.state.driven[n])
        chosen = self._line(n)
        for line in (*self._lines[n].values(), *(self._legacy or ())[n : n + 1]):
            line.set(line is chosen and level)

    # -- counter ---------------------------------------------------------------------------------

    def counter(self) -> int:
        """Main counter now."""
        state = self.state
        if not state.gen_conf & ENABLE_CNF:
            return state.main_cnt
        ticks = (self.clock.now_ps - state.since_ps) // HPET_PERIOD_PS
        return state.main_cnt + ticks & 0xFFFF_FFFF_FFFF_FFFF

    @on_read(MAIN_CNT)
    def _read_counter(self) -> int:
        return self.counter()

    @on_write(MAIN_CNT)
    def _write_counter(self, old: int, new: int) -> None:
        self.state.since_ps = self.clock.now_ps
        self._arm_all()

    @on_write(GEN_CONF)
    def _write_gen_conf(self, old: int, new: int) -> None:
        state = self.state
        if (old ^ new) & ENABLE_CNF:
            if not new & ENABLE_CNF:
                ticks = (self.clock.now_ps - state.since_ps) // HPET_PERIOD_PS
                state.main_cnt = state.main_cnt + ticks & 0xFFFF_FFFF_FFFF_FFFF
            state.since_ps = self.clock.now_ps
            self._arm_all()
        if (old ^ new) & LEG_RT_CNF:
            self._take_legacy(bool(new & LEG_RT_CNF))
            for n in range(TIMERS):
                self._sync_irq(n)

    @on_command(GINTR_STA)
    def _clear_status(self, value: int) -> None:
        self.state.gintr_sta &= ~value
        for n in range(TIMERS):
            self._sync_irq(n)

    @on_write(*TN_CONF)
    def _write_conf(self, n: int, old: int, new: int) -> None:
        if not new & TYPE_CNF:
            self.state.tn_conf[n] = new & ~VAL_SET_CNF
        if new & MODE32_CNF:
            self.state.tn_comp[n] &= 0xFFFF_FFFF
            self.state.period[n] &= 0xFFFF_FFFF
        self._sync_irq(n)
        self._arm(n)

    @on_command(*TN_COMP)
    def _write_comp(self, n: int, value: int) -> None:
        """Comparator; of a periodic timer also the period, or only that (2.3.9.2.2)."""
        state = self.state
        conf = state.tn_conf[n]
        if conf & MODE32_CNF:
            value &= 0xFFFF_FFFF
        if not conf & TYPE_CNF or conf & VAL_SET_CNF:
            state.tn_comp[n] = value
        if conf & TYPE_CNF:
            state.period[n] = value
        state.tn_conf[n] = conf & ~VAL_SET_CNF
        self._arm(n)

    # -- comparators -----------------------------------------------------------------------------

    def _arm_all(self) -> None:
        for n in range(TIMERS):
            self._arm(n)

    def _mask(self, n: int) -> int:
        return 0xFFFF_FFFF if self.state.tn_conf[n] & MODE32_CNF else 0xFFFF_FFFF_FFFF_FFFF

    def _arm(self, n: int) -> None:
        """Set the clock's timer to the next match of counter and comparator."""
        state = self.state
        if not state.gen_conf & ENABLE_CNF:
            self._timers[n].cancel()
            return
        elapsed = (self.clock.now_ps - state.since_ps) // HPET_PERIOD_PS
        mask = self._mask(n)
        ahead = state.tn_comp[n] - (state.main_cnt + elapsed) & mask
        self._timers[n].arm(state.since_ps + (elapsed + (ahead or mask + 1)) * HPET_PERIOD_PS)

    def _expired(self, n: int) -> None:
        state = self.state
        conf = state.tn_conf[n]
        mask = self._mask(n)
        if conf & TYPE_CNF and state.period[n]:
            behind = self.counter() - state.tn_comp[n] & mask
            state.tn_comp[n] = (
                state.tn_comp[n] + (behind // state.period[n] + 1) * state.period[n] & mask
            )
        self._arm(n)
        if conf & INT_TYPE_CNF:
            state.gintr_sta |= 1 << n
            self._sync_irq(n)
        elif conf & INT_ENB_CNF:
            # The line stays up until the next edge: an 8259 forgets a request whose input falls.
            for level in (0, 1):
                state.driven[n] = level
                self._drive(n)

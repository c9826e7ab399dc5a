"""Interval timer 82C54 (Intel 231244-006), clocked with 14.31818 MHz / 12 as in a PC.

Nothing ticks: each counter keeps the tick at which it was loaded, and value and OUT are computed
from guest time. Only counter 0 has a timer, for the edges of IRQ0. Modelled: modes 0-5, BCD,
counter latch, read-back, gate of each counter, new counts that wait for the end of a period.
Simplified: in modes 2 and 4 the low pulse of one clock at OUT0 has no length for IRQ0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from workbench.core.bus import Window
from workbench.core.clock import Clock
from workbench.core.irq import IrqLine
from workbench.core.regs import WO, Field, Reg, RegBank, RegMap, array, on_command, on_read

__all__ = ["I8254", "CounterState", "PitState", "ps_of_tick", "tick_of_ps"]

REF = "82C54, control word format"
_SC = Field("SC", 6, 2)
_RW = {0: "latch", 1: "lsb", 2: "msb", 3: "lsb+msb"}
COUNTER = array("COUNTER", 0, 1, 3, 1, ref="82C54, operation description")
RBC = Reg(
    "RBC",
    3,
    1,
    access=WO,
    match=(0xC0, 0xC0),
    fields=(
        Field("CNT", 1, 3),
        Field("STATUS#", 4, values={0: "latch", 1: "no"}),
        Field("COUNT#", 5, values={0: "latch", 1: "no"}),
        Field("RBC", 6, 2),
    ),
    ref="82C54, read-back command",
)
LATCH = Reg("LATCH", 3, 1, access=WO, match=(0x30, 0), fields=(_SC,), ref="82C54, latch command")
CW = Reg(
    "CW",
    3,
    1,
    access=WO,
    match=(0, 0),
    fields=(
        Field("BCD", 0),
        Field("M", 1, 3, values={i: f"mode{i if i < 6 else i - 4}" for i in range(8)}),
        Field("RW", 4, 2, values=_RW),
        _SC,
    ),
    ref=REF,
)

_NUM, _DEN = 105, 88_000_000
"""Ticks per picosecond as a fraction: 315/22 MHz / 12 = 105/88 MHz."""


def tick_of_ps(ps: int) -> int:
    """Whole clock ticks since time 0."""
    return ps * _NUM // _DEN


def ps_of_tick(tick: int) -> int:
    """The first picosecond at which `tick_of_ps` gives at least `tick`."""
    return -(-tick * _DEN // _NUM)


@dataclass(slots=True)
class CounterState:
    """One counter. Ticks are absolute; `start` is that of the load of the counting element."""

    mode: int = 2
    rw: int = 3
    bcd: bool = False
    gate: bool = True
    count: int = 0
    """Count in the counting element, 1..65536; 0 before the first count is written."""
    start: int = 0
    held: int | None = None
    """Ticks counted when the gate stopped the counter; None while it counts."""
    triggered: bool = False
    """Modes 1 and 5: the gate has risen since the count was written."""
    next_count: int = 0
    """Count that waits for the end of the period (or for a trigger), 0 if none."""
    next_start: int = 0
    low_byte: int | None = None
    """First byte of a two-byte count."""
    read_high: bool = False
    latch: int | None = None
    latch_left: int = 0
    status: int | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.mode <= 5 and 1 <= self.rw <= 3):
            raise ValueError(f"expected mode 0..5 and rw 1..3, not {self.mode!r} and {self.rw!r}")
        if not (0 <= self.count <= 65536 and 0 <= self.next_count <= 65536):
            raise ValueError(f"expected counts 0..65536, not {self.count!r}, {self.next_count!r}")
        if self.next_count and not self.count:
            raise ValueError(f"expected a count before the next one, {self.next_count!r}")
        for value, bits in ((self.low_byte, 8), (self.latch, 16), (self.status, 8)):
            if value is not None and not 0 <= value < 1 << bits:
                raise ValueError(f"expected {bits} bits, not {value!r}")


@dataclass(slots=True)
class PitState:
    """Three counters."""

    counter: list[CounterState] = field(
        default_factory=lambda: [CounterState(), CounterState(), CounterState(gate=False)],
        metadata={"length": 3},
    )
    irq0: bool = True
    """OUT0 as last driven."""


class Counter:
    """Arithmetic of one counter over its state; `tick` is the time of the question."""

    def __init__(self, state: CounterState) -> None:
        self.s = state

    def settle(self, tick: int) -> None:
        """Let a count that waited take over if its time has come."""
        s = self.s
        if s.next_count and s.mode in (2, 3) and s.held is None and tick >= s.next_start:
            high_first = s.mode == 2 or self._phase(s.next_start) == 0
            start = s.next_start
            s.count, s.next_count = s.next_count, 0
            s.start = start if high_first else start - (s.count + 1) // 2

    def elapsed(self, tick: int) -> int:
        """Ticks counted since the load; negative before the load."""
        s = self.s
        return s.held if s.held is not None else tick - s.start

    def _phase(self, tick: int) -> int:
        """Mode 2, 3: position in the period."""
        return self.elapsed(tick) % self.s.count

    def value(self, tick: int) -> int:
        """What a read sees, binary or BCD."""
        s = self.s
        self.settle(tick)
        count, e = s.count, self.elapsed(tick)
        if not count:
            value = 0
        elif e < 0 or (s.mode in (1, 5) and not s.triggered):
            value = count
        elif s.mode == 2:
            value = count - e % count
        elif s.mode == 3:
            p = e % count
            high = (count + 1) // 2
            value = (count & ~1) - 2 * (p if p < high else p - high)
        else:
            value = count - e
        if not s.bcd:
            return value & 0xFFFF
        value %= 10000
        return value // 1000 << 12 | value // 100 % 10 << 8 | value // 10 % 10 << 4 | value % 10

    def out(self, tick: int) -> bool:
        """The OUT pin."""
        s = self.s
        self.settle(tick)
        e = self.elapsed(tick)
        match s.mode:
            case 0:
                return bool(s.count) and e >= s.count
            case 1:
                return not s.triggered or not 0 <= e < s.count
            case 2:
                if not s.count or not s.gate or e < 0:
                    return True
                return e % s.count != s.count - 1
            case 3:
                if not s.count or not s.gate or e < 0:
                    return True
                return e % s.count < (s.count + 1) // 2
            case 4:
                return not s.count or e != s.count
            case _:
                return not s.triggered or e != s.count

    def next_rise(self, tick: int) -> int | None:
        """The next tick after `tick` at which OUT rises (mode 3: changes), or None."""
        s = self.s
        self.settle(tick)
        if not s.count or s.held is not None:
            return None
        e = self.elapsed(tick)
        match s.mode:
            case 0:
                return s.start + s.count if e < s.count else None
            case 2:
                if s.next_count:
                    return s.next_start
                return s.start + (max(e, 0) // s.count + 1) * s.count
            case 3:
                if e < 0:
                    return s.start + (s.count + 1) // 2
                base = tick - e % s.count
                half = base + (s.count + 1) // 2
                return half if tick < half else base + s.count
            case 4:
                return s.start + s.count + 1 if e <= s.count else None
            case _:
                if not s.triggered:
                    return None
                end = s.start + s.count + (s.mode == 5)
                return end if tick < end else None

    def set_control(self, mode: int, rw: int, bcd: bool) -> None:
        """A control word: the counter waits for a count."""
        s = self.s
        s.mode, s.rw, s.bcd = mode, rw, bcd
        s.count = s.next_count = 0
        s.start = 0
        s.held = None
        s.triggered = s.read_high = False
        s.low_byte = s.latch = s.status = None

    def write(self, byte: int, tick: int) -> None:
        """A byte of the count."""
        s = self.s
        if s.rw == 3:
            if s.low_byte is None:
                s.low_byte = byte
                if s.mode == 0:  # the first byte stops the counter, OUT goes low
                    s.count = 0
                return
            raw = s.low_byte | byte << 8
            s.low_byte = None
        else:
            raw = byte if s.rw == 1 else byte << 8
        if s.bcd:
            raw = sum((raw >> 4 * i & 15) * 10**i for i in range(4)) % 10000
        self._load(raw or (10000 if s.bcd else 65536), tick)

    def _load(self, count: int, tick: int) -> None:
        s = self.s
        self.settle(tick)
        if s.mode in (2, 3):
            count = max(count, 2)
        if s.mode in (2, 3) and s.count:
            if s.held is not None:
                s.next_count, s.next_start = count, 0
                return
            e = self.elapsed(tick)
            if e < 0:
                s.count = count
            elif s.mode == 2:
                s.next_start = s.start + (e // s.count + 1) * s.count
                s.next_count = count
            else:
                s.next_start = self.next_rise(tick) or tick
                s.next_count = count
            return
        if s.mode in (1, 5):
            if s.triggered:
                s.next_count = count
            else:
                s.count = count
            return
        s.count = count
        s.next_count = 0
        s.start = tick + 1
        s.held = None if s.gate else 0

    def set_gate(self, level: bool, tick: int) -> None:
        """The GATE pin: stops the counter (0, 2, 3, 4), reloads it (2, 3) or triggers it (1, 5)."""
        s = self.s
        if level == s.gate:
            return
        self.settle(tick)
        s.gate = level
        if s.mode in (1, 5):
            if level and s.count:
                s.count, s.next_count = s.next_count or s.count, 0
                s.start = tick + 1
                s.triggered = True
        elif not level:
            s.held = max(self.elapsed(tick), 0)
        elif s.mode in (2, 3):
            s.count, s.next_count = s.next_count or s.count, 0
            s.start = tick + 1
            s.held = None
        elif s.held is not None:
            s.start = tick - s.held
            s.held = None

    def latch_count(self, tick: int) -> None:
        """Counter latch: keeps the value until it is read; another before that does nothing."""
        s = self.s
        if s.latch is None:
            s.latch = self.value(tick)
            s.latch_left = 2 if s.rw == 3 else 1

    def latch_status(self, tick: int) -> None:
        """Status latch of the read-back command."""
        s = self.s
        if s.status is None:
            null = not s.count or bool(s.next_count) or self.elapsed(tick) < 0
            s.status = self.out(tick) << 7 | null << 6 | s.rw << 4 | s.mode << 1 | s.bcd

    def read(self, tick: int) -> int:
        """The next byte: status, latched count, or the running count."""
        s = self.s
        if s.status is not None:
            status, s.status = s.status, None
            return status
        value = s.latch if s.latch is not None else self.value(tick)
        high = s.rw == 2 or (s.rw == 3 and s.read_high)
        if s.rw == 3:
            s.read_high = not s.read_high
        if s.latch is not None:
            s.latch_left -= 1
            if s.latch_left <= 0:
                s.latch = None
        return value >> 8 if high else value & 0xFF


class I8254(RegBank[PitState]):
    """The timer of a PC at ports 0x40-0x43: counter 0 to IRQ0, 1 refresh, 2 speaker."""

    MAP = RegMap("i8254", 4, (*COUNTER, RBC, LATCH, CW), REF, fill=0xFF)
    STATE = PitState

    def __init__(self, clock: Clock, irq0: IrqLine, name: str = "pit") -> None:
        self._clock = clock
        self._irq0 = irq0
        self._timer = clock.timer(f"{name}.out0", self._edge)
        super().__init__(name)
        self._irq0.restore(True)

    def windows(self) -> tuple[Window, ...]:
        """The window in port space."""
        return (Window.of(self, self.name, 0x40),)

    def set_state(self, state: PitState) -> None:
        super().set_state(state)
        self._counters = [Counter(s) for s in state.counter]

    def tick(self) -> int:
        """Clock ticks up to now."""
        return self._clock.now_ps * _NUM // _DEN

    def out(self, counter: int) -> bool:
        """OUT of a counter."""
        return self._counters[counter].out(self.tick())

    def gate(self, counter: int) -> bool:
        """GATE of a counter."""
        return self.state.counter[counter].gate

    def set_gate(self, counter: int, level: bool) -> None:
        """GATE of a counter; port 0x61 drives that of counter 2."""
        self._counters[counter].set_gate(level, self.tick())
        if counter == 0:
            self._sync_irq()

    # -- registers -------------------------------------------------------------------------------

    @on_read(*COUNTER)
    def _read(self, index: int) -> int:
        return self._counters[index].read(self.tick())

    @on_command(*COUNTER)
    def _write(self, index: int, value: int) -> None:
        self._counters[index].write(value, self.tick())
        if index == 0:
            self._sync_irq()

    @on_command(CW)
    def _control(self, value: int) -> None:
        index, mode = value >> 6, value >> 1 & 7
        self._counters[index].set_control(
            mode if mode < 6 else mode - 4, value >> 4 & 3, bool(value & 1)
        )
        if index == 0:
            self._sync_irq()

    @on_command(LATCH)
    def _latch(self, value: int) -> None:
        self._counters[value >> 6].latch_count(self.tick())

    @on_command(RBC)
    def _read_back(self, value: int) -> None:
        tick = self.tick()
        for index, counter in enumerate(self._counters):
            if value >> index & 2:
                if not value & 0x20:
                    counter.latch_count(tick)
                if not value & 0x10:
                    counter.latch_status(tick)

    # -- IRQ0 ------------------------------------------------------------------------------------

    def _sync_irq(self) -> None:
        tick = self.tick()
        self.state.irq0 = level = self._counters[0].out(tick)
        self._irq0.set(level)
        self._arm(tick)

    def _arm(self, tick: int) -> None:
        rise = self._counters[0].next_rise(tick)
        if rise is None:
            self._timer.cancel()
        else:
            self._timer.arm(ps_of_tick(rise))

    def _edge(self) -> None:
        tick = tick_of_ps(self._timer.fired_ps)
        self.state.irq0 = level = self._counters[0].out(tick)
        if level:
            self._irq0.set(False)
        self._irq0.set(level)
        self._arm(tick)

    # -- state -----------------------------------------------------------------------------------

    def reset(self) -> None:
        """Power-on: the modes are undefined by the data sheet; here mode 2 without a count, OUT
        high.
        """
        self.set_state(PitState())
        self._timer.cancel()
        self._irq0.set(True)

    def restore(self, data: dict[str, Any]) -> None:
        """Take what `save` gave; the clock restores the timer."""
        super().restore(data)
        self._irq0.restore(self.state.irq0)

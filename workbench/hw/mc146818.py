"""Real-time clock and CMOS RAM (Motorola MC146818A, ADI-1026) at ports 0x70/0x71 of a PC.

The time is that of the configuration at start plus guest time; host time does not exist. Nothing
ticks: the time registers and the flags are brought up to date when they are looked at, and the
timer runs only while an interrupt is enabled. Modelled: BCD/binary, 12/24 hours, SET, divider
reset, UIP, periodic, alarm and update-ended interrupts, century at 0x32, the memory-size bytes of
the PC BIOS. Not modelled: square wave, daylight saving (the bits are stored), NMI mask (bit 7 of
port 0x70, stored).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from workbench.core.bus import Window
from workbench.core.clock import PS_PER_SECOND, Clock
from workbench.core.irq import IrqLine
from workbench.core.regs import (
    RC,
    RO,
    WO,
    Field,
    Indirect,
    Reg,
    RegBank,
    RegMap,
    on_command,
    on_read,
)

__all__ = ["CMOS", "MC146818", "RtcState", "memory_size_bytes"]

REF = "MC146818A, address map"
CENTURY = 0x32

REG_A = Reg(
    "REGA",
    0x0A,
    1,
    0x26,
    fields=(
        Field("RS", 0, 4),
        Field("DV", 4, 3, values={2: "32768Hz", 6: "reset", 7: "reset"}),
        Field("UIP", 7, access=RO),
    ),
    ref="MC146818A, register A",
)
REG_B = Reg(
    "REGB",
    0x0B,
    1,
    0x02,
    fields=(
        Field("DSE", 0),
        Field("H24", 1, values={0: "12h", 1: "24h"}),
        Field("DM", 2, values={0: "bcd", 1: "binary"}),
        Field("SQWE", 3),
        Field("UIE", 4),
        Field("AIE", 5),
        Field("PIE", 6),
        Field("SET", 7),
    ),
    ref="MC146818A, register B",
)
REG_C = Reg(
    "REGC",
    0x0C,
    1,
    access=RC,
    fields=(Field("UF", 4), Field("AF", 5), Field("PF", 6), Field("IRQF", 7)),
    ref="MC146818A, register C",
)
REG_D = Reg("REGD", 0x0D, 1, 0x80, access=RO, fields=(Field("VRT", 7),), ref="register D")
CMOS = RegMap(
    "cmos",
    128,
    (
        Reg("SECONDS", 0, 1, ref=REF),
        Reg("SECONDS_ALARM", 1, 1, ref=REF),
        Reg("MINUTES", 2, 1, ref=REF),
        Reg("MINUTES_ALARM", 3, 1, ref=REF),
        Reg("HOURS", 4, 1, ref=REF),
        Reg("HOURS_ALARM", 5, 1, ref=REF),
        Reg("DAY_OF_WEEK", 6, 1, ref=REF),
        Reg("DATE", 7, 1, ref=REF),
        Reg("MONTH", 8, 1, ref=REF),
        Reg("YEAR", 9, 1, ref=REF),
        REG_A,
        REG_B,
        REG_C,
        REG_D,
        *(Reg(f"CMOS_{i:02X}", i, 1, ref="PC CMOS RAM") for i in range(0x0E, 0x80) if i != CENTURY),
        Reg("CENTURY", CENTURY, 1, ref="PC CMOS RAM; FADT.CENTURY"),
    ),
    REF,
)
INDEX = Reg(
    "CMOS_INDEX", 0, 1, access=WO, fields=(Field("INDEX", 0, 7), Field("NMI#", 7)), attr="index"
)
DATA = Reg("CMOS_DATA", 1, 1)
PORTS = RegMap(
    "rtc", 2, (INDEX, DATA), REF, fill=0xFF, indirect=(Indirect(INDEX, DATA, CMOS, 0x7F),)
)

UIP_PS = 2_228_000_000
"""UIP rises 244 us before an update, which takes 1984 us with a 32.768 kHz time base."""
_TIME = frozenset((0, 2, 4, 6, 7, 8, 9, CENTURY))
_ALARM = frozenset((1, 3, 5))


@dataclass(slots=True)
class RtcState:
    """CMOS contents and the position of the divider chain."""

    index: int = 0
    cmos: bytearray = field(default_factory=lambda: bytearray(128))
    """Time registers as of the last update, alarm, registers A (without UIP) to C, and RAM."""
    chain_ps: int = 0
    """Guest time at which the divider chain started; updates happen whole seconds later."""
    seen_ps: int = 0
    """Guest time up to which updates and flags are accounted for."""

    def __post_init__(self) -> None:
        if len(self.cmos) != 128:
            raise ValueError(f"expected 128 bytes of CMOS, not {len(self.cmos)}")
        if self.seen_ps < 0 or self.chain_ps > self.seen_ps:
            raise ValueError(f"expected times in order, not {self.chain_ps!r}, {self.seen_ps!r}")


def memory_size_bytes(ram_bytes: int, hole_bytes: int = 3 << 30) -> dict[int, int]:
    """CMOS bytes with the memory size: base (0x15), extended (0x17, 0x30), over 16 MiB (0x34),
    over 4 GiB (0x5B).
    """
    low = min(ram_bytes, hole_bytes)
    extended_kib = min(max(low - (1 << 20), 0) >> 10, 0xFFFF)
    above_16m = min(max(low - (16 << 20), 0) >> 16, 0xFFFF)
    above_4g = (ram_bytes - low) >> 16
    result = {0x15: 640 & 0xFF, 0x16: 640 >> 8}
    for at in (0x17, 0x30):
        result[at], result[at + 1] = extended_kib & 0xFF, extended_kib >> 8
    result[0x34], result[0x35] = above_16m & 0xFF, above_16m >> 8
    for i in range(3):
        result[0x5B + i] = above_4g >> 8 * i & 0xFF
    return result


class MC146818(RegBank[RtcState]):
    """RTC with its index and data port. `epoch_s` is the UTC time at guest time 0, seconds since
    1970.
    """

    MAP = PORTS
    STATE = RtcState
    UIP_PS = UIP_PS

    def __init__(
        self,
        clock: Clock,
        irq8: IrqLine,
        epoch_s: int,
        ram_bytes: int = 0,
        nvram: dict[int, int] | None = None,
        name: str = "rtc",
    ) -> None:
        self._clock = clock
        self._irq8 = irq8
        self._timer = clock.timer(f"{name}.irq", self._sync)
        state = RtcState()
        cmos = state.cmos
        cmos[0x0A], cmos[0x0B], cmos[0x0D] = REG_A.reset, REG_B.reset, REG_D.reset
        contents = {0x14: 0x06, 0x3D: 0x32} | memory_size_bytes(ram_bytes) | (nvram or {})
        for at, value in contents.items():
            cmos[at] = value
        total = sum(cmos[0x10:0x2E])
        cmos[0x2E], cmos[0x2F] = total >> 8 & 0xFF, total & 0xFF
        super().__init__(name, state=state)
        self._put_time(datetime.fromtimestamp(epoch_s, UTC).replace(tzinfo=None))

    def windows(self) -> tuple[Window, ...]:
        """The window in port space."""
        return (Window.of(self, self.name, 0x70),)

    # -- registers -------------------------------------------------------------------------------

    @on_read(DATA)
    def _read_data(self) -> int:
        s = self.state
        at = s.index & 0x7F
        if at > 0x0D and at != CENTURY:
            return s.cmos[at]
        self._advance()
        if at == 0x0A:
            return s.cmos[at] | self._uip() << 7
        if at == 0x0C:
            flags = s.cmos[at] | self._irqf() << 7
            s.cmos[at] = 0
            self._sync()
            return flags
        return s.cmos[at]

    @on_command(DATA)
    def _write_data(self, value: int) -> None:
        s = self.state
        at = s.index & 0x7F
        if at > 0x0D and at != CENTURY:
            s.cmos[at] = value
            return
        self._advance()
        if at == 0x0A:
            was_reset = self._in_reset()
            s.cmos[at] = value & 0x7F
            if was_reset and not self._in_reset():
                # The first update follows half a second after the reset is lifted.
                s.chain_ps = self._clock.now_ps - PS_PER_SECOND // 2
        elif at == 0x0B:
            self._write_register_b(value)
        elif at not in (0x0C, 0x0D):
            s.cmos[at] = value
        self._sync()

    def _write_register_b(self, value: int) -> None:
        """SET clears UIE. While SET is 0 before and after, the time stays what it is when its code
        or its hours change; the chip wants it to be written again then, so no driver can tell.
        """
        cmos = self.state.cmos
        if (cmos[0x0B] | value) & 0x80 or not (cmos[0x0B] ^ value) & 0x06:
            cmos[0x0B] = value & ~0x10 if value & 0x80 else value
            return
        time, weekday = self._time(), cmos[6]
        cmos[0x0B] = value
        self._put_time(time)
        cmos[6] = weekday

    def cmos_byte(self, at: int) -> int:
        """A CMOS byte without side effects, as of the last access."""
        return self.state.cmos[at]

    # -- time ------------------------------------------------------------------------------------

    def _in_reset(self) -> bool:
        return self.state.cmos[0x0A] & 0x60 == 0x60

    def _uip(self) -> int:
        s = self.state
        if s.cmos[0x0B] & 0x80 or self._in_reset():
            return 0
        return int((self._clock.now_ps - s.chain_ps) % PS_PER_SECOND >= PS_PER_SECOND - self.UIP_PS)

    def _irqf(self) -> int:
        cmos = self.state.cmos
        return int(bool(cmos[0x0B] & cmos[0x0C] & 0x70))

    def _rate_hz(self) -> int:
        """Rate of the periodic flag, 0 if off."""
        rs = self.state.cmos[0x0A] & 0x0F
        if not rs:
            return 0
        return 32768 >> (rs + 6 if rs < 3 else rs - 1)

    def _tap_ps(self) -> int:
        """Guest time from which periods are counted: one chain divides for them and for updates."""
        return self.state.chain_ps

    def _periods(self, ps: int) -> int:
        """Whole periods of the periodic flag until a guest time, 0 while it is off."""
        return (ps - self._tap_ps()) * self._rate_hz() // PS_PER_SECOND

    def _advance(self) -> None:
        """Bring time and flags up to now."""
        s = self.state
        now = self._clock.now_ps
        if now <= s.seen_ps:
            return
        if not self._in_reset():
            before, after = s.seen_ps - s.chain_ps, now - s.chain_ps
            if self._periods(s.seen_ps) != self._periods(now):
                s.cmos[0x0C] |= 0x40
            seconds = after // PS_PER_SECOND - before // PS_PER_SECOND
            if seconds and not s.cmos[0x0B] & 0x80:
                s.cmos[0x0C] |= 0x10
                wait = self._seconds_to_alarm()
                if wait is not None and wait <= seconds:
                    s.cmos[0x0C] |= 0x20
                self._add_seconds(seconds)
        s.seen_ps = now

    def _to_binary(self, value: int) -> int:
        if self.state.cmos[0x0B] & 4:
            return value
        return (value >> 4) * 10 + (value & 15)

    def _from_binary(self, value: int) -> int:
        if self.state.cmos[0x0B] & 4:
            return value
        return value // 10 << 4 | value % 10

    def _hour(self, value: int) -> int:
        """Hours register to 0..23."""
        if self.state.cmos[0x0B] & 2:
            return self._to_binary(value)
        return self._to_binary(value & 0x7F) % 12 + (12 if value & 0x80 else 0)

    def _time(self) -> datetime:
        """The time registers; values that are no time are brought into range."""
        cmos = self.state.cmos
        century = (cmos[CENTURY] >> 4) * 10 + (cmos[CENTURY] & 15)
        year = max(1, min(9998, century * 100 + self._to_binary(cmos[9])))
        month = max(1, min(12, self._to_binary(cmos[8])))
        first = datetime(year, month, 1)
        return first + timedelta(
            days=max(0, min(30, self._to_binary(cmos[7]) - 1)),
            hours=self._hour(cmos[4]),
            minutes=self._to_binary(cmos[2]),
            seconds=self._to_binary(cmos[0]),
        )

    def _put_time(self, time: datetime) -> None:
        cmos = self.state.cmos
        put = self._from_binary
        if cmos[0x0B] & 2:
            cmos[4] = put(time.hour)
        else:
            cmos[4] = put((time.hour - 1) % 12 + 1) | (0x80 if time.hour >= 12 else 0)
        cmos[0], cmos[2] = put(time.second), put(time.minute)
        cmos[6] = time.isoweekday() % 7 + 1
        cmos[7], cmos[8], cmos[9] = put(time.day), put(time.month), put(time.year % 100)
        century = time.year // 100
        cmos[CENTURY] = century // 10 << 4 | century % 10

    def _add_seconds(self, seconds: int) -> None:
        cmos = self.state.cmos
        weekday = cmos[6]
        before = self._time()
        try:
            after = before + timedelta(seconds=seconds)
        except OverflowError:
            after = before
        self._put_time(after)
        cmos[6] = (weekday - 1 + (after.date() - before.date()).days) % 7 + 1

    # -- interrupts ------------------------------------------------------------------------------

    def _seconds_to_alarm(self) -> int | None:
        """Seconds (1..86400) until the alarm registers match next, None if they never do."""
        cmos = self.state.cmos
        time = self._time()
        now = time.hour * 3600 + time.minute * 60 + time.second
        hours = range(24) if cmos[5] >= 0xC0 else (self._hour(cmos[5]),)
        minutes = range(60) if cmos[3] >= 0xC0 else (self._to_binary(cmos[3]),)
        seconds = range(60) if cmos[1] >= 0xC0 else (self._to_binary(cmos[1]),)
        if hours[0] > 23 or minutes[0] > 59 or seconds[0] > 59:
            return None
        for day in (0, 86400):
            for hour in hours:
                if day + hour * 3600 + 3599 <= now:
                    continue
                for minute in minutes:
                    base = day + hour * 3600 + minute * 60
                    if base + 59 <= now:
                        continue
                    for second in seconds:
                        if base + second > now:
                            return base + second - now
        return None

    def _sync(self) -> None:
        """Level of IRQ8, and the timer for the next enabled event."""
        self._advance()
        self._irq8.set(bool(self._irqf()))
        deadline = self._next_event_ps()
        if deadline is None:
            self._timer.cancel()
        else:
            self._timer.arm(deadline)

    def _next_event_ps(self) -> int | None:
        s = self.state
        waiting = s.cmos[0x0B] & ~s.cmos[0x0C] & 0x70
        if not waiting or self._in_reset():
            return None
        now = self._clock.now_ps
        due: list[int] = []
        rate = self._rate_hz()
        if waiting & 0x40 and rate:
            due.append(self._tap_ps() - -(self._periods(now) + 1) * PS_PER_SECOND // rate)
        if not s.cmos[0x0B] & 0x80:
            second = (now - s.chain_ps) // PS_PER_SECOND
            if waiting & 0x10:
                due.append(s.chain_ps + (second + 1) * PS_PER_SECOND)
            wait = self._seconds_to_alarm() if waiting & 0x20 else None
            if wait is not None:
                due.append(s.chain_ps + (second + wait) * PS_PER_SECOND)
        return min(due) if due else None

    # -- state -----------------------------------------------------------------------------------

    def reset(self) -> None:
        """The RESET pin: interrupt enables and flags go, time and RAM stay."""
        self._advance()
        cmos = self.state.cmos
        cmos[0x0B] &= ~0x78
        cmos[0x0C] = 0
        self.state.index = 0
        self._sync()

    def restore(self, data: dict[str, Any]) -> None:
        """Take what `save` gave; the clock restores the timer."""
        super().restore(data)
        self._irq8.restore(bool(self._irqf()))

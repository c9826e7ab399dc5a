"""Timers and clocks: what they count, where they stand, and when they fire next."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from workbench.hw.hpet import GEN_CONF, GINTR_STA, TN_CONF, Hpet
from workbench.hw.i8254 import I8254, Counter, tick_of_ps
from workbench.hw.lapic import LVT_TIMER, TMCCT, Lapic
from workbench.hw.mc146818 import CENTURY, MC146818, REG_A, REG_B, REG_C
from workbench.hw.piix4_pm import PMEN, PMSTS, Piix4Pm
from workbench.inspect.banks import bits
from workbench.inspect.guest import time_text
from workbench.inspect.page import Page, Table, pairs, table
from workbench.inspect.subject import Row, of_register

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["timers"]


_PM_WINDOW: Final = "pm"


def timers(machine: Machine, name: str, rows: int) -> Page:
    """All of them."""
    tables = [_now(machine), _deadlines(machine, rows)]
    for device in machine.devices.values():
        make = _MAKERS.get(type(device))
        if make is not None:
            tables.append(make(device, machine))
    return Page(name, "timers", tuple(tables))


def _now(machine: Machine) -> Table:
    clock = machine.clock
    tsc = clock.now_ps // machine.config.tsc_period_ps + machine.cpu.get("tsc_offset")
    return pairs(
        "guest time",
        [
            ("instructions", f"{clock.icount:,}"),
            ("time", f"{clock.now_ps / 1e12:.9f} s"),
            ("TSC", f"{tsc & (1 << 64) - 1:,}"),
        ],
    )


def _deadlines(machine: Machine, rows: int) -> Table:
    now = machine.clock.now_ps
    armed = [(t.deadline_ps, t.name) for t in machine.clock.timers if t.deadline_ps is not None]
    shown = ((name, f"{at / 1e12:.9f} s", time_text(at - now)) for at, name in sorted(armed))
    return table("deadlines", ("timer", "at", "in"), shown, rows)


def _of(device: str, name: str, text: str) -> Row:
    return Row((name, text), of_register(device, name))


def _pit(device: Any, machine: Machine) -> Table:
    tick = tick_of_ps(machine.clock.now_ps)
    return table(
        "8254 (PIT)",
        ("counter", "mode", "count", "now", "OUT", "gate", "next"),
        _counters(device, tick),
    )


def _counters(pit: I8254, tick: int) -> Iterator[Row]:
    for n, state in enumerate(pit.state.counter):
        counter = Counter(copy.copy(state))  # looking lets a count that waits take over
        rise = counter.next_rise(tick)
        cells = (
            str(n),
            str(state.mode) + (" BCD" if state.bcd else ""),
            str(state.count) + (f", then {state.next_count}" if state.next_count else ""),
            str(counter.value(tick)),
            str(int(counter.out(tick))),
            str(int(state.gate)),
            "-" if rise is None else f"{rise - tick:,} ticks",
        )
        yield Row(cells, of_register(pit.name, f"COUNTER{n}"))


def _hpet(device: Any, machine: Machine) -> Table:
    s = device.state
    rows = [
        ("GEN_CONF", f"{s.gen_conf:#x}", bits(GEN_CONF.fields, s.gen_conf)),
        ("GINTR_STA", f"{s.gintr_sta:#x}", bits(GINTR_STA.fields, s.gintr_sta)),
        ("MAIN_CNT", f"{device.counter():#x}", ""),
    ]
    for n, conf in enumerate(s.tn_conf):
        low = conf & 0xFFFF_FFFF
        rows.append((f"TN_CONF{n}", f"{conf:#x}", bits(TN_CONF[n].fields[:8], low)))
        rows.append((f"TN_COMP{n}", f"{s.tn_comp[n]:#x}", f"period {s.period[n]:#x}"))
    known = [Row(row, of_register(device.name, row[0])) for row in rows]
    return table("HPET", ("register", "value", "fields"), known)


def _lapic(device: Any, machine: Machine) -> Table:
    s = device.state
    return pairs(
        "local APIC timer",
        [
            _of(
                device.name, "LVT_TIMER", f"{s.lvt_timer:#x} {bits(LVT_TIMER.fields, s.lvt_timer)}"
            ),
            _of(device.name, "TMICT", f"{s.tmict:,}"),
            _of(device.name, "TMCCT", f"{device.read(TMCCT.offset, 4):,}"),
            _of(device.name, "TDCR", f"{s.tdcr:#x}"),
            ("TSC deadline", f"{s.tsc_deadline:,}"),
        ],
    )


def _pm(device: Any, machine: Machine) -> Table:
    io = device.io
    status = io.status()
    return pairs(
        "ACPI PM timer",
        [
            _of(_PM_WINDOW, "PMTMR", f"{io.ticks() & 0xFFFFFF:#08x}"),
            _of(_PM_WINDOW, "PMSTS", f"{status:#06x} {bits(PMSTS.fields, status)}"),
            _of(_PM_WINDOW, "PMEN", f"{io.state.pmen:#06x} {bits(PMEN.fields, io.state.pmen)}"),
            ("SCI", "up" if io.sci_level() else "down"),
        ],
    )


def _rtc(device: Any, machine: Machine) -> Table:
    s = device.state
    cmos = s.cmos
    year = f"{cmos[CENTURY]:02x}{cmos[9]:02x}"
    time = f"{cmos[4]:02x}:{cmos[2]:02x}:{cmos[0]:02x}"
    return pairs(
        "RTC",
        [
            ("time registers", f"{year}-{cmos[8]:02x}-{cmos[7]:02x} {time}"),
            ("as of", f"{s.seen_ps / 1e12:.9f} s"),
            ("alarm", f"{cmos[5]:02x}:{cmos[3]:02x}:{cmos[1]:02x}"),
            *(
                _of(
                    device.name,
                    reg.name,
                    f"{cmos[reg.offset]:#04x} {bits(reg.fields, cmos[reg.offset])}",
                )
                for reg in (REG_A, REG_B, REG_C)
            ),
        ],
    )


_MAKERS = {I8254: _pit, Hpet: _hpet, Lapic: _lapic, Piix4Pm: _pm, MC146818: _rtc}

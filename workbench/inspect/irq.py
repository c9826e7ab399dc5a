"""Interrupt controllers: 8259 pair, I/O APIC, local APIC, and who waits for whom.

8259A data sheet; 82093AA 3.2; SDM volume 3A, chapter 11.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workbench.core import layout as lay
from workbench.hw.i8259 import CASCADE, I8259Pair, PicState
from workbench.hw.ioapic import INTMASK, IOREDTBL, REMOTE_IRR, TRIGGER_LEVEL, Ioapic
from workbench.hw.lapic import (
    APIC_BASE_EN,
    ICR_LOW,
    MASKED,
    PPR,
    SVR,
    SVR_ENABLE,
    TPR,
    Lapic,
)
from workbench.hw.lapic import MAP as LAPIC_MAP
from workbench.inspect.banks import bits, register
from workbench.inspect.page import Page, Table, pairs, table
from workbench.inspect.subject import Row, of_register

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["irq"]

_SHOWN_APART = 0xFF | 0xFF << 56  # vector and destination
_LVTS = ("LVT_TIMER", "LVT_THERMAL", "LVT_PERF", "LVT_LINT0", "LVT_LINT1", "LVT_ERROR")
_LAPIC = (LAPIC_MAP["LDR"], LAPIC_MAP["DFR"], SVR, LAPIC_MAP["ESR"], ICR_LOW)


def irq(machine: Machine, name: str, rows: int) -> Page:
    """All of them."""
    pic, ioapic, lapic = (machine.devices.get(n) for n in ("pic", "ioapic", "lapic"))
    tables = [_cpu(machine)]
    pending: list[tuple[str, str, str]] = []
    if isinstance(lapic, Lapic):
        pending += _lapic_pending(machine, lapic)
    if isinstance(pic, I8259Pair):
        pending += _pic_pending(pic, lapic if isinstance(lapic, Lapic) else None)
    if isinstance(ioapic, Ioapic):
        pending += _ioapic_pending(ioapic, isinstance(lapic, Lapic))
    tables.append(table("pending", ("at", "what", "why it waits"), pending, rows, keys=2))
    if isinstance(lapic, Lapic):
        tables += _lapic(lapic)
    if isinstance(pic, I8259Pair):
        tables.append(_pic(pic))
    if isinstance(ioapic, Ioapic):
        tables.append(_ioapic(ioapic))
    tables.append(table("lines", ("line", "level", "driven by"), _lines(machine), rows))
    return Page(name, "interrupts", tuple(tables))


def _cpu(machine: Machine) -> Table:
    cpu = machine.cpu
    return pairs(
        "processor",
        [
            ("INTR", str(cpu.get("irq_pending") & lay.INTR_PENDING)),
            ("RFLAGS.IF", "open" if cpu.get("eflags") & lay.IF else "closed"),
            ("NMI", "blocked until IRET" if cpu.get("nmi_blocked") else "open"),
        ],
    )


def _vectors(words: list[int]) -> list[int]:
    """Numbers of the set bits of eight 32-bit words, the highest first."""
    return [32 * w + b for w in range(7, -1, -1) for b in range(31, -1, -1) if words[w] >> b & 1]


def _shown(vectors: list[int]) -> str:
    return " ".join(f"{v:#04x}" for v in vectors) or "-"


def _lapic_pending(machine: Machine, lapic: Lapic) -> Iterator[tuple[str, str, str]]:
    state = lapic.state
    ppr = lapic.read(PPR.offset, 4)
    serving = _vectors(state.isr)
    first = True
    for vector in _vectors(state.irr):
        if not state.svr & SVR_ENABLE:
            why = "the local APIC is disabled (SVR.ENABLE)"
        elif vector >> 4 <= ppr >> 4:
            holder = f"vector {serving[0]:#04x} in service" if serving else ""
            tpr = f"TPR {state.tpr:#04x}" if state.tpr >> 4 >= vector >> 4 else ""
            why = "its class is not above PPR: " + " and ".join(x for x in (holder, tpr) if x)
        elif not first:
            why = "a higher vector goes first"
        elif not machine.cpu.get("eflags") & lay.IF:
            why = "RFLAGS.IF is 0"
        else:
            why = "nothing: it is taken at the next boundary"
        first = first and vector >> 4 <= ppr >> 4
        yield "lapic", f"vector {vector:#04x}", why
    if state.lint[0]:
        yield "lapic", "LINT0 (8259)", _lint_why(machine, lapic)


def _lint_why(machine: Machine, lapic: Lapic) -> str:
    state = lapic.state
    if state.apic_base & APIC_BASE_EN:
        if state.lvt_lint0 & MASKED:
            return "LVT_LINT0 is masked"
        if state.lvt_lint0 >> 8 & 7 != 7:
            return "LVT_LINT0 is not ExtINT"
    if not machine.cpu.get("eflags") & lay.IF:
        return "RFLAGS.IF is 0"
    return "nothing: it is taken at the next boundary"


def _pic_pending(pair: I8259Pair, lapic: Lapic | None) -> Iterator[tuple[str, str, str]]:
    for chip, first in ((pair.master, 0), (pair.slave, 8)):
        s, best = chip.state, chip.request()
        for ir in range(8):
            if not s.irr >> ir & 1 or (first == 0 and ir == CASCADE):
                continue
            why = _pic_why(s, ir, best)
            if not why and first:
                master = pair.master.state
                if master.imr >> CASCADE & 1:
                    why = "the cascade, IR2 of pic0, is masked"
            yield chip.name, f"IRQ {first + ir}", why or "nothing: INT is up"


def _pic_why(s: PicState, ir: int, best: int) -> str:
    if s.expect:
        return f"the chip waits for {s.expect}"
    if s.imr >> ir & 1:
        return "masked (IMR)"
    if best == ir:
        return ""
    if best >= 0:
        return f"IR{best} goes first"
    return "an interrupt of the same or a higher priority is in service (ISR)"


def _ioapic_pending(ioapic: Ioapic, lapic: bool) -> Iterator[tuple[str, str, str]]:
    s = ioapic.state
    for pin, entry in enumerate(s.ioredtbl):
        if not s.asserted >> pin & 1:
            continue
        if entry & INTMASK:
            why = "masked; an edge is lost" if not entry & TRIGGER_LEVEL else "masked"
        elif not entry & TRIGGER_LEVEL:
            continue  # its edge has gone to the local APIC
        elif entry & REMOTE_IRR:
            why = f"vector {entry & 0xFF:#04x} has not had its EOI (RIRR)"
        else:
            why = "nobody took the message"
        yield "ioapic", f"pin {pin}", why


def _lapic(lapic: Lapic) -> list[Table]:
    s = lapic.state
    ppr = lapic.read(PPR.offset, 4)
    mode = "x2APIC" if lapic.x2apic else "xAPIC" if s.apic_base & APIC_BASE_EN else "disabled"
    state = pairs(
        "local APIC",
        [
            ("mode", f"{mode}, IA32_APIC_BASE {s.apic_base:#x}"),
            ("IRR", _shown(_vectors(s.irr))),
            ("ISR", _shown(_vectors(s.isr))),
            ("TMR", _shown(_vectors(s.tmr))),
            Row(
                ("TPR", f"{s.tpr:#04x} {bits(TPR.fields, s.tpr)}"),
                of_register(lapic.name, TPR.name),
            ),
            ("PPR", f"{ppr:#04x}"),
            ("LINT0, LINT1", f"{s.lint[0]}, {s.lint[1]}"),
        ],
    )
    shown = (*_LAPIC, *(LAPIC_MAP[n] for n in _LVTS))
    rows = [register(reg, lapic.peek(reg), lapic.name) for reg in shown]
    return [state, table("local APIC registers", ("register", "value", "fields"), rows)]


def _pic(pair: I8259Pair) -> Table:
    rows = []
    for chip in (pair.master, pair.slave):
        s = chip.state
        on = ("special mask", s.special_mask), ("auto EOI", s.auto_eoi), ("poll", s.poll)
        modes = [name for name, is_on in (*on, ("SFNM", s.fully_nested)) if is_on]
        cells = (
            chip.name, *(f"{value:08b}" for value in (s.irr, s.isr, s.imr, s.lines, s.elcr)),
            f"{s.vector_base:#04x}", f"IR{s.lowest}", ", ".join(modes),
        )  # fmt: skip
        rows.append(Row(cells, of_register(chip.name, "*")))
    columns = ("8259", "IRR", "ISR", "IMR", "lines", "ELCR", "base", "lowest", "modes")
    return table("8259 (bit 7 on the left)", columns, rows)


def _ioapic(ioapic: Ioapic) -> Table:
    s = ioapic.state
    rows = (
        Row(
            (
                str(pin),
                f"{entry & 0xFF:#04x}",
                "up" if s.asserted >> pin & 1 else "",
                bits(IOREDTBL[pin].fields, entry & ~_SHOWN_APART),
                f"{entry >> 56:#x}",
            ),
            of_register(ioapic.name, IOREDTBL[pin].name),
        )
        for pin, entry in enumerate(s.ioredtbl)
    )
    return table("I/O APIC", ("pin", "vector", "level", "fields", "destination"), rows)


def _lines(machine: Machine) -> Iterator[tuple[str, str, str]]:
    for name, shared in machine.lines.items():
        drivers: list[Any] = [s.name.removesuffix(f".{name}") for s in shared.sources if s.level]
        if shared.level or drivers:
            yield name, "up" if shared.level else "down", ", ".join(drivers)

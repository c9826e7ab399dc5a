"""Events in words: one line each, with the register's name and fields where the map is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from workbench.trace.events import pc_of
from workbench.trace.tables import (
    ACCESS,
    CONSOLE,
    DIGEST,
    DMA,
    EXIT,
    INPUT,
    INTERRUPT,
    IRQ_LINE,
    Event,
)

if TYPE_CHECKING:
    from workbench.core.regs import RegMap
    from workbench.trace.replayer import Divergence

_DIRECTION = {True: "<-", False: "->"}


def regmap_at(machine: Any, event: Event) -> RegMap | None:
    """Find the register map that an access went to, in a machine that was built like its own."""
    _, _, _, kind, _, _, _, _, _, addr, _ = event
    regmap: RegMap | None
    if kind == "cfg":
        device = getattr(machine, "devices", {}).get(event[4])
        regmap = getattr(device, "MAP", None)
        return regmap
    bus = getattr(machine, kind, None) if kind in ("pio", "mmio") else None
    window = bus.find(addr) if bus is not None else None
    regmap = getattr(window, "regmap", None)
    return regmap


def describe(event: Event, machine: Any = None, before: Iterable[Event] = ()) -> str:
    """Say what an event is; `before` are earlier events, which may select a register (DLAB)."""
    match event:
        case (number, _, _, kind, device, offset, size, write, value, _, count) if number == ACCESS:
            register = _register(event, machine, before)
            verb = "write" if write else "read"
            times = f" x{count}" if count != 1 else ""
            return (
                f"{device} {kind} {verb} of {size} at {offset:#x}{times}"
                f" {_DIRECTION[write]} {value:#x}{register}"
            )
        case (number, _, _, kind, detail) if number == EXIT:
            return f"exit {kind} {detail:#x}"
        case (number, _, _, kind, vector, error, address) if number == INTERRUPT:
            more = f" error {error:#x} address {address:#x}" if kind == "exception" else ""
            return f"{kind} {vector:#x}{more}"
        case (number, _, device, gpa, length, write) if number == DMA:
            way = "to" if write else "from"
            return f"DMA of {device}, {length} bytes {way} memory at {gpa:#x}"
        case (number, _, name, level) if number == IRQ_LINE:
            return f"interrupt line {name} {'up' if level else 'down'}"
        case (number, _, time_ps, target, kind, data) if number == INPUT:
            return f"input {target} {kind} {data[:32]!r} at {time_ps} ps"
        case (number, _, device, data) if number == CONSOLE:
            return f"console output of {device} {data[:32]!r}"
        case (number, _, time_ps, scope, digest) if number == DIGEST:
            return f"state ({scope}) at {time_ps} ps: {digest.hex()[:16] or 'no digest'}"
        case _:
            raise AssertionError(f"an event of an unknown table: {event!r}")


def describe_divergence(found: Divergence, machine: Any, before: Iterable[Event] = ()) -> str:
    """Say in one sentence where and how a replay parted from its recording."""
    pc = found.pc if found.pc is not None else pc_of(found.event)
    where = f"instruction {found.icount:,}" + (f", PC {pc:#x}" if pc is not None else "")
    earlier = list(before)
    sides = [
        "nothing more" if event is None else describe(event, machine, earlier)
        for event in (found.recorded, found.replayed)
    ]
    counts = ""
    if found.recorded is not None and found.replayed is not None:
        if found.recorded[1:2] != found.replayed[1:2]:
            counts = f" (at {found.recorded[1]:,} and {found.replayed[1]:,} instructions)"
        elif sides[0] == sides[1]:
            counts = f" ({found.recorded[1:]} and {found.replayed[1:]})"
    return (
        f"the replay diverged at event {found.index:,}, {where}: recorded {sides[0]},"
        f" replayed {sides[1]}{counts}"
    )


def _register(event: Event, machine: Any, before: Iterable[Event]) -> str:
    regmap = regmap_at(machine, event)
    if regmap is None:
        return ""
    from workbench.core.regs import Explainer

    explainer = Explainer(regmap)
    device = event[4]
    for old in before:
        if old[0] == ACCESS and old[4] == device and regmap_at(machine, old) is regmap:
            explainer.explain(old[5], old[6], old[8], old[7])
    text = explainer.explain(event[5], event[6], event[8], event[7])
    return f" {text}" if text else ""

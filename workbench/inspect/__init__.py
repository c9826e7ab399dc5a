"""Inspectors: what a device, the processor or the interrupt controllers are doing at this moment.

    names(machine)                     # what there is
    page = capture(machine, "ide0")    # plain data, to be kept
    inspect(machine, "ide0", page)     # something for rich, with what has changed since marked

Pure functions of a machine: they read state and guest memory, never through a bus, and change
nothing; the digest of the machine before and after is the same. Guest memory may lie: every walk
is bounded and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.errors import UsageError
from workbench.inspect.page import ROWS, Page, Table, plain, render

if TYPE_CHECKING:
    from rich.console import RenderableType

    from workbench.core.machine import Machine
    from workbench.trace.reader import Trace

__all__ = [
    "REQUESTS",
    "Page",
    "Table",
    "capture",
    "inspect",
    "names",
    "plain",
    "render",
    "resolve",
    "text",
    "with_requests",
]

REQUESTS = "requests"
LAST = 50
"""How many requests of a device its page has."""
_Inspector = Callable[["Machine", str, int], Page]


def _inspectors(machine: Machine) -> dict[str, _Inspector]:
    """Every name with what inspects it; devices first, in the order of the machine."""
    from workbench.hw.e1000.e1000 import E1000
    from workbench.inspect import generic, ide, irq, pci, timers, tlb, virtio
    from workbench.inspect.cpu import cpu
    from workbench.inspect.e1000 import e1000

    found: dict[str, _Inspector] = dict.fromkeys(ide.channels(machine), ide.channel)
    found |= dict.fromkeys(virtio.devices(machine), virtio.virtio)
    found |= {name: e1000 for name, d in machine.devices.items() if isinstance(d, E1000)}
    if "pci" in machine.devices:
        found["pci"] = pci.pci
    found |= {"irq": irq.irq, "timers": timers.timers, "cpu": cpu, "tlb": tlb.tlb}
    found |= {name: generic.device for name in machine.devices if name not in found}
    return found


def names(machine: Machine) -> list[str]:
    """What can be inspected."""
    return list(_inspectors(machine))


def resolve(machine: Machine, name: str) -> str:
    """The name that is meant: itself, or `virtio0`, `e1000-0` for the first of their kind.

    Raises `UsageError` for a name that there is not.
    """
    found = _inspectors(machine)
    if name in found:
        return name
    from workbench.inspect import virtio

    aliases = {f"virtio{n}": key for n, key in enumerate(virtio.devices(machine))}
    cards = [key for key, make in found.items() if make.__name__ == "e1000"]
    aliases |= {f"e1000-{n}": key for n, key in enumerate(cards)}
    if name not in aliases:
        raise UsageError(f"expected one of {', '.join(found)}, not {name!r}")
    return aliases[name]


def capture(machine: Machine, name: str, rows: int = ROWS, trace: Trace | None = None) -> Page:
    """Look at one thing; tables have at most `rows` rows. Raises `UsageError`.

    With the trace that the machine replays, a page of a device has its last requests too, and
    `requests` is the page of those of all devices.
    """
    if trace is not None and name == REQUESTS:
        from workbench.inspect import requests

        return requests.page(trace, machine.clock.icount, rows)
    key = resolve(machine, name)
    page = _inspectors(machine)[key](machine, key, max(rows, 1))
    return page if trace is None else with_requests(page, trace, machine.clock.icount, rows)


def with_requests(page: Page, trace: Trace, icount: int, rows: int = ROWS) -> Page:
    """A page of a device with the last requests that had begun at this moment."""
    from workbench.inspect import requests

    if page.name == REQUESTS:
        return requests.page(trace, icount, rows)
    table = requests.requests(trace, icount, page.name, min(rows, LAST))
    return replace(page, tables=(*page.tables, table)) if table.rows else page


def inspect(
    machine: Machine, name: str, previous: Page | None = None, rows: int = ROWS
) -> RenderableType:
    """Look at one thing and make it visible; what differs from a `previous` page is marked."""
    return render(capture(machine, name, rows), previous)


def text(machine: Machine, name: str, width: int = 100, rows: int = ROWS) -> str:
    """Look at one thing and write it as plain text, `width` columns wide."""
    return plain(capture(machine, name, rows), width=width)

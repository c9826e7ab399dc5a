"""What `monitor watch` is told, as watches of a timeline, and what may be said next."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from workbench.gdbstub.commands import Wrong, number
from workbench.gdbstub.devices import find_register, registers_of, windows
from workbench.inspect import names as inspectable
from workbench.trace.eventwatch import (
    MOST_COUNTED,
    DeviceWatch,
    DmaWatch,
    EventWatch,
    IrqWatch,
    RequestWatch,
)
from workbench.trace.tables import MSI

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["HELP", "USAGE", "parse_watch", "watch_words"]

USAGE: Final = (
    "watch DEVICE.REGISTER [read|write|both] [mask N] [value N] [count N]",
    "watch dma ADDRESS [BYTES] [read|write|both] [count N]",
    "watch irq LINE [high|low] [count N]",
    "watch request DEVICE|any [lba N[-N]] [kind TEXT] [length N[-N]] [count N]",
    "watch",
)
HELP: Final = (
    "stop at accesses to a device register\n"
    "With a mask and no value: when one of its bits is set. dma: when a device writes to\n"
    "guest-physical addresses. count N: at the Nth one from where continue or reverse-continue\n"
    "begins. Without anything: what is watched."
)
_EVENTS: Final = ("dma", "irq", "request")
_MOST_NAMES: Final = 5000
_DIRECTIONS: Final = {"read": (True, False), "write": (False, True), "both": (True, True)}
_LEVELS: Final = {"high": True, "low": False}


def parse_watch(machine: Machine, args: list[str]) -> EventWatch:
    """The watch that these words describe; raises `Wrong`."""
    text = " ".join(args)
    count = 1
    if args[-2:-1] == ["count"]:
        count, args = number(args[-1]), args[:-2]
        if not args:
            raise Wrong(f"expected what to watch, not only {text!r:.200}")
        if not 1 <= count <= MOST_COUNTED:
            raise Wrong(f"expected a count from 1 to {MOST_COUNTED:,}, not {text!r:.200}")
    found = _event(args) if args[0] in _EVENTS else _register(machine, args)
    _check(machine, found)
    return replace(found, text=text, count=count)


def watch_words(machine: Machine, given: list[str]) -> Iterable[str]:
    """What may be said next."""
    match given:
        case [*_, "count"]:
            return ()
        case ["irq"]:
            return machine.lines
        case ["irq", *_]:
            return ("high", "low", "count")
        case ["request"]:
            return ["any", *inspectable(machine)]
        case ["request", *_]:
            return ("lba", "kind", "length", "count")
        case ["dma", *_]:
            return ("read", "write", "both", "count")
        case [_, *_]:
            return ("read", "write", "both", "mask", "value", "count")
    names = (f"{w.name}.{r.name}" for _, w in windows(machine) for r in registers_of(w))
    return [*_EVENTS, *itertools.islice(names, _MOST_NAMES)]


def _register(machine: Machine, args: list[str]) -> DeviceWatch:
    device, reg = find_register(machine, args[0])
    reads = writes = True
    mask, value = None, None
    words = iter(args[1:])
    for word in words:
        match word:
            case "read" | "write" | "both":
                reads, writes = _DIRECTIONS[word]
            case "mask":
                mask = number(next(words, ""))
            case "value":
                value = number(next(words, ""))
            case _:
                raise Wrong(f"expected read, write, both, mask N or value N, not {word!r:.80}")
    if mask is None and value is None:
        mask = value = 0  # whatever it is
    elif mask is None:
        mask = (1 << 8 * reg.size) - 1
    assert mask is not None
    return DeviceWatch(device, reg.offset, reg.size, reads, writes, mask, value, "")


def _event(args: list[str]) -> EventWatch:
    text = " ".join(args)
    match args:
        case ["dma", address, *rest] if len(rest) <= 2:
            reads, writes = _DIRECTIONS["write"]
            if rest and rest[-1] in _DIRECTIONS:
                reads, writes = _DIRECTIONS[rest.pop()]
            if len(rest) <= 1:
                length = number(rest[0]) if rest else 1
                return DmaWatch(number(address), max(length, 1), "", reads, writes)
        case ["irq", name]:
            return IrqWatch(name, None, "")
        case ["irq", name, "high" | "low" as level]:
            return IrqWatch(name, _LEVELS[level], "")
        case ["request", device, *rest] if len(rest) % 2 == 0:
            words = dict(zip(rest[::2], rest[1::2], strict=True))
            if words.keys() <= {"lba", "kind", "length"}:
                return RequestWatch(
                    "" if device == "any" else device,
                    "",
                    _span(words["lba"]) if "lba" in words else None,
                    words.get("kind", ""),
                    _span(words["length"]) if "length" in words else None,
                )
        case _:
            pass
    raise Wrong(
        "expected dma ADDRESS [BYTES] [read|write|both], irq LINE [high|low] or"
        f" request DEVICE|any [lba N[-N]] [kind TEXT] [length N[-N]], not {text!r:.200}"
    )


def _check(machine: Machine, watch: EventWatch) -> None:
    """Raise `Wrong` for a name that will never come."""
    if isinstance(watch, IrqWatch) and watch.name not in machine.lines and MSI not in watch.name:
        raise Wrong(f"no line {watch.name!r:.80}; there are: {', '.join(machine.lines)}")
    if isinstance(watch, RequestWatch):
        known = inspectable(machine)
        if watch.device and watch.device not in known:
            raise Wrong(f"no device {watch.device!r:.80}; there are: any, {', '.join(known)}")


def _span(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    return number(first), number(last if dash else first)

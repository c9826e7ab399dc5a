"""Monitor commands that look into the machine: devices, registers, inspectors, physical memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from workbench import inspect
from workbench.core.bus import Window
from workbench.core.regs import Reg
from workbench.errors import UsageError
from workbench.gdbstub.commands import Command, Wrong, number
from workbench.gdbstub.msrs import msr_names, msr_text
from workbench.gdbstub.qemu import mappings, processor
from workbench.gdbstub.target import Target

if TYPE_CHECKING:
    from workbench.core.machine import Machine
    from workbench.trace.reader import Trace

__all__ = ["Devices", "find_register", "registers_of", "windows"]

_WIDTH = 110
_MOST_BYTES = 4096
_QUEUES = ("virtio", "82540EM")


def windows(machine: Machine) -> Iterator[tuple[str, Window]]:
    """(bus, window) of everything that is mapped, by address."""
    for name, bus in (("pio", machine.pio), ("mmio", machine.mmio)):
        yield from ((name, window) for window in sorted(bus.windows, key=lambda w: w.base))


def registers_of(window: Window) -> tuple[Reg, ...]:
    """The registers in a window."""
    return tuple(window.regmap.regs) if window.regmap is not None else ()


def find_register(machine: Machine, text: str) -> tuple[str, Reg]:
    """The register that `DEVICE.REGISTER` means; raises `Wrong`."""
    device, dot, name = text.rpartition(".")
    found = [w for _, w in windows(machine) if w.name == device]
    if not found or not dot:
        raise Wrong(f"expected DEVICE.REGISTER, not {text!r}; see: info devices")
    regs = [reg for window in found for reg in registers_of(window)]
    reg = next((r for r in regs if r.name.lower() == name.lower()), None)
    if reg is None:
        names = ", ".join(dict.fromkeys(r.name for r in regs[:200]))
        raise Wrong(f"{device} has no register {name!r}; there are: {names}")
    return device, reg


class Devices:
    """The commands; pages that were shown are kept, so that the next ones mark what has changed."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._shown: dict[str, inspect.Page] = {}

    def commands(self) -> dict[str, Command]:
        """By name."""
        return {
            "info": Command(
                (
                    "info devices",
                    "info registers DEVICE",
                    "info queues",
                    "info requests",
                    "info registers",
                    "info mem",
                    "info msr [NAME|NUMBER]",
                    "info NAME",
                ),
                "what the machine looks like here\n"
                "devices: where they are. registers, NAME: what an inspector shows, with a * before"
                " what\nhas changed since it was last shown. queues: of all virtio devices and"
                " NICs. requests: the last ones. registers without"
                " a device and mem: the\nprocessor and what is mapped, in the words of QEMU."
                " NAME: pci, irq, timers, cpu, tlb, or a device.",
                self._info,
                self._info_words,
            ),
            "x": Command(
                ("x ADDRESS [BYTES]",), "guest-physical memory, at most 4096 bytes", self._memory
            ),
        }

    def _info_words(self, given: list[str]) -> Iterable[str]:
        names = inspect.names(self._target.machine)
        if not given:
            return ["devices", "registers", "queues", "requests", "mem", "msr", *names]
        if given == ["msr"]:
            return msr_names(self._target.machine)
        if given == ["registers"]:
            return [*names, *(w.name for _, w in windows(self._target.machine))]
        return ()

    def _info(self, args: list[str]) -> str:
        machine = self._target.machine
        match args:
            case ["devices"]:
                return "\n".join(
                    f"{w.name:<16} {bus:<5} {w.base:#x}-{w.base + w.size - 1:#x}  {w.device}"
                    for bus, w in windows(machine)
                )
            case ["queues"]:
                pages = [inspect.capture(machine, name) for name in inspect.names(machine)]
                found = [p for p in pages if any(word in p.title for word in _QUEUES)]
                parts = [self._page(_queues_of(page), f"queues {page.name}") for page in found]
                return "\n".join(parts) or "there is no device with queues"
            case ["requests"]:
                if self._trace() is None:
                    raise Wrong("this needs a recording: the machine runs live")
                return self._page(inspect.capture(machine, "requests", trace=self._trace()), "")
            case ["mem"]:
                return mappings(machine.cpu)
            case ["registers"]:
                return processor(machine)
            case ["msr", *names] if len(names) <= 1:
                return msr_text(machine, "".join(names))
            case ["registers", name] | [name] if _resolves(machine, name):
                page = inspect.capture(machine, name, trace=self._trace())
                return self._page(page, page.name)
            case ["registers", name]:
                return "\n".join(self._map(name))
            case [name]:
                choices = [
                    "devices",
                    "registers DEVICE",
                    "queues",
                    "requests",
                    "mem",
                    "msr",
                    *inspect.names(machine),
                ]
                raise Wrong(f"expected one of {', '.join(choices)}, not {name!r}")
        raise Wrong("expected: info devices, info registers DEVICE, info queues or info NAME")

    def _trace(self) -> Trace | None:
        timeline = self._target.timeline
        return None if timeline is None or timeline.diverted is not None else timeline.trace

    def _page(self, page: inspect.Page, key: str) -> str:
        before = self._shown.get(key)
        self._shown[key] = page
        return inspect.plain(page, before, _WIDTH)

    def _map(self, name: str) -> Iterator[str]:
        """A window that no inspector is named after: where its registers are."""
        machine = self._target.machine
        found = [w for _, w in windows(machine) if w.name == name]
        if not found:
            known = sorted({*inspect.names(machine), *(w.name for _, w in windows(machine))})
            raise Wrong(f"no device {name!r}; there are: {', '.join(known)}")
        for window in found:
            for reg in registers_of(window):
                yield f"{window.base + reg.offset:#06x} {reg.size} {reg.name}"

    def _memory(self, args: list[str]) -> str:
        if not 1 <= len(args) <= 2:
            raise Wrong("expected: x ADDRESS [BYTES]")
        address, count = number(args[0]), number(args[1]) if len(args) == 2 else 64
        if not 0 <= address < 1 << 52:
            raise Wrong(f"expected an address of 52 bits, not {args[0]}")
        if not 1 <= count <= _MOST_BYTES:
            raise Wrong(f"expected 1 to {_MOST_BYTES} bytes, not {count}")
        data = self._target.machine.memory.read(address, count)
        return "\n".join(
            f"{address + at:012x}  {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16)
        )


def _resolves(machine: Machine, name: str) -> bool:
    try:
        inspect.resolve(machine, name)
    except UsageError:
        return False
    return True


def _queues_of(page: inspect.Page) -> inspect.Page:
    """The tables of a page that are about rings."""
    kept = tuple(t for t in page.tables if t.title.startswith("queue") or t.title.endswith("ring"))
    return inspect.Page(page.name, page.title, kept)

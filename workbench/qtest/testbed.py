"""A board whose processor never runs: what tests do to its devices takes the guest's place.

Guest time moves only when it is told to. A device's work on a request (timers that are marked so)
is different: a driver waits for it, and here nobody waits. It is done at once, after each access,
without the clock; with `timed` it takes its time like everything else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

from workbench.core.bus import Bus
from workbench.core.clock import PS_PER_NS, Timer
from workbench.core.config import MachineConfig
from workbench.core.irq import IrqLine
from workbench.core.machine import Machine, Observer, Stop
from workbench.errors import WorkbenchError
from workbench.hw import layout
from workbench.hw.board import Board
from workbench.qtest.rtc import QtestRtc

__all__ = ["MOST_BYTES", "Held", "Testbed", "TestbedError"]

MOST_BYTES: Final = 64 << 20
"""The most that one access to memory moves."""
MOST_FIRINGS: Final = 1_000_000
"""Timers that fire in one step; a step over more ends early."""
MOST_NS: Final = 1 << 63


class TestbedError(WorkbenchError):
    """A test asked for something that the testbed cannot do."""


class Held(Exception):
    """A device's work has come to a point at which a test holds it (see `blkdebug`)."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag


class _Lines(Observer):
    """Passes the I/O APIC's inputs on, ISA interrupt n as n."""

    def __init__(self) -> None:
        self.heard: Callable[[int, bool], None] | None = None

    def on_irq_line(self, name: str, level: bool, icount: int) -> None:
        number = name.removeprefix("IRQ").removeprefix("GSI")
        if self.heard is not None and number.isdecimal():
            self.heard(int(number), level)


class _Board(Board):
    RTC = QtestRtc


class Testbed:
    """The board of `config`; `plug` adds parts. After `power_on` it is ready."""

    __test__ = False  # no class of tests, pytest

    def __init__(self, config: MachineConfig, *, timed: bool = False) -> None:
        self.board: Board = _Board(Machine(config))
        self.machine = self.board.machine
        self.timed = timed
        self.stopped = False
        """While it is, inputs from outside wait."""
        self.power_on: Callable[[], None] = lambda: None
        """What firmware would do after each reset."""
        self.after_reset: list[Callable[[], None]] = []
        self.rom_bytes = 0
        """Length of the BIOS, which ends where the first 4 GiB do."""
        self._lines = _Lines()
        self.machine.observers.append(self._lines)
        self._held: dict[Timer, str] = {}
        self._sources: dict[int, IrqLine] = {}

    # -- accesses

    def port_read(self, port: int, size: int) -> int:
        """IN."""
        value = self.machine.pio.read(port, size)
        self.settle()
        return value

    def port_write(self, port: int, size: int, value: int) -> None:
        """OUT; what is more than `size` bytes of the value is cut off."""
        self.machine.pio.write(port, size, value & (1 << 8 * size) - 1)
        self.settle()

    def load(self, gpa: int, size: int) -> int:
        """A load of 1, 2, 4 or 8 bytes, from RAM or a device."""
        value = int.from_bytes(self._read(gpa, size), "little")
        self.settle()
        return value

    def store(self, gpa: int, size: int, value: int) -> None:
        """A store of 1, 2, 4 or 8 bytes; what is more of the value is cut off."""
        self._write(gpa, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
        self.settle()

    def read(self, gpa: int, length: int) -> bytes:
        """Any number of bytes. Raises TestbedError for more than MOST_BYTES."""
        self._check(length)
        data = self._read(gpa, length)
        self.settle()
        return data

    def write(self, gpa: int, data: bytes) -> None:
        """The reverse of `read`."""
        self._check(len(data))
        self._write(gpa, data)
        self.settle()

    @staticmethod
    def _check(length: int) -> None:
        if length > MOST_BYTES:
            raise TestbedError(f"expected at most {MOST_BYTES} bytes in one access, not {length}")

    def _pieces(self, gpa: int, length: int) -> list[tuple[int, int, bool]]:
        """(address, bytes, whether a device may be there), cut where RAM begins and ends."""
        ram = self.machine.config.ram_bytes
        low = min(ram, layout.LOW_RAM_LIMIT)
        edges = {layout.VGA_BASE, layout.VGA_LAST + 1, low, layout.HIGH_RAM_BASE}
        edges.add(layout.HIGH_RAM_BASE + ram - low)
        rom = layout.HIGH_RAM_BASE - self.rom_bytes
        edges.add(rom)
        end = gpa + length
        cuts = [gpa, *sorted(edge for edge in edges if gpa < edge < end), end]

        def is_memory(start: int, stop: int) -> bool:
            in_rom = rom <= start < layout.HIGH_RAM_BASE
            return in_rom or layout.is_ram(ram, start, stop - start)

        return [
            (start, stop - start, not is_memory(start, stop))
            for start, stop in itertools.pairwise(cuts)
        ]

    def _read(self, gpa: int, length: int) -> bytes:
        out = bytearray()
        for start, count, outside in self._pieces(gpa, length):
            if not outside:
                out += self.machine.memory.read(start, count)
                continue
            for at, size in _accesses(self.machine.mmio, start, count):
                if size > 8:
                    out += b"\xff" * size
                else:
                    out += self.machine.mmio.read(at, size).to_bytes(size, "little")
        return bytes(out)

    def _write(self, gpa: int, data: bytes) -> None:
        for start, count, outside in self._pieces(gpa, len(data)):
            if not outside:
                self.machine.memory.write(start, data[start - gpa : start - gpa + count])
                continue
            for at, size in _accesses(self.machine.mmio, start, count):
                if size <= 8:
                    value = int.from_bytes(data[at - gpa : at - gpa + size], "little")
                    self.machine.mmio.write(at, size, value)

    # -- time

    @property
    def now_ns(self) -> int:
        """Guest time."""
        return self.machine.clock.now_ns

    def step(self, ns: int | None = None) -> int:
        """Let so much guest time pass, or as much as there is to the next timer; gives the time."""
        if ns is None:
            due = self._next(work=False)
            if due is not None and due.deadline_ps is not None:
                self._run_to(due.deadline_ps)
        else:
            self._run_to((self.now_ns + ns) * PS_PER_NS)
        return self.now_ns

    def set_clock(self, ns: int) -> int:
        """Let time pass until `ns`; a time that is past changes nothing. Gives the time."""
        self._run_to(ns * PS_PER_NS)
        return self.now_ns

    def _run_to(self, ps: int) -> None:
        if ps > MOST_NS * PS_PER_NS:
            raise TestbedError(f"expected a time of at most 2^63 ns, not {ps // PS_PER_NS}")
        self.deliver()
        clock = self.machine.clock
        for _ in range(MOST_FIRINGS):
            timer = self._next(work=False)
            if timer is None or timer.deadline_ps is None or timer.deadline_ps > ps:
                clock.skip_to(ps)
                break
            clock.skip_to(timer.deadline_ps)
            self._fire(timer)
        self.settle()

    def _next(self, *, work: bool) -> Timer | None:
        """The armed timer with the earliest deadline, of work only or of all; none that is held."""
        first: Timer | None = None
        for timer in self.machine.clock.timers:
            at = timer.deadline_ps
            if at is None or (work and not timer.work) or timer in self._held:
                continue
            if first is None or at < (first.deadline_ps or 0):
                first = timer
        return first

    def _fire(self, timer: Timer) -> None:
        deadline = timer.deadline_ps
        try:
            timer.fire()
        except Held as held:
            assert deadline is not None
            timer.arm(deadline)
            self._held[timer] = held.tag

    def settle(self) -> None:
        """Take what came from outside, and do what devices have to do."""
        self.deliver()
        if self.timed:
            return
        for _ in range(MOST_FIRINGS):
            timer = self._next(work=True)
            if timer is None:
                break
            self._fire(timer)

    def release(self, tag: str) -> None:
        """Go on with what is held at `tag`."""
        for timer in [timer for timer, why in self._held.items() if why == tag]:
            del self._held[timer]
        self.settle()

    # -- outside

    def deliver(self) -> None:
        """Hand waiting inputs (frames of a network) to their devices."""
        machine = self.machine
        if self.stopped or not machine.inputs.waiting:
            return
        for one in machine.inputs.due(machine.clock.icount, machine.clock.now_ps):
            machine.inputs.dispatch(one)

    def take_stop(self) -> Stop | None:
        """What the guest's side asked for: a reset or the end; once."""
        return self.machine.take_stop()

    def listen(self, heard: Callable[[int, bool], None] | None) -> None:
        """`heard(number, level)` learns of each change at the I/O APIC's inputs."""
        self._lines.heard = heard

    def set_input(self, number: int, level: bool) -> None:
        """Drive an input of the I/O APIC. Raises TestbedError for one that it does not have."""
        if number not in self._sources:
            if not 0 <= number < 24:
                raise TestbedError(f"expected an interrupt from 0 to 23, not {number}")
            self._sources[number] = self.board.irq("qtest", number)
        self._sources[number].set(level)

    def reset(self) -> None:
        """The reset line of the board, and what firmware does then."""
        for timer in list(self._held):
            timer.cancel()
        self._held.clear()
        devices: dict[str, Any] = self.machine.devices
        for device in list(devices.values()):
            device.reset()
        self.machine.take_stop()
        for hook in (self.power_on, *self.after_reset):
            hook()
        self.settle()


def _accesses(bus: Bus, gpa: int, length: int) -> list[tuple[int, int]]:
    """Aligned accesses of at most 8 bytes each, as (address, bytes); more bytes where nobody is."""
    out: list[tuple[int, int]] = []
    end = gpa + length
    while gpa < end:
        window = bus.overlapping(gpa, end - gpa)
        gap = end - gpa if window is None else window.base - gpa
        if gap > 8:
            out.append((gpa, gap))
            gpa += gap
            continue
        size = 8
        while gpa % size or gpa + size > end:
            size //= 2
        out.append((gpa, size))
        gpa += size
    return out

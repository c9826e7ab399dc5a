"""Time travel over a trace: one replaying machine, checkpoints, and runs in both directions.

A position is an instruction count. To go back, the nearest checkpoint below is restored and the
machine runs forward; on the way a checkpoint is left near the target, so that the next step back is
short. Breakpoints belong to the timeline, never to a checkpoint. Backwards, the processor only
counts hits in a stretch between two checkpoints; the last one counts.

Writing in the past opens a *diversion*: the state before it is kept, the machine may run on with
what was written, and the first move back (or `drop_diversion`) throws it away.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

from workbench.core.layout import WATCH_WRITE
from workbench.core.machine import Machine, Observer
from workbench.core.pagewalk import Paging
from workbench.core.snapshot import total_bytes
from workbench.trace import guest as guests
from workbench.trace.guest import Builder, Guest
from workbench.trace.pace import Pace
from workbench.trace.reader import Trace
from workbench.trace.replayer import inputs_of

if TYPE_CHECKING:
    from workbench.core.snapshot import Snapshot

DEFAULT_BUDGET_BYTES = 1 << 30
NEAR_ICOUNT = 50_000
SAVING_SHARE = 0.5
"""How much of a run's time checkpoints may take; beyond it they are placed farther apart."""
_SPACING_ICOUNT = 10_000_000
_NEAR_KEPT = 4
_NEVER = (1 << 64) - 1
_USER_STOPS = frozenset({"limit", "interrupted"})

Poll = Callable[[], bool]
"""Called some times a second while the guest runs; True ends the run."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Why a move ended.

    kind: "breakpoint", "watch" (of memory: `range`), "access" (of a device: `text`), "icount",
    "interrupted", "begin", "end" (`text` says how the recording ended).
    """

    kind: str
    range: int = -1
    text: str = ""


@dataclass(frozen=True, slots=True)
class DeviceWatch:
    """Accesses to stop at: a place in a device, a direction, bits of the value."""

    device: str
    offset: int
    size: int
    reads: bool
    writes: bool
    mask: int
    value: int | None
    text: str

    def matches(self, device: str, offset: int, size: int, is_write: bool, value: int) -> bool:
        """Is this access watched? Without a value any bit of the mask will do."""
        if device != self.device or not (self.writes if is_write else self.reads):
            return False
        if offset >= self.offset + self.size or offset + size <= self.offset:
            return False
        shift = 8 * (offset - self.offset)
        seen = (value << shift if shift >= 0 else value >> -shift) & self.mask
        return bool(seen) if self.value is None else seen == self.value & self.mask


@dataclass(frozen=True, slots=True)
class DmaWatch:
    """Transfers to stop at: what a device writes into guest-physical addresses."""

    gpa: int
    length: int
    text: str


@dataclass(slots=True)
class _AccessLog(Observer):
    """Notes accesses that are watched; it is an observer only while there are any."""

    machine: Machine
    watches: list[DeviceWatch] = field(default_factory=list)
    transfers: list[DmaWatch] = field(default_factory=list)
    stopping: bool = True
    last: tuple[int, DeviceWatch | DmaWatch] | None = None

    def on_access(
        self,
        kind: str,
        device: str,
        offset: int,
        size: int,
        is_write: bool,
        value: int,
        addr: int,
        icount: int,
        pc: int,
        count: int = 1,
    ) -> None:
        """Compare an access with the list."""
        for watch in self.watches:
            if watch.matches(device, offset, size, is_write, value):
                self._hit(icount, watch)

    def on_dma(self, device: str, gpa: int, length: int, is_write: bool, icount: int) -> None:
        """Compare a transfer with the list."""
        for watch in self.transfers:
            if is_write and gpa < watch.gpa + watch.length and watch.gpa < gpa + length:
                self._hit(icount, watch)

    def _hit(self, icount: int, watch: DeviceWatch | DmaWatch) -> None:
        self.last = (icount, watch)
        if self.stopping:
            self.machine.interrupt()


class Timeline:
    """A position in a recording that moves in both directions."""

    def __init__(
        self,
        trace: Trace,
        *,
        build: Builder | None = None,
        budget_bytes: int = DEFAULT_BUDGET_BYTES,
    ) -> None:
        self.trace = trace
        make = build or guests.build_machine
        self.machine = cast(Machine, make(trace.header.machine, Guest.from_trace(trace)))
        self.machine.inputs.replay([item for _, item in inputs_of(trace)])
        end = trace.end
        self.end_icount = trace.icount
        self._bound = trace.icount + (0 if end is not None and end.stop in _USER_STOPS else 1)
        self.budget_bytes = budget_bytes
        self.spacing_icount = _SPACING_ICOUNT
        self.saving_share = SAVING_SHARE
        self._ran_s = 0.0
        self.breakpoints: set[int] = set()
        self.watches: list[tuple[int, int, int]] = []
        self.diverted: int | None = None
        """Instruction count at which a diversion began, None on the recording itself."""
        self._log = _AccessLog(self.machine)
        self._ended = ""
        self._origin: Snapshot | None = None
        self._checkpoints: list[Snapshot] = [self.machine.save()]
        self._near: list[Snapshot] = []
        self._bytes = self._used_bytes()

    # Where we are.

    @property
    def icount(self) -> int:
        """Instructions that have retired."""
        return self.machine.clock.icount

    @property
    def checkpoints(self) -> list[int]:
        """Instruction counts of all checkpoints, in order."""
        return [s.icount for s in self._all()]

    @property
    def device_watches(self) -> list[DeviceWatch | DmaWatch]:
        """Accesses and transfers to stop at; `set_device_watches` replaces them."""
        return [*self._log.watches, *self._log.transfers]

    def set_device_watches(self, watches: Iterable[DeviceWatch | DmaWatch]) -> None:
        """Replace the watched device accesses and transfers."""
        every = list(watches)
        self._log.watches = [watch for watch in every if isinstance(watch, DeviceWatch)]
        self._log.transfers = [watch for watch in every if isinstance(watch, DmaWatch)]
        observers = [o for o in self.machine.observers if o is not self._log]
        self.machine.observers[:] = [*observers, self._log] if every else observers

    def _all(self) -> list[Snapshot]:
        return sorted([*self._checkpoints, *self._near], key=lambda s: s.icount)

    # Checkpoints.

    def _restore(self, snapshot: Snapshot) -> None:
        self.machine.restore(snapshot)
        self.machine.cpu.mark_watched()
        self.machine.cpu.set("watch_pending", 0)
        self._ended = ""
        self.diverted = self._origin = None

    def _below(self, icount: int) -> Snapshot:
        found = self._checkpoints[0]
        for snapshot in (*self._checkpoints, *self._near):
            if found.icount < snapshot.icount <= icount:
                found = snapshot
        return found

    def _keep(self) -> None:
        """Leave a checkpoint here, if the last one is far enough away."""
        icount = self.icount
        if self.diverted is not None or self._ended:
            return
        place = bisect.bisect_right(self._checkpoints, icount, key=lambda s: s.icount)
        if icount - self._checkpoints[place - 1].icount < self.spacing_icount:
            return
        below = self._checkpoints[place - 1]
        started = time.monotonic()
        snapshot = self.machine.save()
        took_s = time.monotonic() - started
        if took_s > self.saving_share * (took_s + self._ran_s):
            self.spacing_icount *= 2
        self._ran_s = 0.0
        self._checkpoints.insert(place, snapshot)
        self._bytes += snapshot.own_bytes(below)
        while self._bytes > self.budget_bytes and len(self._checkpoints) > 2:
            self.spacing_icount *= 2
            del self._checkpoints[1::2]
            self._bytes = self._used_bytes()

    def _used_bytes(self) -> int:
        return total_bytes([*self._checkpoints, *self._near])

    def _keep_near(self) -> None:
        if any(s.icount == self.icount for s in (*self._near, *self._checkpoints)):
            return
        below = self._below(self.icount)
        snapshot = self.machine.save()
        self._near.append(snapshot)
        self._bytes += snapshot.own_bytes(below)
        if len(self._near) > _NEAR_KEPT:
            del self._near[0]
            self._bytes = self._used_bytes()

    # Forward.

    def _arm(self, stopping: bool, points: bool = True) -> None:
        """Stop at hits, or only count them; without `points` what was armed stays and counts."""
        cpu = self.machine.cpu
        if points:
            cpu.set_breakpoints(sorted(self.breakpoints))
            cpu.set_watches(self.watches)
        for name in ("bp_log", "watch_log"):
            cpu.set(name, not stopping)
        for name in ("bp_hits", "watch_hits"):
            cpu.set(name, 0)
        self._log.stopping = stopping
        self._log.last = None

    def _run_to(self, icount: int, poll: Poll | None = None, keep: bool = True) -> Moved:
        """Run with what is armed; leaves checkpoints on the way."""
        machine, pace = self.machine, Pace()
        target = min(icount, self._bound)
        while not self._ended:
            if self.icount >= target:
                if target == self._bound:
                    self._ended = self._end_text()
                    break
                return Moved("icount")
            if poll is not None and poll():
                return Moved("interrupted")
            slice_end = pace.start(self.icount, target, self._next_keep() if keep else None)
            started = time.monotonic()
            stop = machine.run(slice_end)
            self._ran_s += time.monotonic() - started
            pace.end(self.icount)
            if stop.kind in ("breakpoint", "watch"):
                return Moved(stop.kind, machine.cpu.get("watch_last_range"))
            if stop.kind == "interrupted":
                if self._log.stopping and self._log.last is not None:
                    return Moved("access", text=self._log.last[1].text)
            elif stop.kind != "icount":
                self._ended = f"{stop.kind} {stop.reason}".strip()
            elif keep:
                self._keep()
        return Moved("end", text=self._ended)

    def _next_keep(self) -> int | None:
        if self.diverted is not None:
            return None
        return self._below_permanent(self.icount) + self.spacing_icount

    def _below_permanent(self, icount: int) -> int:
        place = bisect.bisect_right(self._checkpoints, icount, key=lambda s: s.icount)
        below = self._checkpoints[place - 1].icount
        return max(below, icount - self.spacing_icount + 1)

    def _end_text(self) -> str:
        end = self.trace.end
        return end.stop if end is not None else "the trace was cut here"

    def step(self, count: int = 1) -> Moved:
        """Run `count` instructions forward; breakpoints do not count."""
        self._arm(stopping=False, points=False)
        return self._run_to(self.icount + count)

    def go(self, poll: Poll | None = None, until: int = _NEVER) -> Moved:
        """Run forward to a breakpoint, a watchpoint, `until` or the end.

        A breakpoint at the present position does not count.
        """
        cpu = self.machine.cpu
        self._arm(stopping=True)
        cpu.set("bp_skip", self.icount)
        found = self._run_to(until, poll)
        if found.kind == "access":
            self._arm(stopping=False, points=False)
            self._run_to(self.icount + 1)
        elif found.kind == "watch":
            hit = cpu.get("watch_last")
            if hit + 1 < self.icount and self.diverted is None:
                # A string instruction in the middle of a block: the run went on for a little.
                self.seek(hit + 1)
        return found

    def step_masked(self, poll: Poll | None = None) -> Moved:
        """Run one instruction of the present context: interrupt handlers before it run as a whole.

        A breakpoint or watchpoint in a handler ends it too.
        """
        cpu = self.machine.cpu
        context = cpu.get("rip"), cpu.get("rsp")
        while True:
            masked = self.diverted is None and self._interrupted_at(self.icount, context[0])
            moved = self.step()
            if not masked or moved.kind != "icount" or cpu.get("rip") == context[0]:
                return moved
            mine, self.breakpoints = self.breakpoints, self.breakpoints | {context[0]}
            try:
                while True:
                    moved = self.go(poll)
                    if (cpu.get("rip"), cpu.get("rsp")) == context:
                        break
                    if moved.kind != "breakpoint" or cpu.get("rip") in mine:
                        return moved
            finally:
                self.breakpoints = mine

    def step_back_masked(self) -> Moved:
        """Undo `step_masked`: a handler that returned to this instruction is passed over."""
        cpu = self.machine.cpu
        context = cpu.get("rip"), cpu.get("rsp")
        icount = self.icount
        moved = self.step_back()
        if self.diverted is not None or moved.kind != "icount" or not self._at_iret():
            return moved
        counts, pcs = self._interrupts
        for n in range(bisect.bisect_left(counts, icount) - 1, -1, -1):
            if pcs[n] == context[0]:
                self.seek(counts[n])
                if (cpu.get("rip"), cpu.get("rsp")) == context:
                    return self.step_back_masked()
                break
        self.seek(icount - 1)
        return moved

    def _at_iret(self) -> bool:
        """Is the next instruction IRET?  Looking sets no Accessed bit."""
        machine = self.machine
        cpu = machine.cpu
        pc = cpu.get("rip")
        gpa = Paging.of(cpu).translate(machine.memory.read, pc)
        code = b"" if gpa is None else machine.memory.read(gpa, 2)
        return code[:1] == b"\xcf" or code == b"\x48\xcf"

    def _interrupted_at(self, icount: int, pc: int) -> bool:
        counts, pcs = self._interrupts
        place = bisect.bisect_left(counts, icount)
        return place < len(counts) and (counts[place], pcs[place]) == (icount, pc)

    @cached_property
    def _interrupts(self) -> tuple[list[int], list[int]]:
        """Counts and PCs at which the recording was interrupted, in order."""
        table = self.trace.table("interrupts", ("icount", "pc", "kind"))
        rows = zip(*(table[name].to_pylist() for name in ("icount", "pc", "kind")), strict=True)
        found = [(icount, pc) for icount, pc, kind in rows if kind == "interrupt"]
        return [icount for icount, _ in found], [pc for _, pc in found]

    # Anywhere.

    def seek(self, icount: int, poll: Poll | None = None) -> Moved:
        """Go to an instruction count of the recording, without regard to breakpoints."""
        target = max(0, min(icount, self.end_icount))
        start = self._below(target)
        if self.diverted is not None or not start.icount <= self.icount <= target or self._ended:
            self._restore(start)
        self._arm(stopping=False, points=False)
        if target - self.icount > 2 * NEAR_ICOUNT:
            found = self._run_to(target - NEAR_ICOUNT, poll)
            if found.kind != "icount":
                return found
            self._keep_near()
        return self._run_to(target, poll, keep=False)

    def step_back(self, count: int = 1) -> Moved:
        """Go back by `count` instructions."""
        origin = self.diverted
        if origin is not None:
            self.seek(origin)
            return Moved("icount")
        if self.icount == 0:
            return Moved("begin")
        self.seek(self.icount - count)
        return Moved("icount")

    def go_back(self, poll: Poll | None = None) -> Moved:
        """Go back to the last hit of a breakpoint or watchpoint before this position.

        After a hit of a watchpoint the position is before the instruction that made the access.
        """
        if self.diverted is not None:
            self.seek(self.diverted)
        cpu = self.machine.cpu
        present = high = self.icount
        if self._ended:
            high += 1
        places = [s for s in self._all() if s.icount < high]
        stride, place = 1, len(places)
        while place > 0:
            # The stretches double in length: a restore costs more than a run over a short one.
            place, stride = max(place - stride, 0), 2 * stride
            snapshot = places[place]
            self._restore(snapshot)
            self._arm(stopping=False)
            cpu.set("bp_skip", _NEVER)
            found = self._run_to(high, poll, keep=False)
            if found.kind == "interrupted":
                self.seek(present)
                return found
            hit = self._last_hit()
            if hit is not None and hit[0] < high:
                return self._land(*hit)
            high = snapshot.icount
        self._restore(self._checkpoints[0])
        return Moved("begin")

    def _last_hit(self) -> tuple[int, Moved] | None:
        cpu = self.machine.cpu
        hits: list[tuple[int, Moved]] = []
        if cpu.get("bp_hits"):
            hits.append((cpu.get("bp_last"), Moved("breakpoint")))
        if cpu.get("watch_hits"):
            hits.append((cpu.get("watch_last"), Moved("watch", cpu.get("watch_last_range"))))
        if self._log.last is not None:
            hits.append((self._log.last[0], Moved("access", text=self._log.last[1].text)))
        return max(hits, key=lambda hit: hit[0], default=None)

    def _land(self, icount: int, found: Moved) -> Moved:
        self.seek(icount)
        if found.kind == "breakpoint":
            # It may be at the first instruction of an interrupt that is delivered at this count.
            self._arm(stopping=True)
            self.machine.cpu.set("bp_skip", _NEVER)
            self._run_to(icount + 1, keep=False)
        return found

    def last_write(self, address: int, length: int) -> tuple[int, int] | None:
        """Count and PC of the processor's last write to linear addresses, before this position.

        The position stays; ValueError in a diversion.
        """
        if self.diverted is not None:
            raise ValueError("this needs the recording: leave the diversion first")
        present, ended = self.machine.save(), self._ended
        breakpoints, watches, devices = self.breakpoints, self.watches, self.device_watches
        self.breakpoints, self.watches = set(), [(address, address + length, WATCH_WRITE)]
        self.set_device_watches([])
        try:
            found = self.go_back().kind == "watch"
            return (self.icount, self.machine.cpu.get("rip")) if found else None
        finally:
            self.breakpoints, self.watches = breakpoints, watches
            self.set_device_watches(devices)
            self._restore(present)
            self._ended = ended

    # Writing.

    def divert(self) -> None:
        """Say that something will be written: from here on it is another run."""
        if self.diverted is None:
            self._origin = self.machine.save()
            self.diverted = self.icount

    def drop_diversion(self) -> None:
        """Go back to where the diversion began."""
        if self._origin is not None:
            self._restore(self._origin)

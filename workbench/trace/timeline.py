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
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from workbench.core.layout import WATCH_WRITE
from workbench.core.machine import Machine
from workbench.trace import guest as guests
from workbench.trace.checkpoints import DEFAULT_BUDGET_BYTES, Checkpoints
from workbench.trace.eventfind import Row, Where, find_event
from workbench.trace.eventwatch import EventWatch, Hit, Transfer, WatchLog
from workbench.trace.guest import Builder, Guest
from workbench.trace.handlers import OverHandlers, entries
from workbench.trace.memorywatch import MemoryWatch
from workbench.trace.moved import Moved
from workbench.trace.pace import Pace
from workbench.trace.protocol import Poll
from workbench.trace.reader import Trace
from workbench.trace.replayer import inputs_of
from workbench.trace.requests import Relations
from workbench.trace.session import USER_STOPS
from workbench.trace.stored import Stored

if TYPE_CHECKING:
    from workbench.core.snapshot import Snapshot

NEAR_ICOUNT = 50_000
NEVER = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Writer:
    """Who wrote to memory, when: the processor (device "") at `pc`, or a device by DMA, for a
    request ("" if none is known).
    """

    icount: int
    device: str
    pc: int
    request: str = ""


class Timeline:
    """A position in a recording that moves in both directions."""

    def __init__(
        self,
        trace: Trace,
        *,
        build: Builder | None = None,
        budget_bytes: int = DEFAULT_BUDGET_BYTES,
    ) -> None:
        self._trace = trace
        make = build or guests.build_machine
        machine = cast(Machine, make(trace.header.machine, Guest.from_trace(trace)))
        machine.inputs.replay([item for _, item in inputs_of(trace)])
        end = trace.end
        self._bound = trace.icount + (0 if end is not None and end.stop in USER_STOPS else 1)
        self._begin(machine, Checkpoints(machine, budget_bytes, Stored(trace, machine)))

    def _begin(self, machine: Machine, kept: Checkpoints) -> None:
        self._machine = machine
        self._log = WatchLog(machine)
        self._processor_alone = False
        self._related: tuple[int, Relations] | None = None
        self.kept = kept
        self.breakpoints: set[int] = set()
        self.conditions: dict[int, tuple[bytes, ...]] = {}
        """Agent expressions of breakpoints: a hit counts only if one of them holds, or if it cannot
        be evaluated here. An address without an entry has no condition.
        """
        self.condition_registers: tuple[str, ...] = ()
        """What the expressions call by number: names of 64-bit registers, "" for one unknown."""
        self.watches: list[tuple[int, int, int]] = []
        self.diverted: int | None = None
        """Instruction count at which a diversion began, None on the recording itself."""
        self.progress: float | None = None
        """How much of a move is done, from 0 to 1, for `poll` to look at; None: nobody knows."""
        self._way = (0.0, 0, 1)
        self._ended = ""
        self._origin: Snapshot | None = None
        self._over_handlers = OverHandlers(self)

    # Where we are.

    @property
    def trace(self) -> Trace:
        """The recording, as far as it has come."""
        return self._trace

    @property
    def machine(self) -> Machine:
        """The machine at this position; another position may have another one."""
        return self._machine

    @property
    def end_icount(self) -> int:
        """Instruction count at which the recording ends."""
        return self._trace.icount

    @property
    def present(self) -> str:
        """How this position is to the present of a recording that goes on, in words for people;
        empty when all is recorded.
        """
        return ""

    @property
    def icount(self) -> int:
        """Instructions that have retired."""
        return self.machine.clock.icount

    @property
    def checkpoints(self) -> list[int]:
        """Instruction counts of all checkpoints, in order."""
        return self.kept.icounts()

    @property
    def device_watches(self) -> list[EventWatch]:
        """Events of devices to stop at; `set_device_watches` replaces them."""
        return list(self._log.watches)

    def set_device_watches(self, watches: Iterable[EventWatch]) -> None:
        """Replace the watched accesses, transfers, interrupt lines and requests."""
        self._log.watch(watches)

    # Checkpoints.

    def _restore(self, snapshot: Snapshot) -> None:
        self.machine.restore(snapshot)
        self.machine.cpu.mark_watched()
        self.machine.cpu.set("watch_pending", 0)
        self._ended = ""
        self.diverted = self._origin = None

    # Forward.

    def _arm(
        self, stopping: bool, points: bool = True, before: int = NEVER, entries: bool = False
    ) -> None:
        """Stop at hits, or only count them; without `points` what was armed stays and counts.

        entries: stop with "breakpoint" before the first instruction of a handler, too.
        """
        cpu = self.machine.cpu
        cpu.set("entry_stop", entries)
        if points:
            cpu.set_breakpoints(sorted(self.breakpoints))
            cpu.set_conditions(self.conditions, self.condition_registers)
            cpu.set_watches(self.watches)
        for name in ("bp_log", "watch_log"):
            cpu.set(name, not stopping)
        for name in ("bp_hits", "watch_hits"):
            cpu.set(name, 0)
        self._log.stopping = stopping
        self._log.last = None
        self._log.before = before

    def _run_to(self, icount: int, poll: Poll | None = None) -> Moved:
        """Run forward with what is armed, and to nowhere else."""
        return self._replay_to(icount, poll)

    def _replay_to(
        self, icount: int, poll: Poll | None = None, keep: bool = True, exploring: bool = False
    ) -> Moved:
        """Run the replay with what is armed; leaves checkpoints on the way, more of them while
        `exploring`.
        """
        machine, pace = self.machine, Pace()
        target = min(icount, self._bound)
        while not self._ended:
            if self.icount >= target:
                if target == self._bound:
                    self._ended = self._end_text()
                    break
                return Moved("icount")
            if poll is not None and self._asked(poll):
                return Moved("interrupted")
            keeping = keep and self.diverted is None
            bound = self.kept.next_icount(self.icount) if keeping else None
            started = time.thread_time()
            stop = machine.run(pace.start(self.icount, target, bound))
            self.kept.ran(time.thread_time() - started, exploring)
            pace.end(self.icount)
            if stop.kind in ("breakpoint", "watch"):
                return Moved(stop.kind, machine.cpu.get("watch_last_range"))
            if stop.kind == "interrupted":
                if self._log.stopping and self._log.last is not None:
                    return self._stopped_by(self._log.last)
            elif stop.kind == "idle":
                if self.icount >= self.end_icount and self.diverted is None:
                    self._ended = self._end_text()
            elif stop.kind != "icount":
                self._ended = f"{stop.kind} {stop.reason}".strip()
            elif keeping:
                self.kept.keep()
        return Moved("end", text=self._ended)

    def _expect(self, start: int, length: int, done: float = 0.0) -> None:
        """A run from `start` will come to `progress` 1 after `length` instructions, if what is done
        before it counts for `done`.
        """
        self._way = done, start, max(length, 1)

    def _asked(self, poll: Poll) -> bool:
        done, start, length = self._way
        self.progress = min(max(done + (self.icount - start) / length, 0.0), 1.0)
        return poll()

    def _is_at_end(self) -> bool:
        """Has the guest's last instruction run?"""
        return bool(self._ended)

    def _leave_present(self) -> None:
        """What follows is about the past."""

    def _end_text(self) -> str:
        end = self.trace.end
        return end.stop if end is not None else "the trace was cut here"

    def step(self, count: int = 1, poll: Poll | None = None, entries: bool = False) -> Moved:
        """Run `count` instructions forward; breakpoints do not count.

        entries: where one of them faults, or an interrupt comes first, it ends at the handler's
        first instruction with "breakpoint"; that has the same count as what was to be run.
        """
        self._arm(stopping=False, points=False, entries=entries)
        self._expect(self.icount, count)
        return self._run_to(self.icount + count, poll)

    def go(self, poll: Poll | None = None, until: int = NEVER, skip: bool = True) -> Moved:
        """Run forward to a breakpoint, a watchpoint, `until` or the end.

        A breakpoint at the present position does not count, unless `skip` is False.
        """
        self._begin_move()
        here = skip and self.machine.cpu.linear_pc in self.breakpoints
        if here and not self.breakpoints.isdisjoint(entries(self.machine)):
            # What is skipped by its count must not be the breakpoint of its fault's handler.
            self._arm(stopping=True, entries=True)
            self.machine.cpu.set("bp_skip", self.icount)
            found = self._run_to(self.icount + 1, poll)
            if found.kind not in ("icount", "breakpoint"):
                return found
            here = False
        self._arm(stopping=True)
        self.machine.cpu.set("bp_skip", self.icount if here else NEVER)
        self._expect(self.icount, min(until, self.end_icount) - self.icount)
        found = self._run_to(until, poll)
        if found.kind == "access" or (found.kind == "watch" and found.text):
            self._arm(stopping=False, points=False)
            self._run_to(self.icount + 1, poll)
        elif found.kind == "watch":
            hit = self.machine.cpu.get("watch_last")
            if hit + 1 < self.icount and self.diverted is None:
                # A string instruction in the middle of a block: the run went on for a little.
                self.seek(hit + 1)
        return found

    def step_masked(self, poll: Poll | None = None) -> Moved:
        """Run one instruction of the present context: interrupt handlers before it run as a whole.

        A breakpoint or watchpoint in a handler ends it too.
        """
        return self._over_handlers.step(poll)

    def step_back_masked(self) -> Moved:
        """Undo `step_masked`: a handler that returned to this instruction is passed over."""
        return self._over_handlers.step_back()

    def interrupts(self) -> tuple[list[int], list[int]]:
        """Counts and PCs at which the recording was interrupted, in order."""
        return self._over_handlers.interrupts()

    # Anywhere.

    def seek(self, icount: int, poll: Poll | None = None, again: bool = False) -> Moved:
        """Go to an instruction count of the recording, without regard to breakpoints.

        again: also from the first instruction of a handler to what has faulted at the same count.
        """
        target = max(0, min(icount, self.end_icount))
        places = self.kept.icounts()
        below = places[bisect.bisect_right(places, target) - 1]
        near = below <= self.icount <= target and not (again and self.icount == target)
        if self.diverted is not None or not near or self._ended:
            self._restore(self.kept.nearest(target))
        self._arm(stopping=False, points=False)
        self._expect(self.icount, target - self.icount)
        if target - self.icount > 2 * NEAR_ICOUNT:
            found = self._replay_to(target - NEAR_ICOUNT, poll, exploring=True)
            if found.kind != "icount":
                return found
            self.kept.keep_near()
        return self._replay_to(target, poll, keep=False)

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
        self._begin_move()
        present = high = self.icount
        if self._is_at_end():
            high += 1
        self._leave_present()
        cpu = self.machine.cpu
        places = [icount for icount in self.kept.icounts() if icount < high]
        stride, place = 1, len(places)
        while place > 0:
            # The stretches double in length: a restore costs more than a run over a short one.
            place, stride = max(place - stride, 0), 2 * stride
            snapshot = self.kept.nearest(places[place])
            self._restore(snapshot)
            self._arm(stopping=False, before=high)
            self._expect(self.icount, present, 1 - high / max(present, 1))
            cpu.set("bp_skip", NEVER)
            found = self._replay_to(high, poll, keep=False)
            if found.kind == "interrupted":
                self.seek(present)
                return found
            hit = self._last_hit()
            if hit is not None and (hit[0] < high or hit[1].text):
                return self._land(*hit)
            high = snapshot.icount
        self._restore(self.kept.first)
        return Moved("begin")

    def _begin_move(self) -> None:
        self._log.begin()
        ranges = () if self._processor_alone else self.watches
        self._log.watch_memory(MemoryWatch(n, *which) for n, which in enumerate(ranges))

    def _stopped_by(self, hit: Hit) -> Moved:
        """Why a move ends at a watched event."""
        if isinstance(hit.watch, MemoryWatch):
            assert hit.transfer is not None
            return Moved("watch", hit.range, self._transfer_text(hit.icount, hit.transfer))
        return Moved("access", text=hit.watch.text)

    def _transfer_text(self, icount: int, transfer: Transfer) -> str:
        device, gpa, is_write = transfer
        done = "written" if is_write else "read"
        row = None if self.diverted is not None else find_event(
            self.trace, "dma", icount - 1,
            where=lambda row: (row["icount"], row["device"], row["gpa"], bool(row["write"]))
            == (icount, device, gpa, is_write),
        )  # fmt: skip
        request = "" if row is None else self._relations().of_transfer(row)
        return f"{done} by {device} by DMA" + f" for {request}" * bool(request)

    def _relations(self) -> Relations:
        """Whose request an event is; made when it is first wanted."""
        key = self.trace.icount
        if self._related is None or self._related[0] != key:
            self._related = key, Relations(self.trace)
        return self._related[1]

    def _last_hit(self) -> tuple[int, Moved] | None:
        cpu = self.machine.cpu
        hits: list[tuple[int, Moved]] = []
        if cpu.get("bp_hits"):
            hits.append((cpu.get("bp_last"), Moved("breakpoint")))
        if cpu.get("watch_hits"):
            hits.append((cpu.get("watch_last"), Moved("watch", cpu.get("watch_last_range"))))
        event = self._log.last_of_stretch()
        if event is not None:
            hits.append((event.icount, self._stopped_by(event)))
        return max(hits, key=lambda hit: hit[0], default=None)

    def _land(self, icount: int, found: Moved) -> Moved:
        if found.kind == "watch" and found.text and icount > 0:
            # What a timer does comes before the instruction at this count.
            self.seek(icount - 1)
            self.step()
            if self._log.last is not None and self._log.last.range >= 0:
                self.seek(icount - 1)
            return found
        self.seek(icount)
        if found.kind == "breakpoint":
            # It may be at the first instruction of an interrupt that is delivered at this count.
            self._arm(stopping=True)
            self.machine.cpu.set("bp_skip", NEVER)
            self._replay_to(icount + 1, keep=False)
        return found

    def seek_event(
        self, table: str, *, back: bool = False, where: Where | None = None,
        poll: Poll | None = None,
    ) -> Moved:  # fmt: skip
        """Go to the next (or the previous) row of a table of the trace for which `where` holds.

        The position is before the instruction that made it. "end" or "begin" if there is none: the
        position stays. A diversion is left.
        """
        icount = self.icount if self.diverted is None else self.diverted
        found = find_event(self.trace, table, icount, back=back, where=where)
        if found is None:
            return Moved("begin" if back else "end")
        moved = self.seek(found["icount"], poll)
        return Moved("access", text=f"{table} {found['seq']}") if moved.kind == "icount" else moved

    def last_writer(
        self, address: int, length: int, gpa: int | None = None, poll: Poll | None = None
    ) -> Writer | None:
        """Who wrote to linear addresses last before this position: the processor, or a device.

        gpa: where they are in guest-physical memory, for devices; None looks at the processor
        alone. The position stays; ValueError in a diversion. What `poll` ends has found nobody.
        """
        write = self.last_write(address, length, poll)
        cpu = None if write is None else Writer(write[0], "", write[1])
        if gpa is None:
            return cpu

        def wrote(row: Row) -> bool:
            inside = row["gpa"] < gpa + length and gpa < row["gpa"] + row["length"]
            return bool(row["write"]) and inside

        row = find_event(self.trace, "dma", self.icount, back=True, where=wrote)
        if row is None or (cpu is not None and cpu.icount > row["icount"]):
            return cpu
        request = self._relations().of_transfer(row)
        return Writer(row["icount"], row["device"], 0, request)

    def last_write(
        self, address: int, length: int, poll: Poll | None = None
    ) -> tuple[int, int] | None:
        """Count and PC of the processor's last write to linear addresses, before this position.

        The position stays; ValueError in a diversion.
        """
        if self.diverted is not None:
            raise ValueError("this needs the recording: leave the diversion first")
        return_here = self._hold()
        breakpoints, watches, devices = self.breakpoints, self.watches, self.device_watches
        self.breakpoints, self.watches = set(), [(address, address + length, WATCH_WRITE)]
        self.set_device_watches([])
        self._processor_alone = True
        try:
            found = self.go_back(poll).kind == "watch"
            return (self.icount, self.machine.cpu.get("rip")) if found else None
        finally:
            self.breakpoints, self.watches = breakpoints, watches
            self.set_device_watches(devices)
            self._processor_alone = False
            return_here()

    def _hold(self) -> Callable[[], None]:
        """Something that comes back to here."""
        present, icount, ended = self.kept.spare(), self.icount, self._ended

        def return_here() -> None:
            if present is None:
                self.seek(icount)
            else:
                self._restore(present)
                self._ended = ended

        return return_here

    # Writing.

    def divert(self) -> None:
        """Say that something will be written: from here on it is another run."""
        if self.diverted is None:
            self._origin = self.kept.spare()
            self.diverted = self.icount

    def drop_diversion(self) -> None:
        """Go back to where the diversion began."""
        if self._origin is not None:
            self._restore(self._origin)
        elif self.diverted is not None:
            self.seek(self.diverted)

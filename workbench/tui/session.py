"""The model of one trace on screen: position, filter, selection, marks. It knows no terminal.

The position is an instruction count. The log and the time line follow it at once, from the trace's
tables; the machine is brought there beside the screen, and `moment` is what it looks like where it
stands. All changes happen in the screen's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from workbench.core.pagewalk import Paging
from workbench.errors import WorkbenchError
from workbench.gdbstub.memory import physical
from workbench.inspect import Page, capture
from workbench.trace.bookmarks import Bookmarks
from workbench.trace.header import other_maker
from workbench.tui import language, moves
from workbench.tui.density import Density
from workbench.tui.disassembly import disassemble
from workbench.tui.events import Events
from workbench.tui.lines import safe
from workbench.tui.log import BLOCK, AccessLog
from workbench.tui.matches import Budget, Context, Matches
from workbench.tui.moment import Moment

if TYPE_CHECKING:
    from workbench.core.machine import Machine
    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable
    from workbench.trace.timeline import Moved, Timeline
    from workbench.trace.unwind import Unwinder
    from workbench.tui.live import Live
    from workbench.tui.worker import Job, Work

T = TypeVar("T")
Frames = tuple[tuple[int, int, int], ...]
_MOST_HISTORY: Final = 200
_MOST_WAITING: Final = 16
_SHORT: Final = frozenset({"seek", "starting the machine", "finding symbols", "call chain"})
"""Work that a new position only sends elsewhere."""
_QUEUE: Final = _SHORT | {"block", "function", "step", "step over"}
"""Moves that are done one after the other when a key is pressed several times."""
_BUDGET: Final = 4
"""Blocks of the log that are looked through at once; more are looked through beside the screen."""


class Jobs(Protocol):
    """What runs work beside the screen."""

    job: Job | None
    waiting: list[Job]

    @property
    def busy(self) -> bool:
        """Is there a job?"""

    def submit(self, name: str, work: Work, done: Callable[[Any], None]) -> Job:
        """Do a job after those that are there."""

    def cancel(self) -> bool:
        """Stop what runs and forget what waits."""

    def close(self, seconds: float = 2.0) -> bool:
        """End it; did it?"""


MakeJobs = Callable[[str, Callable[[str], None]], Jobs]
"""Makes a worker from its name and from what is told when a job failed."""


class Session:
    """A trace, looked at."""

    def __init__(
        self,
        trace: Trace,
        make_jobs: MakeJobs,
        *,
        symbols: SymbolTable | None = None,
        live: Live | None = None,
    ) -> None:
        self.trace = trace
        self.live = live
        """The recording, when this is one that goes on; `trace` grows then."""
        self.end_icount = trace.icount
        self.log = AccessLog(trace)
        self.icount = 0
        self.row = 0
        """Selected row of the log."""
        self.filter_text = ""
        self.context = Context(function=self.function, request=self._request_of)
        self.matches = Matches(self.log, None)
        self.message = ""
        self.error = False
        self.bookmarks = Bookmarks(trace.path)
        self.inspected = ""
        """Name of the inspector that is shown; it is captured at every stop."""
        self.breakpoints: set[int] = set()
        self.history: list[int] = []
        self.future: list[int] = []
        self.density = Density(self.end_icount)
        self.events = Events()
        self.symbols = symbols
        self.timeline: Timeline | None = None
        self.moment: Moment | None = None
        self.previous: Moment | None = None
        self.checkpoints: list[int] = []
        self.changed: Callable[[], None] = lambda: None
        """Called when something may have to be drawn."""
        self._functions: dict[int, str] = {}
        self._unwinders: dict[int, Unwinder] = {}
        self._closing = self._staying = False
        self.machine_jobs = make_jobs("machine", self.fail)
        self.read_jobs = make_jobs("reader", self.fail)
        self._scanning = make_jobs("filter", self.fail)
        self._searching = make_jobs("search", self.fail)
        self._naming = make_jobs("symbols", self.fail)

    # Beginning and end.

    def start(self, *, build: bool = True, names: bool = True) -> None:
        """Begin with all that happens beside the screen."""
        if self.live is not None:
            self._built(self.live.timeline)
            self.run(True)
        elif build:
            self.machine_jobs.submit("starting the machine", self._build, self._built)
        self.read_jobs.submit("reading", self._read, lambda _: self.changed())
        if names and self.symbols is None and self.live is None:
            self._naming.submit("finding symbols", self._find_symbols, self._named)

    def close(self) -> bool:
        """Stop all work; does the machine stand still then?"""
        self._closing = True
        for jobs in self.all_jobs:
            jobs.cancel()
        return {jobs: jobs.close() for jobs in self.all_jobs}[self.machine_jobs]

    @property
    def all_jobs(self) -> tuple[Jobs, ...]:
        """All that may work beside the screen, what the user waits for first."""
        return (self._searching, self.machine_jobs, self._scanning, self.read_jobs, self._naming)

    def _build(self, job: Job) -> Timeline:
        from workbench.trace.timeline import Timeline

        timeline = Timeline(self.trace)
        self._warm()
        return timeline

    def _warm(self) -> None:
        """Load what the first stop needs, here and not while the screen is drawn."""
        from rich import console, table  # noqa: F401

        for bits in (16, 32, 64):
            disassemble(b"\x90", 0, bits, 1)

    def _built(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self._arrive(Moment(timeline.machine))
        if self.moment is not None and self.icount != self.moment.icount:
            self._bring()

    def _read(self, job: Job) -> None:
        def stopping() -> bool:
            return self._closing or job.stopping()

        self.events.read(self.trace)
        self.density.read(self.trace, stopping)
        self.changed()
        self.log.index(stopping)

    def _find_symbols(self, job: Job) -> SymbolTable:
        from workbench.trace import symbols

        # In a process of its own: its replay would fight with ours for the interpreter lock.
        return symbols.of_trace(self.trace, prepare=partial(symbols.find_apart, self.trace.path))

    def _name_live(self) -> None:
        """Look for the guest's symbols in the memory of one that is being recorded."""
        timeline = self.timeline
        if self.live is None or self.symbols is not None or timeline is None:
            return
        from workbench.trace import symbols

        def done(found: SymbolTable) -> None:
            if len(found) and self.symbols is None:
                self._named(found)

        self._look("finding symbols", lambda: symbols.of_machine(timeline.machine), done)

    def _look(self, name: str, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Look at the machine where it stands, beside the screen."""

        def looked(found: T) -> None:
            done(found)
            if self.moment is not None and self.moment.icount != self.icount:
                self._bring()

        self.machine_jobs.submit(name, lambda _: work(), looked)

    def frames(self, moment: Moment) -> Frames:
        """The call chain at a moment: (PC, RSP, RBP), the innermost first; empty until known."""
        found: Frames | None = moment.keep("frames", lambda machine: None)
        machine = moment.machine
        if found is None and machine is not None and not self.machine_jobs.busy:
            from workbench.trace.unwind import Unwinder

            unwinder = self._unwinders.get(id(machine))
            if unwinder is None:
                unwinder = self._unwinders[id(machine)] = Unwinder(machine)
            held = unwinder

            def done(found: Frames) -> None:
                moment.put("frames", found)
                self.changed()

            self._look("call chain", held.frames, done)
        return found or ()

    def _named(self, found: SymbolTable) -> None:
        self.symbols = found
        self._functions.clear()
        if self.matches.node is not None:
            self.set_filter(self.filter_text)
        self.changed()

    def follow(self) -> None:
        """See what a recording has appended, and go with it while it runs."""
        live = self.live
        if live is None:
            return
        if not self.read_jobs.busy and not self.trace.closed:
            self.trace.refresh()
            self.density.extend(self.trace.icount)
            if self.log.grow():
                self.matches.grow()
                self._scan()
            self.read_jobs.submit("reading", self._read, lambda _: self.changed())
        self.end_icount = max(self.trace.icount, live.icount)
        if live.running:
            self.icount, self.row = live.icount, max(self.log.rows - 1, 0)

    def stop_recording(self) -> None:
        """End the recording and close the trace; one may go on looking at it."""
        live = self.live
        if live is None:
            self.say("this is no recording: workbench tui --record makes one")
            return
        self._leave()

        def done(result: tuple[str, Moment]) -> None:
            sentence, moment = result
            self.follow()
            self._place(moment.icount)
            self._arrive(moment)
            self.say(sentence)

        self.machine_jobs.cancel()
        self.machine_jobs.submit(
            "closing the trace",
            lambda _: (live.finish(), self._moment(live.timeline)), done,
        )  # fmt: skip

    # Saying things.

    def say(self, text: str) -> None:
        """Show a sentence."""
        self.message, self.error = safe(text), False
        self.changed()

    def fail(self, text: str) -> None:
        """Show what went wrong."""
        self.message, self.error = safe(text), True
        self.changed()

    def function(self, pc: int) -> str:
        """`name+0x1c [module]` of an address, or the address."""
        found = self._functions.get(pc)
        if found is None:
            if len(self._functions) > 1 << 16:
                self._functions.clear()
            table = self.symbols
            found = f"{pc:#x}" if table is None else safe(table.text(pc))
            self._functions[pc] = found
        return found

    def function_name(self, pc: int) -> str:
        """The function alone."""
        return self.function(pc).partition("+")[0]

    # Going somewhere that the tables know.

    def go(self, icount: int, *, remember: bool = True) -> None:
        """Go to an instruction count."""
        if self._occupied(_SHORT):
            return
        target = max(0, min(icount, self.end_icount))
        if remember:
            self._remember()
        self._place(target)
        self._bring()

    def _remember(self) -> None:
        if not self.history or self.history[-1] != self.icount:
            self.history.append(self.icount)
            del self.history[:-_MOST_HISTORY]
        self.future.clear()

    def _place(self, icount: int) -> None:
        self.icount = icount
        if self.log.rows:
            row = min(self.log.row_at(icount), self.log.rows - 1)
            if self.matches.node is not None:
                found = self.matches.after(row - 1, Budget(_BUDGET))
                row = row if found is None else found
            self.row = row
        self.changed()

    def back(self) -> None:
        """Go to the position before the last jump."""
        if self._occupied(_SHORT):
            return
        if not self.history:
            self.say("there is no earlier position")
            return
        self.future.append(self.icount)
        self.go(self.history.pop(), remember=False)

    def forward(self) -> None:
        """Undo `back`."""
        if self._occupied(_SHORT):
            return
        if not self.future:
            self.say("there is no later position")
            return
        self.history.append(self.icount)
        self.go(self.future.pop(), remember=False)

    def go_to_row(self, row: int) -> None:
        """Go to an access of the log."""
        if 0 <= row < self.log.rows:
            self.go(self.log.icount(row))
            self.row = row

    def step(self, count: int) -> None:
        """Step by instructions, forward or back."""
        target = self.icount + count
        live = self.live
        if live is not None and count > 0 and target > self.end_icount and not live.over:
            self.move("step", lambda timeline, poll: _stepped(timeline.step(count)))
            return
        if not 0 <= target <= self.end_icount:
            self.say("this is the end" if count > 0 else "this is the start")
            return
        self.go(target, remember=False)

    def next_access(self, forward: bool, filtered: bool) -> None:
        """Go to the next or the last access; `filtered`: that the filter matches."""
        matches = self.matches if filtered else Matches(self.log, None)
        # Several accesses of one instruction have one count.
        present = self.log.row_at(self.icount + forward) - forward

        def found(row: int | None) -> None:
            if row is None:
                self.say("there is no " + ("later" if forward else "earlier") + " access"
                         + (" that matches" if filtered and self.filter_text else ""))  # fmt: skip
            else:
                self.go_to_row(row)

        self.find_row(present, forward, matches, found)

    def find_row(
        self, row: int, forward: bool, matches: Matches, found: Callable[[int | None], None]
    ) -> None:
        """Look for a match beyond a row, at once or beside the screen; `found` is told it."""
        look = matches.after if forward else matches.before
        stopped = -1
        budget = Budget(_BUDGET)
        near = look(row, budget)
        if near is not None or not budget.spent:
            found(near)
            return

        def search(job: Job) -> int | None:
            at = row
            while not job.stopping() and not self._closing:
                budget = Budget(_BUDGET)
                near = look(at, budget)
                if near is not None or not budget.spent:
                    return near
                # What was looked through; the first of the blocks was not seen as a whole.
                at += (_BUDGET - 1) * (BLOCK if forward else -BLOCK)
                job.progress = abs(at - row) / max(self.log.rows, 1)
            return stopped

        self._searching.cancel()
        self._searching.submit(
            "searching", search, lambda row: None if row == stopped else found(row)
        )

    def next_event(self, kind: str, forward: bool) -> None:
        """Go to the next or the last interrupt or request."""
        look = self.events.after if forward else self.events.before
        icount = look(kind, self.icount)
        if icount is None:
            what = kind.removesuffix("s")
            self.say(f"there is no {'later' if forward else 'earlier'} {what}")
        else:
            self.go(icount)

    # Moving the machine.

    @property
    def stale(self) -> str:
        """What the panes of the machine show when that is not the position; empty if it is."""
        live, moment = self.live, self.moment
        if moment is None:
            return ""
        if live is not None and live.running:
            return f"at {moment.icount:,}, the guest runs"
        if moment.icount != self.icount or not moment.live:
            return f"at {moment.icount:,}, not here yet"
        return ""

    def _occupied(self, but: frozenset[str]) -> bool:
        """Does the machine make a move that another one would spoil?  The user is told."""
        job = self.machine_jobs.job
        if job is None or job.name in but:
            return False
        self.say(f"{job.name} is on its way: Esc stops it")
        return True

    def _bring(self) -> None:
        """Bring the machine to the position; a seek that is under way elsewhere is given up."""
        jobs = self.machine_jobs
        if self.timeline is None:
            return
        if jobs.busy:
            if jobs.job is not None and jobs.job.name == "seek":
                jobs.job.cancel()
            return
        if self.moment is not None and self.moment.icount == self.icount:
            return
        timeline, target = self.timeline, self.icount
        self._leave()
        jobs.submit("seek", lambda job: self._seek(job, timeline, target), self._arrived_at)

    def _seek(self, job: Job, timeline: Timeline, target: int) -> Moment:
        def poll() -> bool:
            job.progress = timeline.progress
            self.changed()
            return job.stopping()

        timeline.seek(target, poll)
        self.checkpoints = timeline.checkpoints
        return self._moment(timeline)

    def _moment(self, timeline: Timeline) -> Moment:
        """What the machine looks like now, with the page of the inspector that is shown."""
        moment = Moment(timeline.machine)
        self.page(moment)
        return moment

    def page(self, moment: Moment) -> Page | None:
        """What the inspector has to say at a moment; None if it was not asked in time."""
        name = self.inspected
        if not name:
            return None

        def look(machine: Machine) -> Page | None:
            try:
                return capture(machine, name)
            except WorkbenchError as error:
                self.fail(str(error))
                return None

        found: Page | None = moment.keep(("page", name), look)
        return found

    def _arrived_at(self, moment: Moment) -> None:
        self._arrive(moment)
        if self._staying:
            self._staying = False
            self._place(moment.icount)
        elif moment.icount != self.icount:
            self._bring()
        else:
            self._check(moment)

    def _check(self, moment: Moment) -> None:
        """Does the machine stand where the log says? Another engine may run otherwise."""
        row, live = self.row, self.live
        if live is not None or not 0 <= row < self.log.rows or self.log.icount(row) != self.icount:
            return
        block = self.log.block(row // BLOCK)
        pc = int(block.numbers["pc"][row - block.first])
        if pc in (moment.pc, moment.registers["rip"]):
            return
        other = other_maker(self.trace.header)
        if other:
            self.fail(
                f"the machine is not where the recording was: {other}; 'workbench replay' says more"
            )

    def _leave(self) -> None:
        if self.moment is not None:
            self.moment.leave()

    def _arrive(self, moment: Moment) -> None:
        if self.moment is not None and self.moment.icount != moment.icount:
            self.previous = self.moment
        self.moment = moment
        self.changed()

    def stay(self) -> None:
        """Stop what runs: the position is where the machine is then."""
        if self._searching.cancel():
            self.say("stopped")
        elif self.machine_jobs.cancel():
            self._staying = True
            self.say("stopped")

    def move(self, name: str, work: Callable[[Timeline, Callable[[], bool]], str | None]) -> None:
        """Move the machine from where it is, beside the screen; `work` gives a sentence, or None.

        The position follows when it is done.
        """
        timeline = self.timeline
        if timeline is None:
            self.say("the machine is still being started")
            return
        if self._occupied(_QUEUE) or len(self.machine_jobs.waiting) >= _MOST_WAITING:
            return
        self._remember()

        def run(job: Job) -> tuple[Moment, str | None]:
            if timeline.icount != self.icount:
                timeline.seek(self.icount, job.stopping)

            def poll() -> bool:
                job.progress = timeline.progress
                self.changed()
                return job.stopping()

            timeline.breakpoints = set(self.breakpoints)
            text = work(timeline, poll)
            self.checkpoints = timeline.checkpoints
            return self._moment(timeline), text

        def done(result: tuple[Moment, str | None]) -> None:
            moment, text = result
            self._staying = False
            self.follow()
            self.end_icount = max(self.end_icount, moment.icount)
            self._place(moment.icount)
            self._arrive(moment)
            if text:
                self.say(text)
            self._name_live()

        self._leave()
        self.machine_jobs.submit(name, run, done)

    def block(self, forward: bool) -> None:
        """Go behind the next branch, or back to where the last one led."""
        self.move("block", moves.block if forward else moves.block_back)

    def run_function(self, forward: bool) -> None:
        """Go to where another function is entered or returned to."""
        work = moves.function if forward else moves.function_back
        self.move("function", lambda t, poll: work(t, poll, self.function_name))

    def over(self) -> None:
        """Run one instruction, a call as a whole."""
        self.move("step over", moves.over)

    def run(self, forward: bool) -> None:
        """Run to a breakpoint or the end, or back to the last one or the start."""

        live = self.live

        def work(timeline: Timeline, poll: Callable[[], bool]) -> str:
            if live is not None and forward:
                return live.go(poll)
            return _sentence(timeline.go(poll) if forward else timeline.go_back(poll))

        self.move("running" if forward else "running back", work)

    def find_writer(self, address: int, length: int = 1, is_physical: bool = False) -> None:
        """Go to who wrote to some bytes last, the processor or a device.

        Guest-physical ones are looked for where the kernel has them mapped.
        """

        def work(timeline: Timeline, poll: Callable[[], bool]) -> str:
            cpu = timeline.machine.cpu
            gpa = address if is_physical else physical(cpu, address)
            linear: int | None = address
            if is_physical:
                linear = Paging.of(cpu).linear_of(cpu.read_phys, address)
            if linear is None:
                return f"physical {address:#x} is mapped nowhere"
            found = timeline.last_writer(linear, length, gpa)
            if found is None:
                return f"nobody has written to {address:#x} since the start"
            timeline.seek(found.icount, poll)
            who = self.function(found.pc) if not found.device else f"{found.device} by DMA"
            if found.request:
                who += f" for {found.request}"
            return f"{address:#x} was written by {who}, instruction {found.icount:,}"

        self.move(f"who wrote {address:#x}", work)

    def toggle_breakpoint(self, address: int) -> None:
        """Set a breakpoint, or forget it."""
        if address in self.breakpoints:
            self.breakpoints.discard(address)
            self.say(f"no breakpoint at {self.function(address)}")
        else:
            self.breakpoints.add(address)
            self.say(f"breakpoint at {self.function(address)}: c runs to it, C back to it")

    def set_bookmark(self, name: str) -> None:
        """Name this position; the name is kept beside the trace."""
        try:
            self.bookmarks.set(name, self.icount)
        except WorkbenchError as error:
            self.fail(str(error))
        else:
            self.say(f"bookmark {name}: --at bookmark:{name}")

    def delete_bookmark(self, name: str) -> None:
        """Forget a bookmark."""
        try:
            self.bookmarks.drop(name)
        except WorkbenchError as error:
            self.fail(str(error))
        else:
            self.say(f"bookmark {name} is forgotten")

    # Filter.

    def set_filter(self, text: str) -> None:
        """Show only what matches; raises `FilterError`."""
        node = language.parse(text, self.end_icount)
        self.filter_text = text.strip()
        self.matches = Matches(self.log, node, self.context)
        self.matches.center = self.row // BLOCK
        self._scan()
        self.changed()

    def _scan(self) -> None:
        """Look at the whole log for the filter, beside the screen."""
        matches = self.matches
        self._scanning.cancel()
        self._searching.cancel()
        if matches.complete:
            return

        def scan(job: Job) -> None:
            def stopping(share: float) -> bool:
                job.progress = share
                return self._closing or job.stopping()

            matches.scan(stopping)

        self._scanning.submit("filter", scan, lambda _: self._scanned(matches))

    def _scanned(self, matches: Matches) -> None:
        if matches is self.matches and matches.complete:
            self.say(f"{matches.known:,} of {self.log.rows:,} accesses match")

    def _request_of(self, row: int) -> str:
        block = self.log.block(row // BLOCK)
        place = row - block.first
        device = block.device(place)
        return self.events.request_of(device, int(block.numbers["icount"][place]))

    @property
    def scanning(self) -> bool:
        """Is the log still being looked through for the filter?"""
        return not self.matches.complete

    def register_names(self) -> list[str]:
        """Names of registers that were accessed near the selected row."""
        names: set[str] = set()
        middle = self.row // BLOCK
        for number in range(max(middle - 2, 0), min(middle + 3, self.log.blocks)):
            names.update(register.name for register in self.log.registers(number)[1])
        return sorted(names)

    def seen_functions(self) -> list[str]:
        """Functions that have been on the screen."""
        return sorted({text.partition("+")[0] for text in self._functions.values()})

    # Positions.

    def address(self) -> str:
        """The position as other commands take it."""
        return f"--at {self.icount}"


def _stepped(moved: Moved) -> str | None:
    return None if moved.kind == "icount" else _sentence(moved)


def _sentence(moved: Moved) -> str:
    match moved.kind:
        case "breakpoint":
            return "breakpoint"
        case "watch" | "access":
            return f"watched: {moved.text or 'memory'}"
        case "begin":
            return "the start of the recording; no breakpoint was met on the way back"
        case "end":
            return f"the end of the recording ({moved.text})"
        case "interrupted":
            return "stopped"
        case _:
            return moved.text

"""The model of one trace on screen: where one is, and who does the work. It knows no terminal.

The position is an instruction count. The log and the time line follow it at once, from the trace's
tables; the machine is brought there beside the screen (`driver.py`). All changes happen in the
screen's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from workbench.errors import WorkbenchError
from workbench.trace.bookmarks import Bookmarks
from workbench.tui import names
from workbench.tui.apart import Apart
from workbench.tui.aside import Aside
from workbench.tui.density import Density
from workbench.tui.driver import Driver
from workbench.tui.events import Events
from workbench.tui.lines import safe
from workbench.tui.log import BLOCK, AccessLog
from workbench.tui.matches import Context, Matches
from workbench.tui.names import Names
from workbench.tui.pages import Pages
from workbench.tui.search import Search
from workbench.tui.travel import Travel

if TYPE_CHECKING:
    from workbench.inspect import Page
    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable
    from workbench.trace.timeline import Timeline
    from workbench.tui.driver import Frames
    from workbench.tui.jobs import Jobs, MakeJobs
    from workbench.tui.live import Live
    from workbench.tui.moment import Moment
    from workbench.tui.worker import Job

_MOST_HISTORY: Final = 200


class Session:
    """A trace, looked at."""

    def __init__(
        self,
        trace: Trace,
        make_jobs: MakeJobs,
        *,
        symbols: SymbolTable | None = None,
        live: Live | None = None,
        aside: Aside | None = None,
    ) -> None:
        self.trace = trace
        self.live = live
        """The recording, when this is one that goes on; `trace` grows then."""
        self.end_icount = trace.icount
        self.icount = 0
        self.row = 0
        """Selected row of the log."""
        self.message = ""
        self.error = False
        self.inspected = ""
        """Name of the inspector that is shown; it is captured at every stop."""
        self.breakpoints: set[int] = set()
        self.history: list[int] = []
        self.future: list[int] = []
        self.changed: Callable[[], None] = lambda: None
        """Called when something may have to be drawn."""
        self.closing = False
        self._make_jobs = make_jobs
        self._more_jobs: list[Jobs] = []
        self._read_until = -1
        self.bookmarks = Bookmarks(trace.path)
        self.log = AccessLog(trace)
        self.density = Density(self.end_icount)
        self.events = Events()
        self.aside = aside or Aside()
        self.pages = Pages(self.log, self.aside, self._arrived)
        self.names = Names(symbols)
        self.apart = Apart(self.log, self.names, self.events)
        self.function = self.names.text
        self.driver: Driver = Driver(self, make_jobs("machine", self._stuck))
        self.read_jobs = make_jobs("reader", self.fail)
        self.search: Search = Search(self, make_jobs)
        self._naming = make_jobs("symbols", self.fail)
        self.travel: Travel = Travel(self)

    # The parts.

    @property
    def machine_jobs(self) -> Jobs:
        """Who moves the machine."""
        return self.driver.jobs

    @property
    def timeline(self) -> Timeline | None:
        """The machine in time, None while it is being made."""
        return self.driver.timeline

    @property
    def moment(self) -> Moment | None:
        """What the machine looks like where it stands."""
        return self.driver.moment

    @property
    def previous(self) -> Moment | None:
        """What it looked like at the stop before."""
        return self.driver.previous

    @property
    def absent(self) -> str:
        """Why there is no machine."""
        return self.driver.absent

    @property
    def checkpoints(self) -> list[int]:
        """Where states are kept."""
        return self.driver.checkpoints

    @property
    def stale(self) -> str:
        """What the panes of the machine show when that is not the position; empty if it is."""
        return self.driver.stale

    def page(self, moment: Moment) -> Page | None:
        """What the inspector has to say at a moment; None if it was not asked in time."""
        return self.driver.page(moment)

    def frames(self, moment: Moment) -> Frames:
        """The call chain at a moment: (PC, RSP, RBP), the innermost first; empty until known."""
        return self.driver.frames(moment)

    @property
    def symbols(self) -> SymbolTable | None:
        """The guest's symbols, None while they are not known."""
        return self.names.table

    @property
    def matches(self) -> Matches:
        """Rows of the log that the filter lets through."""
        return self.search.matches

    @property
    def context(self) -> Context:
        """What filters ask beyond the log: functions, requests."""
        return self.search.context

    @property
    def filter_text(self) -> str:
        """The filter as it was typed."""
        return self.search.text

    @property
    def scanning(self) -> bool:
        """Is the log still being looked through for the filter?"""
        return not self.matches.complete

    def set_filter(self, text: str) -> None:
        """Show only what matches; raises `FilterError`."""
        self.search.set(text)

    def find_row(
        self, row: int, forward: bool, matches: Matches, found: Callable[[int | None], None]
    ) -> None:
        """Look for a match beyond a row, at once or beside the screen; `found` is told it."""
        self.search.find_row(row, forward, matches, found)

    # Beginning and end.

    def start(self, *, build: bool = True, names: bool = True) -> None:
        """Begin with all that happens beside the screen."""
        if self.live is not None:
            self.driver.built(self.live.timeline)
            self.travel.run(True)
            self._naming.submit("loading", lambda _: self.driver.warm(), lambda _: None)
        elif build:
            self.driver.build()
        self.read_jobs.submit("reading", self._read, lambda _: self._has_read())
        if names and self.symbols is None and self.live is None:
            self._naming.submit("finding symbols", self._find_symbols, self._named)

    def close(self) -> bool:
        """Stop all work; does the machine stand still then?"""
        self.closing = True
        self.aside.close()
        for jobs in self.all_jobs:
            jobs.cancel()
        self.apart.close()
        return {jobs: jobs.close() for jobs in self.all_jobs}[self.machine_jobs]

    def make_jobs(self, name: str) -> Jobs:
        """Somebody more who works beside the screen."""
        made = self._make_jobs(name, self.fail)
        self._more_jobs.append(made)
        return made

    @property
    def all_jobs(self) -> tuple[Jobs, ...]:
        """All that may work beside the screen, what the user waits for first."""
        return (
            self.search.searching, self.machine_jobs, self.search.scanning, self.read_jobs,
            self._naming, *self._more_jobs,
        )  # fmt: skip

    def _arrived(self) -> None:
        """There is more to draw."""
        self.changed()

    def _read(self, job: Job) -> None:
        def stopping() -> bool:
            return self.closing or job.stopping()

        apart = self.apart
        self.events.read(self.trace)
        pieces = len(self.trace.pieces("accesses"))
        self.density.read(pieces, apart.count, stopping, apart.at_a_time)
        self.changed()
        self.log.index(stopping, apart.follow, apart.at_a_time)

    def _has_read(self) -> None:
        """Filters may ask for requests, and for what registers mean, which nobody knew before."""
        self.search.learned("request", "register", "fields", "")
        self.changed()

    def _find_symbols(self, job: Job) -> SymbolTable:
        return names.find(self.trace)

    def _find_symbols_live(self) -> None:
        """Look for the guest's symbols in the memory of one that is being recorded."""
        timeline = self.timeline
        if self.live is None or self.symbols is not None or timeline is None:
            return
        from workbench.trace import symbols

        def done(found: SymbolTable) -> None:
            if len(found) and self.symbols is None:
                self._named(found)

        self.driver.look("finding symbols", lambda: symbols.of_machine(timeline.machine), done)

    def _named(self, found: SymbolTable) -> None:
        self.names.learn(found)
        self.search.learned("function")
        self.changed()

    # A recording that goes on.

    def follow(self) -> None:
        """See what a recording has appended, and go with it while it runs."""
        live = self.live
        if live is None:
            return
        if not self.read_jobs.busy and not self.trace.closed:
            self.trace.refresh()
            self.density.extend(self.trace.icount)
            if self.log.grow():
                self.search.grow()
            self.read_jobs.submit("reading", self._read, lambda _: self.changed())
            self._read_until = -1 if live.running else live.icount
        self.end_icount = max(self.trace.icount, live.icount)
        if live.running:
            self.icount, self.row = live.icount, max(self.log.rows - 1, 0)

    @property
    def is_read(self) -> bool:
        """Are the tables complete, up to the present of a recording?"""
        live = self.live
        return live is None or (not self.read_jobs.busy and self._read_until == live.icount)

    def when_read(self, then: Callable[[], None]) -> None:
        """Call something once the tables are complete."""

        def again(_: None) -> None:
            if not self.read_jobs.busy and not self.is_read:
                self.follow()
            then()

        self.read_jobs.submit("reading", lambda _: None, again)

    def paused_for(self, then: Callable[[], None]) -> bool:
        """Does the guest run on and record?  It pauses, and `then` is called."""
        if self.live is None or not self.live.running or not self.machine_jobs.busy:
            return False
        self.machine_jobs.cancel()
        self.machine_jobs.submit("pausing", lambda _: None, lambda _: then())
        return True

    def stop_recording(self) -> None:
        """End the recording and close the trace; one may go on looking at it."""
        live = self.live
        if live is None:
            self.say("this is no recording: workbench tui --record makes one")
            return
        self.driver.leave()

        def done(result: tuple[str, Moment]) -> None:
            sentence, moment = result
            self.follow()
            self.place(moment.icount)
            self.driver.arrive(moment)
            self.say(sentence)

        self.machine_jobs.cancel()
        self.machine_jobs.submit(
            "closing the trace",
            lambda _: (live.finish(), self.driver.take(live.timeline)), done,
        )  # fmt: skip

    # Saying things.

    def say(self, text: str) -> None:
        """Show a sentence."""
        self.message, self.error = safe(text), False
        self.changed()

    def hush(self) -> None:
        """Say nothing any more."""
        self.message, self.error = "", False

    def fail(self, text: str) -> None:
        """Show what went wrong."""
        self.message, self.error = safe(text), True
        self.changed()

    def _stuck(self, text: str) -> None:
        """The machine cannot be made or moved."""
        if self.timeline is None:
            self.driver.absent = f"there is no machine; {safe(text)}"
        self.fail(text)

    # Where one is.

    def go(self, icount: int, *, remember: bool = True, row: int | None = None) -> None:
        """Go to an instruction count; `row`: to this access of several there."""
        if self.paused_for(lambda: self.go(icount, remember=remember, row=row)):
            return
        if self.driver.occupied():
            return
        target = max(0, min(icount, self.end_icount))
        if remember:
            self.remember()
        self.place(target, row)
        self.driver.bring()

    def go_to_row(self, row: int) -> None:
        """Go to an access of the log."""
        if 0 <= row < self.log.rows:
            seen = self.log.seen(row)
            if seen is not None:
                self.go(seen.icount, row=row)
            else:
                self.aside.ask(
                    lambda: self.log.icount(row), lambda icount: self.go(icount, row=row)
                )

    def remember(self) -> None:
        """Keep the position, for `back`."""
        if not self.history or self.history[-1] != self.icount:
            self.history.append(self.icount)
            del self.history[:-_MOST_HISTORY]
        self.future.clear()

    def place(self, icount: int, row: int | None = None) -> None:
        """Make this the position; the machine is not asked. The row is looked up, aside."""
        self.icount = icount

        def found(row: int) -> None:
            if self.icount == icount and self.log.rows:
                self._select(min(row, self.log.rows - 1))

        if row is not None:
            self.row = row
        else:
            self.aside.ask(lambda: self.log.row_at(icount), found)
        self.changed()

    def _select(self, row: int) -> None:
        """Select a row, or the next one that the filter lets through."""
        icount = self.icount

        def found(match: int | None) -> None:
            if self.icount == icount and match is not None:
                self.row = match
                self.changed()

        self.row = row
        self.changed()
        if self.matches.node is not None:
            self.find_row(row - 1, True, self.matches, found)

    def moved(self, moment: Moment) -> None:
        """The machine was moved, and the position goes with it."""
        self.follow()
        self.end_icount = max(self.end_icount, moment.icount)
        self.place(moment.icount)
        self.driver.arrive(moment)
        self._find_symbols_live()

    def back(self) -> None:
        """Go to the position before the last jump."""
        if self.paused_for(self.back) or self.driver.occupied():
            return
        if not self.history:
            self.say("there is no earlier position")
            return
        self.future.append(self.icount)
        self.go(self.history.pop(), remember=False)

    def forward(self) -> None:
        """Undo `back`."""
        if self.driver.occupied():
            return
        if not self.future:
            self.say("there is no later position")
            return
        self.history.append(self.icount)
        self.go(self.future.pop(), remember=False)

    def stay(self) -> None:
        """Stop what runs: the position is where the machine is then."""
        if self.search.cancel() or self.driver.stop():
            self.say("stopped")

    def address(self) -> str:
        """The position as other commands take it."""
        return f"--at {self.icount}"

    # Marks.

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

    def register_names(self) -> list[str]:
        """Names of registers that were accessed near the selected row, as far as that is read."""
        return self.log.register_names(self.row // BLOCK)

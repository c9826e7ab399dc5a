"""What the user can go to from a position: the next or the last of something, and who wrote.

Accesses, requests and interrupts are looked up in the trace's tables; else the machine runs.
"""

from __future__ import annotations

from collections.abc import Callable
from glob import escape
from typing import TYPE_CHECKING

from workbench import dump
from workbench.core.pagewalk import Paging
from workbench.errors import WorkbenchError
from workbench.gdbstub.memory import physical
from workbench.inspect.subject import Accesses, of_register
from workbench.tui import moves
from workbench.tui.awaited import Awaited, Filter, NextAccess, NextInterrupt, NextRequest
from workbench.tui.language import Flag, Join, parse
from workbench.tui.matches import Matches

if TYPE_CHECKING:
    from workbench.trace.moved import Moved
    from workbench.trace.timeline import Timeline
    from workbench.tui.log import Access
    from workbench.tui.session import Session

Poll = Callable[[], bool]


class GivenUpError(WorkbenchError):
    """The user has changed their mind."""


class Travel:
    """The moves of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # By the tables.

    def step(self, count: int) -> None:
        """Step by instructions, forward or back."""
        session = self._session
        target = session.icount + count
        live = session.live
        if live is not None and count > 0 and target > session.end_icount and not live.over:
            session.driver.move("step", lambda timeline, poll: _stepped(timeline.step(count)))
            return
        if not 0 <= target <= session.end_icount:
            session.say("this is the end" if count > 0 else "this is the start")
            return
        session.go(target, remember=False)

    def next_access(self, forward: bool, filtered: bool) -> None:
        """Go to the next or the last access; `filtered`: that the filter matches."""
        session = self._session
        icount = session.icount
        matches = session.matches if filtered else Matches(session.log, None)
        which = "access" + (" that matches" if matches.node is not None else "")

        def found(row: int | None) -> None:
            if row is not None:
                session.go_to_row(row)
            elif forward:
                self._await(lambda: self._next_access(matches, which), which,
                            lambda: self.next_access(forward, filtered))  # fmt: skip
            else:
                session.say(f"there is no earlier {which}")

        # Several accesses of one instruction have one count.
        session.aside.ask(
            lambda: session.log.row_at(icount + forward) - forward,
            lambda present: session.search.find_row(present, forward, matches, found),
        )

    def next_event(self, kind: str, forward: bool) -> None:
        """Go to the next or the last interrupt or request."""
        session = self._session
        look = session.events.after if forward else session.events.before
        icount = look(kind, session.icount)
        which = kind.removesuffix("s")
        if icount is not None:
            session.go(icount)
        elif forward:
            make = NextRequest if kind == "requests" else NextInterrupt
            self._await(lambda: make(which), which, lambda: self.next_event(kind, forward))
        else:
            session.say(f"there is no earlier {which}")

    # By recording on.

    def _next_access(self, matches: Matches, which: str) -> Awaited:
        session = self._session
        if matches.node is None:
            return NextAccess(which)
        open_requests = session.events.open_requests()
        log, function = session.log, session.function
        fits = Filter(matches.node, log.decoder(), log.rows, function, open_requests)
        return NextAccess(which, fits)

    def _await(self, make: Callable[[], Awaited], which: str, again: Callable[[], None]) -> None:
        """The tables know of no later one: record on until there is one, if this is a recording."""
        session, live = self._session, self._session.live
        if live is None or live.over:
            session.say(f"there is no later {which}")
        elif not session.is_read:
            session.when_read(again)
        else:
            awaited = make()

            def work(timeline: Timeline, poll: Poll) -> str:
                live.awaited = awaited
                return live.go(poll)

            session.driver.move("running", work)

    def dump(self, path: str, form: str = "") -> None:
        """Write the guest's memory at this position to a new file."""

        def work(timeline: Timeline, poll: Poll) -> str:
            total, done = timeline.machine.cpu.ram_bytes, 0

            def progress(count: int) -> None:
                nonlocal done
                done += count
                timeline.progress = done / total
                if poll():
                    raise GivenUpError(f"{path} was not written")

            try:
                made = dump.write(
                    timeline.machine, path, paging=form == "paging", compress=form == "compress",
                    new=True, progress=progress,
                )  # fmt: skip
            except WorkbenchError as error:
                return str(error)
            return made.line

        self._session.driver.move("dump", work)

    # By the machine.

    def block(self, forward: bool) -> None:
        """Go behind the next branch, or back to where the last one led."""
        self._session.driver.move("block", moves.block if forward else moves.block_back)

    def function(self, forward: bool) -> None:
        """Go to where another function is entered or returned to."""
        work = moves.function if forward else moves.function_back
        span = self._session.names.span
        self._session.driver.move("function", lambda t, poll: work(t, poll, span))

    def over(self, forward: bool = True) -> None:
        """Run one instruction, a call as a whole; or undo that."""
        self._session.driver.move("step over", moves.over if forward else moves.over_back)

    def finish(self, forward: bool = True) -> None:
        """Run until this function returns, or back to its call."""
        driver, work = self._session.driver, moves.finish if forward else moves.finish_back
        span = self._session.names.span
        driver.move("finish", lambda t, poll: work(t, poll, driver.unwind(t.machine), span))

    def run(self, forward: bool) -> None:
        """Run to a breakpoint or the end, or back to the last one or the start."""
        live = self._session.live

        def work(timeline: Timeline, poll: Poll) -> str:
            if live is not None and forward:
                return live.go(poll)
            return moves.sentence(timeline.go(poll) if forward else timeline.go_back(poll))

        self._session.driver.move("running" if forward else "running back", work)

    def find_writer(self, address: int, length: int = 1, is_physical: bool = False) -> None:
        """Go to who wrote to some bytes last, the processor or a device.

        Guest-physical ones are looked for where the kernel has them mapped.
        """
        function = self._session.function

        def work(timeline: Timeline, poll: Poll) -> str:
            cpu = timeline.machine.cpu
            gpa = address if is_physical else physical(cpu, address)
            linear: int | None = address
            if is_physical:
                linear = Paging.of(cpu).linear_of(cpu.read_phys, address)
            if linear is None:
                return f"physical {address:#x} is mapped nowhere"
            found = timeline.last_writer(linear, length, gpa, poll)
            if poll():
                return "stopped"
            if found is None:
                return f"nobody has written to {address:#x} since the start"
            timeline.seek(found.icount, poll)
            who = function(found.pc) if not found.device else f"{found.device} by DMA"
            if found.request:
                who += f" for {found.request}"
            return f"{address:#x} was written by {who}, instruction {found.icount:,}"

        self._session.driver.move(f"who wrote {address:#x}", work)

    def find_access(
        self, accesses: Accesses, *, write: bool = False, row: int | None = None
    ) -> None:
        """Go to the last of some accesses before the position or a row of the log; `write`: write.

        Raises `FilterError` if their filter is none.
        """
        session = self._session
        node = parse(accesses.filter, session.end_icount)
        if write and node is not None:
            node = Join("and", (Flag("write"), node))
        matches = Matches(session.log, node, session.context)

        def found(row: int | None) -> None:
            if row is None:
                how = "written to" if write else "accessed"
                session.say(f"nobody has {how} {accesses.name} before")
            else:
                session.go_to_row(row)
                session.aside.ask(lambda: session.log.access(row), told)

        def told(access: Access) -> None:
            how = "written" if access.write else "read"
            who = session.function(access.pc)
            session.say(f"{access.register} of {access.device} was {how} by {who}")

        if row is not None:
            session.find_row(row, False, matches, found)
        else:
            icount = session.icount
            session.aside.ask(
                lambda: session.log.row_at(icount),
                lambda here: session.find_row(here, False, matches, found),
            )

    def find_write_of_row(self) -> None:
        """Go to the last write to the register of the selected access."""
        session = self._session
        row = session.row

        def known(access: Access) -> None:
            config = access.kind == "cfg"
            accesses = of_register(escape(access.device), escape(access.register), config=config)
            self.find_access(accesses, write=True, row=row)

        if row < session.log.rows:
            session.aside.ask(lambda: session.log.access(row), known)


def _stepped(moved: Moved) -> str | None:
    return None if moved.kind == "icount" else moves.sentence(moved)

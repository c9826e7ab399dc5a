"""The machine beside the screen: brought to the position, moved from it, and what it looks like.

It is moved by one worker, one job after the other; `moment` is what was seen where it stood last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from workbench.errors import WorkbenchError
from workbench.inspect import REQUESTS, Page, capture
from workbench.trace.header import other_maker
from workbench.tui.disassembly import disassemble
from workbench.tui.moment import Moment

if TYPE_CHECKING:
    from workbench.core.machine import Machine
    from workbench.trace.timeline import Timeline
    from workbench.trace.unwind import Unwinder
    from workbench.tui.jobs import Jobs
    from workbench.tui.log import Access
    from workbench.tui.session import Session
    from workbench.tui.worker import Job

T = TypeVar("T")
Poll = Callable[[], bool]
Frames = tuple[tuple[int, int, int], ...]
SHORT: Final = frozenset({"seek", "starting the machine", "finding symbols", "call chain"})
"""Work that a new position only sends elsewhere."""
QUEUE: Final = SHORT | {"block", "function", "step", "step over", "finish"}
"""Moves that are done one after the other when a key is pressed several times."""
_MOST_WAITING: Final = 16


class Driver:
    """Moves the machine of a session."""

    def __init__(self, session: Session, jobs: Jobs) -> None:
        self._session = session
        self.jobs = jobs
        self.timeline: Timeline | None = None
        self.moment: Moment | None = None
        self.previous: Moment | None = None
        self.checkpoints: list[int] = []
        self.absent = "the machine is being started"
        """Why there is no machine, as long as there is none."""
        self._unwinders: dict[int, Unwinder] = {}
        self._staying = False

    # The beginning.

    def build(self) -> None:
        """Make the machine, beside the screen."""
        self.jobs.submit("starting the machine", self._build, self.built)

    def _build(self, job: Job) -> Timeline:
        from workbench.trace.timeline import Timeline

        timeline = Timeline(self._session.trace)
        self.warm()
        return timeline

    def warm(self) -> None:
        """Load what the first stop needs, beside the screen and not while it is drawn."""
        from rich import console, table  # noqa: F401

        from workbench.tui import help as keys_and_commands  # noqa: F401

        for bits in (16, 32, 64):
            for instruction in disassemble(b"\x8b\x07", 0, bits, 1):
                assert instruction.memory

    def built(self, timeline: Timeline) -> None:
        """The machine is there."""
        self.timeline = timeline
        self.arrive(Moment(timeline.machine))
        if self.moment is not None and self._session.icount != self.moment.icount:
            self.bring()

    # Where it stands.

    @property
    def stale(self) -> str:
        """What the panes of the machine show when that is not the position; empty if it is."""
        live, moment = self._session.live, self.moment
        if moment is None:
            return ""
        if live is not None and live.running:
            return f"at {moment.icount:,}, the guest runs"
        if moment.icount != self._session.icount or not moment.live:
            return f"at {moment.icount:,}, not here yet"
        return ""

    def take(self, timeline: Timeline) -> Moment:
        """What the machine looks like now, with the page of the inspector that is shown."""
        moment = Moment(timeline.machine)
        self.page(moment)
        return moment

    def page(self, moment: Moment) -> Page | None:
        """What the inspector has to say at a moment; None if it was not asked in time."""
        name = self._session.inspected
        if not name:
            return None

        def look(machine: Machine) -> Page | None:
            if name == REQUESTS:  # all of it is in the trace
                return Page(name, name, ())
            try:
                return capture(machine, name)
            except WorkbenchError as error:
                self._session.fail(str(error))
                return None

        found: Page | None = moment.keep(("page", name), look)
        return found

    def look(self, name: str, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Look at the machine where it stands, beside the screen."""

        def looked(found: T) -> None:
            done(found)
            if self.moment is not None and self.moment.icount != self._session.icount:
                self.bring()

        self.jobs.submit(name, lambda _: work(), looked)

    def frames(self, moment: Moment) -> Frames:
        """The call chain at a moment: (PC, RSP, RBP), the innermost first; empty until known."""
        found: Frames | None = moment.keep("frames", lambda machine: None)
        machine = moment.machine
        if found is None and machine is not None and not self.jobs.busy:

            def done(found: Frames) -> None:
                moment.put("frames", found)
                self._session.changed()

            self.look("call chain", lambda: self.unwind(machine), done)
        return found or ()

    def unwind(self, machine: Machine) -> Frames:
        """The call chain where a machine stands; in the worker's thread."""
        from workbench.trace.unwind import Unwinder

        unwinder = self._unwinders.get(id(machine))
        if unwinder is None:
            unwinder = self._unwinders[id(machine)] = Unwinder(machine)
        return unwinder.frames()

    def leave(self) -> None:
        """The machine is about to move."""
        if self.moment is not None:
            self.moment.leave()

    def arrive(self, moment: Moment) -> None:
        """It has moved."""
        if self.moment is not None and self.moment.icount != moment.icount:
            self.previous = self.moment
        self.moment = moment
        self._session.changed()

    # To the position.

    def occupied(self, but: frozenset[str] = SHORT) -> bool:
        """Does the machine make a move that another one would spoil?  The user is told."""
        job = self.jobs.job
        if job is None or job.name in but:
            return False
        self._session.say(f"{job.name} is on its way: Esc stops it")
        return True

    def bring(self) -> None:
        """Bring the machine to the position; a seek that is under way elsewhere is given up."""
        jobs = self.jobs
        if self.timeline is None:
            return
        if jobs.busy:
            if jobs.job is not None and jobs.job.name == "seek":
                jobs.job.cancel()
            return
        if self.moment is not None and self.moment.icount == self._session.icount:
            return
        timeline, target = self.timeline, self._session.icount
        self.leave()
        jobs.submit("seek", lambda job: self._seek(job, timeline, target), self._arrived_at)

    def _seek(self, job: Job, timeline: Timeline, target: int) -> Moment:
        timeline.seek(target, self._poll(job, timeline))
        self.checkpoints = timeline.checkpoints
        return self.take(timeline)

    def _poll(self, job: Job, timeline: Timeline) -> Poll:
        def poll() -> bool:
            job.progress = timeline.progress
            self._session.changed()
            return job.stopping()

        return poll

    def _arrived_at(self, moment: Moment) -> None:
        self.arrive(moment)
        if self._staying:
            self._staying = False
            self._session.place(moment.icount)
        elif moment.icount != self._session.icount:
            self.bring()
        else:
            self._check(moment)

    def _check(self, moment: Moment) -> None:
        """Does the machine stand where the log says? Another engine may run otherwise."""
        session = self._session
        row, log = session.row, session.log
        if session.live is not None or not 0 <= row < log.rows:
            return

        def checked(access: Access) -> None:
            if access.icount != moment.icount or access.pc in (moment.pc, moment.registers["rip"]):
                return
            other = other_maker(session.trace.header)
            if other:
                session.fail(
                    f"the machine is not where the recording was: {other};"
                    " 'workbench replay' says more"
                )

        session.aside.ask(lambda: log.access(row), checked)

    # From the position.

    def stop(self) -> bool:
        """Stop what runs: the position is where the machine is then. Was there something?"""
        stopped = self.jobs.cancel()
        self._staying = self._staying or stopped
        return stopped

    def move(self, name: str, work: Callable[[Timeline, Poll], str | None]) -> None:
        """Move the machine from where it is, beside the screen; `work` gives a sentence, or None.

        The position follows when it is done.
        """
        session, timeline = self._session, self.timeline
        if timeline is None:
            session.say(self.absent)
            return
        if self.occupied(QUEUE) or len(self.jobs.waiting) >= _MOST_WAITING:
            return
        session.remember()

        live = session.live

        def run(job: Job) -> tuple[Moment, str | None]:
            poll = self._poll(job, timeline)
            text: str | None = "stopped"
            if live is not None:
                poll = live.watched(poll)
            try:
                if timeline.icount != session.icount:
                    timeline.seek(session.icount, poll)
                timeline.breakpoints = set(session.breakpoints)
                if not job.stopping():
                    text = work(timeline, poll)
            finally:
                if live is not None:
                    live.rest()
            self.checkpoints = timeline.checkpoints
            return self.take(timeline), text

        def done(result: tuple[Moment, str | None]) -> None:
            moment, text = result
            self._staying = False
            session.moved(moment)
            if text:
                session.say(text)

        self.leave()
        self.jobs.submit(name, run, done)

"""Two traces side by side: one list of lines along the alignment, and moving both together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from workbench.trace.compare import CHANGED, ONLY_A, ONLY_B, SAME, Alignment, Hashes, Row

if TYPE_CHECKING:
    from workbench.trace.bisect import Step
    from workbench.tui.session import Session
    from workbench.tui.worker import Job


MOST_ROWS: Final = 20_000_000
"""Accesses of a trace that are compared: each needs about forty bytes meanwhile."""
_MOST_CHANGES: Final = 3


class Span(NamedTuple):
    """Lines of one kind: the first line, the first rows on both sides, how many."""

    line: int
    mark: str
    a: int
    b: int
    length: int


class Comparison:
    """The alignment of two sessions; empty until it has been computed."""

    def __init__(self, first: Session, second: Session) -> None:
        self.first = first
        self.second = second
        self.spans: list[Span] = []
        self.lines = 0
        self.line = 0
        """Selected line."""
        self.differences: list[int] = []
        """First lines of what differs."""
        self.ready = False
        self._synced = (-1, -1)
        self.jobs = first.make_jobs("compare")

    def start(self) -> None:
        """Compute the alignment beside the screen."""

        def done(spans: list[Span] | None) -> None:
            if spans is None:
                self.first.say("the traces are not compared; d does it")
                return
            self.spans = spans
            self.lines = spans[-1].line + spans[-1].length if spans else 0
            self.differences = [
                s.line for n, s in enumerate(spans)
                if s.mark != SAME and (n == 0 or spans[n - 1].mark == SAME)
            ]  # fmt: skip
            self.ready = True
            count = len(self.differences)
            what = "difference" if count == 1 else "differences"
            self.first.say(f"{count:,} {what}; d goes to the next" if count else "the runs match")

        rows = max(self.first.log.rows, self.second.log.rows)
        if rows > MOST_ROWS:
            self.first.fail(f"expected at most {MOST_ROWS:,} accesses to compare, not {rows:,}")
            return
        self.jobs.submit("comparing", self._compare, done)

    @property
    def running(self) -> bool:
        """Are the traces being compared?"""
        return self.jobs.busy

    @property
    def state(self) -> str:
        """How far that is, in words."""
        job = self.jobs.job
        if job is None:
            return "not compared; d does it"
        share = "" if job.progress is None else f" {100 * job.progress:.0f} %"
        return f"comparing{share} … Esc stops it"

    def cancel(self) -> bool:
        """Stop comparing; was there something to stop?"""
        return self.jobs.cancel()

    def _compare(self, job: Job) -> list[Span] | None:
        def part(start: float, end: float) -> Callable[[float], None]:
            def progress(share: float) -> None:
                job.progress = start + (end - start) * share
                if self.first.closing or job.stopping():
                    raise _StoppedError

            return progress

        try:
            a = Hashes(self.first.trace, progress=part(0, 0.1))
            b = Hashes(self.second.trace, progress=part(0.1, 0.2))
            return _spans(Alignment(a, b, part(0.2, 0.95)), part(0.95, 1))
        except _StoppedError:
            return None

    # Lines.

    def row(self, line: int) -> Row | None:
        """What stands in a line."""
        if not 0 <= line < self.lines:
            return None
        span = self.spans[bisect_right(self.spans, line, key=lambda s: s.line) - 1]
        at = line - span.line
        a = None if span.mark == ONLY_B else span.a + at
        b = None if span.mark == ONLY_A else span.b + at
        return Row(span.mark, a, b)

    def line_of(self, row: int, second: bool = False) -> int:
        """The line of a row of the first trace, or of the second."""
        place = bisect_right(self.spans, row, key=lambda s: s.b if second else s.a) - 1
        while place >= 0:
            span = self.spans[place]
            if span.mark != (ONLY_A if second else ONLY_B):
                start = span.b if second else span.a
                return span.line + min(row - start, span.length - 1)
            place -= 1
        return 0

    def next_difference(self, forward: bool) -> None:
        """Select the next stretch that differs, and go there on both sides."""
        if not self.ready:
            if not self.running:
                self.start()
            self.first.say("the traces are being compared")
            return
        known = self.differences
        place = bisect_right(known, self.line) if forward else bisect_left(known, self.line) - 1
        if not 0 <= place < len(known):
            self.first.say("there is no " + ("later" if forward else "earlier") + " difference")
            return
        self.go(known[place])

    def go(self, line: int) -> None:
        """Go to a line, in both traces."""
        row = self.row(line)
        if row is None:
            return
        self.line = line
        for session, side in ((self.first, "a"), (self.second, "b")):
            number = self._nearest(line, side)
            if number is not None:
                session.go_to_row(number)
        self._synced = self.first.icount, self.second.icount

    def _nearest(self, line: int, side: str) -> int | None:
        """The row of one side in a line, or in the next line that has one."""
        while (row := self.row(line)) is not None:
            number: int | None = getattr(row, side)
            if number is not None:
                return number
            span = self.spans[bisect_right(self.spans, line, key=lambda s: s.line) - 1]
            line = span.line + span.length
        return None

    def follow(self) -> None:
        """Bring the second trace to where the first one has moved, by the alignment."""
        if not self.ready or not self.lines:
            return
        here = self.first.icount, self.second.icount
        if here == self._synced or self.first.machine_jobs.busy:
            return
        self._synced = here
        first, second = self.first, self.second
        icount = first.icount

        def find() -> tuple[int, int | None]:
            line = self.line_of(min(first.log.row_at(icount), first.log.rows - 1))
            row = self.row(line)
            if row is None or row.a is None or row.b is None:
                return line, None
            return line, second.log.icount(row.b) - first.log.icount(row.a) + icount

        def found(place: tuple[int, int | None]) -> None:
            if first.icount != icount:
                return
            self.line, target = place
            if target is not None:
                second.go(target, remember=False)
            self._synced = first.icount, second.icount

        first.aside.ask(find, found)

    def _select(self) -> None:
        """Select the line where the first trace is; it is looked up, aside."""
        first = self.first
        icount, log = first.icount, first.log

        def found(row: int) -> None:
            if first.icount == icount:
                self.line = self.line_of(min(row, log.rows - 1))
                first.changed()

        if self.ready and log.rows:
            first.aside.ask(lambda: log.row_at(icount), found)

    # The first instruction that differs.

    def first_instruction(self) -> None:
        """Find what first makes the runs differ, by their whole states, and go behind it."""
        first, second = self.first, self.second
        if first.driver.occupied() or second.driver.occupied():
            return

        def work(job: Job) -> Step | None:
            from workbench.trace import bisect

            def progress(share: float) -> None:
                job.progress = share

            return bisect.find(first.trace, second.trace, progress, job.stopping)

        def done(step: Step | None) -> None:
            if step is None:
                first.say("the runs do not differ")
                return
            for session in (first, second):
                session.go(step.icount + 1)
            self._synced = first.icount, second.icount
            self._select()
            changes = ", ".join(f"{c.name} {c.a} | {c.b}" for c in step.changes[:_MOST_CHANGES])
            more = len(step.changes) - _MOST_CHANGES
            if more > 0:
                changes += f" and {more} more"
            where = first.function(step.pc_a)
            first.say(f"{where}, instruction {step.icount:,}, is the first to differ: {changes}")

        first.machine_jobs.submit("first difference", work, done)


class _StoppedError(Exception):
    """The user does not want to wait for it."""


def _spans(
    diff: Alignment[Any], progress: Callable[[float], None] = lambda share: None
) -> list[Span]:
    """The whole comparison as stretches of lines."""
    out: list[Span] = []
    line = at_a = at_b = 0

    def add(mark: str, a: int, b: int, length: int) -> None:
        nonlocal line
        last = out[-1] if out else None
        if last is not None and last.mark == mark and _joins(last, a, b):
            out[-1] = last._replace(length=last.length + length)
        else:
            out.append(Span(line, mark, a, b, length))
        line += length

    for a0, a1, b0, b1 in diff.gaps():
        progress(a0 / max(diff.a.rows, 1))
        if a0 > at_a:
            add(SAME, at_a, at_b, a0 - at_a)
        for stretch in diff.stretches((a0, a1, b0, b1)):
            add(*stretch)
        at_a, at_b = a1, b1
    if diff.a.rows > at_a:
        add(SAME, at_a, at_b, diff.a.rows - at_a)
    return out


def _joins(last: Span, a: int, b: int) -> bool:
    return (last.a + (last.mark != ONLY_B) * last.length, last.b + (last.mark != ONLY_A)
            * last.length) == (a, b) and last.mark in (SAME, CHANGED, ONLY_A, ONLY_B)  # fmt: skip

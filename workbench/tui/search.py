"""The filter of the log, and looking for the accesses that it lets through.

What is near is found at once; the rest of a long log is looked through beside the screen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from workbench.tui import language
from workbench.tui.log import BLOCK
from workbench.tui.matches import Budget, Context, Matches

if TYPE_CHECKING:
    from workbench.tui.jobs import MakeJobs
    from workbench.tui.session import Session
    from workbench.tui.worker import Job

BUDGET: Final = 4
"""Blocks of the log that are looked through at once; more are looked through beside the screen."""


class Search:
    """The filter of a session."""

    def __init__(self, session: Session, make_jobs: MakeJobs) -> None:
        self._session = session
        self._log = session.log
        self.context = Context(function=session.function, request=self._request_of)
        self.scanning = make_jobs("filter", session.fail)
        self.searching = make_jobs("search", session.fail)
        self.text = ""
        self.matches = Matches(self._log, None)

    def set(self, text: str) -> None:
        """Show only what matches; raises `FilterError`."""
        session = self._session
        node = language.parse(text, session.end_icount)
        self.text = text.strip()
        self.matches = Matches(self._log, node, self.context)
        self.matches.center = session.row // BLOCK
        self._scan(self._scanned)
        session.changed()

    def renamed(self) -> None:
        """Functions have other names now."""
        if self.matches.node is not None:
            self.set(self.text)

    def grow(self) -> None:
        """The log has grown."""
        self.matches.grow()
        self._scan(lambda matches: self._session.changed())

    def cancel(self) -> bool:
        """Stop looking for a row; was one looked for?"""
        return self.searching.cancel()

    def _scan(self, scanned: Callable[[Matches], None]) -> None:
        """Look at the whole log for the filter, beside the screen."""
        matches = self.matches
        self.scanning.cancel()
        self.searching.cancel()
        if matches.complete:
            return

        def scan(job: Job) -> None:
            def stopping(share: float) -> bool:
                job.progress = share
                return self._session.closing or job.stopping()

            matches.scan(stopping)

        self.scanning.submit("filter", scan, lambda _: scanned(matches))

    def _scanned(self, matches: Matches) -> None:
        if matches is self.matches and matches.complete:
            self._session.say(f"{matches.known:,} of {self._log.rows:,} accesses match")

    def _request_of(self, row: int) -> str:
        block = self._log.block(row // BLOCK)
        place = row - block.first
        device = block.device(place)
        icount = int(block.numbers["icount"][place])
        return self._session.events.request_of(device, icount)

    def find_row(
        self, row: int, forward: bool, matches: Matches, found: Callable[[int | None], None]
    ) -> None:
        """Look for a match beyond a row, at once or beside the screen; `found` is told it."""
        look = matches.after if forward else matches.before
        stopped = -1
        budget = Budget(BUDGET)
        near = look(row, budget)
        if near is not None or not budget.spent:
            found(near)
            return

        def search(job: Job) -> int | None:
            at = row
            while not job.stopping() and not self._session.closing:
                budget = Budget(BUDGET)
                near = look(at, budget)
                if near is not None or not budget.spent:
                    return near
                # What was looked through; the first of the blocks was not seen as a whole.
                at += (BUDGET - 1) * (BLOCK if forward else -BLOCK)
                job.progress = abs(at - row) / max(self._log.rows, 1)
            return stopped

        self.searching.cancel()
        self.searching.submit(
            "searching", search, lambda row: None if row == stopped else found(row)
        )

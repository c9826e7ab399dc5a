"""The filter of the log, and looking for the accesses that it lets through.

What is near is found at once; the rest of a long log is looked through beside the screen.
"""

from __future__ import annotations

import time
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
"""Blocks of the log that are looked through before it is asked whether to go on."""
_STEP_BACK_S: Final = 0.01


class Search:
    """The filter of a session."""

    def __init__(self, session: Session, make_jobs: MakeJobs) -> None:
        self._session = session
        self._log = session.log
        self.context = Context(function=session.function, request=session.events.request_of)
        self.scanning = make_jobs("filter", session.fail)
        self.searching = make_jobs("search", session.fail)
        self.text = ""
        self.matches = Matches(self._log, None)
        self._asked = object()
        """What is looked for; an answer to an earlier question is not wanted any more."""

    def set(self, text: str) -> None:
        """Show only what matches; raises `FilterError`."""
        session = self._session
        node = language.parse(text, session.end_icount)
        self.text = text.strip()
        self.matches = Matches(self._log, node, self.context)
        self.matches.center = session.row // BLOCK
        self._scan(self._scanned)
        session.changed()

    def learned(self, *names: str) -> None:
        """More is known about what is called so: a filter that asks for it begins again."""
        node = self.matches.node
        if node is not None and any(language.asks(node, name) for name in names):
            self.set(self.text)

    def grow(self) -> None:
        """The log has grown."""
        self.matches.grow()
        self._scan(lambda matches: self._session.changed())

    def cancel(self) -> bool:
        """Stop looking for a row; was one looked for?"""
        self._asked = object()
        return self.searching.cancel()

    def _scan(self, scanned: Callable[[Matches], None]) -> None:
        """Look at the whole log for the filter, beside the screen."""
        matches, apart = self.matches, self._session.apart
        self.scanning.cancel()
        self.searching.cancel()
        if matches.complete:
            return

        def scan(job: Job) -> None:
            def stopping(share: float) -> bool:
                job.progress = share
                if self.searching.busy:  # the user waits for a row: that goes first
                    time.sleep(_STEP_BACK_S)
                return self._session.closing or job.stopping()

            matches.scan(stopping, lambda numbers: apart.look(matches, numbers), apart.at_a_time)

        self.scanning.submit("filter", scan, lambda _: scanned(matches))

    def _scanned(self, matches: Matches) -> None:
        if matches is self.matches and matches.complete:
            self._session.say(f"{matches.known:,} of {self._log.rows:,} accesses match")

    def find_row(
        self, row: int, forward: bool, matches: Matches, found: Callable[[int | None], None]
    ) -> None:
        """Look for a match beyond a row, at once or beside the screen; `found` is told it."""
        look = matches.after if forward else matches.before
        self.searching.cancel()
        asked = self._asked = object()

        def near(budget: Budget) -> tuple[int | None, Budget]:
            return look(row, budget), budget

        def far(answer: tuple[int | None, Budget]) -> None:
            match, budget = answer
            if self._asked is not asked:
                return
            if match is None and budget.spent:
                self._find_far(budget.at, forward, matches, found)
            else:
                found(match)

        match, budget = near(Budget(0))
        if match is None and budget.spent:
            self._session.aside.ask(lambda: near(Budget(BUDGET)), far)
        else:
            found(match)

    def _find_far(
        self, first: int, forward: bool, matches: Matches, found: Callable[[int | None], None]
    ) -> None:
        look = matches.after if forward else matches.before
        apart, stopped = self._session.apart, -1

        def search(job: Job) -> int | None:
            number = first
            while not job.stopping() and not self._session.closing:
                unknown = matches.unknown(number, 1 if forward else -1, apart.at_a_time)
                apart.look(matches, unknown)
                budget = Budget(BUDGET)
                match = look(number * BLOCK - 1 if forward else (number + 1) * BLOCK, budget)
                if match is not None or not budget.spent:
                    return match
                number = budget.at
                job.progress = abs(number - first) / max(self._log.blocks, 1)
            return stopped

        self.searching.submit(
            "searching", search, lambda row: None if row == stopped else found(row)
        )

"""Blocks of the log that the screen needs, read and decoded aside; their neighbours before they are
asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from workbench.tui.aside import Aside
from workbench.tui.log import BLOCK
from workbench.tui.matches import FEW

if TYPE_CHECKING:
    from workbench.tui.log import AccessLog
    from workbench.tui.matches import Matches, Rows


class Pages:
    """Has blocks of a log at hand."""

    def __init__(self, log: AccessLog, aside: Aside, changed: Callable[[], None]) -> None:
        self._log = log
        self._aside = aside
        self._changed = changed
        self._wanted: tuple[list[int], Matches] | None = None
        self._around: tuple[int, Matches] | None = None

    def need(self, numbers: Iterable[int], matches: Matches) -> bool:
        """Have blocks decoded and looked through for a filter; False if they come later."""
        missing = [number for number in numbers if not self._there(number, matches)]
        if missing:
            # Who turns pages faster than they are read gets the last one.
            self._wanted = missing, matches
            late = False

            def told(_: None) -> None:
                if late:
                    self._changed()

            late = not self._aside.ask(self._load, told)
            return not late
        return True

    def prepare(self, number: int, matches: Matches) -> None:
        """What lies around a block will be asked for next."""
        if self._around == (number, matches):
            return
        self._around = number, matches
        for near in (number + 1, number - 1):
            if 0 <= near < self._log.blocks and not self._there(near, matches):
                self._aside.later(lambda near=near: self._prepare(near, matches))  # type: ignore[misc]

    def _there(self, number: int, matches: Matches) -> bool:
        held = matches.held(number)
        return held is not None and self._log.fresh(number, _places(number, held))

    def _load(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            for number in wanted[0]:
                self._get(number, wanted[1])

    def _prepare(self, number: int, matches: Matches) -> None:
        if self._around is not None and self._around[1] is matches:
            self._get(number, matches)

    def _get(self, number: int, matches: Matches) -> None:
        rows = matches.rows(number)
        self._log.decode(self._log.block(number), _places(number, rows))


def _places(number: int, rows: Rows) -> Rows | None:
    """Places in a block that have to be decoded; None for all of it."""
    return rows - number * BLOCK if len(rows) <= FEW else None

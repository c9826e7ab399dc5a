"""The time line: where in the run which device was busy, and where we are."""

from __future__ import annotations

from typing import ClassVar, Final

from workbench.tui.lines import Line, clip, safe
from workbench.tui.panes.base import Pane

_BARS: Final = " ▁▂▃▄▅▆▇█"
_LABEL: Final = 14


class TimePane(Pane):
    """One line for a device, the busiest first; the first line has positions and marks."""

    name: ClassVar[str] = "time"
    title: ClassVar[str] = "time"

    def heading(self) -> str:
        """Where we are."""
        session = self.session
        end = session.end_icount
        share = f"{100 * session.icount / end:.2f} %" if end else ""
        return f"instruction {session.icount:,} of {end:,}  {share}"

    def lines(self, width: int, height: int, focused: bool) -> list[Line]:
        """Marks, then densities."""
        columns = max(width - _LABEL, 8)
        self._columns = columns
        out = [self._marks(columns)]
        density = self.session.density
        names = density.devices()
        shown: list[str | None] = [None] if height < 4 else []
        shown += names[: max(height - 1 - len(shown), 0)]
        for name in shown[: height - 1]:
            out.append(self._bars(name, columns))
        return out

    def _column(self, icount: int, columns: int) -> int:
        end = max(self.session.end_icount, 1)
        return min(icount * columns // end, columns - 1)

    def _marks(self, columns: int) -> Line:
        session = self.session
        cells = [("class:dim", "·")] * columns
        for icount in session.checkpoints:
            cells[self._column(icount, columns)] = ("class:dim", "'")
        for icount in session.bookmarks.places.values():
            cells[self._column(icount, columns)] = ("class:mark", "◆")
        cells[self._column(session.icount, columns)] = ("class:cursor", "▼")
        return [("class:dim", f"{'':<{_LABEL}}"), *cells]

    def _bars(self, name: str | None, columns: int) -> Line:
        counts = self.session.density.columns(name, columns)
        most = max(counts, default=0)
        cursor = self._column(self.session.icount, columns)
        line: Line = [("class:device", f"{clip(safe(name or 'all'), _LABEL - 1):<{_LABEL}}")]
        for place, count in enumerate(counts):
            # The scale is the fourth root: one access is seen beside a million.
            level = 0 if not count else 1 + round(7 * (count / most) ** 0.25)
            style = "class:bar class:cursor" if place == cursor else "class:bar"
            line.append((style, _BARS[level]))
        return line

    def click(self, x: int, y: int) -> None:
        """Go there."""
        columns = getattr(self, "_columns", 0)
        if columns and x >= _LABEL:
            end = self.session.end_icount
            self.session.go((x - _LABEL) * end // columns)

    def sideways(self, count: int) -> None:
        """Go by a column."""
        columns = max(getattr(self, "_columns", 64), 1)
        session = self.session
        session.go(session.icount + count * session.end_icount // columns)

    def edge(self, end: bool) -> None:
        """Go to the start or the end."""
        self.session.go(self.session.end_icount if end else 0)

"""The access log: what matches the filter, around a row, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from workbench.tui.lines import Line, clip, restyle, safe
from workbench.tui.log import BLOCK
from workbench.tui.matches import Budget
from workbench.tui.panes.base import Pane

if TYPE_CHECKING:
    from workbench.tui.log import Access
    from workbench.tui.session import Session

_WIDE: Final = 64
_ROUNDS: Final = 4
"""Blocks that are looked through for one screen, if there is time for it."""


class LogPane(Pane):
    """Rows with count, function, device, register, value, fields, request."""

    name: ClassVar[str] = "log"
    title: ClassVar[str] = "accesses"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._line = 0
        self._seen: tuple[int, int] = (-1, -1)
        self._shown: list[int] = []

    def heading(self) -> str:
        """Filter and place."""
        session = self.session
        rows = session.log.rows
        text = f"accesses {min(session.row + 1, rows):,}/{rows:,}"
        if session.filter_text:
            more = "" if session.matches.complete else "+"
            text += f"  [{session.filter_text}] {session.matches.known:,}{more}"
        return text

    def lines(self, width: int, height: int, focused: bool) -> list[Line]:
        """Rows around the selected one."""
        session = self.session
        matches, row = session.matches, session.row
        if not session.log.rows:
            return [[("class:dim", "the trace has no accesses")]]
        if self._seen != (row, session.icount):
            self._follow(row, height)
        self._seen = row, session.icount
        matches.center = row // BLOCK
        line = max(0, min(self._line, height - 1))
        found, budget = self._around(row, line, height)
        for _ in range(_ROUNDS):
            if not budget.spent or not session.pages.need([budget.at], matches):
                break
            found, budget = self._around(row, line, height)
        session.pages.need({at // BLOCK for at in (*found, row)}, matches)
        session.pages.prepare(row // BLOCK, matches)
        self._shown = found
        out = [self._styled(r, width, focused) for r in found]
        if not matches.complete and len(out) < height:
            out.append([("class:dim", "… looking for more")])
        elif not out:
            out.append([("class:dim", "no access matches the filter; / changes it")])
        return out

    def _around(self, row: int, line: int, height: int) -> tuple[list[int], Budget]:
        """The rows on the screen, as far as they are known; the selected one in this line."""
        matches, budget = self.session.matches, Budget(0)
        before: list[int] = []
        at: int | None = row
        while len(before) < line:
            at = matches.before(at if at is not None else row, budget)
            if at is None:
                break
            before.append(at)
        here = matches.after(row - 1, budget)
        found = before[::-1]
        while here is not None and len(found) < height:
            found.append(here)
            here = matches.after(here, budget)
        while found and len(found) < height and here is None and not budget.spent:
            at = matches.before(found[0], budget)  # the end of the log is at the bottom
            if at is None:
                break
            found.insert(0, at)
        return found, budget

    def _follow(self, row: int, height: int) -> None:
        """Keep the lines where they are when the cursor moves among them."""
        if row in self._shown:
            self._line = self._shown.index(row)
        elif abs(row - self._seen[0]) > 4 * height or self._seen[0] < 0:
            self._line = height // 3
        else:
            self._line = height - 1 if row > self._seen[0] else 0

    def _styled(self, row: int, width: int, focused: bool) -> Line:
        session = self.session
        access = session.log.seen(row)
        digits = max(len(f"{session.end_icount:,}"), 9)
        if access is None:  # it is being read and will be there in a moment
            return self._selected([("class:dim", f" {'…':>{digits}}")], row, width, focused)
        now = access.icount == session.icount
        past = access.icount < session.icount
        line: Line = [
            ("class:mark", ">" if now else " "),
            ("class:dim" if not past else "class:count", f"{access.icount:>{digits},} "),
        ]
        spare = width - digits - 2
        if spare >= 74:
            room = min(max((spare - 50) // 2, 18), 36)
            line.append(("class:symbol", f"{clip(session.function(access.pc), room):<{room}} "))
        line += what(access, padded=width >= _WIDE)
        request = session.context.request(access.device, access.icount)
        if request:
            line.append(("class:mark", f"  {safe(request)}"))
        return self._selected(line, row, width, focused)

    def _selected(self, line: Line, row: int, width: int, focused: bool) -> Line:
        if row == self.session.row:
            line.append(("", " " * width))
            line = restyle(line, "class:selected" if focused else "class:selected.idle")
        return line

    def move(self, count: int) -> None:
        """Select another row, without going there."""
        session = self.session
        matches, row, left = session.matches, session.row, abs(count)
        look = matches.after if count > 0 else matches.before
        budget = Budget(0)
        while left:
            found = look(row, budget)
            if found is not None:
                row, left = found, left - 1
            elif budget.spent and session.pages.need([budget.at], matches):
                budget = Budget(0)
            else:
                break
        if row == session.row and budget.spent:
            session.find_row(row, count > 0, matches, self._select)  # may be there at once
        else:
            session.row = row

    def edge(self, end: bool) -> None:
        """Select the first or the last row."""
        session = self.session
        session.find_row(session.log.rows if end else -1, not end, session.matches, self._select)

    def _select(self, row: int | None) -> None:
        if row is not None:
            self.session.row = row
            self.session.changed()

    def enter(self) -> None:
        """Go to the selected access."""
        self.session.go_to_row(self.session.row)

    def find_writer(self) -> None:
        """Go to the last write to the register of the selected access."""
        self.session.travel.find_write_of_row()

    def click(self, x: int, y: int) -> None:
        """Select a row; on the selected one, go there."""
        if 0 <= y < len(self._shown):
            row = self._shown[y]
            if row == self.session.row:
                self.enter()
            self._line = y
            self.session.row = row
            self._seen = row, self.session.icount


def what(access: Access, padded: bool = True) -> Line:
    """Device, register, direction, value and fields; `padded`: registers below each other."""
    device = safe(access.device) if access.device else "(nobody)"
    if access.kind == "cfg":
        device += " cfg"
    arrow, way = ("<-", "class:write") if access.write else ("->", "class:read")
    line: Line = [
        ("class:device", f"{device:<13} " if padded else f"{device} "),
        ("class:register", safe(access.register)),
        (way, f" {arrow} "),
        ("class:value", f"{access.value:#0{2 * access.size + 2}x}"),
    ]
    if access.times != 1:
        line.append(("class:mark", f" x{access.times}"))
    if access.fields:
        line.append(("class:name", f" {safe(access.fields)}"))
    return line

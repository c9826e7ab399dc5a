"""A device inspector (`workbench/inspect`) at this moment; what has changed is marked.

A line stands for bytes of memory, for accesses or for a request (`workbench/inspect/subject.py`):
Enter goes there, `w` to who wrote it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from workbench.inspect import REQUESTS, Page, names, render, with_requests
from workbench.inspect.subject import Accesses, Bytes, Request, Subject
from workbench.tui.lines import Line, restyle, safe
from workbench.tui.panes.base import Pane, Place

if TYPE_CHECKING:
    from workbench.tui.session import Session

_Where = tuple[int, int] | None
"""Table of a page and row of it that a line belongs to."""


class _Asked(NamedTuple):
    """What a rendered page was made of."""

    name: str
    page: Page
    before: Page | None
    width: int
    requests: int


class _Shown(NamedTuple):
    """A rendered page: its lines, and the rows that they belong to."""

    name: str
    page: Page
    lines: list[Line]
    rows: list[_Where]

    def row(self, line: int) -> tuple[str, ...]:
        """Which row a line belongs to, whatever else the page has; () for none."""
        where = self.rows[line] if 0 <= line < len(self.rows) else None
        if where is None:
            return ()
        table = self.page.tables[where[0]]
        return (table.title, *table.rows[where[1]][: table.keys])


_NOTHING = _Shown("", Page("", "", ()), [], [])


class InspectorPane(Pane):
    """One inspector; left and right go to the next one."""

    name: ClassVar[str] = "inspector"
    title: ClassVar[str] = "inspector"
    of_machine: ClassVar[bool] = True

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.top = 0
        self.cursor = 0
        """The selected line."""
        self.look_at: Callable[[Bytes], None] = lambda place: None
        """Shows bytes of memory."""
        self._asked: _Asked | None = None
        """What is shown, or will be when it is rendered."""
        self._shown = _NOTHING

    def names(self) -> list[str]:
        """What can be inspected; empty before the machine is there."""
        moment = self.session.moment
        found = None if moment is None else moment.keep("names", names)
        return [*found, REQUESTS] if found else []

    def heading(self) -> str:
        """Which one, that there are others, and what the selected line stands for."""
        chosen = self.session.inspected
        known = self.names()
        where = f"  {known.index(chosen) + 1}/{len(known)}" if chosen in known else ""
        subject = self.subject()
        about = "" if subject is None else f"  · {told(subject)}"
        return f"inspector  {chosen or '(none)'}{where}{about}"

    def lines(self, width: int, height: int, focused: bool) -> list[Line]:
        """The page, as far as it is in sight."""
        found = self._text(width)
        if found is not self._shown.lines:
            return found
        self.cursor = max(0, min(self.cursor, len(found) - 1))
        self.top = max(min(self.top, self.cursor), self.cursor - height + 1)
        self.top = max(0, min(self.top, len(found) - height))
        shown = found[self.top : self.top + height]
        place = self.cursor - self.top
        if focused and place < len(shown):
            line: Line = [*shown[place], ("", " " * width)]
            shown[place] = restyle(line, "class:selected")
        return shown

    def _text(self, width: int) -> list[Line]:
        session = self.session
        moment, previous = session.moment, session.previous
        if moment is None:
            return [[("class:dim", self.session.absent)]]
        if not session.inspected:
            known = self.names()
            if not known:
                return [[("class:dim", "the machine is on its way")]]
            session.inspected = next((n for n in known if n.startswith(("ide", "drive"))), "cpu")
        page = session.page(moment)
        if page is None:
            return [[("class:dim", f"{session.inspected} was not looked at here; the machine is")],
                    [("class:dim", "on its way to the position")]]  # fmt: skip
        before = None if previous is None else session.page(previous)
        self._render(page, before, width)
        there = self._shown.name == session.inspected
        return self._shown.lines if there else [[("class:dim", "…")]]

    def _render(self, page: Page, before: Page | None, width: int) -> None:
        """Have it rendered aside: that takes longer than all the rest of a screen."""
        session, asked = self.session, self._asked
        moment, previous, trace = session.moment, session.previous, session.trace
        wanted = _Asked(session.inspected, page, before, width, trace.rows("requests"))
        if asked is not None and all(a is b or a == b for a, b in zip(asked, wanted, strict=True)):
            return
        self._asked = wanted
        late = False

        def work() -> _Shown:
            assert moment is not None
            whole = with_requests(page, trace, moment.icount)
            old = before
            if before is not None and previous is not None:
                old = with_requests(before, trace, previous.icount)
            return _Shown(wanted.name, whole, *rendered(whole, old, width))

        def done(shown: _Shown) -> None:
            if self._asked is wanted:
                self._show(shown)
                if late:
                    session.changed()

        late = not session.aside.ask(work, done)

    def _show(self, shown: _Shown) -> None:
        """Keep the cursor on its row, which may be in another line now."""
        old, self._shown = self._shown, shown
        row = old.row(self.cursor)
        if old.name != shown.name:
            self.top = self.cursor = 0
        elif row and shown.row(self.cursor) != row:
            at = next((n for n in range(len(shown.rows)) if shown.row(n) == row), self.cursor)
            self.top, self.cursor = self.top + at - self.cursor, at

    # What a line stands for.

    def subject(self) -> Subject | None:
        """What the selected line stands for."""
        shown = self._shown
        where = shown.rows[self.cursor] if self.cursor < len(shown.rows) else None
        if where is None or shown.name != self.session.inspected:
            return None
        return shown.page.tables[where[0]].subject(where[1])

    def enter(self) -> None:
        """Go to the bytes in memory, to the last access, to where the request began."""
        match self.subject():
            case Bytes() as place:
                self.look_at(place)
            case Accesses() as accesses:
                self.session.travel.find_access(accesses)
            case Request(name, icount):
                self.session.go(icount)
                self.session.say(f"request {name} begins")
            case None:
                self.session.say("this line stands for nothing in memory or in the log")

    def find_writer(self) -> None:
        """Go to who wrote the bytes or the register."""
        match self.subject():
            case Accesses() as accesses:
                self.session.travel.find_access(accesses, write=True)
            case Bytes():
                super().find_writer()
            case _:
                self.enter()

    def under_cursor(self) -> Place | None:
        """The bytes that the selected line stands for."""
        subject = self.subject()
        if isinstance(subject, Bytes):
            return Place(subject.gpa, subject.length, physical=True)
        return None

    # Keys.

    def move(self, count: int) -> None:
        """Select another line."""
        self.cursor = max(0, min(self.cursor + count, len(self._shown.lines) - 1))

    def edge(self, end: bool) -> None:
        """Select the first or the last line."""
        self.move((1 if end else -1) << 30)

    def sideways(self, count: int) -> None:
        """Another inspector."""
        known = self.names()
        if known:
            chosen = self.session.inspected
            place = known.index(chosen) if chosen in known else 0
            self.session.inspected = known[(place + count) % len(known)]

    def click(self, x: int, y: int) -> None:
        """Select a line; on the selected one, go there."""
        line = self.top + y
        if line < len(self._shown.lines):
            if line == self.cursor and self.subject() is not None:
                self.enter()
            self.cursor = line


def told(subject: Subject) -> str:
    """A subject in few words."""
    match subject:
        case Bytes(gpa, _, structure):
            return f"{structure} at physical {gpa:#x}".strip().removeprefix("at ")
        case Accesses(name, _) | Request(name, _):
            return name


def rendered(page: Page, before: Page | None, width: int) -> tuple[list[Line], list[_Where]]:
    """A page through rich, as lines of ours, and the rows that they belong to.

    Colours become classes, so that themes hold.
    """
    from rich.console import Console

    console = Console(width=max(width, 10), color_system="standard", force_terminal=True,
                      legacy_windows=False, no_color=False)  # fmt: skip
    out: list[Line] = []
    rows: list[_Where] = []
    for segments in console.render_lines(render(page, before), pad=False):
        line: Line = []
        where: _Where = None
        for segment in segments:
            style = segment.style
            line.append((_class(str(style or "")), safe(segment.text)))
            if where is None and style is not None:
                where = style.meta.get("row")
        out.append(line)
        rows.append(where)
    return out, rows


@lru_cache(maxsize=256)
def _class(style: str) -> str:
    if "yellow" in style:
        return "class:changed"
    if "cyan" in style:
        return "class:register"
    if "bold" in style:
        return "class:heading"
    return "class:dim" if "dim" in style else "class:text"

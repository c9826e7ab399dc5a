"""A device inspector (`workbench/inspect`) at this moment; what has changed is marked."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from workbench.inspect import Page, names, render
from workbench.tui.lines import Line, safe
from workbench.tui.panes.base import Scrolled

if TYPE_CHECKING:
    from workbench.tui.session import Session


class InspectorPane(Scrolled):
    """One inspector; left and right go to the next one."""

    name: ClassVar[str] = "inspector"
    title: ClassVar[str] = "inspector"
    of_machine: ClassVar[bool] = True

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._asked: tuple[str, Page, Page | None, int] | None = None
        """Name, page, the page before and width that are shown, or will be when it is rendered."""
        self._shown = ""
        self._text: list[Line] = []

    def names(self) -> list[str]:
        """What can be inspected; empty before the machine is there."""
        moment = self.session.moment
        found = None if moment is None else moment.keep("names", names)
        return list(found or ())

    def heading(self) -> str:
        """Which one, and that there are others."""
        chosen = self.session.inspected
        known = self.names()
        where = f"  {known.index(chosen) + 1}/{len(known)}" if chosen in known else ""
        return f"inspector  {chosen or '(none)'}{where}"

    def text(self, width: int) -> list[Line]:
        """The page as lines."""
        session = self.session
        moment, previous = session.moment, session.previous
        if moment is None:
            return [[("class:dim", "the machine is being started")]]
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
        self._render(session.inspected, page, before, width)
        return self._text if self._shown == session.inspected else [[("class:dim", "…")]]

    def _render(self, name: str, page: Page, before: Page | None, width: int) -> None:
        """Have it rendered aside: that takes longer than all the rest of a screen."""
        wanted, asked = (name, page, before, width), self._asked
        same = asked is not None and (asked[0], asked[3]) == (name, width)
        if same and asked is not None and asked[1] is page and asked[2] is before:
            return
        self._asked = wanted
        late = False

        def done(text: list[Line]) -> None:
            if self._asked is wanted:
                self._shown, self._text = name, text
                if late:
                    self.session.changed()

        late = not self.session.aside.ask(lambda: rendered(page, before, width), done)

    def sideways(self, count: int) -> None:
        """Another inspector."""
        known = self.names()
        if known:
            chosen = self.session.inspected
            place = known.index(chosen) if chosen in known else 0
            self.session.inspected = known[(place + count) % len(known)]
            self.top = 0


def rendered(page: Page, before: Page | None, width: int) -> list[Line]:
    """A page through rich, as lines of ours: colours become classes, so that themes hold."""
    from rich.console import Console

    console = Console(width=max(width, 10), color_system="standard", force_terminal=True,
                      legacy_windows=False, no_color=False)  # fmt: skip
    out: list[Line] = []
    for segments in console.render_lines(render(page, before), pad=False):
        line: Line = []
        for segment in segments:
            line.append((_class(str(segment.style or "")), safe(segment.text)))
        out.append(line)
    return out


@lru_cache(maxsize=256)
def _class(style: str) -> str:
    if "yellow" in style:
        return "class:changed"
    if "cyan" in style:
        return "class:register"
    if "bold" in style:
        return "class:heading"
    return "class:dim" if "dim" in style else "class:text"

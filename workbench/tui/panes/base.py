"""What every pane has: a name, lines for a size, and what keys and clicks do in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from workbench.tui.lines import Line

if TYPE_CHECKING:
    from workbench.tui.session import Session


class Place(NamedTuple):
    """Some bytes of memory, by linear or by guest-physical address."""

    address: int
    length: int = 1
    physical: bool = False


class Pane:
    """A part of the screen; its state is where it is scrolled to."""

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    of_machine: ClassVar[bool] = False
    """Does it show the machine, which may still be on its way to the position?"""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.height = 1
        """Lines at the last drawing, for paging."""

    def heading(self) -> str:
        """What stands above it."""
        return self.title

    def draw(self, width: int, height: int, focused: bool) -> list[Line]:
        """Give at most `height` lines of at most `width` cells."""
        self.height = max(height, 1)
        return self.lines(width, height, focused)

    def lines(self, width: int, height: int, focused: bool) -> list[Line]:
        """Make the lines."""
        return []

    def move(self, count: int) -> None:
        """Cursor keys: lines down."""

    def sideways(self, count: int) -> None:
        """Cursor keys: columns to the right."""

    def edge(self, end: bool) -> None:
        """Home and End."""

    def enter(self) -> None:
        """Enter: act on what is under the cursor."""

    def click(self, x: int, y: int) -> None:
        """The mouse was pressed on a cell."""

    def under_cursor(self) -> Place | None:
        """The memory under the cursor, for `who wrote this`."""
        return None

    def find_writer(self) -> None:
        """Go to who wrote what is under the cursor."""
        place = self.under_cursor()
        if place is None:
            self.session.say(
                "put the cursor on memory, an access, a line of an inspector, or an instruction"
                " with a memory operand"
            )
        else:
            self.session.travel.find_writer(*place)


class Scrolled(Pane):
    """A pane that shows some lines of a text."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.top = 0

    def text(self, width: int) -> list[Line]:
        """All the lines."""
        return []

    def lines(self, width: int, height: int, focused: bool) -> list[Line]:
        """Those that are in sight."""
        found = self.text(width)
        self.top = max(0, min(self.top, len(found) - height))
        return found[self.top : self.top + height]

    def move(self, count: int) -> None:
        """Scroll."""
        self.top = max(self.top + count, 0)

    def edge(self, end: bool) -> None:
        """Scroll to an end."""
        self.top = 1 << 30 if end else 0

"""Memory, linear or guest-physical: bytes, what has changed, a cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from workbench.tui.lines import Line
from workbench.tui.panes.base import Pane

if TYPE_CHECKING:
    from workbench.tui.session import Session

_MASK: Final = (1 << 64) - 1


class MemoryPane(Pane):
    """A hex dump that follows an address, or the stack pointer until it is given one."""

    name: ClassVar[str] = "memory"
    title: ClassVar[str] = "memory"
    of_machine: ClassVar[bool] = True

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.address: int | None = None
        self.physical = False
        self.cursor = 0
        self._columns = 16
        self._width = 0

    def go(self, address: int, physical: bool = False) -> None:
        """Show an address."""
        self.physical = physical
        self.cursor = address & _MASK
        self.address = address & _MASK & ~15

    def heading(self) -> str:
        """Which memory, and what the cursor is on."""
        space = "physical" if self.physical else "linear"
        moment = self.session.moment
        text = f"memory  {space} {self.cursor:#x}"
        if not self.physical and moment is not None:
            gpa = moment.physical(self.cursor)
            text += " (not mapped)" if gpa is None else f" = physical {gpa:#x}"
        return text

    def lines(self, width: int, height: int, focused: bool) -> list[Line]:
        """Address, bytes and letters."""
        moment = self.session.moment
        if moment is None:
            return [[("class:dim", "the machine is being started")]]
        if self.address is None:
            self.go(moment.registers["rsp"])
        assert self.address is not None
        columns = self._columns = 16 if width >= 17 + 48 + 16 else 8
        if width >= 17 + 32 * 4 + 2:
            columns = self._columns = 32
        count = columns * height
        data = moment.read(self.address, count, self.physical)
        previous = self.session.previous
        old = data if previous is None else previous.read(self.address, count, self.physical)
        out = []
        for row in range(height):
            start = row * columns
            at = (self.address + start) & _MASK
            line: Line = [("class:address", f"{at:016x} ")]
            letters: Line = []
            for n in range(start, start + columns):
                value, before = data[n], old[n]
                changed = before is not None and value != before
                style = "class:changed" if changed else "class:value" if value else "class:dim"
                if focused and (self.address + n) & _MASK == self.cursor:
                    style = "class:cursor"
                line += [(style, "??" if value is None else f"{value:02x}"), ("", " ")]
                shown = chr(value) if value is not None and 0x20 <= value < 0x7F else "."
                letters.append((style, shown))
            out.append([*line, *letters])
        return out

    def move(self, count: int) -> None:
        """Move the cursor by lines."""
        self._to(self.cursor + count * self._columns)

    def sideways(self, count: int) -> None:
        """Move the cursor by bytes."""
        self._to(self.cursor + count)

    def _to(self, address: int) -> None:
        if self.address is None:
            return
        self.cursor = address & _MASK
        size = self._columns * self.height
        distance = (self.cursor - self.address) & _MASK
        if distance < size:
            return
        step = self._columns
        if distance > _MASK // 2:
            self.address = self.cursor - (self.cursor - self.address) % step & _MASK
        else:
            lines = distance // step - self.height + 1
            self.address = (self.address + lines * step) & _MASK

    def click(self, x: int, y: int) -> None:
        """Put the cursor on a byte."""
        place = (x - 17) // 3
        if self.address is not None and 0 <= place < self._columns:
            self.cursor = (self.address + y * self._columns + place) & _MASK

    def enter(self) -> None:
        """Follow the pointer under the cursor."""
        moment = self.session.moment
        data = [] if moment is None else moment.read(self.cursor, 8, self.physical)
        if data and None not in data:
            self.go(int.from_bytes(bytes(v for v in data if v is not None), "little"))

    def under_cursor(self) -> int | None:
        """The cursor, as a linear address."""
        return None if self.physical or self.address is None else self.cursor

"""Memory, linear or guest-physical: bytes or structures, what has changed, a cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from workbench.errors import UsageError
from workbench.tui.address import moves, number
from workbench.tui.lines import Line, mark, restyle, width_of
from workbench.tui.panes.base import Pane, Place
from workbench.tui.structures import Structure

if TYPE_CHECKING:
    from workbench.tui.moment import Moment
    from workbench.tui.session import Session

_MASK: Final = (1 << 64) - 1


class MemoryPane(Pane):
    """Memory that follows a register from stop to stop, or stays at an address.

    It follows the stack pointer until another address is asked for or the cursor is moved.
    """

    name: ClassVar[str] = "memory"
    title: ClassVar[str] = "memory"
    of_machine: ClassVar[bool] = True

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.address: int | None = None
        """Of the first byte that is shown."""
        self.followed = "rsp"
        """What the cursor goes to at every stop, "" when it stays."""
        self.physical = False
        self.cursor = 0
        self.structure: Structure | None = None
        """What is shown instead of bytes; `address` is that of the first."""
        self._columns = 16
        self._cut = 0
        """Digits of addresses that there is no room for."""
        self._seen: Moment | None = None
        """Where it has followed to."""

    def show(self, text: str, physical: bool = False) -> None:
        """Show an address as it is typed, and follow it if there is a register in it.

        Raises `UsageError`.
        """
        self.go(number(self.session, text), physical)
        self.followed = text if moves(self.session, text) else ""
        self._seen = self.session.moment

    def go(self, address: int, physical: bool = False) -> None:
        """Show an address, and stay there."""
        self.followed = ""
        self.physical = physical
        self.cursor = address & _MASK
        self.address = address & _MASK & (_MASK if self.structure is not None else ~15)

    def show_as(self, structure: Structure | None) -> None:
        """Show structures from the cursor on, or bytes."""
        self.structure = structure
        if self.address is not None:
            self.go(self.cursor, self.physical)

    def _follow_on(self, moment: Moment | None) -> None:
        """Go to where what it follows is now; lines that are in sight stay where they are."""
        if moment is None or moment is self._seen or not self.followed:
            return
        self._seen, text = moment, self.followed
        try:
            place = number(self.session, text)
        except UsageError:  # a function that is not known any more
            return
        top = place if self.address is None or self.structure is not None else self.address
        if self.address == top and (place - top) & _MASK < self._columns * self.height:
            self.cursor = place
        else:
            self.go(place, self.physical)
        self.followed = text

    def heading(self) -> str:
        """Which memory, and what the cursor is on."""
        space = "physical" if self.physical else "linear"
        moment = self.session.moment
        self._follow_on(moment)
        kind = f"{self.structure.name}, " if self.structure is not None else ""
        what = f"{self.followed} = " if self.followed and moment is not None else ""
        text = f"memory  {kind}{what}{space} {self.cursor:#x}"
        if not self.physical and moment is not None:
            gpa = moment.physical(self.cursor)
            text += " (not mapped)" if gpa is None else f" = physical {gpa:#x}"
        return text

    def lines(self, width: int, height: int, focused: bool) -> list[Line]:
        """Address, bytes and letters."""
        moment = self.session.moment
        if moment is None:
            return [[("class:dim", self.session.absent)]]
        self._follow_on(moment)
        assert self.address is not None
        if self.structure is not None:
            return self._structures(self.structure, moment, width, height, focused)
        columns = self._columns = 16 if width >= 17 + 48 + 16 else 8
        if width >= 17 + 32 * 4 + 2:
            columns = self._columns = 32
        self._cut = 8 if width < 17 + 4 * columns else 0
        count = columns * height
        data = moment.read(self.address, count, self.physical)
        previous = self.session.previous
        old = data if previous is None else previous.read(self.address, count, self.physical)
        out = []
        for row in range(height):
            start = row * columns
            at = (self.address + start) & _MASK
            line: Line = [("class:address", f"{at:016x} "[self._cut :])]
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
            out.append([*line, *letters] if width_of(line) + columns <= width else line)
        return out

    def _structures(
        self, kind: Structure, moment: Moment, width: int, height: int, focused: bool
    ) -> list[Line]:
        """One element in a line, or one field."""
        assert self.address is not None
        self._columns = 8 if kind.lines else kind.size
        previous = self.session.previous
        out: list[Line] = []
        at, number = self.address, 0
        while len(out) < height:
            data = moment.read(at, kind.size, self.physical)
            old = data if previous is None else previous.read(at, kind.size, self.physical)
            before = data if None in old else old
            if None in data:
                out.append([("class:address", f"{at:016x} "), ("class:dim", "not in memory")])
                break
            pairs = zip(self._decode(kind, data), self._decode(kind, before), strict=False)
            parts = [(name, text, text != was) for (name, text), (_, was) in pairs]
            lines = [[part] for part in parts] if kind.lines else [parts]
            for n, fields in enumerate(lines):
                here = (at + 8 * n) & _MASK
                label = f"{'':4} " if kind.lines else f"[{number}]".ljust(5)
                line: Line = [("class:address", f"{here:016x} "), ("class:dim", label)]
                for name, text, changed in fields:
                    sign = "*" if changed else ""
                    shown = f"{name:<9}" if kind.lines else f"{name} " if name else ""
                    line += [("class:name", shown), (mark(changed), f"{text}{sign}"), ("", "  ")]
                    if kind.lines or name == "handler":
                        symbol = self._symbol(text)
                        line.append(("class:symbol", f"{symbol}  " if symbol else ""))
                if (self.cursor - here) & _MASK < self._columns:
                    style = "class:selected" if focused else "class:selected.idle"
                    line = restyle([*line, ("", " " * width)], style)
                out.append(line)
            at, number = (at + kind.size) & _MASK, number + 1
            if kind.lines:
                break
        return out[:height]

    def _decode(self, kind: Structure, data: list[int | None]) -> list[tuple[str, str]]:
        return kind.decode(bytes(value or 0 for value in data))

    def _symbol(self, text: str) -> str:
        table = self.session.symbols
        value = int(text, 16)
        return "" if table is None or table.find(value) is None else self.session.function(value)

    def move(self, count: int) -> None:
        """Move the cursor by lines."""
        self._to(self.cursor + count * self._columns)

    def sideways(self, count: int) -> None:
        """Move the cursor by bytes."""
        self._to(self.cursor + count)

    def _to(self, address: int) -> None:
        if self.address is None:
            return
        self.followed = ""
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
        place = 0 if self.structure is not None else (x - 17 + self._cut) // 3
        if self.address is not None and 0 <= place < self._columns:
            self.followed = ""
            self.cursor = (self.address + y * self._columns + place) & _MASK

    def enter(self) -> None:
        """Follow the pointer under the cursor."""
        moment = self.session.moment
        if self.structure is not None and moment is not None:
            self._follow(self.structure, moment)
            return
        data = [] if moment is None else moment.read(self.cursor, 8, self.physical)
        if data and None not in data:
            self.go(int.from_bytes(bytes(v for v in data if v is not None), "little"))

    def _follow(self, kind: Structure, moment: Moment) -> None:
        """Go to what the structure under the cursor points at; devices have physical addresses."""
        data = moment.read(self.cursor, kind.size, self.physical)
        target = None if None in data else dict(self._decode(kind, data)).get(kind.pointer)
        if target is not None:
            self.structure = kind if kind.pointer == "frame" else None
            self.go(int(target, 16), kind.physical)

    def under_cursor(self) -> Place | None:
        """The byte at the cursor, or the structure."""
        length = 1 if self.structure is None else min(self._columns, 4096)
        return None if self.address is None else Place(self.cursor, length, self.physical)

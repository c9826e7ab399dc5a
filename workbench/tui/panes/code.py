"""Disassembly around the current instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from workbench.tui.disassembly import Instruction, disassemble, effective
from workbench.tui.lines import Line, restyle
from workbench.tui.panes.base import Pane, Place

if TYPE_CHECKING:
    from workbench.tui.moment import Moment
    from workbench.tui.session import Session

_BEFORE: Final = 128


class CodePane(Pane):
    """Instructions with symbols, branch targets and addresses of operands."""

    name: ClassVar[str] = "code"
    title: ClassVar[str] = "code"
    of_machine: ClassVar[bool] = True

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.address: int | None = None
        """Selected instruction; None follows the current one."""
        self._shown: list[Instruction] = []
        self._at = -1

    def heading(self) -> str:
        """The function."""
        moment = self.session.moment
        return "code" if moment is None else f"code  {self.session.function(moment.pc)}"

    def lines(self, width: int, height: int, focused: bool) -> list[Line]:
        """Some instructions before the selected one, and what follows."""
        moment = self.session.moment
        if moment is None:
            return [[("class:dim", self.session.absent)]]
        if moment.icount != self._at:
            self._at, self.address = moment.icount, None
        here = moment.pc if self.address is None else self.address
        before = self._preceding(moment, here, max(height // 3, 1))
        code = moment.bytes_at(here, 15 * height)
        if not code:
            if self.session.machine_jobs.busy:
                return [[("class:dim", "the machine is on its way")]]
            return [[("class:dim", f"{here:#x} is not in memory, or was not read in time")]]
        found = [*before, *disassemble(code, here, moment.bits, height)]
        self._shown = found[:height]
        return [self._styled(i, moment, width, focused) for i in self._shown]

    def _preceding(self, moment: Moment, here: int, count: int) -> list[Instruction]:
        """Instructions that end where this one begins: from the start of its function, or of a
        guess that meets it.
        """
        start = here - _BEFORE
        table = self.session.symbols
        symbol = None if table is None else table.find(here)
        if symbol is not None and 0 < symbol[1] <= 4 * _BEFORE:
            start = here - symbol[1]
        elif symbol is not None and symbol[1] == 0:
            return []
        if start < 0:
            return []
        code = moment.bytes_at(start, here - start)
        for skip in range(min(16, len(code))):
            found = disassemble(code[skip:] + b"\x90" * 16, start + skip, moment.bits, 2 * _BEFORE)
            kept = [i for i in found if i.address < here]
            if kept and kept[-1].address + kept[-1].size == here:
                return kept[-count:]
        return []

    def _styled(self, i: Instruction, moment: Moment, width: int, focused: bool) -> Line:
        session = self.session
        current = i.address == moment.pc
        broken = i.address in session.breakpoints
        sign = "●" if broken else " "
        line: Line = [
            ("class:breakpoint" if broken else "", sign),
            ("class:mark", "▶" if current else " "),
        ]
        if width >= 56:
            line.append(("class:address", f"{i.address:016x} "))
        else:
            line.append(("class:address", f"{i.address & 0xFFFFFFFF:08x} "))
        if width >= 110:
            line.append(("class:dim", f"{i.code.hex(' '):<30} "))
        kind = "class:branch" if i.is_branch else "class:mnemonic"
        line.append((kind, f"{i.mnemonic:<7} "))
        if i.target is not None and session.symbols is not None:
            line.append(("class:symbol", session.function(i.target)))
        else:
            line.append(("class:name", i.operands))
        if current or i.is_static:
            line += self._resolved(i, moment, current)
        if current:
            line = restyle(line, "class:current")
        if i.address == (moment.pc if self.address is None else self.address):
            line.append(("", " " * width))
            line = restyle(line, "class:selected" if focused else "class:selected.idle")
        return line

    def _resolved(self, i: Instruction, moment: Moment, current: bool) -> Line:
        """Where the memory operand is, and what is there; only the current one is sure of that."""
        address = effective(i, moment)
        if address is None:
            return []
        out: Line = [("class:address", f"  ; {self._place(address)}")]
        value = moment.word(address) if current else None
        if value is not None and i.mnemonic != "lea":
            out.append(("class:value", f" = {value:#x}"))
        return out

    def _place(self, address: int) -> str:
        table = self.session.symbols
        if table is not None and table.find(address) is not None:
            return self.session.function(address)
        return f"{address:#x}"

    def move(self, count: int) -> None:
        """Select another instruction."""
        moment = self.session.moment
        if moment is None:
            return
        here = moment.pc if self.address is None else self.address
        places = [i.address for i in self._shown]
        if here in places:
            place = places.index(here) + count
            if 0 <= place < len(places):
                self.address = places[place]
                return
        if count < 0:
            before = self._preceding(moment, here, -count)
            if before:
                self.address = before[0].address
        elif places:
            self.address = places[-1]

    def edge(self, end: bool) -> None:
        """Back to the current instruction."""
        self.address = None

    def enter(self) -> None:
        """Follow a branch, or go back to the current instruction."""
        found = next((i for i in self._shown if i.address == self.address), None)
        self.address = None if found is None else found.target

    def selected(self) -> int | None:
        """Address of the selected instruction."""
        moment = self.session.moment
        if self.address is not None or moment is None:
            return self.address
        return moment.pc

    def click(self, x: int, y: int) -> None:
        """Select an instruction."""
        if 0 <= y < len(self._shown):
            self.address = self._shown[y].address

    def under_cursor(self) -> Place | None:
        """The memory operand of the selected instruction."""
        moment = self.session.moment
        here = self.selected()
        found = next((i for i in self._shown if i.address == here), None)
        address = None if found is None or moment is None else effective(found, moment)
        return None if address is None else Place(address)

"""Two traces side by side: their accesses along the alignment, and both processors."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, ClassVar, Final

from workbench.trace.compare import CHANGED, ONLY_A, ONLY_B, SAME
from workbench.tui.disassembly import disassemble
from workbench.tui.lines import Line, fit, restyle, safe
from workbench.tui.log import BLOCK
from workbench.tui.matches import Matches
from workbench.tui.panes.base import Pane, Scrolled
from workbench.tui.panes.log import what

if TYPE_CHECKING:
    from workbench.tui.comparison import Comparison
    from workbench.tui.session import Session

_STYLES: Final = {SAME: "", CHANGED: "class:different", ONLY_A: "class:only", ONLY_B: "class:only"}
_SHOWN: Final = (
    "rip", "rsp", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12",
    "r13", "r14", "r15", "eflags", "cs", "ss", "cr0", "cr2", "cr3", "cr4", "fs_base", "gs_base",
)  # fmt: skip


class ComparePane(Pane):
    """Accesses of A and B in one line each; `|` changed, `<` only in A, `>` only in B."""

    name: ClassVar[str] = "compare"
    title: ClassVar[str] = "compare"

    def __init__(self, session: Session, comparison: Comparison) -> None:
        super().__init__(session)
        self.comparison = comparison
        self._top = 0
        both = comparison.first, comparison.second
        self._all = {session: Matches(session.log, None) for session in both}

    def heading(self) -> str:
        """Names, and which difference this is."""
        c = self.comparison
        passed = bisect_right(c.differences, c.line)
        where = f"  difference {passed} of {len(c.differences):,}" if c.ready else f"  {c.state}"
        return f"A {c.first.trace.path}   B {c.second.trace.path}{where}"

    def lines(self, width: int, height: int, focused: bool) -> list[Line]:
        """Lines around the selected one."""
        c = self.comparison
        if not c.ready:
            return [[("class:dim", c.state)]]
        if not self._top <= c.line < self._top + height:
            self._top = c.line - height // 3
        self._top = max(0, min(self._top, c.lines - height))
        half = (width - 3) // 2
        out: list[Line] = []
        rows = [c.row(line) for line in range(self._top, min(self._top + height, c.lines))]
        self._need(c.first, [row.a for row in rows if row is not None])
        self._need(c.second, [row.b for row in rows if row is not None])
        for line, row in enumerate(rows, self._top):
            assert row is not None
            sides = [
                fit([] if number is None else self._access(session, number, room), room)
                for session, number, room in (
                    (c.first, row.a, half), (c.second, row.b, width - half - 3)
                )
            ]  # fmt: skip
            mark = " " if row.mark == SAME else row.mark
            shown: Line = [*sides[0], ("class:mark", f" {mark} "), *sides[1]]
            if _STYLES[row.mark]:
                shown = restyle(shown, _STYLES[row.mark])
            if line == c.line:
                shown = restyle(shown, "class:selected" if focused else "class:selected.idle")
            out.append(shown)
        return out

    def _need(self, session: Session, rows: list[int | None]) -> None:
        blocks = {row // BLOCK for row in rows if row is not None}
        session.pages.need(blocks, self._all[session])

    def _access(self, session: Session, row: int, room: int) -> Line:
        access = session.log.seen(row)
        if access is None:  # it is being read
            return [("class:dim", "…")]
        now = "▶" if access.icount == session.icount else " "
        told = what(access, padded=room >= 56)
        return [("class:mark", now), ("class:count", f"{access.icount:>13,} "), *told]

    def move(self, count: int) -> None:
        """Select another line."""
        c = self.comparison
        c.line = max(0, min(c.line + count, c.lines - 1))

    def edge(self, end: bool) -> None:
        """Select the first or the last line."""
        self.comparison.line = max(self.comparison.lines - 1, 0) if end else 0

    def enter(self) -> None:
        """Go there, in both traces."""
        self.comparison.go(self.comparison.line)

    def click(self, x: int, y: int) -> None:
        """Select a line; on the selected one, go there."""
        line = self._top + y
        if line == self.comparison.line:
            self.enter()
        elif line < self.comparison.lines:
            self.comparison.line = line


class StatesPane(Scrolled):
    """Both processors: where they are, and the registers that differ first."""

    name: ClassVar[str] = "states"
    title: ClassVar[str] = "states"

    def __init__(self, session: Session, comparison: Comparison) -> None:
        super().__init__(session)
        self.comparison = comparison

    def heading(self) -> str:
        """Both positions."""
        c = self.comparison
        return f"states  A at {c.first.icount:,}   B at {c.second.icount:,}"

    def text(self, width: int) -> list[Line]:
        """Instruction and registers, side by side."""
        c = self.comparison
        sessions = c.first, c.second
        half = (width - 3) // 2
        out: list[Line] = []
        for make in (self._where, self._instruction):
            out.append([*fit(make(sessions[0]), half), ("", "   "), *fit(make(sessions[1]), half)])
        a, b = (session.moment for session in sessions)
        if a is None or b is None:
            return out
        names = sorted(_SHOWN, key=lambda n: (a.registers[n] == b.registers[n], _SHOWN.index(n)))
        for name in names:
            same = a.registers[name] == b.registers[name]
            line: Line = []
            for n, moment in enumerate((a, b)):
                room = width - half - 3 if n else half
                part: Line = [("class:name", f"{name:<8} "),
                              ("class:value", f"{moment.registers[name]:016x}")]  # fmt: skip
                line += fit(part, room)
                if not n:
                    line.append(("class:mark", "   " if same else " | "))
            out.append(line if same else restyle(line, "class:different"))
        return out

    def _where(self, session: Session) -> Line:
        moment = session.moment
        if moment is None:
            return [("class:dim", session.absent)]
        return [("class:symbol", safe(session.function(moment.pc)))]

    def _instruction(self, session: Session) -> Line:
        moment = session.moment
        if moment is None:
            return []
        found = disassemble(moment.bytes_at(moment.pc, 15), moment.pc, moment.bits, 1)
        return [("class:mnemonic", f"▶ {i.mnemonic} {i.operands}") for i in found]

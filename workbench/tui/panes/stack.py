"""The stack: the call chain, then words from the stack pointer on with the functions in them."""

from __future__ import annotations

from typing import ClassVar

from workbench.tui.lines import Line
from workbench.tui.panes.base import Scrolled


class StackPane(Scrolled):
    """The chain by the kernel's ORC tables; below it any word that points into a function is named,
    those that are return addresses of the chain with its number.
    """

    name: ClassVar[str] = "stack"
    title: ClassVar[str] = "stack"
    of_machine: ClassVar[bool] = True

    def text(self, width: int) -> list[Line]:
        """Words of the stack."""
        moment = self.session.moment
        if moment is None:
            return [[("class:dim", self.session.absent)]]
        size = {64: 8, 32: 4, 16: 2}[moment.bits]
        base = moment.registers["rsp"]
        table = self.session.symbols
        frames = self.session.frames(moment) if moment.bits == 64 else ()
        out = [self._frame(n, pc, sp - base) for n, (pc, sp, _) in enumerate(frames)]
        if len(out) < 2:
            out = []
        returns = {sp - size: n for n, (_, sp, _) in enumerate(frames) if n}
        for n in range(128):
            at = (base + n * size) & ((1 << 8 * size) - 1)
            value = moment.word(at, size)
            if value is None:
                break
            line: Line = [("class:address", f"+{n * size:<4x}")]
            if width >= 60:
                line = [("class:address", f"{at:016x} +{n * size:<4x}")]
            line.append(("class:value", f"{value:0{2 * size}x}"))
            if at in returns:
                line.append(("class:mark", f" #{returns[at]}"))
            if table is not None and table.find(value) is not None:
                line.append(("class:symbol", f" {self.session.function(value)}"))
            out.append(line)
        return out or [[("class:dim", f"the stack at {base:#x} is not in memory")]]

    def _frame(self, number: int, pc: int, offset: int) -> Line:
        far = not 0 <= offset < 1 << 20  # on the stack that an interrupt left
        return [
            ("class:mark", f"#{number:<3}"),
            ("class:address", "other " if far else f"+{offset:<5x}"),
            ("class:symbol", self.session.function(pc)),
        ]

"""Registers of the processor, what has changed since the last stop, flags by bit."""

from __future__ import annotations

from typing import ClassVar, Final

from workbench.tui.lines import Line, mark, width_of
from workbench.tui.panes.base import Scrolled

_GENERAL: Final = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
)  # fmt: skip
_SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
_BITS: Final = {
    "eflags": (
        ("CF", 0), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10),
        ("OF", 11), ("NT", 14), ("AC", 18), ("ID", 21),
    ),
    "cr0": (
        ("PE", 0), ("MP", 1), ("EM", 2), ("TS", 3), ("ET", 4), ("NE", 5), ("WP", 16), ("AM", 18),
        ("NW", 29), ("CD", 30), ("PG", 31),
    ),
    "cr4": (
        ("VME", 0), ("PVI", 1), ("TSD", 2), ("DE", 3), ("PSE", 4), ("PAE", 5), ("MCE", 6),
        ("PGE", 7), ("PCE", 8), ("OSFXSR", 9), ("OSXMMEXCPT", 10), ("UMIP", 11),
        ("FSGSBASE", 16), ("PCIDE", 17), ("OSXSAVE", 18), ("SMEP", 20), ("SMAP", 21),
    ),
    "efer": (("SCE", 0), ("LME", 8), ("LMA", 10), ("NXE", 11)),
}  # fmt: skip


class RegistersPane(Scrolled):
    """General registers, flags, segments, control registers."""

    name: ClassVar[str] = "registers"
    title: ClassVar[str] = "registers"
    of_machine: ClassVar[bool] = True

    def text(self, width: int) -> list[Line]:
        """All of them; in as many columns as there is room for."""
        moment = self.session.moment
        if moment is None:
            return [[("class:dim", self.session.absent)]]
        columns = max(width // 22, 1)
        out: list[Line] = []
        cells = [self._cell(name) for name in _GENERAL]
        down = -(-len(cells) // columns)
        for row in range(down):
            line: Line = []
            for place in range(row, len(cells), down):
                line += [*cells[place], ("", "  ")]
            out.append(line)
        out += self._bits("eflags", width)
        segments: Line = []
        for name in _SEGMENTS:
            value, changed = self._value(name)
            part = [("class:name", f"{name} "), (mark(changed), f"{value:04x}"), ("", " ")]
            if segments and width_of(segments) + 8 > width:
                out.append(segments)
                segments = []
            segments += part
        out.append(segments)
        for name in ("cr0", "cr4", "efer"):
            out += self._bits(name, width)
        for name in ("cr2", "cr3", "cr8", "fs_base", "gs_base", "k_gs_base", "mxcsr"):
            out.append(self._cell(name))
        return out

    def _value(self, name: str) -> tuple[int, bool]:
        moment, previous = self.session.moment, self.session.previous
        assert moment is not None
        value = moment.registers[name]
        return value, previous is not None and previous.registers[name] != value

    def _cell(self, name: str) -> Line:
        value, changed = self._value(name)
        # The sign says it without colours as well.
        sign = "*" if changed else " "
        return [
            ("class:name", f"{name:<3}" if len(name) <= 3 else f"{name:<9} "),
            ("class:changed", sign),
            (mark(changed), f"{value:016x}"),
        ]

    def _bits(self, name: str, width: int) -> list[Line]:
        """Names of set bits in capitals, of others in small letters; changed ones are marked."""
        value, changed = self._value(name)
        previous = self.session.previous
        before = value if previous is None else previous.registers[name]
        sign = "*" if changed else " "
        line: Line = [
            ("class:name", name),
            ("class:changed", sign),
            (mark(changed), f"{value:x}"),
        ]
        out = [line]
        for label, bit in _BITS[name]:
            on = value >> bit & 1
            flipped = (value ^ before) >> bit & 1
            style = "class:changed" if flipped else "class:on" if on else "class:off"
            text = " " + (label if on else label.lower())
            if width_of(line) + len(text) > width:
                line = [("", "   ")]
                out.append(line)
            line.append((style, text))
        return out

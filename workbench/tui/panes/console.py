"""The guest's console at this moment.

Control sequences are taken out, other control characters are shown as such: what the guest prints
can do nothing to the user's terminal.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Final

from workbench.tui.lines import Line, clip
from workbench.tui.panes.base import Scrolled

if TYPE_CHECKING:
    from workbench.tui.session import Session

_SEQUENCE: Final = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)
_SHOWN_BYTES: Final = 64 << 10


def readable(data: bytes) -> list[str]:
    """The lines of what was printed, without control sequences; carriage returns are obeyed."""
    out: list[str] = []
    for raw in _SEQUENCE.sub(b"", data).split(b"\n"):
        kept = raw.rstrip(b"\r").rpartition(b"\r")[2]
        line = kept.decode("utf-8", "replace")
        if line.isprintable():
            out.append(line)
            continue
        text: list[str] = []
        for char in line:
            if char == "\b":
                del text[-1:]
            elif char == "\t":
                text.append(" " * (8 - len(text) % 8))
            elif char.isprintable():
                text.append(char)
            else:
                text.append(f"\\x{ord(char):02x}")
        out.append("".join(text))
    return out


class ConsolePane(Scrolled):
    """The last lines that the guest had printed."""

    name: ClassVar[str] = "console"
    title: ClassVar[str] = "console"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._printed: tuple[bytes, int] = b"", 0
        self._rows: list[str] = []
        """What was printed, in lines of a width."""

    def lines(self, width: int, height: int, focused: bool) -> list[Line]:
        """The last lines; `top` counts from the end."""
        session = self.session
        live = session.live
        running = live is not None and live.running
        if live and running:
            printed = bytes(live.console[-_SHOWN_BYTES:])
        else:
            printed = session.events.console_at(session.icount, _SHOWN_BYTES)
        if self._printed != (printed, width):
            self._printed = printed, width
            self._rows = [line[at : at + width] for line in readable(printed)
                          for at in range(0, max(len(line), 1), width)]  # fmt: skip
        rows = self._rows
        self.top = max(0, min(self.top, len(rows) - height))
        end = len(rows) - self.top
        return [[("class:text", clip(row, width))] for row in rows[max(end - height, 0) : end]]

    def heading(self) -> str:
        """Whose moment it is."""
        live = self.session.live
        return "console  of the guest, now" if live is not None and live.running else "console"

    def move(self, count: int) -> None:
        """Scroll."""
        self.top = max(self.top - count, 0)

    def edge(self, end: bool) -> None:
        """Scroll to an end."""
        self.top = 0 if end else 1 << 30

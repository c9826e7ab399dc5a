"""How a move through a recording ended."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Moved"]


@dataclass(frozen=True, slots=True)
class Moved:
    """Why a move ended.

    kind: "breakpoint", "watch" (of memory: `range`; with a `text` if it was a device), "access" (of
    a device: `text`), "icount", "interrupted", "begin", "end" (`text`: how the recording ended).
    """

    kind: str
    range: int = -1
    text: str = ""

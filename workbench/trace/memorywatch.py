"""Watchpoints on memory that hear of devices: linear addresses, and where they lie at each moment.

A device has guest-physical addresses. Which of them are watched is what the page tables say when it
makes a transfer, as it is for an access of the processor; so nothing has to be told when the guest
loads CR3 or writes an entry. A mapping is worked out again only if an entry has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.core.layout import WATCH_READ, WATCH_WRITE
from workbench.core.pagewalk import Paging

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["MemoryWatch"]

_MOST_BYTES = 1 << 24


@dataclass(slots=True)
class MemoryWatch:
    """The watchpoint `number` on [first, end), for accesses of a kind (`WATCH_READ`, ...)."""

    number: int
    first: int
    end: int
    kind: int
    _paging: Paging | None = None
    _entries: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """What was read of page tables, by address and length."""
    _spans: list[tuple[int, int]] = field(default_factory=list)

    def hears(self, machine: Machine, gpa: int, length: int, is_write: bool) -> bool:
        """Is this a transfer (is_write: the device writes) to or from what is watched?"""
        if not self.kind & (WATCH_WRITE if is_write else WATCH_READ):
            return False
        self._look(machine)
        return any(gpa < at + size and at < gpa + length for at, size in self._spans)

    def _look(self, machine: Machine) -> None:
        """Where the range lies now; no more than 16 MiB of it."""
        read, paging = machine.memory.read, Paging.of(machine.cpu)
        if paging == self._paging and all(
            read(*place) == entry for place, entry in self._entries.items()
        ):
            return
        entries: dict[tuple[int, int], bytes] = {}

        def noted(gpa: int, size: int) -> bytes:
            entry = entries[gpa, size] = read(gpa, size)
            return entry

        end = min(self.end, self.first + _MOST_BYTES)
        self._spans = list(paging.spans(noted, self.first, end))
        self._paging, self._entries = paging, entries

"""Guest memory as inspectors read it: by physical address, and nothing happens.

Everything in it may be a lie of the guest. What is outside RAM is None, and callers bound how often
they read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.hw.layout import is_ram

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["Ram", "hexa", "time_text"]


class Ram:
    """The RAM of a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def contains(self, gpa: int, length_bytes: int) -> bool:
        """Whether all of a range is RAM."""
        return is_ram(self._machine.ram_bytes, gpa, length_bytes)

    def read(self, gpa: int, length_bytes: int) -> bytes | None:
        """Bytes; None if not all of them are RAM."""
        if not self.contains(gpa, length_bytes):
            return None
        return self._machine.memory.read(gpa, length_bytes)

    def number(self, gpa: int, length_bytes: int) -> int | None:
        """A little-endian number."""
        data = self.read(gpa, length_bytes)
        return None if data is None else int.from_bytes(data, "little")


def hexa(value: int | None, digits: int = 0) -> str:
    """Write a number of guest memory; a question mark for one that is not there."""
    return "?" if value is None else f"{value:#0{digits + 2}x}" if digits else f"{value:#x}"


def time_text(ps: int) -> str:
    """Write a duration or a time with a unit that fits."""
    size = abs(ps)
    for unit, scale in (("s", 10**12), ("ms", 10**9), ("us", 10**6), ("ns", 1000)):
        if size >= scale:
            return f"{ps / scale:.6g} {unit}"
    return f"{ps} ps"

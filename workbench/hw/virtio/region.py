"""Several register banks behind one window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workbench.core.regs import RegBank, RegMap

__all__ = ["Region"]


class Region:
    """Banks at offsets; an access belongs to the bank in which it starts."""

    def __init__(self, name: str, size: int, parts: Sequence[tuple[int, RegBank[Any]]]) -> None:
        """`parts` are (offset, bank), ascending."""
        self.size = size
        self._parts = [(at, at + bank.map.length, bank) for at, bank in reversed(parts)]
        regs = [
            replace(reg, offset=reg.offset + at, index=None, attr=reg.attr)
            for at, bank in parts
            for reg in bank.map.regs
        ]
        self.map = RegMap(name, size, regs, "VIRTIO 1.2 4.1")

    def read(self, offset: int, size: int) -> int:
        """As the bank there; 0 between banks."""
        for start, end, bank in self._parts:
            if offset >= start:
                return bank.read(offset - start, size) if offset < end else 0
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """As the bank there; nothing between banks."""
        for start, end, bank in self._parts:
            if offset >= start:
                if offset < end:
                    bank.write(offset - start, size, value)
                return

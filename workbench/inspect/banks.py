"""Registers by name and by bit, from a bank's stored state: a read could change the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from workbench.core.regs import Field, Reg, RegBank
from workbench.inspect.page import Table, table

__all__ = ["bits", "register", "registers"]


def bits(fields: Iterable[Field], value: int) -> str:
    """The fields that are set, as `BSY DRDY MODE=edge`; `-` if there are none."""
    parts: list[str] = []
    named = 0
    for fld in fields:
        named |= fld.mask
        found = fld.get(value)
        label = fld.values.get(found)
        if label is not None:
            parts.append(f"{fld.name}={label}")
        elif found:
            parts.append(fld.name if fld.width == 1 else f"{fld.name}={found:#x}")
    if value & ~named:
        parts.append(f"+{value & ~named:#x}")
    return " ".join(parts) or "-"


def register(reg: Reg, value: int, name: str = "") -> tuple[str, str, str]:
    """Name, value and fields of one register."""
    shown = f"{value:#0{2 * reg.size + 2}x}"
    return name or reg.name, shown, bits(reg.fields, value) if reg.fields else ""


def registers(title: str, bank: RegBank[Any], only: Iterable[Reg] | None = None) -> Table:
    """The registers of a bank that are stored, or those of `only`; 64 at most."""
    return table(title, ("register", "value", "fields"), _stored(bank, only))


def _stored(bank: RegBank[Any], only: Iterable[Reg] | None) -> Iterator[tuple[str, str, str]]:
    for reg in bank.map.regs if only is None else only:
        if only is not None or hasattr(bank.state, reg.attr):
            value = bank.peek(reg)
            if isinstance(value, int):
                yield register(reg, int(value))

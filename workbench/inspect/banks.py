"""Registers by name and by bit, from a bank's stored state: a read could change the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from workbench.core.regs import Field, Reg, RegBank
from workbench.inspect.page import Table, table
from workbench.inspect.subject import Row, of_register

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


def register(reg: Reg, value: int, device: str) -> Row:
    """Name, value and fields of one register; `device` is whose it is."""
    shown = f"{value:#0{2 * reg.size + 2}x}"
    fields = bits(reg.fields, value) if reg.fields else ""
    return Row((reg.name, shown, fields), of_register(device, reg.name))


def registers(
    title: str, bank: RegBank[Any], device: str, only: Iterable[Reg] | None = None
) -> Table:
    """The registers of a bank that are stored, or those of `only`; 64 at most."""
    return table(title, ("register", "value", "fields"), _stored(bank, device, only))


def _stored(bank: RegBank[Any], device: str, only: Iterable[Reg] | None) -> Iterator[Row]:
    for reg in bank.map.regs if only is None else only:
        if only is not None or hasattr(bank.state, reg.attr):
            value = bank.peek(reg)
            if isinstance(value, int):
                yield register(reg, int(value), device)

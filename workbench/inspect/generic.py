"""Any device: the state that it holds, by register where there is a map, else by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from workbench.core.regs import RegBank
from workbench.inspect.banks import registers
from workbench.inspect.page import Page, Table, table

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["device"]

_MOST_ITEMS = 16
_DEEPEST = 4


def device(machine: Machine, name: str, rows: int) -> Page:
    """A device that has no inspector of its own."""
    found: Any = machine.devices[name]
    tables: list[Table] = []
    if isinstance(found, RegBank):
        tables.append(registers("registers", found, name))
        state: Any = found.state
    else:
        state = found.save()
    tables.append(table("state", ("name", "value"), _values("", state, 0), rows))
    return Page(name, f"{name}: {type(found).__name__}", tuple(t for t in tables if t.rows))


def _values(prefix: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """(path, value) of everything in a state, lists and long values cut."""
    if is_dataclass(value):
        items = [(f.name, getattr(value, f.name)) for f in fields(value)]
    elif isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value and not isinstance(value[0], int):
        items = [(str(n), item) for n, item in enumerate(value[:_MOST_ITEMS])]
    else:
        yield prefix or "value", _shown(value)
        return
    if depth > _DEEPEST:
        return
    for key, item in items:
        yield from _values(f"{prefix}.{key}" if prefix else key, item, depth + 1)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:#x}"
    if isinstance(value, bytes | bytearray):
        more = f" ... {len(value):,} bytes" if len(value) > _MOST_ITEMS else ""
        return value[:_MOST_ITEMS].hex(" ") + more
    if isinstance(value, list):
        more = f" ... {len(value):,}" if len(value) > _MOST_ITEMS else ""
        return " ".join(_shown(item) for item in value[:_MOST_ITEMS]) + more
    return f"{value!s:.200}"

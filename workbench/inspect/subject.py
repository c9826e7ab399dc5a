"""What a row of an inspector stands for: bytes of guest memory, accesses of the log, a request.

It is what one may ask on about: who wrote it, where it lies, when it began. It is plain data, so
that a page with it can be kept, compared and written as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Accesses", "Bytes", "Request", "Row", "Subject", "of_register", "to_json"]


class Bytes(NamedTuple):
    """Bytes of guest memory, by guest-physical address; `structure` is what they are.

    Its name is that of the specification (`virtq_desc`, `prd`, `e1000_rx`), "" for mere bytes.
    """

    gpa: int
    length: int
    structure: str = ""


class Accesses(NamedTuple):
    """Accesses of a device: what they are called, and a filter of the screen's log for them."""

    name: str
    filter: str


class Request(NamedTuple):
    """A request of the trace, and the instruction count at which it began."""

    name: str
    icount: int


Subject: TypeAlias = Bytes | Accesses | Request


class Row(NamedTuple):
    """A row of a table with what it stands for."""

    cells: Sequence[str]
    subject: Subject | None = None


def of_register(device: str, *registers: str, config: bool = False, more: str = "") -> Accesses:
    """The accesses of registers of a device, in any of its windows, or in PCI configuration space.

    Of a register behind an index, and of one that was accessed together with its neighbours, too.
    """
    forms = ("{}", "*:{}", "{}+*", "*+{}", "*+{}+*")
    names = [form.format(register) for register in registers for form in forms]
    wanted = " or ".join(f"register={_word(name)}" for name in names)
    windows = f"device={_word(device)} or device={_word(device + '.*')}"
    kind = "cfg" if config else "not cfg"
    name = f"{device} {'cfg ' * config}{registers[0]}"
    return Accesses(name, f"({windows}) and {kind} and ({wanted}){f' and {more}' if more else ''}")


def _word(text: str) -> str:
    return f'"{text}"' if set(text) & set(" ()&=<>!") else text


def to_json(subject: Subject | None) -> dict[str, Any] | None:
    """As plain values."""
    return (
        None if subject is None else {"kind": type(subject).__name__.lower(), **subject._asdict()}
    )

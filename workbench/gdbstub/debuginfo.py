"""Debug information of the guest's kernel, where its `-dbg` package is installed on this machine.

Which kernel it is stands in `linux_banner` in guest memory; how far KASLR has moved it follows from
the address of `_text` there and in the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench.gdbstub.memory import Memory
from workbench.gdbstub.symbols import guest_symbols

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["PLACES", "DebugFile", "find", "release"]

PLACES: Final = (
    "/usr/lib/debug/boot/vmlinux-{}",
    "/usr/lib/debug/lib/modules/{}/vmlinux",
    "/usr/lib/debug/usr/lib/modules/{}/vmlinux",
    "/lib/modules/{}/build/vmlinux",
)
_BANNER: Final = re.compile(rb"Linux version ([\w.+~-]{1,64}) ")


@dataclass(frozen=True, slots=True)
class DebugFile:
    """A kernel with debug information, and what is to be added to its addresses."""

    path: Path
    offset: int


def release(machine: Machine) -> str:
    """The guest kernel's release, empty if there is none to be found."""
    at = next((a for a, _, name in guest_symbols(machine) if name == "linux_banner"), None)
    raw = None if at is None else Memory(machine.cpu).read(at, 256)
    found = _BANNER.match(raw or b"")
    return found[1].decode("ascii") if found else ""


def find(machine: Machine, places: tuple[str, ...] = PLACES) -> DebugFile | None:
    """The file for the kernel that the machine runs now; None where none is installed."""
    name = release(machine)
    path = next((p for place in places if (p := Path(place.format(name))).is_file()), None)
    text = next((a for a, _, symbol in guest_symbols(machine) if symbol == "_text"), None)
    if not name or path is None or text is None:
        return None
    linked = _address_of(path, "_text")
    return None if linked is None else DebugFile(path, text - linked)


def _address_of(path: Path, name: str) -> int | None:
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection as Symbols

    try:
        with path.open("rb") as file:
            table = ELFFile(file).get_section_by_name(".symtab")
            found = table.get_symbol_by_name(name) if isinstance(table, Symbols) else None
            return int(found[0]["st_value"]) if found else None
    except (OSError, ELFError, ValueError):
        return None

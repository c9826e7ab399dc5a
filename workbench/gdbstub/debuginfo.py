"""Debug information of the guest's kernel and modules, where its `-dbg` package is on this machine.

Which kernel it is stands in `linux_banner` in guest memory; how far KASLR has moved it follows from
the address of `_text` there and in the file. The sections of a module lie apart: where each is
follows from symbols that are in the file and in guest memory.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.gdbstub.memory import Memory
from workbench.gdbstub.symbols import guest_symbols

if TYPE_CHECKING:
    from workbench.core.machine import Machine
    from workbench.trace.kallsyms import Symbol

__all__ = ["PLACES", "TREES", "DebugFile", "ModuleFile", "find", "find_module", "moved", "release"]

PLACES: Final = (
    "/usr/lib/debug/boot/vmlinux-{}",
    "/usr/lib/debug/lib/modules/{}/vmlinux",
    "/usr/lib/debug/usr/lib/modules/{}/vmlinux",
    "/lib/modules/{}/build/vmlinux",
)
TREES: Final = ("/usr/lib/debug/lib/modules/{}", "/usr/lib/debug/usr/lib/modules/{}")
_BANNER: Final = re.compile(rb"Linux version ([\w.+~-]{1,64}) ")
_MOST_FILES: Final = 20_000
_ALLOC: Final = 2


@dataclass(frozen=True, slots=True)
class DebugFile:
    """A kernel with debug information, and what is to be added to its addresses."""

    path: Path
    offset: int


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """A module with debug information, and where its sections are."""

    path: Path
    sections: dict[str, int]


def release(machine: Machine, symbols: Iterable[Symbol] | None = None) -> str:
    """The guest kernel's release, empty if there is none to be found."""
    known = guest_symbols(machine) if symbols is None else symbols
    at = next((a for a, _, name in known if name == "linux_banner"), None)
    raw = None if at is None else Memory(machine.cpu).read(at, 256)
    found = _BANNER.match(raw or b"")
    return found[1].decode("ascii") if found else ""


def find(
    machine: Machine, places: Sequence[str] = PLACES, symbols: Sequence[Symbol] | None = None
) -> DebugFile | None:
    """The file for the kernel that the machine runs now; None where none is installed."""
    known = guest_symbols(machine) if symbols is None else symbols
    name = release(machine, known)
    path = next((p for place in places if (p := Path(place.format(name))).is_file()), None)
    return None if not name or path is None else moved(path, known)


def moved(path: Path, symbols: Iterable[Symbol]) -> DebugFile | None:
    """A kernel's file, for a kernel with these symbols in guest memory; None if it is of another
    one: then the code is of another length.
    """
    ends = ("_text", "_etext")
    there = {name: address for address, _, name in symbols if name in ends}
    here = {name: value for name, _, value in _symbols(path) if name in ends}
    if there.keys() != here.keys() or "_text" not in here:
        return None
    slides = {there[name] - here[name] for name in here}
    return DebugFile(path, slides.pop()) if len(slides) == 1 else None


def find_module(
    name: str, symbols: Iterable[Symbol], kernel_release: str, trees: Sequence[str] = TREES
) -> ModuleFile | None:
    """The file for a module with these symbols in guest memory; None where none is installed."""
    path = None if not kernel_release else _module_path(name, kernel_release, trees)
    if path is None:
        return None
    once = Counter(symbol for _, _, symbol in symbols)
    places = {symbol: address for address, _, symbol in symbols if once[symbol] == 1}
    bases: dict[str, Counter[int]] = {}
    for symbol, section, value in _symbols(path):
        if section and symbol in places:
            bases.setdefault(section, Counter())[places[symbol] - value] += 1
    sections = {section: found.most_common(1)[0][0] for section, found in bases.items()}
    return ModuleFile(path, sections) if ".text" in sections else None


def _module_path(name: str, kernel_release: str, trees: Sequence[str]) -> Path | None:
    """Files have `-` where the module's name has `_`, or not; a debug package may add `.debug`."""
    for tree in trees:
        folder = Path(tree.format(kernel_release))
        for number, path in enumerate(folder.rglob("*.ko*")):
            if number >= _MOST_FILES:
                break
            stem = path.name.partition(".ko")[0]
            if stem.replace("-", "_") == name and path.suffix in (".ko", ".debug"):
                return path
    return None


def _entries(table: bytes, wide: bool) -> Iterator[tuple[int, int, int]]:
    """(st_name, st_shndx, st_value) of a table of symbols."""
    if wide:
        for name, _, _, index, value, _ in struct.iter_unpack("<IBBHQQ", table):
            yield name, index, value
    else:
        for name, value, _, _, _, index in struct.iter_unpack("<IIIBBH", table):
            yield name, index, value


def _symbols(path: Path) -> list[tuple[str, str, int]]:
    """(name, section, value) of the symbols of an ELF file; none where it is damaged."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    found = []
    try:
        with path.open("rb") as file:
            elf: Any = ELFFile(file)
            sections = [
                section.name if section["sh_flags"] & _ALLOC else ""
                for section in elf.iter_sections()
            ]
            table = elf.get_section_by_name(".symtab")
            if table is None:
                return []
            strings = elf.get_section(table["sh_link"]).data()
            for name_at, index, value in _entries(table.data(), elf.elfclass == 64):
                name = strings[name_at : strings.index(b"\0", name_at)].decode()
                if 0 < index < len(sections) and name:
                    found.append((name, sections[index], value))
    except (OSError, ELFError, ValueError, KeyError, AttributeError, struct.error):
        return []
    return found

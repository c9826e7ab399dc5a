"""The guest's symbols as files for gdb: one for the kernel, one for each module that is loaded.

Where debug information is installed, it is that file, with where its parts lie in the guest; else
an ELF file made of the symbols in guest memory. gdb's Python reads list and files as memory, at an
address that no guest can have: it may do no more in the middle of a stop.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench.gdbstub import debuginfo
from workbench.gdbstub.frames import FIRST
from workbench.gdbstub.symbols import elf
from workbench.trace.kallsyms import kernel_symbols
from workbench.trace.symbols import loaded_modules, ram_ranges

if TYPE_CHECKING:
    from workbench.core.machine import Machine
    from workbench.gdbstub.target import Target
    from workbench.trace.kallsyms import Symbol

__all__ = ["KERNEL", "LIST_AT", "SymbolFile", "SymbolFiles", "SymbolWindow"]

LIST_AT: Final = FIRST + (1 << 32)
KERNEL: Final = "vmlinux"
_STEP: Final = 1 << 32
_MOST_MODULES: Final = 512
_GAP_BYTES: Final = 0x2000  # with a page of guard on each side, no other module fits in
_ODD: Final = re.compile(r"[^\w.-]", re.ASCII)  # what a hostile guest may call a module


@dataclass(slots=True)
class SymbolFile:
    """One file: a path with debug information, or the bytes of an ELF file."""

    name: str
    start: int
    """Address of the first symbol: where it is loaded."""
    path: str = ""
    offset: int = 0
    """What is to be added to the addresses in the kernel's file."""
    sections: dict[str, int] = field(default_factory=dict)
    data: bytes = b""


class SymbolFiles:
    """Finds the files for what a machine's memory has now."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` is the kernel's file, where the user has one."""
        self._path = path
        self._kernel: list[Symbol] = []
        self._file: SymbolFile | None = None
        self._release = ""
        self._links: list[int] = []
        self._known: dict[tuple[str, int], SymbolFile] = {}

    def of(self, machine: Machine) -> list[SymbolFile]:
        """The kernel, then its modules; nothing without a kernel in memory."""
        if self._file is None:
            self._kernel = kernel_symbols(machine.memory, ram_ranges(machine.memory))
            if not self._kernel:
                return []
            self._release = debuginfo.release(machine, self._kernel)
            if self._path is not None:
                debug = debuginfo.moved(self._path, self._kernel)
            else:
                debug = debuginfo.find(machine, symbols=self._kernel)
            start = min(address for address, _, name in self._kernel if name)
            self._file = (
                SymbolFile(KERNEL, start, data=elf(self._kernel))
                if debug is None
                else SymbolFile(KERNEL, start, str(debug.path), debug.offset)
            )
        return [self._file, *self._modules(machine)]

    def _modules(self, machine: Machine) -> Iterator[SymbolFile]:
        for module in loaded_modules(machine, self._kernel, self._links)[:_MOST_MODULES]:
            if not module.symbols:
                continue
            # A module's symbols become fewer once it is initialized.
            key = module.name, hash(tuple(module.symbols))
            found = self._known.get(key)
            if found is None:
                start = min(address for address, _, _ in module.symbols)
                name = _ODD.sub("_", module.name)
                debug = debuginfo.find_module(name, module.symbols, self._release)
                found = self._known[key] = (
                    SymbolFile(name, start, data=elf(module.symbols, _GAP_BYTES))
                    if debug is None
                    else SymbolFile(name, start, str(debug.path), 0, debug.sections)
                )
            yield found


class SymbolWindow:
    """List and files in memory: a length of 8 bytes and JSON, then each file at its own place."""

    def __init__(self, target: Target, path: Path | None = None) -> None:
        self._target = target
        self._files = SymbolFiles(path)
        self._parts: dict[int, bytes] = {}

    def read(self, address: int, count: int) -> bytes | None:
        """Bytes of a part, None beside them. The list is made when its first byte is read."""
        if address == LIST_AT:
            self._make()
        part, at = divmod(address - LIST_AT, _STEP)
        data = self._parts.get(part)
        return None if data is None or at >= len(data) else data[at : at + count]

    def _make(self) -> None:
        found = self._files.of(self._target.machine)
        rows = []
        for number, file in enumerate(found, start=1):
            row = {**asdict(file), "at": LIST_AT + number * _STEP, "bytes": len(file.data)}
            del row["data"]
            rows.append(row)
        text = json.dumps(rows).encode()
        self._parts = {number: file.data for number, file in enumerate(found, start=1)}
        self._parts[0] = struct.pack("<Q", len(text)) + text

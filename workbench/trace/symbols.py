"""Names for guest addresses: of the kernel in the trace, of the running kernel, or of a file.

`of_trace` asks, in this order: the kernel image in the trace when it is an ELF file with symbols; a
cache; the kallsyms tables in guest memory at the end of a replay, modules included. What a replay
has found is kept in the cache, under a hash of the trace's header and end.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from workbench.core.pagewalk import Paging
from workbench.errors import InputFileError, os_error_text
from workbench.trace import findings
from workbench.trace.guest import KERNEL
from workbench.trace.kallsyms import (
    AddressSpace,
    MemoryLike,
    ModuleSymbols,
    Symbol,
    find_modules,
    kernel_symbols,
    module_symbols,
)
from workbench.trace.reader import Trace

MAX_FILE_BYTES: Final = 1 << 30
_MAX_CACHE_BYTES: Final = 256 << 20
_KEPT: Final = 64
_MAX_OFFSET: Final = 1 << 20
_CODE: Final = frozenset("tTwW")
_KERNEL_MAP: Final = 0xFFFF_FFFF_8000_0000
_KERNEL_MAP_BYTES: Final = 1 << 30
_KERNEL_ALIGN: Final = 2 << 20
_FOUR_GIB: Final = 1 << 32
_HOLE: Final = 0xC000_0000


class SymbolTable:
    """Code symbols in order of address."""

    def __init__(self, symbols: Iterable[Symbol] = ()) -> None:
        """Take symbols in any order; those that are no code are left out."""
        code: dict[int, str] = {}
        for address, letter, name in sorted(symbols, key=_preference):
            if letter in _CODE and name:
                code.setdefault(address, name)
        self._addresses = list(code)
        self._names = list(code.values())

    @classmethod
    def unpack(cls, data: bytes) -> SymbolTable:
        """Read what `pack` made; raises ValueError."""
        count = int.from_bytes(data[:8], "little")
        raw, names = data[8 : 8 + 8 * count], data[8 + 8 * count :].decode().split("\n")
        if len(raw) != 8 * count or len(names) != count:
            raise ValueError("expected as many names as addresses")
        table = cls()
        table._addresses = list(struct.unpack(f"<{count}Q", raw))
        table._names = names
        return table

    def pack(self) -> bytes:
        """Make bytes of it: count, addresses, names."""
        count = len(self._addresses)
        names = "\n".join(name.replace("\n", "?") for name in self._names)
        return struct.pack(f"<Q{count}Q", count, *self._addresses) + names.encode()

    def __len__(self) -> int:
        return len(self._addresses)

    def find(self, pc: int) -> tuple[str, int] | None:
        """The function that an address is in, and the offset from its start."""
        place = bisect_right(self._addresses, pc) - 1
        if place < 0 or pc - self._addresses[place] >= _MAX_OFFSET:
            return None
        return self._names[place], pc - self._addresses[place]

    def span(self, pc: int) -> tuple[int, int] | None:
        """Start and end of the function that an address is in."""
        place = bisect_right(self._addresses, pc)
        if place == 0 or pc - self._addresses[place - 1] >= _MAX_OFFSET:
            return None
        start = self._addresses[place - 1]
        return start, min([start + _MAX_OFFSET, *self._addresses[place : place + 1]])

    def address(self, name: str) -> int | None:
        """Where a function begins; None if there is none of that name."""
        try:
            return self._addresses[self._names.index(name)]
        except ValueError:
            return None

    def names(self, start: str, most: int) -> list[str]:
        """Up to so many names that begin so."""
        return list(islice((name for name in self._names if name.startswith(start)), most))

    def function(self, pc: int) -> str:
        """The name of the function alone, `name [module]`; the address when none is known."""
        found = self.find(pc)
        return f"{pc:#x}" if found is None else found[0]

    def text(self, pc: int) -> str:
        """`name+0x1c [module]`; the address when no function is known."""
        found = self.find(pc)
        if found is None:
            return f"{pc:#x}"
        name, space, module = found[0].partition(" ")
        return f"{name}+{found[1]:#x}{space}{module}"


def _preference(symbol: Symbol) -> tuple[int, bool, bool, str]:
    """Of several names of one address: a function before a marker, a global before a local one."""
    address, letter, name = symbol
    return address, name.startswith(("_", ".", "$")), letter.islower(), name


def _parse(text: str) -> list[Symbol]:
    """Read lines of System.map or /proc/kallsyms; what is no such line is left out."""
    found = []
    for line in text.splitlines():
        parts = line.split(None, 3)
        if len(parts) < 3 or len(parts[1]) != 1:
            continue
        with contextlib.suppress(ValueError):
            name = f"{parts[2]} {parts[3]}" if len(parts) > 3 else parts[2]
            found.append((int(parts[0], 16), parts[1], name))
    return found


def _elf(data: bytes) -> list[Symbol]:
    """The symbols of an ELF file; none when it is damaged or stripped."""
    import io

    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    found: list[Symbol] = []
    try:
        table: Any = ELFFile(io.BytesIO(data)).get_section_by_name(".symtab")
        for entry in () if table is None else table.iter_symbols():
            kind, section = entry["st_info"]["type"], entry["st_shndx"]
            if kind in ("STT_FUNC", "STT_NOTYPE") and section not in ("SHN_UNDEF", "SHN_ABS"):
                local = entry["st_info"]["bind"] == "STB_LOCAL"
                found.append((entry["st_value"], "t" if local else "T", entry.name))
    except (ELFError, ValueError, KeyError, AttributeError, OverflowError, UnicodeError):
        return []
    return found


def of_file(path: str, trace: Trace, prepare: Callable[[], None] = lambda: None) -> SymbolTable:
    """Read System.map, a copy of /proc/kallsyms, or an ELF file with symbols.

    A kernel's addresses are moved to where the kernel of the trace ran. `prepare` is called before
    a replay. Raises `InputFileError`.
    """
    try:
        if Path(path).stat().st_size > MAX_FILE_BYTES:
            raise InputFileError(f"{path}: it is too large for a file of symbols")
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = os_error_text(error) if isinstance(error, OSError) else "no valid file name"
        raise InputFileError(f"{path}: {reason}") from None
    symbols = _elf(data) if data[:4] == b"\x7fELF" else _parse(data.decode("utf-8", "replace"))
    if not symbols:
        raise InputFileError(f"{path}: there are no symbols in it")
    start = min((a for a, _, name in symbols if name in ("_text", "_stext")), default=0)
    if start < _KERNEL_MAP or "nokaslr" in trace.header.cmdline.split():
        return SymbolTable(symbols)
    prepare()
    slide = _slide(_replayed(trace), start)
    moved = [(a + slide if a >= _KERNEL_MAP else a, letter, name) for a, letter, name in symbols]
    return SymbolTable(moved)


def of_trace(
    trace: Trace, at_icount: int | None = None, prepare: Callable[[], None] = lambda: None
) -> SymbolTable:
    """Find the symbols of what ran, at the end or (for modules) at an instruction count.

    `prepare` is called before a replay. The table is empty when the guest has no symbols.
    """
    image = trace.image(KERNEL)
    if image is not None and image[:4] == b"\x7fELF":
        found = _elf(image)
        if found:
            return SymbolTable(found)
    name = findings.name_of("symbols", trace, {"at": at_icount})
    cached = _load(name)
    if cached is not None:
        return cached
    prepare()
    cached = _load(name)  # another process may have been quicker, or was asked to
    if cached is not None:
        return cached
    table = SymbolTable(_of_machine(_replayed(trace, at_icount)))
    if len(table):
        _keep(name, table)
    return table


def find_apart(path: str) -> None:
    """Have another process find the symbols of a trace and put them into the cache."""
    # Killed with this process: 1 is PR_SET_PDEATHSIG.
    code = "import ctypes, sys; ctypes.CDLL(None).prctl(1, 9);"
    code += "import workbench; from workbench.trace import processes, symbols;"
    code += "processes.step_back();"
    code += "symbols.of_trace(workbench.open(sys.argv[1]))"
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(part or "." for part in sys.path)}
    quiet = subprocess.DEVNULL
    with contextlib.suppress(OSError):
        subprocess.run(
            [sys.executable, "-c", code, path],
            stdin=quiet, stdout=quiet, stderr=quiet, env=where, check=False,
        )  # fmt: skip


def _replayed(trace: Trace, at_icount: int | None = None) -> Any:
    """The machine as it was at the end, or at an instruction count."""
    from workbench.trace.replayer import Replay
    from workbench.trace.timeline import Timeline

    if at_icount is not None and at_icount < trace.icount:
        timeline = Timeline(trace)
        timeline.seek(at_icount)
        return timeline.machine
    replay = Replay(trace, verify=False)
    replay.run()
    return replay.machine


def spaces(machine: Any) -> list[AddressSpace]:
    """The page tables in use; with isolated ones, the kernel's are the page before the user's."""
    now = Paging.of(machine.cpu)
    tables = dict.fromkeys((now, replace(now, cr3=now.cr3 & ~0x1000)))
    return [AddressSpace(machine.memory, paging) for paging in tables]


def ram_ranges(memory: MemoryLike) -> list[tuple[int, int]]:
    """Where RAM lies in the physical addresses: (start, bytes)."""
    ranges = [(0, min(memory.size, _HOLE))]
    if memory.size > _HOLE:
        ranges.append((_FOUR_GIB, memory.size - _HOLE))
    return ranges


def guest_symbols(machine: Any) -> tuple[list[Symbol], list[ModuleSymbols]]:
    """The symbols of the kernel and of each module, as the machine's memory has them now."""
    kernel = kernel_symbols(machine.memory, ram_ranges(machine.memory))
    return kernel, loaded_modules(machine, kernel) if kernel else []


def loaded_modules(
    machine: Any, kernel: list[Symbol], links: list[int] | None = None
) -> list[ModuleSymbols]:
    """The modules that are loaded now, the latest first, into a kernel with these symbols.

    `links` are places in the list that were found before: a kernel without the symbol `modules` has
    to be searched for one.
    """
    head = next((address for address, _, name in kernel if name == "modules"), None)
    known = [head] if head is not None else list(links or ())
    places = spaces(machine)
    for space in places:
        for link in known:
            found = list(module_symbols(space, link))
            if found:
                return found
    if head is not None:
        return []
    link_found = find_modules(machine.memory, ram_ranges(machine.memory), places)
    if link_found is None:
        return []
    if links is not None:
        links.append(link_found)
    every = (list(module_symbols(space, link_found)) for space in places)
    return next((found for found in every if found), [])


def of_machine(machine: Any) -> SymbolTable:
    """The symbols of the guest as its memory has them now; without any before it has begun."""
    return SymbolTable(_of_machine(machine))


def _of_machine(machine: Any) -> Iterable[Symbol]:
    kernel, modules = guest_symbols(machine)
    yield from (symbol for symbol in kernel if symbol[1] in _CODE)
    for module in modules:
        for address, letter, name in module.symbols:
            if letter in _CODE:
                yield address, letter, f"{name} [{module.name}]"


def _slide(machine: Any, start: int) -> int:
    """How far the kernel was moved: from where its mapping begins."""
    for space in spaces(machine):
        for gva in range(_KERNEL_MAP, _KERNEL_MAP + _KERNEL_MAP_BYTES, _KERNEL_ALIGN):
            if space.gpa(gva) is not None:
                return gva - (start & -_KERNEL_ALIGN)
    return 0


# The cache.


def _load(name: str) -> SymbolTable | None:
    data = findings.load(name, _MAX_CACHE_BYTES)
    try:
        return None if data is None else SymbolTable.unpack(data)
    except (ValueError, struct.error):
        return None


def _keep(name: str, table: SymbolTable) -> None:
    findings.keep(name, table.pack(), _KEPT)

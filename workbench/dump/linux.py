"""What a Linux guest says about itself to programs that read its dumps: VMCOREINFO.

Documentation/admin-guide/kdump/vmcoreinfo.rst of Linux.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from workbench.trace.kallsyms import kernel_symbols
from workbench.trace.symbols import ram_ranges, spaces

if TYPE_CHECKING:
    from workbench.core.machine import Machine
    from workbench.core.pagewalk import Paging
    from workbench.trace.kallsyms import Symbol

__all__ = ["UTS_BYTES", "Kernel", "find_kernel"]

_MOST_BYTES: Final = 1 << 16
_START: Final = b"OSRELEASE="
UTS_BYTES: Final = 6 * 65  # struct new_utsname
_TEXT, _SIZE = "vmcoreinfo_data", "vmcoreinfo_size"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A running kernel: its text, and page tables that have all of its memory."""

    vmcoreinfo: bytes
    paging: Paging
    utsname: bytes = bytes(UTS_BYTES)
    """`struct new_utsname`: what `uname` says."""

    @property
    def release(self) -> str:
        """As `uname -r` says it."""
        line = self.vmcoreinfo.removeprefix(_START).partition(b"\n")[0][:64]
        return line.decode("ascii", "replace")

    def number(self, name: str, base: int = 10) -> int | None:
        """A number of the text, such as `KERNELOFFSET`."""
        for line in self.vmcoreinfo.split(b"\n"):
            key, _, value = line.partition(b"=")
            if key == name.encode():
                try:
                    return int(value[:24], base)
                except ValueError:
                    return None
        return None


def find_kernel(machine: Machine, symbols: Iterable[Symbol] | None = None) -> Kernel | None:
    """The kernel in memory; None if there is none, or if it has not written its text yet.

    `symbols` are its own, if they are known.
    """
    if symbols is None:
        symbols = kernel_symbols(machine.memory, ram_ranges(machine.memory))
    places = {name: at for at, _, name in symbols if name in (_TEXT, _SIZE)}
    if len(places) != 2:
        return None
    for space in spaces(machine):
        at, size = space.pointer(places[_TEXT]), space.pointer(places[_SIZE])
        if at is None or size is None or not 0 < size <= _MOST_BYTES:
            continue
        text = space.read(at, size)
        if text is not None and text.startswith(_START):
            found = Kernel(text, space.paging)
            uts = found.number("SYMBOL(init_uts_ns)", 16) or 0
            uts += found.number("OFFSET(uts_namespace.name)") or 0
            return replace(found, utsname=space.read(uts, UTS_BYTES) or found.utsname)
    return None

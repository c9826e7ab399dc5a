"""Dumps of the guest's memory at a moment, for gdb, crash, drgn and makedumpfile.

    dumped = dump.write(machine, "vmcore")
    print(dumped.text)

The form is that of QEMU's `dump-guest-memory`: an ELF core file of physical memory; with `paging`
linear addresses as well, so that gdb alone can read it; or kdump's compressed form.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench.core.layout import CR0_PG, EFER_LMA
from workbench.core.mappings import pieces
from workbench.core.pagewalk import Paging
from workbench.dump import elfcore
from workbench.dump.kdump import write_kdump
from workbench.dump.linux import Kernel, find_kernel
from workbench.dump.memory import ranges, write_plain
from workbench.dump.notes import notes
from workbench.errors import InputFileError, UsageError
from workbench.trace.export import written

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["Dumped", "write"]

MOST_SEGMENTS: Final = 1 << 18
FOUR_GIB: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Dumped:
    """What is in a dump."""

    path: str
    icount: int
    memory_bytes: int
    file_bytes: int
    """What it takes on the disk, without its holes; 0 where nobody knows."""
    segments: int
    """Pieces of linear addresses, 0 without paging."""
    release: str
    """Of the Linux kernel that the dump names; "" if there is none."""
    kernel_offset: int
    """How far that kernel was moved (KASLR): what its `vmlinux` needs in gdb."""

    @property
    def line(self) -> str:
        """A line for people."""
        parts = [f"{self.memory_bytes >> 20:,} MiB of memory at instruction {self.icount:,}"]
        if self.segments:
            parts.append(f"{self.segments:,} pieces of linear addresses")
        if self.file_bytes:
            parts.append(f"{self.file_bytes / 1e6:,.1f} MB on disk")
        parts.append(f"Linux {self.release}" if self.release else "no Linux kernel that has booted")
        return f"{self.path}: {', '.join(parts)}"

    @property
    def text(self) -> str:
        """The same, and how to open it where that is not said by the file alone."""
        line = self.line
        if self.segments and self.release:
            line += f"\nin gdb: core-file {self.path}"
            line += f"\n        symbol-file vmlinux -o {self.kernel_offset:#x}"
        return line


def write(
    machine: Machine,
    path: str | os.PathLike[str],
    *,
    paging: bool = False,
    compress: bool = False,
    new: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> Dumped:
    """Write a dump; it gets its name when it is complete. `progress` is told of each piece's bytes.

    new: a file that is there is not replaced.

    Raises `InputFileError` when the file cannot be written, `UsageError` for compressed linear
    addresses, which that form does not have.
    """
    if paging and compress:
        raise UsageError("expected paging or compress, not both: kdump's form has physical memory")
    if new and os.path.lexists(path):
        raise InputFileError(f"{path} exists: expected a new file")
    kernel = find_kernel(machine)
    cpu = machine.cpu
    long = bool(cpu.get("efer") & EFER_LMA)
    text = notes(cpu, long, None if kernel is None else kernel.vmcoreinfo)
    segments = _linear(machine, kernel) if paging else []
    with written(path) as file:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        if compress:
            if not regular:
                raise InputFileError(f"{path}: expected a file: compressed pages are not in order")
            write_kdump(machine, file, text, kernel, progress)
        else:
            physical = _physical(machine)
            wide = long or any(s.gpa + s.length > FOUR_GIB for s in physical)
            file.write(elfcore.headers(segments or physical, text, wide=wide, long=long))
            write_plain(machine, file, regular, progress)
        file.flush()
        size = os.fstat(file.fileno()).st_blocks * 512 if regular else 0
    return Dumped(
        str(Path(path)), machine.clock.icount, cpu.ram_bytes, size, len(segments),
        "" if kernel is None else kernel.release,
        0 if kernel is None else kernel.number("KERNELOFFSET", 16) or 0,
    )  # fmt: skip


def _physical(machine: Machine) -> list[elfcore.Segment]:
    """Ranges of RAM; without paging that is where the processor sees them, too."""
    flat = not machine.cpu.get("cr0") & CR0_PG
    out, at = [], 0
    for start, length in ranges(machine):
        out.append(elfcore.Segment(start if flat else 0, start, at, length))
        at += length
    return out


def _linear(machine: Machine, kernel: Kernel | None) -> list[elfcore.Segment]:
    """Pieces of linear addresses that are mapped to RAM, cut where its ranges end."""
    paging = Paging.of(machine.cpu) if kernel is None else kernel.paging
    places, out = _physical(machine), []
    for piece in pieces(paging, machine.cpu.read_phys):
        for part in places:
            start = max(piece.gpa, part.gpa)
            end = min(piece.gpa + piece.length, part.gpa + part.length)
            if start < end:
                linear = piece.start + start - piece.gpa
                out.append(elfcore.Segment(linear, start, part.at + start - part.gpa, end - start))
        if len(out) > MOST_SEGMENTS:
            raise InputFileError(
                f"expected page tables with at most {MOST_SEGMENTS:,} pieces of memory, not more:"
                " dump without paging"
            )
    return out

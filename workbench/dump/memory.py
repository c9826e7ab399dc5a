"""The pages of a guest's RAM, in pieces: what is all zero is not copied and becomes a hole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from workbench.trace.symbols import ram_ranges

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["PAGE", "Run", "ranges", "runs", "write_plain"]

PAGE: Final = 0x1000
_PIECE_BYTES: Final = 1 << 20
Run = tuple[int, int, bytes]
"""Guest-physical address, bytes, and what is there: nothing where all is zero."""


def ranges(machine: Machine) -> list[tuple[int, int]]:
    """Where RAM is: (guest-physical address, bytes), by address."""
    return ram_ranges(machine.memory)


def runs(machine: Machine, start: int, length: int) -> Iterator[Run]:
    """A range in order, at most 1 MiB at a time: whole pages of zeros, or data."""
    for gpa in range(start, start + length, _PIECE_BYTES):
        data = machine.cpu.read_phys(gpa, min(_PIECE_BYTES, start + length - gpa))
        pages = -(-len(data) // PAGE)
        words = np.frombuffer(data.ljust(pages * PAGE, b"\0"), dtype="<u8")
        used = np.atleast_1d(words.reshape(pages, PAGE // 8).any(axis=1))
        edges = [0, *(np.flatnonzero(used[1:] != used[:-1]) + 1).tolist(), pages]
        for first, end in itertools.pairwise(edges):
            piece = data[first * PAGE : end * PAGE]
            yield gpa + first * PAGE, len(piece), piece if used[first] else b""


def write_plain(
    machine: Machine, file: IO[bytes], sparse: bool, progress: Callable[[int], None]
) -> None:
    """All of RAM, one range after the other; `sparse` leaves holes for pages of zeros."""
    for start, length in ranges(machine):
        for _, size, data in runs(machine, start, length):
            if data:
                file.write(data)
            elif sparse:
                file.seek(size, 1)
            else:
                file.write(bytes(size))
            progress(size)
    if sparse:
        file.truncate()

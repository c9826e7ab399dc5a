"""An address space of device windows: port I/O or MMIO.

The bus traces and counts every access, gives all ones where nothing answers, and refuses windows
that overlap. Devices do none of that; they see only offsets in their window. An access that
crosses windows becomes one access to each.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from workbench.core.polls import Steady
from workbench.core.regs import RegBank, RegMap

__all__ = ["Bus", "OverlapError", "Tracer", "Window"]

_CACHE_LIMIT = 8192
UNMAPPED_LIMIT = 8192


class OverlapError(ValueError):
    """Two windows claim the same address."""


@runtime_checkable
class Polled(Protocol):
    """A register bank that is polled (see `Window`)."""

    def steady(self, offset: int, size: int) -> Steady | None:
        """What the register gives from now on."""


@dataclass(slots=True, eq=False)
class Window:
    """`size` addresses from `base` that belong to `device`; read and write get offsets.

    A device with a data port may offer blocks for string instructions: `read_block(offset, size,
    count)` gives the bytes of `count` reads of `size` bytes at one offset, `write_block(offset,
    size, data)` writes; None and False say that this register has to be accessed one by one.

    A device that is polled may say by `steady(offset, size)` what a register that was just read
    gives until something happens to the device, if reading it has no other effect; None: ask again.
    """

    name: str
    device: str
    base: int
    size: int
    read: Callable[[int, int], int]
    write: Callable[[int, int, int], None]
    regmap: RegMap | None = None
    reads: int = field(default=0, repr=False)
    writes: int = field(default=0, repr=False)
    read_block: Callable[[int, int, int], bytes | None] | None = field(default=None, repr=False)
    write_block: Callable[[int, int, bytes], bool] | None = field(default=None, repr=False)
    steady: Callable[[int, int], Steady | None] | None = field(default=None, repr=False)

    @property
    def end(self) -> int:
        """First address after the window."""
        return self.base + self.size

    @classmethod
    def of(
        cls,
        bank: RegBank[Any],
        device: str,
        base: int,
        *,
        name: str = "",
        size: int = 0,
        start: int = 0,
    ) -> Window:
        """The window of a register bank; name and size default to those of its map.

        `start` is the offset in the map that `base` shows, for a bank whose registers lie apart.
        """
        size = size or bank.map.length - start
        if not start:
            window = cls(name or bank.map.name, device, base, size, bank.read, bank.write, bank.map)
            window.steady = bank.steady if isinstance(bank, Polled) else None
            return window

        def read(offset: int, count: int) -> int:
            return bank.read(offset + start, count)

        def write(offset: int, count: int, value: int) -> None:
            bank.write(offset + start, count, value)

        regmap = bank.map.part(start, size)
        return cls(name or regmap.name, device, base, size, read, write, regmap)


Tracer = Callable[[Window | None, int, int, bool, int], None]


class Bus:
    """Windows by address. `tracer(window, addr, size, is_write, value)` is called after each
    access, exactly once.
    """

    def __init__(self, name: str, size: int = 1 << 64) -> None:
        self.name = name
        self.size = size
        self.tracer: Tracer | None = None
        self.unmapped: dict[int, int] = {}
        self._windows: list[Window] = []
        self._cache: dict[int, Window | None] = {}

    @property
    def windows(self) -> tuple[Window, ...]:
        """All windows in order of address."""
        return tuple(self._windows)

    def map(self, window: Window) -> None:
        """Add a window. Raises OverlapError, which names both owners, and ValueError outside the
        address space.
        """
        if window.size < 1 or window.base < 0 or window.end > self.size:
            raise ValueError(
                f"{self.name}: expected a window inside {self.size:#x} bytes, "
                f"not {window.device}.{window.name} at {window.base:#x}+{window.size:#x}"
            )
        other = self.overlapping(window.base, window.size)
        if other is not None:
            mine = f"{window.device}.{window.name} at {window.base:#x}..{window.end - 1:#x}"
            theirs = f"{other.device}.{other.name} at {other.base:#x}..{other.end - 1:#x}"
            raise OverlapError(f"{self.name}: {mine} overlaps {theirs}")
        insort(self._windows, window, key=_base)
        self._cache.clear()

    def unmap(self, window: Window) -> None:
        """Remove a window that is mapped."""
        for i, other in enumerate(self._windows):
            if other is window:
                del self._windows[i]
                self._cache.clear()
                return
        raise ValueError(
            f"{self.name}: expected a mapped window, not {window.device}.{window.name}"
        )

    def is_mapped(self, window: Window) -> bool:
        """Whether this very window is in place."""
        return any(w is window for w in self._windows)

    def overlapping(self, base: int, size: int) -> Window | None:
        """The first window that has an address in `base .. base+size-1`."""
        at = bisect_right(self._windows, base, key=_base)
        if at and self._windows[at - 1].end > base:
            return self._windows[at - 1]
        if at < len(self._windows) and self._windows[at].base < base + size:
            return self._windows[at]
        return None

    def find(self, addr: int) -> Window | None:
        """The window at an address."""
        try:
            return self._cache[addr]
        except KeyError:
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            window = self._cache[addr] = self.overlapping(addr, 1)
            return window

    def read(self, addr: int, size: int) -> int:
        """Read `size` bytes (1, 2, 4, 8) at `addr`; all ones where there is no window."""
        window = self._cache.get(addr) or self.find(addr)
        if window is not None and addr + size <= window.base + window.size:
            value = window.read(addr - window.base, size)
            window.reads += 1
        else:
            after = self._cut(window, addr, size)
            if after < size:
                low = self.read(addr, after)
                return low | self.read(addr + after, size - after) << 8 * after
            value = (1 << 8 * size) - 1
            self._nobody(addr)
        if self.tracer is not None:
            self.tracer(window, addr, size, False, value)
        return value

    def write(self, addr: int, size: int, value: int) -> None:
        """Write `size` bytes at `addr`; without effect where there is no window."""
        window = self._cache.get(addr) or self.find(addr)
        if window is not None and addr + size <= window.base + window.size:
            window.write(addr - window.base, size, value)
            window.writes += 1
        else:
            after = self._cut(window, addr, size)
            if after < size:
                self.write(addr, after, value & ((1 << 8 * after) - 1))
                self.write(addr + after, size - after, value >> 8 * after)
                return
            self._nobody(addr)
        if self.tracer is not None:
            self.tracer(window, addr, size, True, value)

    def _nobody(self, addr: int) -> None:
        """Count an access to which nobody answers; a guest that goes everywhere is not counted
        everywhere.
        """
        count = self.unmapped.get(addr, 0)
        if count or len(self.unmapped) < UNMAPPED_LIMIT:
            self.unmapped[addr] = count + 1

    def _cut(self, window: Window | None, addr: int, size: int) -> int:
        """Bytes from `addr` that belong to one owner (or to none), at most `size`."""
        if window is not None:
            return min(size, window.end - addr)
        following = self.overlapping(addr, size)
        return size if following is None else following.base - addr


def _base(window: Window) -> int:
    return window.base

"""Stops at what devices do: an observer that compares each event with what is watched."""

from __future__ import annotations

from dataclasses import dataclass, field

from workbench.core.machine import Machine, Observer


@dataclass(frozen=True, slots=True)
class DeviceWatch:
    """Accesses to stop at: a place in a device, a direction, bits of the value."""

    device: str
    offset: int
    size: int
    reads: bool
    writes: bool
    mask: int
    value: int | None
    text: str

    def matches(self, device: str, offset: int, size: int, is_write: bool, value: int) -> bool:
        """Is this access watched? Without a value any bit of the mask will do."""
        if device != self.device or not (self.writes if is_write else self.reads):
            return False
        if offset >= self.offset + self.size or offset + size <= self.offset:
            return False
        shift = 8 * (offset - self.offset)
        seen = (value << shift if shift >= 0 else value >> -shift) & self.mask
        return bool(seen) if self.value is None else seen == self.value & self.mask


@dataclass(frozen=True, slots=True)
class DmaWatch:
    """Transfers to stop at: what a device writes into guest-physical addresses."""

    gpa: int
    length: int
    text: str


@dataclass(slots=True)
class WatchLog(Observer):
    """Notes accesses that are watched; it is an observer only while there are any."""

    machine: Machine
    watches: list[DeviceWatch] = field(default_factory=list)
    transfers: list[DmaWatch] = field(default_factory=list)
    stopping: bool = True
    last: tuple[int, DeviceWatch | DmaWatch] | None = None

    def on_access(
        self,
        kind: str,
        device: str,
        offset: int,
        size: int,
        is_write: bool,
        value: int,
        addr: int,
        icount: int,
        pc: int,
        count: int = 1,
    ) -> None:
        """Compare an access with the list."""
        for watch in self.watches:
            if watch.matches(device, offset, size, is_write, value):
                self._hit(icount, watch)

    def on_dma(self, device: str, gpa: int, length: int, is_write: bool, icount: int) -> None:
        """Compare a transfer with the list."""
        for watch in self.transfers:
            if is_write and gpa < watch.gpa + watch.length and watch.gpa < gpa + length:
                self._hit(icount, watch)

    def _hit(self, icount: int, watch: DeviceWatch | DmaWatch) -> None:
        self.last = (icount, watch)
        if self.stopping:
            self.machine.interrupt()

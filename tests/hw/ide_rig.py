"""A PIIX3 IDE function on a bus with memory, and the guest's side of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from workbench.block.errors import DiskError
from workbench.core.bus import Bus
from workbench.core.clock import Clock
from workbench.core.irq import IrqLine
from workbench.hw.ata.ata import AtaDisk
from workbench.hw.ata.atapi import AtapiDrive
from workbench.hw.ata.drive import Drive
from workbench.hw.pci_root import PciRoot
from workbench.hw.piix_ide import PiixIde

RAM_BYTES = 1 << 20
BM = 0xC000
BSY, DRDY, DSC, DRQ, ERR = 0x80, 0x40, 0x10, 0x08, 0x01
SECOND_S = 10**12


class MemoryDisk:
    """Sectors in memory, with what was asked of them."""

    def __init__(self, sectors: int, seed: int | None = None, *, read_only: bool = False) -> None:
        self.sectors = sectors
        self.read_only = read_only
        self.data = bytearray(
            sectors * 512 if seed is None else random.Random(seed).randbytes(sectors * 512)
        )
        self.calls: list[tuple[Any, ...]] = []
        self.bad: set[int] = set()

    def read(self, lba: int, count: int) -> bytes:
        assert count > 0
        assert 0 <= lba <= lba + count <= self.sectors, (lba, count)
        if self.bad.intersection(range(lba, lba + count)):
            raise DiskError("a bad sector")
        return bytes(self.data[lba * 512 : (lba + count) * 512])

    def write(self, lba: int, data: bytes) -> None:
        assert data
        assert len(data) % 512 == 0
        assert not self.read_only
        assert lba >= 0
        assert lba * 512 + len(data) <= len(self.data)
        self.calls.append(("write", lba, len(data) // 512))
        self.data[lba * 512 : lba * 512 + len(data)] = data

    def flush(self) -> None:
        self.calls.append(("flush",))

    def discard(self, lba: int, count: int) -> None:
        assert lba >= 0
        assert lba + count <= self.sectors
        self.calls.append(("discard", lba, count))
        self.data[lba * 512 : (lba + count) * 512] = bytes(count * 512)


class IdeRig:
    """By default disk 0 of 8,192 sectors and a CD-ROM of 64 blocks as master of channel 1."""

    def __init__(self, channels: Sequence[Sequence[Drive | None]] | None = None) -> None:
        self.clock = Clock()
        self.pio, self.mmio = Bus("pio", 1 << 16), Bus("mmio", 1 << 40)
        self.ram = bytearray(RAM_BYTES)
        self.edges: list[tuple[int, bool]] = []
        self.dma: list[tuple[int, int, bool]] = []
        self.disk, self.iso = MemoryDisk(8192, 1), MemoryDisk(256, 2)
        if channels is None:
            channels = (
                (AtaDisk("drive0", self.disk), None),
                (AtapiDrive("cd0", self.iso), None),
            )
        self.lines = tuple(
            IrqLine(f"IRQ{n}", lambda level, n=n: self.edges.append((n, level))) for n in (14, 15)
        )
        self.root = PciRoot(
            self.pio,
            self.mmio,
            memory_read=self._load,
            memory_write=self._store,
            pirq=lambda n, level: None,
        )
        self.root.trace_dma = lambda device, gpa, n, write: self.dma.append((gpa, n, write))
        self.ide = PiixIde(channels, self.clock, (self.lines[0], self.lines[1]))
        self.root.add(self.ide, 1, 1)
        self.power_up()

    def power_up(self) -> None:
        """As firmware does."""
        self.ide.write(0x20, 4, BM)
        self.ide.write(0x04, 2, 5)
        self.ide.post()

    def _load(self, gpa: int, n: int) -> bytes:
        assert n >= 0
        return bytes(self.ram[gpa : gpa + n]).ljust(n, b"\xff")

    def _store(self, gpa: int, data: bytes) -> None:
        inside = data[: max(0, len(self.ram) - gpa)]
        self.ram[gpa : gpa + len(inside)] = inside

    # -- the driver ------------------------------------------------------------------------------

    def base(self, channel: int) -> int:
        return (0x1F0, 0x170)[channel]

    def control(self, value: int, channel: int = 0) -> None:
        self.pio.write((0x3F6, 0x376)[channel], 1, value)

    def alternate(self, channel: int = 0) -> int:
        return self.pio.read((0x3F6, 0x376)[channel], 1)

    def reg(self, offset: int, channel: int = 0) -> int:
        return self.pio.read(self.base(channel) + offset, 1)

    def status(self, channel: int = 0) -> int:
        return self.reg(7, channel)

    def put(self, offset: int, value: int, channel: int = 0) -> None:
        self.pio.write(self.base(channel) + offset, 1, value)

    def command(
        self, code: int, lba: int = 0, count: int = 1, *, features: int = 0, ext: bool = False,
        channel: int = 0, device: int = 0xE0,
    ) -> None:  # fmt: skip
        """Write the task file."""
        if ext:
            self.put(2, count >> 8, channel)
            for n in range(3):
                self.put(3 + n, lba >> 24 + 8 * n & 0xFF, channel)
        else:
            device |= lba >> 24 & 0xF
        self.put(1, features, channel)
        self.put(2, count & 0xFF, channel)
        for n in range(3):
            self.put(3 + n, lba >> 8 * n & 0xFF, channel)
        self.put(6, device, channel)
        self.put(7, code, channel)

    def step(self) -> bool:
        """Go to the next moment at which a timer fires."""
        due = self.clock.next_ps
        if due is None:
            return False
        self.clock.skip_to(due)
        self.clock.run_due()
        return True

    def wait(self, channel: int = 0) -> int:
        """Until the channel is not busy; the status, read from Alternate Status."""
        for _ in range(100):
            if not self.alternate(channel) & BSY:
                break
            assert self.step(), "busy for ever"
        return self.alternate(channel)

    def pio_in(self, size: int = 2, channel: int = 0, block: int = 512) -> bytes:
        """One block of data."""
        base = self.base(channel)
        words = [self.pio.read(base, size).to_bytes(size, "little") for _ in range(block // size)]
        return b"".join(words)

    def pio_out(self, data: bytes, size: int = 2, channel: int = 0) -> None:
        for at in range(0, len(data), size):
            self.pio.write(self.base(channel), size, int.from_bytes(data[at : at + size], "little"))

    def table(self, *entries: tuple[int, int], at: int = 0x1000, end: bool = True) -> None:
        """A descriptor table of (gpa, bytes)."""
        for n, (gpa, length) in enumerate(entries):
            last = end and n == len(entries) - 1
            word = length & 0xFFFF | (1 << 31 if last else 0)
            self.ram[at + 8 * n : at + 8 * n + 8] = gpa.to_bytes(4, "little") + word.to_bytes(
                4, "little"
            )

    def start(self, channel: int = 0, *, to_memory: bool = True, at: int = 0x1000) -> None:
        port = BM + 8 * channel
        self.pio.write(port + 4, 4, at)
        self.pio.write(port + 2, 1, 6)
        self.pio.write(port, 1, 9 if to_memory else 1)

    def bmis(self, channel: int = 0) -> int:
        return self.pio.read(BM + 8 * channel + 2, 1) & 7

    def packet(self, *data: int, dma: bool = False, limit: int = 2048) -> int:
        """Send a packet to the CD-ROM; the status when it is not busy any more."""
        self.command(0xA0, lba=limit << 8, count=0, features=int(dma), channel=1, device=0xA0)
        assert self.wait(1) == DRDY | DSC | DRQ
        assert self.reg(2, 1) == 1
        self.pio_out(bytes(data).ljust(12, b"\0"), channel=1)
        return self.wait(1)

    def packet_in(self, *data: int, limit: int = 2048) -> bytes:
        """Send a packet and take its data by PIO."""
        status = self.packet(*data, limit=limit)
        out = b""
        while status & DRQ:
            assert self.reg(2, 1) == 2
            length = self.reg(4, 1) | self.reg(5, 1) << 8
            assert self.status(1) & DRQ
            out += self.pio_in(channel=1, block=length + (length & 1))[:length]
            status = self.wait(1)
        assert status == DRDY | DSC, hex(status)
        assert self.reg(2, 1) == 3
        return out

    def sense(self) -> int:
        data = self.packet_in(0x03, 0, 0, 0, 18)
        return (data[2] & 0xF) << 16 | data[12] << 8 | data[13]

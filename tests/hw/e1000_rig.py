"""An 82540EM on a bus with memory, and the guest's side of it: rings, descriptors, interrupts."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from workbench.core.bus import Bus
from workbench.core.clock import Clock
from workbench.hw.e1000.e1000 import E1000
from workbench.hw.e1000.mac import LINK_PS, MAP
from workbench.hw.pci_root import PciRoot
from workbench.net.port import Large

MAC = bytes.fromhex("525400123456")
OTHER = bytes.fromhex("525400abcdef")
BROADCAST = b"\xff" * 6
RAM_BYTES = 1 << 22
BAR0, IO = 0xE000_0000, 0xC000
TX_RING, RX_RING, TX_DATA, RX_DATA = 0x1_0000, 0x2_0000, 0x10_0000, 0x20_0000
RING = 16
SLOT_BYTES = 0x4000
US_PS = 1_000_000

EOP, IFCS, RS, IDE = 1 << 24, 1 << 25, 1 << 27, 1 << 31
IC, TSE, DEXT, VLE = 1 << 26, 1 << 26, 1 << 29, 1 << 30
DATA, CONTEXT = DEXT | 1 << 20, DEXT


class FakePort:
    """The other end of the cable."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.large: list[Large] = []
        self.receiver: Callable[[str, Sequence[bytes]], None] = lambda kind, data: None

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def send_large(self, large: Large) -> None:
        self.large.append(large)
        for frame in large.cut():
            self.send(frame)

    def connect(self, receiver: Callable[[str, Sequence[bytes]], None]) -> None:
        self.receiver = receiver


class NicRig:
    """The controller in slot 3, its link up, bus mastering on."""

    def __init__(self, *, link: bool = True) -> None:
        self.clock = Clock()
        self.ram = bytearray(RAM_BYTES)
        self.edges: list[bool] = []
        self.port = FakePort()
        self.mmio = Bus("mmio", 1 << 40)
        self.pio = Bus("pio", 1 << 16)
        self.root = root = PciRoot(
            self.pio,
            self.mmio,
            memory_read=self._memory_read,
            memory_write=self._memory_write,
            pirq=lambda number, level: self.edges.append(level),
        )
        self.nic = E1000(self.clock, "net0", MAC, self.port)
        root.add(self.nic, 3)
        self.nic.write(0x10, 4, BAR0)
        self.nic.write(0x18, 4, IO)
        self.nic.write(0x04, 2, 7)
        assert self.nic.mac is not None
        self.mac = self.nic.mac
        if link:
            self.set("CTRL", 0x241)
            self.advance(LINK_PS)
            self.get("ICR")
        self.edges.clear()

    def _memory_read(self, gpa: int, length: int) -> bytes:
        data = bytes(self.ram[gpa : gpa + length]) if gpa < RAM_BYTES else b""
        return data + b"\xff" * (length - len(data))

    def _memory_write(self, gpa: int, data: bytes) -> None:
        if gpa + len(data) <= RAM_BYTES:
            self.ram[gpa : gpa + len(data)] = data

    # -- registers and time

    def get(self, name: str) -> int:
        return self.mmio.read(BAR0 + MAP[name].offset, 4)

    def set(self, name: str, value: int) -> None:
        self.mmio.write(BAR0 + MAP[name].offset, 4, value & 0xFFFF_FFFF)

    def advance(self, ps: int) -> None:
        """Let time pass, from deadline to deadline."""
        end = self.clock.now_ps + ps
        while True:
            due = self.clock.next_ps
            if due is None or due > end:
                break
            self.clock.skip_to(due)
            self.clock.run_due()
        self.clock.skip_to(end)

    @property
    def line(self) -> bool:
        return self.edges[-1] if self.edges else False

    # -- transmit

    def start_tx(self, count: int = RING) -> None:
        self.set("TDBAL", TX_RING)
        self.set("TDBAH", 0)
        self.set("TDLEN", count * 16)
        self.set("TDH", 0)
        self.set("TDT", 0)
        self.set("TCTL", 0x0004_00FA)

    def put(self, low: int, high: int, data: bytes = b"", address: int | None = None) -> int:
        """One descriptor at the tail (TDT is not written); gives its index."""
        tail = self.get("TDT") + getattr(self, "_queued", 0)
        index = tail % (self.get("TDLEN") >> 4)
        if address is None:
            address = TX_DATA + index * SLOT_BYTES * 4
            self.ram[address : address + len(data)] = data
            low |= len(data)
        raw = struct.pack("<QII", address, low, high)
        self.ram[TX_RING + 16 * index : TX_RING + 16 * index + 16] = raw
        self._queued = getattr(self, "_queued", 0) + 1
        return index

    def go(self, wait_us: int = 5000) -> list[bytes]:
        """Write TDT; gives the frames that came out."""
        tail = (self.get("TDT") + self._queued) % (self.get("TDLEN") >> 4)
        self._queued = 0
        before = len(self.port.sent)
        self.set("TDT", tail)
        self.advance(wait_us * US_PS)
        return self.port.sent[before:]

    def context(self, address: int, low: int, high: int) -> None:
        self.put(CONTEXT | low, high, address=address)

    def tx_status(self, index: int) -> int:
        return self.ram[TX_RING + 16 * index + 12]

    # -- receive

    def start_rx(self, rctl: int = 0x8002, count: int = RING, tail: int | None = None) -> None:
        for n in range(count):
            raw = struct.pack("<QQ", RX_DATA + n * SLOT_BYTES, 0)
            self.ram[RX_RING + 16 * n : RX_RING + 16 * n + 16] = raw
        self.set("RDBAL", RX_RING)
        self.set("RDBAH", 0)
        self.set("RDLEN", count * 16)
        self.set("RDH", 0)
        self.set("RDT", count - 1 if tail is None else tail)
        self.set("RCTL", rctl)

    def arrive(self, *frames: bytes) -> None:
        """Frames that come at once."""
        self.port.receiver("frame", frames)

    def rx(self, index: int) -> tuple[bytes, int, int, int, int]:
        """Data, checksum, status, errors and special field of a receive descriptor."""
        address, length, checksum, status, errors, special = struct.unpack_from(
            "<QHHBBH", self.ram, RX_RING + 16 * index
        )
        return bytes(self.ram[address : address + length]), checksum, status, errors, special

    def accepted(self, frame: bytes) -> bool:
        """Does a frame come through the filters?"""
        before = self.get("RDH")
        self.arrive(frame)
        after = self.get("RDH")
        self.set("RDT", (after - 1) % RING)
        return after != before


def ethernet(
    payload: bytes = bytes(50), to: bytes = MAC, source: bytes = OTHER, kind: int = 0x88B5
) -> bytes:
    """A frame without FCS."""
    return to + source + kind.to_bytes(2, "big") + payload

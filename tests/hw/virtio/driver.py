"""The driver's side of virtio: rings in memory, and initialization over PCI and MMIO."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from workbench.core.bus import Bus
from workbench.core.clock import Clock
from workbench.core.irq import IrqLine
from workbench.hw.pci_root import PciRoot
from workbench.hw.virtio import mmio as vmmio
from workbench.hw.virtio import pci as vpci
from workbench.hw.virtio.mmio import SystemMemory, VirtioMmio
from workbench.hw.virtio.pci import VirtioPci
from workbench.hw.virtio.spec import (
    DRIVER_OK,
    F_EVENT_IDX,
    F_RING_PACKED,
    F_VERSION_1,
    FEATURES_OK,
)

RAM_BYTES = 4 << 20
NEXT, WRITE, INDIRECT, AVAIL, USED = 1, 2, 4, 1 << 7, 1 << 15
IO_BASE, MSIX_BASE, MODERN_BASE = 0xC000, 0xF000_0000, 0xF001_0000


class Ram:
    """Memory with an allocator."""

    def __init__(self):
        self.data = bytearray(RAM_BYTES)
        self.allowed = True
        self.top = 0x1000

    def contains(self, gpa, length):
        return gpa >= 0 and gpa + length <= RAM_BYTES

    def read(self, gpa, length):
        assert self.contains(gpa, length), (gpa, length)
        return bytes(self.data[gpa : gpa + length])

    def write(self, gpa, data):
        assert self.contains(gpa, len(data)), (gpa, len(data))
        self.data[gpa : gpa + len(data)] = data

    def allocate(self, length, align=16):
        at = -(-self.top // align) * align
        self.top = at + length
        assert self.top <= RAM_BYTES
        return at

    def put(self, data):
        at = self.allocate(max(len(data), 1))
        self.write(at, data)
        return at


@dataclass
class Done:
    """A buffer that came back."""

    written: int
    data: bytes


@dataclass
class _Buffer:
    spans: list[tuple[int, int]]
    slots: list[int] = field(default_factory=list)


class SplitRing:
    """A split ring as a driver has it."""

    def __init__(self, ram, size, *, indirect=False, event_idx=False, place=None):
        self.ram, self.size, self.indirect, self.event_idx = ram, size, indirect, event_idx
        if place is None:
            self.desc = ram.allocate(16 * size)
            self.driver = ram.allocate(6 + 2 * size)
            self.device = ram.allocate(6 + 8 * size)
        else:
            self.desc, self.driver, self.device = place
        self.free = list(range(size))
        self.buffers = {}
        self.avail = self.used = 0

    def add(self, outgoing=(), incoming=()):
        spans = [(self.ram.put(data), len(data), 0) for data in outgoing]
        inside = [(self.ram.allocate(max(n, 1)), n) for n in incoming]
        spans += [(gpa, n, WRITE) for gpa, n in inside]
        return self.add_raw(spans, inside)

    def add_raw(self, spans, inside=()):
        if self.indirect:
            table = b"".join(
                struct.pack("<QIHH", gpa, n, flags | (NEXT if i + 1 < len(spans) else 0), i + 1)
                for i, (gpa, n, flags) in enumerate(spans)
            )
            spans = [(self.ram.put(table), len(table), INDIRECT)]
        slots = [self.free.pop(0) for _ in spans]
        for i, (gpa, n, flags) in enumerate(spans):
            last = i + 1 == len(spans)
            self.set_desc(
                slots[i], gpa, n, flags | (0 if last else NEXT), 0 if last else slots[i + 1]
            )
        self.buffers[slots[0]] = _Buffer(list(inside), slots)
        self.publish(slots[0])
        return slots[0]

    def set_desc(self, index, gpa, length, flags, after=0):
        self.ram.write(self.desc + 16 * index, struct.pack("<QIHH", gpa, length, flags, after))

    def publish(self, head):
        at = self.driver + 4 + 2 * (self.avail % self.size)
        self.ram.write(at, struct.pack("<H", head & 0xFFFF))
        self.avail = self.avail + 1 & 0xFFFF
        self.ram.write(self.driver + 2, struct.pack("<H", self.avail))

    def collect(self):
        result = []
        while self.used != struct.unpack("<H", self.ram.read(self.device + 2, 2))[0]:
            at = self.device + 4 + 8 * (self.used % self.size)
            head, written = struct.unpack("<II", self.ram.read(at, 8))
            result.append(_done(self.ram, self.buffers.pop(head), written, self.free))
            self.used = self.used + 1 & 0xFFFF
        if self.event_idx:
            self.ram.write(self.driver + 4 + 2 * self.size, struct.pack("<H", self.used))
        return result

    def wants_kick(self, old):
        if self.event_idx:
            at = self.device + 4 + 8 * self.size
            event = struct.unpack("<H", self.ram.read(at, 2))[0]
            return self.avail - event - 1 & 0xFFFF < self.avail - old & 0xFFFF
        return not self.ram.read(self.device, 2)[0] & 1

    def no_interrupts(self):
        self.ram.write(self.driver, b"\1\0")


class PackedRing:
    """A packed ring as a driver has it."""

    def __init__(self, ram, size, *, indirect=False, event_idx=False):
        self.ram, self.size, self.indirect, self.event_idx = ram, size, indirect, event_idx
        self.desc = ram.allocate(16 * size)
        self.driver = ram.allocate(4)
        self.device = ram.allocate(4)
        self.buffers = {}
        self.next, self.wrap = 0, True
        self.used, self.used_wrap = 0, True
        self.id = 0

    def add(self, outgoing=(), incoming=()):
        spans = [(self.ram.put(data), len(data), 0) for data in outgoing]
        inside = [(self.ram.allocate(max(n, 1)), n) for n in incoming]
        spans += [(gpa, n, WRITE) for gpa, n in inside]
        return self.add_raw(spans, inside)

    def add_raw(self, spans, inside=()):
        if self.indirect:
            table = b"".join(struct.pack("<QIHH", gpa, n, 0, flags) for gpa, n, flags in spans)
            spans = [(self.ram.put(table), len(table), INDIRECT)]
        self.id += 1
        for i, (gpa, n, flags) in enumerate(spans):
            flags |= NEXT if i + 1 < len(spans) else 0
            self.set_desc(self.next, gpa, n, flags | (AVAIL if self.wrap else USED), self.id)
            self.next += 1
            if self.next == self.size:
                self.next, self.wrap = 0, not self.wrap
        self.buffers[self.id] = _Buffer(list(inside), [0] * len(spans))
        return self.id

    def set_desc(self, index, gpa, length, flags, buffer_id=0):
        self.ram.write(self.desc + 16 * index, struct.pack("<QIHH", gpa, length, buffer_id, flags))

    def collect(self):
        result = []
        while True:
            raw = self.ram.read(self.desc + 16 * self.used, 16)
            _, written, buffer_id, flags = struct.unpack("<QIHH", raw)
            if bool(flags & AVAIL) != self.used_wrap or bool(flags & USED) != self.used_wrap:
                break
            if buffer_id not in self.buffers:
                break
            buffer = self.buffers.pop(buffer_id)
            result.append(_done(self.ram, buffer, written, []))
            self.used += len(buffer.slots)
            if self.used >= self.size:
                self.used, self.used_wrap = self.used - self.size, not self.used_wrap
        if self.event_idx:
            event = self.used | self.used_wrap << 15
            self.ram.write(self.driver, struct.pack("<HH", event, 2))
        return result

    def no_interrupts(self):
        self.ram.write(self.driver, struct.pack("<HH", 0, 1))


def _done(ram, buffer, written, free):
    free.extend(buffer.slots)
    data = b"".join(ram.read(gpa, n) for gpa, n in buffer.spans)
    return Done(written, data)


class Rig:
    """A PCI bus with one virtio device, and its driver."""

    def __init__(self, make, **transport):
        """`make(clock)` gives the device."""
        self.ram = Ram()
        self.clock = Clock()
        self.pio, self.mmio = Bus("pio", 1 << 16), Bus("mmio", 1 << 40)
        self.msis = []
        self.levels = []
        self.root = PciRoot(
            self.pio,
            self.mmio,
            memory_read=self.ram.read,
            memory_write=self.ram.write,
            pirq=lambda n, level: self.levels.append(level),
        )
        self.root.is_memory = self.ram.contains
        self.root.msi = lambda address, data: self.msis.append(data)
        self.device = make(self.clock)
        self.function = VirtioPci(self.device, **transport)
        self.root.add(self.function, 4)
        for bar, base in ((0, IO_BASE), (1, MSIX_BASE), (4, MODERN_BASE)):
            self.function.write(0x10 + 4 * bar, 4, base)
        self.function.write(4, 2, 7)
        self.rings = []
        self.features = 0

    # -- registers

    def get(self, reg):
        return self.mmio.read(MODERN_BASE + reg.offset, reg.size)

    def set(self, reg, value):
        self.mmio.write(MODERN_BASE + reg.offset, reg.size, value)

    def config(self, offset, size):
        return self.mmio.read(MODERN_BASE + vpci.DEVICE_AT + offset, size)

    def io(self, reg, value=None):
        if value is None:
            return self.pio.read(IO_BASE + reg.offset, reg.size)
        self.pio.write(IO_BASE + reg.offset, reg.size, value)
        return None

    @property
    def status(self):
        return self.get(vpci.DEVICE_STATUS)

    @property
    def needs_reset(self):
        return bool(self.status & 0x40)

    # -- initialization

    def offered(self):
        value = 0
        for n in range(2):
            self.set(vpci.DEVICE_FEATURE_SELECT, n)
            value |= self.get(vpci.DEVICE_FEATURE) << 32 * n
        return value

    def accept(self, features):
        for n in range(2):
            self.set(vpci.DRIVER_FEATURE_SELECT, n)
            self.set(vpci.DRIVER_FEATURE, features >> 32 * n & 0xFFFF_FFFF)
        self.set(vpci.DEVICE_STATUS, 3 | FEATURES_OK)
        self.features = features
        return bool(self.status & FEATURES_OK)

    def msix(self):
        vectors = len(self.device.queue_sizes) + 1
        for n in range(vectors):
            for at, value in ((0, 0xFEE0_0000), (4, 0), (8, 0x40 + n), (12, 0)):
                self.mmio.write(MSIX_BASE + 16 * n + at, 4, value)
        self.function.write(0x9A, 2, 0x8000)

    def start(self, features=0, *, sizes=None, indirect=False, msix=True):
        """Modern initialization; `features` besides VERSION_1."""
        if msix:
            self.msix()
        self.set(vpci.DEVICE_STATUS, 0)
        self.set(vpci.DEVICE_STATUS, 3)
        assert self.accept(features | F_VERSION_1)
        kind = PackedRing if features & F_RING_PACKED else SplitRing
        self.rings = []
        self.set(vpci.CONFIG_MSIX_VECTOR, 0)
        for n, most in enumerate(self.device.queue_sizes):
            size = min(most, sizes or 16)
            ring = kind(self.ram, size, indirect=indirect, event_idx=bool(features & F_EVENT_IDX))
            self.place(n, ring, size)
            self.set(vpci.QUEUE_ENABLE, 1)
            self.rings.append(ring)
        self.set(vpci.DEVICE_STATUS, 3 | FEATURES_OK | DRIVER_OK)
        return self

    def place(self, n, ring, size):
        self.set(vpci.QUEUE_SELECT, n)
        self.set(vpci.QUEUE_SIZE, size)
        self.set(vpci.QUEUE_MSIX_VECTOR, n + 1)
        for i, gpa in enumerate((ring.desc, ring.driver, ring.device)):
            self.set(vpci.QUEUE_PARTS[2 * i], gpa & 0xFFFF_FFFF)
            self.set(vpci.QUEUE_PARTS[2 * i + 1], gpa >> 32)

    def start_legacy(self, features=0):
        """Legacy initialization, with INTx."""
        self.io(vpci.L_DEVICE_STATUS, 0)
        self.io(vpci.L_DEVICE_STATUS, 3)
        self.io(vpci.L_DRIVER_FEATURES, features)
        self.features = features
        self.rings = []
        for n in range(len(self.device.queue_sizes)):
            self.io(vpci.L_QUEUE_SELECT, n)
            size = self.io(vpci.L_QUEUE_SIZE)
            base = self.ram.allocate(0x4000, 4096)
            place = vpci.legacy_layout(size, base)
            self.rings.append(
                SplitRing(self.ram, size, event_idx=bool(features & F_EVENT_IDX), place=place)
            )
            self.io(vpci.L_QUEUE_ADDRESS, base >> 12)
        self.io(vpci.L_DEVICE_STATUS, 3 | DRIVER_OK)
        return self

    # -- work

    def kick(self, n=0):
        self.mmio.write(MODERN_BASE + vpci.NOTIFY_AT + 4 * n, 2, n)

    def wait(self, ps=10**12):
        """Let guest time pass, at most `ps`."""
        end = self.clock.now_ps + ps
        for _ in range(10_000):
            due = self.clock.next_ps
            if due is None or due > end:
                return
            self.clock.skip_to(due)
            self.clock.run_due()
        raise AssertionError("timers do not end")

    def request(self, outgoing=(), incoming=(), n=0):
        """One buffer there and back."""
        self.rings[n].add(outgoing, incoming)
        self.kick(n)
        self.wait()
        (done,) = self.rings[n].collect()
        return done


class MmioRig:
    """The same over the MMIO transport."""

    def __init__(self, make, *, legacy=False):
        self.ram = Ram()
        self.clock = Clock()
        self.levels = []
        self.device = make(self.clock)
        memory = SystemMemory("m", self.ram.read, self.ram.write, self.ram.contains)
        line = IrqLine("irq", self.levels.append)
        self.transport = VirtioMmio(self.device, memory, line, base=0x1000, legacy=legacy)
        self.bus = Bus("mmio", 1 << 32)
        for window in self.transport.windows():
            self.bus.map(window)
        self.rings = []

    def get(self, reg):
        return self.bus.read(0x1000 + reg.offset, reg.size)

    def set(self, reg, value):
        self.bus.write(0x1000 + reg.offset, reg.size, value)

    def start(self, features=0):
        legacy = self.transport.legacy
        if legacy:
            self.set(vmmio.GUEST_PAGE_SIZE, 4096)  # before the reset, as Linux does
        self.set(vmmio.STATUS, 0)
        self.set(vmmio.STATUS, 3)
        wanted = features if legacy else features | F_VERSION_1
        for n in range(1 if legacy else 2):
            self.set(vmmio.DRIVER_FEATURES_SEL, n)
            self.set(vmmio.DRIVER_FEATURES, wanted >> 32 * n & 0xFFFF_FFFF)
        if not legacy:
            self.set(vmmio.STATUS, 3 | FEATURES_OK)
            assert self.get(vmmio.STATUS) & FEATURES_OK
        kind = PackedRing if features & F_RING_PACKED else SplitRing
        for n in range(len(self.device.queue_sizes)):
            self.set(vmmio.QUEUE_SEL, n)
            size = min(self.get(vmmio.QUEUE_NUM_MAX), 16)
            self.set(vmmio.QUEUE_NUM, size)
            if legacy:
                base = self.ram.allocate(0x4000, 4096)
                self.set(vmmio.QUEUE_ALIGN, 4096)
                self.rings.append(SplitRing(self.ram, size, place=vpci.legacy_layout(size, base)))
                self.set(vmmio.QUEUE_PFN, base >> 12)
                continue
            ring = kind(self.ram, size)
            for i, gpa in enumerate((ring.desc, ring.driver, ring.device)):
                self.set(vmmio.QUEUE_PARTS[2 * i], gpa)
                self.set(vmmio.QUEUE_PARTS[2 * i + 1], 0)
            self.set(vmmio.QUEUE_READY, 1)
            self.rings.append(ring)
        self.set(vmmio.STATUS, 3 | DRIVER_OK | (0 if legacy else FEATURES_OK))
        return self

    def kick(self, n=0):
        self.set(vmmio.QUEUE_NOTIFY, n)

    wait = Rig.wait
    request = Rig.request

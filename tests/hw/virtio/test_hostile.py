"""Drivers that break the rules: the device is broken, says so, and lives again after a reset."""

from __future__ import annotations

import random
import struct
import time

import pytest

from tests.hw.virtio.disks import MemoryDisk, header
from tests.hw.virtio.driver import INDIRECT, MODERN_BASE, NEXT, RAM_BYTES, WRITE, Rig
from workbench.hw.virtio import blk
from workbench.hw.virtio import pci as vpci
from workbench.hw.virtio.blk import VirtioBlk
from workbench.hw.virtio.console import VirtioConsole
from workbench.hw.virtio.net import VirtioNet
from workbench.hw.virtio.rng import VirtioRng
from workbench.hw.virtio.spec import F_EVENT_IDX, F_INDIRECT_DESC, F_RING_PACKED


class Port:
    def __init__(self):
        self.sent = []

    def connect(self, receiver):
        self.receiver = receiver

    def send(self, frame):
        self.sent = [*self.sent[-10:], frame]

    def send_large(self, large):
        self.sent = [*self.sent[-10:], *large.cut()]


DEVICES = {
    "blk": lambda clock: VirtioBlk("d", MemoryDisk(64), clock, packed=True, num_queues=2),
    "net": lambda clock: VirtioNet("d", "52:54:00:12:34:56", Port(), packed=True, pairs=2),
    "rng": lambda clock: VirtioRng("d", 1, packed=True),
    "console": lambda clock: VirtioConsole("d", lambda data: None, packed=True),
    "ports": lambda clock: VirtioConsole("d", lambda data: None, ports=("a", "b"), packed=True),
}


def rig_for(features=0):
    rig = Rig(lambda clock: VirtioBlk("d", MemoryDisk(), clock, packed=True))
    return rig.start(features | F_INDIRECT_DESC)


def expect_broken(rig, reason):
    rig.kick()
    assert reason in rig.device.broken_because
    assert rig.needs_reset
    assert rig.msis == [0x40]  # the configuration's vector, once
    rig.kick()
    rig.wait()
    assert rig.msis == [0x40]
    rig.msis.clear()
    rig.start()
    assert not rig.needs_reset
    assert rig.request([header(blk.T_FLUSH)], [1]).data == b"\0"


SPLIT = {
    "a loop of descriptors": [(0x2000, 16, NEXT, 1), (0x2000, 16, NEXT, 0)],
    "descriptor 16 in a queue": [(0x2000, 16, NEXT, 16)],
    "outside RAM: 0x1 bytes": [(RAM_BYTES, 1, 0, 0)],
    "outside RAM: 0xffff": [(0x2000, 16, NEXT, 1), (RAM_BYTES - 1, 0xFFFF, 0, 0)],
    "outside RAM: 0xffffffff": [(0x2000, 0xFFFF_FFFF, WRITE, 0)],
    "follows a writable": [(0x2000, 16, WRITE | NEXT, 1), (0x2000, 16, 0, 0)],
    "with a next": [(0x2000, 16, INDIRECT | NEXT, 1)],
    "table of 15 bytes": [(0x2000, 15, INDIRECT, 0)],
    "table of 0 bytes": [(0x2000, 0, INDIRECT, 0)],
    "table outside RAM": [(1 << 63, 32, INDIRECT, 0)],
    "without header or status": [(0x2000, 16, 0, 0)],
}


@pytest.mark.parametrize("reason", SPLIT)
def test_descriptors(reason):
    rig = rig_for()
    ring = rig.rings[0]
    descriptors = SPLIT[reason]
    for i, (gpa, length, flags, after) in enumerate(descriptors):
        ring.set_desc(i, gpa, length, flags, after)
    ring.publish(0)
    expect_broken(rig, reason)


TABLES = {
    "an indirect descriptor in": [(0x2000, 16, INDIRECT, 0)],
    "a loop of descriptors in": [(0x2000, 16, NEXT, 0)],
    "descriptor 9 in an indirect": [(0x2000, 16, NEXT, 9)],
}


@pytest.mark.parametrize("reason", TABLES)
def test_indirect_tables(reason):
    rig = rig_for()
    table = b"".join(struct.pack("<QIHH", *entry) for entry in TABLES[reason])
    rig.rings[0].set_desc(0, rig.ram.put(table), len(table), INDIRECT)
    rig.rings[0].publish(0)
    expect_broken(rig, reason)


def test_head_and_index():
    rig = rig_for()
    rig.rings[0].publish(16)
    expect_broken(rig, "descriptor 16 in a queue of 16")
    rig = rig_for()
    rig.rings[0].avail = 16
    rig.rings[0].publish(0)
    expect_broken(rig, "17 buffers available in a queue of 16")


@pytest.mark.parametrize(
    ("size", "reason"), [(0, "0 entries"), (3, "no power of two"), (512, "256 are offered")]
)
def test_queue_sizes(size, reason):
    rig = rig_for()
    rig.set(vpci.DEVICE_STATUS, 0)
    rig.set(vpci.DEVICE_STATUS, 3)
    assert rig.accept(1 << 32)
    rig.place(0, rig.rings[0], size)
    rig.set(vpci.CONFIG_MSIX_VECTOR, 0)
    rig.set(vpci.QUEUE_ENABLE, 1)
    rig.set(vpci.DEVICE_STATUS, 15)
    expect_broken(rig, reason)


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("gpa", [1, RAM_BYTES - 16, 1 << 63, (1 << 64) - 4])
def test_rings_at_impossible_places(part, gpa):
    rig = rig_for()
    rig.set(vpci.DEVICE_STATUS, 0)
    rig.set(vpci.DEVICE_STATUS, 3)
    assert rig.accept(1 << 32)
    rig.place(0, rig.rings[0], 16)
    rig.set(vpci.CONFIG_MSIX_VECTOR, 0)
    rig.set(vpci.QUEUE_PARTS[2 * part], gpa & 0xFFFF_FFFF)
    rig.set(vpci.QUEUE_PARTS[2 * part + 1], gpa >> 32)
    rig.set(vpci.QUEUE_ENABLE, 1)
    rig.set(vpci.DEVICE_STATUS, 15)
    expect_broken(rig, "a ring ")


PACKED = {
    "longer than its ring": [(0x2000, 1, NEXT)] * 16,
    "outside RAM": [(RAM_BYTES, 1, 0)],
    "inside a chain": [(0x2000, 16, NEXT), (0x2000, 16, INDIRECT)],
    "with a next": [(0x2000, 16, INDIRECT | NEXT)],
}


@pytest.mark.parametrize("reason", PACKED)
def test_packed_descriptors(reason):
    rig = rig_for(F_RING_PACKED)
    for i, (gpa, length, flags) in enumerate(PACKED[reason]):
        rig.rings[0].set_desc(i, gpa, length, flags | 1 << 7)
    expect_broken(rig, reason)


def test_features():
    rig = rig_for()
    rig.set(vpci.DEVICE_STATUS, 0)
    assert not rig.accept(0)
    rig.set(vpci.DEVICE_STATUS, 0)
    assert not rig.accept(1 << 32 | 1 << 60)
    rig.set(vpci.DEVICE_STATUS, 0)
    assert rig.accept(1 << 32)
    rig.set(vpci.DRIVER_FEATURE, 0)
    assert rig.device.state.driver_features == 1 << 32


def test_vectors_out_of_range():
    rig = rig_for()
    rig.set(vpci.CONFIG_MSIX_VECTOR, 7)
    assert rig.get(vpci.CONFIG_MSIX_VECTOR) == 0xFFFF
    rig.set(vpci.QUEUE_SELECT, 9)
    assert rig.get(vpci.QUEUE_SIZE) == 0
    rig.set(vpci.QUEUE_MSIX_VECTOR, 0)
    assert rig.get(vpci.QUEUE_MSIX_VECTOR) == 0xFFFF


def test_a_queue_full_of_large_requests_is_bounded():
    rig = Rig(lambda clock: VirtioBlk("d", MemoryDisk(4096), clock)).start(sizes=256)
    ring = rig.rings[0]
    big = 1 << 20
    head = rig.ram.put(header(blk.T_IN))
    for n in range(85):
        ring.set_desc(3 * n, head, 16, NEXT, 3 * n + 1)
        ring.set_desc(3 * n + 1, 0x10_0000, big, NEXT | WRITE, 3 * n + 2)
        ring.set_desc(3 * n + 2, 0x800, 1, WRITE)
        ring.publish(3 * n)
    rig.kick()
    assert sum(c.size_bytes for c in rig.device.state.under_way) <= 65 << 20
    rig.wait()
    assert rig.ram.read(ring.device + 2, 2) == b"\x55\0"


def hostile_ring(rig, rng):
    """Something like a ring, somewhere in the first pages."""
    base = rng.randrange(4) * 0x1000
    for i in range(16):
        gpa = rng.choice((rng.randrange(0x8000), rng.getrandbits(64), RAM_BYTES - 8))
        length = rng.choice((0, 1, 16, 17, 528, rng.randrange(0x3000), rng.getrandbits(32)))
        flags = rng.choice((0, 1, 2, 3, 4)) | rng.choice((0, 1 << 7, 1 << 15))
        entry = struct.pack("<QIHH", gpa, length, rng.randrange(20), flags)
        if rng.random() < 0.5:
            entry = struct.pack("<QIHH", gpa & 0x7FFF, length & 0xFFF, flags, rng.randrange(18))
        rig.ram.write(base + 16 * i, entry)
    rig.ram.write(base + 0x800, struct.pack("<HH", rng.randrange(2), rng.randrange(20)))
    rig.ram.write(base + 0x804, struct.pack("<16H", *(rng.randrange(18) for _ in range(16))))
    return base, base + 0x800, base + 0xC00


def hostile_step(rig, rng, features):
    match rng.randrange(10):
        case 0:
            rig.set(vpci.DEVICE_STATUS, 0)
            rig.set(vpci.DEVICE_STATUS, 3)
            rig.accept(rng.choice((1 << 32, rig.offered() & (rng.getrandbits(64) | features))))
            count = len(rig.device.queue_sizes)
            for n in range(count):
                places = hostile_ring(rig, rng)
                rig.set(vpci.QUEUE_SELECT, n)
                rig.set(vpci.QUEUE_SIZE, rng.choice((16, 16, 16, 8, rng.getrandbits(16))))
                for i, gpa in enumerate(places):
                    rig.set(vpci.QUEUE_PARTS[2 * i], gpa)
                    rig.set(vpci.QUEUE_PARTS[2 * i + 1], int(rng.random() < 0.02))
                rig.set(vpci.QUEUE_ENABLE, 1)
            rig.set(vpci.DEVICE_STATUS, 15)
        case 1 | 2:
            hostile_ring(rig, rng)
        case 3 | 4 | 5:
            rig.kick(rng.randrange(6))
        case 6:
            size = rng.choice((1, 2, 4, 8))
            at = rng.choice((rng.randrange(0x48), rng.randrange(0x2000, 0x2040), 0x3000))
            rig.mmio.write(MODERN_BASE + at, size, rng.getrandbits(8 * size))
        case 7:
            size = rng.choice((1, 2, 4))
            rig.pio.write(0xC000 + rng.randrange(24), size, rng.getrandbits(8 * size) & 0xFFF)
            rig.pio.read(0xC000 + rng.randrange(60), size)
        case 8:
            if hasattr(rig.device, "receive"):
                rig.device.receive(rng.choice(("frame", "rx", "link")), rng.randbytes(80))
            rig.function.write(4, 2, rng.choice((7, 7, 7, 3)))
        case _:
            rig.wait(10**9)


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("features", [0, F_RING_PACKED, F_EVENT_IDX | F_INDIRECT_DESC])
def test_random_driver(kind, features):
    rig = Rig(DEVICES[kind])
    rng = random.Random(f"{kind}{features}")
    started = time.monotonic()
    for _ in range(2500):
        hostile_step(rig, rng, features)
    assert time.monotonic() - started < 60
    again = Rig(DEVICES[kind])
    again.function.restore(rig.function.save())
    rig.function.write(4, 2, 7)
    rig.ram.data = bytearray(len(rig.ram.data))  # a driver makes its rings empty
    rig.start()
    assert not rig.needs_reset

"""virtio-blk through its rings, in every layout and over every transport."""

from __future__ import annotations

import struct

import pytest

from tests.hw.virtio.disks import SECTOR, MemoryDisk, header
from tests.hw.virtio.driver import MmioRig, Rig
from workbench.hw.virtio import blk
from workbench.hw.virtio import pci as vpci
from workbench.hw.virtio.blk import VirtioBlk
from workbench.hw.virtio.spec import F_EVENT_IDX, F_INDIRECT_DESC, F_RING_PACKED

RO = blk.F_RO
FLUSH = blk.F_FLUSH


def make(disk, **options):
    return lambda clock: VirtioBlk("vda", disk, clock, **{"serial": "S-1", **options})


LAYOUTS = {
    "split": (0, False),
    "split-event": (F_EVENT_IDX, False),
    "split-indirect": (F_INDIRECT_DESC, True),
    "packed": (F_RING_PACKED, False),
    "packed-event": (F_RING_PACKED | F_EVENT_IDX, False),
    "packed-indirect": (F_RING_PACKED | F_INDIRECT_DESC | F_EVENT_IDX, True),
}


@pytest.fixture(params=LAYOUTS)
def rig(request):
    features, indirect = LAYOUTS[request.param]
    disk = MemoryDisk()
    rig = Rig(make(disk, packed=True)).start(features | FLUSH, indirect=indirect)
    rig.disk = disk
    return rig


def test_write_and_read(rig):
    data = bytes(range(256)) * 8
    for n in range(40):  # more often than the ring is long
        done = rig.request([header(blk.T_OUT, n), data[:512], data[512:]], [1])
        assert (done.written, done.data) == (1, b"\0")
        done = rig.request([header(blk.T_IN, n)], [100, 412, 1536, 1])
        assert done.data == data + b"\0"
        assert done.written == 2049
        assert rig.msis == [0x41] * (2 * n + 2)
    assert rig.disk.data[39 * 512 : 39 * 512 + 2048] == data
    assert not rig.needs_reset


def test_requests_in_one_notification_end_in_order(rig):
    for n in range(5):
        rig.rings[0].add([header(blk.T_OUT, n), bytes([n]) * 512], [1])
    rig.kick()
    assert rig.rings[0].collect() == []
    assert rig.msis == []
    rig.wait(blk.LATENCY_PS + 600 * blk.PS_PER_BYTE)
    assert len(rig.rings[0].collect()) == 1
    rig.wait()
    assert len(rig.rings[0].collect()) == 4


def test_no_interrupts_when_unwanted():
    rig = Rig(make(MemoryDisk(), packed=True))
    for features in (0, F_RING_PACKED):
        rig.start(features)
        rig.rings[0].no_interrupts()
        assert rig.request([header(blk.T_FLUSH)], [1]).data == b"\0"
    assert rig.msis == []


def test_identity_and_configuration(rig):
    assert rig.function.read(0, 4) == 0x1001_1AF4
    assert rig.function.read(8, 4) == 0x0100_0000
    assert rig.function.read(0x2E, 2) == 2
    assert rig.config(0, 8) == rig.config(0, 4) == 2048
    assert rig.config(20, 4) == 512
    assert rig.request([header(blk.T_GET_ID)], [20, 1]).data == b"S-1".ljust(20, b"\0") + b"\0"
    assert rig.offered() & RO == 0


def test_errors(rig):
    status = rig.request
    assert status([header(99)], [1]).data == b"\2"
    assert status([header(blk.T_IN, 2048)], [512, 1]).data[-1] == 1
    assert status([header(blk.T_IN, 1 << 63)], [512, 1]).data[-1] == 1
    assert status([header(blk.T_IN, 0)], [511, 1]).data[-1] == 1
    assert status([header(blk.T_OUT, 2047), bytes(1024)], [1]).data == b"\1"
    rig.disk.bad.add(7)
    assert status([header(blk.T_IN, 7)], [512, 1]).data[-1] == 1
    assert status([header(blk.T_IN, 6)], [512, 1]).data[-1] == 0
    assert not rig.needs_reset


def test_flush_discard_zeroes(rig):
    rig.disk.write(0, b"x" * 8192)
    assert rig.request([header(blk.T_FLUSH)], [1]).data == b"\0"
    assert rig.disk.flushes == 1
    ranges = struct.pack("<QII", 0, 2, 1) + struct.pack("<QII", 8, 4, 0)
    assert rig.request([header(blk.T_WRITE_ZEROES), ranges], [1]).data == b"\0"
    assert rig.disk.read(0, 2) == rig.disk.read(8, 2) == bytes(1024)
    assert rig.disk.read(2, 2) == b"x" * 1024
    one = struct.pack("<QII", 16, 8, 0)
    assert rig.request([header(blk.T_DISCARD), one], [1]).data == b"\0"
    assert rig.disk.discarded == [(16, 8)]
    for bad in (struct.pack("<QII", 2047, 2, 0), one[:15], b""):
        assert rig.request([header(blk.T_DISCARD), bad], [1]).data == b"\1"
    assert rig.request([header(blk.T_DISCARD), struct.pack("<QII", 0, 1, 1)], [1]).data == b"\2"


def test_write_through_without_flush():
    disk = MemoryDisk()
    rig = Rig(make(disk)).start()
    rig.request([header(blk.T_OUT), bytes(SECTOR)], [1])
    assert disk.flushes == 1
    rig.start(FLUSH | blk.F_CONFIG_WCE)
    rig.request([header(blk.T_OUT), bytes(SECTOR)], [1])
    assert disk.flushes == 1
    rig.mmio.write(0xF001_2000 + 32, 1, 0)
    rig.request([header(blk.T_OUT), bytes(SECTOR)], [1])
    assert disk.flushes == 2


def test_read_only():
    disk = MemoryDisk(read_only=True)
    rig = Rig(make(disk)).start(RO)
    assert rig.request([header(blk.T_OUT), bytes(SECTOR)], [1]).data == b"\1"
    one = struct.pack("<QII", 0, 1, 0)
    assert rig.request([header(blk.T_DISCARD), one], [1]).data == b"\1"


def test_several_queues():
    disk = MemoryDisk()
    rig = Rig(make(disk, num_queues=4)).start(blk.F_MQ)
    assert rig.config(34, 2) == 4
    for n in range(4):
        assert rig.request([header(blk.T_OUT, n), bytes([n]) * SECTOR], [1], n).data == b"\0"
    assert rig.msis == [0x41, 0x42, 0x43, 0x44]
    assert [disk.data[n * SECTOR] for n in range(4)] == [0, 1, 2, 3]


def test_legacy_interface():
    disk = MemoryDisk()
    rig = Rig(make(disk), modern=False)
    rig.start_legacy(FLUSH)
    assert rig.pio.read(0xC000 + 20, 4) == 2048
    rig.rings[0].add([header(blk.T_OUT, 3), b"q" * SECTOR], [1])
    rig.io(vpci.L_QUEUE_NOTIFY, 0)
    rig.wait()
    assert rig.levels == [True]
    assert rig.io(vpci.L_ISR) == 1
    assert rig.levels == [True, False]
    assert rig.io(vpci.L_ISR) == 0
    assert disk.read(3, 1) == b"q" * SECTOR
    assert rig.rings[0].collect()[0].data == b"\0"


def test_legacy_configuration_moves_with_msix():
    rig = Rig(make(MemoryDisk()))
    assert rig.pio.read(0xC014, 4) == 2048
    rig.msix()
    assert rig.pio.read(0xC014, 2) == 0xFFFF
    assert rig.pio.read(0xC018, 4) == 2048
    assert rig.pio.find(0xC000).regmap.explain(0x18, 8, 2048, write=False).startswith("capacity")


@pytest.mark.parametrize("legacy", [False, True])
def test_mmio(legacy):
    disk = MemoryDisk()
    rig = MmioRig(make(disk), legacy=legacy)
    assert rig.bus.read(0x1000, 4) == 0x74726976
    assert rig.bus.read(0x1004, 4) == (1 if legacy else 2)
    rig.start(FLUSH)
    assert rig.bus.read(0x1100, 4) == 2048
    assert rig.request([header(blk.T_OUT, 1), b"m" * SECTOR], [1]).data == b"\0"
    assert rig.levels == [True]
    assert rig.bus.read(0x1060, 4) == 1
    rig.bus.write(0x1064, 4, 1)
    assert rig.levels == [True, False]
    assert disk.read(1, 1) == b"m" * SECTOR


def test_snapshot_with_requests_under_way():
    disk = MemoryDisk()
    first = Rig(make(disk, packed=True)).start(F_RING_PACKED | FLUSH)
    for n in range(3):
        first.rings[0].add([header(blk.T_IN, n)], [SECTOR, 1])
    first.kick()
    second = Rig(make(disk, packed=True))
    second.ram.data[:] = first.ram.data
    second.function.restore(first.function.save())
    second.clock.restore(first.clock.save())
    assert second.function.save() == first.function.save()
    assert second.msis == []
    first.wait()
    second.wait()
    assert first.msis == second.msis == [0x41] * 3
    assert first.ram.data == second.ram.data
    assert first.function.save() == second.function.save()


def test_bus_mastering_off_delays():
    rig = Rig(make(MemoryDisk())).start()
    rig.function.write(4, 2, 3)
    rig.rings[0].add([header(blk.T_FLUSH)], [1])
    rig.kick()
    rig.wait()
    assert rig.rings[0].collect() == []
    rig.function.write(4, 2, 7)
    rig.wait()
    assert len(rig.rings[0].collect()) == 1


def test_reset_drops_what_is_under_way():
    rig = Rig(make(MemoryDisk())).start()
    rig.rings[0].add([header(blk.T_FLUSH)], [1])
    rig.kick()
    rig.set(vpci.DEVICE_STATUS, 0)
    rig.wait()
    assert rig.rings[0].collect() == []
    assert rig.msis == []
    rig.start()
    assert rig.request([header(blk.T_FLUSH)], [1]).data == b"\0"

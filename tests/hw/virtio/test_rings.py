"""Both layouts of rings under a driver that uses all of them: turns, wraps, chains over the end,
indirect tables, suppression; and what transports owe to the driver (VIRTIO 1.2, 2.7, 2.8, 4.1).
"""

from __future__ import annotations

import random

import pytest

from tests.hw.virtio.disks import MemoryDisk, header
from tests.hw.virtio.driver import MODERN_BASE, MmioRig, Rig
from workbench.hw.virtio import blk, net
from workbench.hw.virtio import mmio as vmmio
from workbench.hw.virtio import pci as vpci
from workbench.hw.virtio.blk import VirtioBlk
from workbench.hw.virtio.net import VirtioNet
from workbench.hw.virtio.spec import (
    F_EVENT_IDX,
    F_IN_ORDER,
    F_INDIRECT_DESC,
    F_NOTIFICATION_DATA,
    F_RING_PACKED,
    F_RING_RESET,
    F_VERSION_1,
)
from workbench.net.port import Large


class Port:
    def connect(self, receiver: object) -> None:
        """No frames."""

    def send(self, frame: bytes) -> None:
        """Nowhere."""

    def send_large(self, large: Large) -> None:
        for frame in large.cut():
            self.send(frame)


def disk_rig(queues: int = 1, **transport: bool) -> Rig:
    def make(clock):
        return VirtioBlk("d", MemoryDisk(64), clock, packed=True, num_queues=queues)

    return Rig(make, **transport)


@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("features", [0, F_EVENT_IDX, F_IN_ORDER])
@pytest.mark.parametrize(("packed", "size"), [(0, 16), (F_RING_PACKED, 13), (F_RING_PACKED, 16)])
def test_many_turns(packed: int, size: int, features: int, indirect: bool) -> None:
    """Random batches of reads and writes in chains of 3 to 5: nothing is lost or mixed up."""
    rig = disk_rig()
    rig.start(packed | features | F_INDIRECT_DESC, sizes=size, indirect=indirect)
    ring, rng = rig.rings[0], random.Random(size)
    content = {n: bytes(512) for n in range(64)}
    for _ in range(120):
        wanted: list[bytes | None] = []
        for _ in range(rng.randint(1, size if indirect else size // 5)):
            sector = rng.randrange(62)
            if rng.random() < 0.5:
                data = rng.randbytes(1024)
                cut = rng.randrange(1, 1023)
                ring.add([header(blk.T_OUT, sector), data[:cut], data[cut:]], [1])
                content[sector], content[sector + 1] = data[:512], data[512:]
                wanted.append(None)
            else:
                cut = rng.randrange(1, 1023)
                ring.add([header(blk.T_IN, sector)], [cut, 1024 - cut, 1])
                wanted.append(content[sector] + content[sector + 1])
        rig.kick()
        rig.wait()
        done = ring.collect()
        assert [d.written for d in done] == [1 if data is None else 1025 for data in wanted]
        assert [d.data for d in done] == [(data or b"") + b"\0" for data in wanted]
        if rig.ram.top > 3 << 20:
            rig.ram.top = 1 << 20
    assert not rig.needs_reset


@pytest.mark.parametrize("packed", [0, F_RING_PACKED])
def test_each_queue_has_its_vector(packed: int) -> None:
    rig = disk_rig(3)
    rig.start(packed | blk.F_MQ)
    for n in (2, 0, 1, 2):
        before = len(rig.msis)
        rig.request([header(blk.T_FLUSH)], [1], n)
        assert rig.msis[before:] == [0x41 + n]


@pytest.mark.parametrize("packed", [0, F_RING_PACKED])
def test_a_masked_vector_is_pending_until_it_is_opened(packed: int) -> None:
    rig = disk_rig()
    rig.start(packed)
    table = 0xF000_0000
    rig.mmio.write(table + 16 + 12, 4, 1)
    rig.request([header(blk.T_FLUSH)], [1])
    assert rig.msis == []
    assert rig.mmio.read(table + 0x800, 8) == 2
    rig.mmio.write(table + 16 + 12, 4, 0)
    assert rig.msis == [0x41]
    assert rig.mmio.read(table + 0x800, 8) == 0


@pytest.mark.parametrize("packed", [0, F_RING_PACKED])
def test_no_interrupts_when_the_driver_wants_none(packed: int) -> None:
    rig = disk_rig()
    rig.start(packed)
    rig.rings[0].no_interrupts()
    assert rig.request([header(blk.T_FLUSH)], [1]).data == b"\0"
    assert rig.msis == []


def test_a_used_event_far_ahead_is_waited_for() -> None:
    """Packed, event index: the interrupt comes with the descriptor that the driver named."""
    rig = disk_rig()
    rig.start(F_RING_PACKED | F_EVENT_IDX, sizes=8)
    ring = rig.rings[0]
    for n in range(12):  # over the end: each request takes two places
        at, wrap = (2 * n + 4) % 8, (2 * n + 4) // 8 % 2 == 0
        if n % 3 == 0:
            ring.ram.write(ring.driver, (at | wrap << 15).to_bytes(2, "little") + b"\2\0")
        before = len(rig.msis)
        ring.add([header(blk.T_FLUSH)], [1])
        rig.kick()
        rig.wait()
        assert len(rig.msis) - before == (n % 3 == 2), n


NEEDS = [
    (net.F_GUEST_TSO4, net.F_GUEST_CSUM),
    (net.F_GUEST_TSO6, net.F_GUEST_CSUM),
    (net.F_GUEST_CSUM | net.F_GUEST_ECN, net.F_GUEST_TSO6),
    (net.F_HOST_TSO4, net.F_CSUM),
    (net.F_HOST_TSO6, net.F_CSUM),
    (net.F_CSUM | net.F_HOST_ECN, net.F_HOST_TSO4),
    (net.F_HOST_USO, net.F_CSUM),
    (net.F_CTRL_RX, net.F_CTRL_VQ),
    (net.F_CTRL_VLAN, net.F_CTRL_VQ),
    (net.F_GUEST_ANNOUNCE, net.F_CTRL_VQ),
    (net.F_MQ, net.F_CTRL_VQ),
    (net.F_CTRL_MAC_ADDR, net.F_CTRL_VQ),
]


@pytest.mark.parametrize(("feature", "base"), NEEDS)
def test_a_feature_needs_its_base(feature: int, base: int) -> None:
    """5.1.3.1: FEATURES_OK is not taken without what a feature requires."""
    rig = Rig(lambda clock: VirtioNet("n", "52:54:00:12:34:56", Port(), pairs=2))
    for accepted, fits in ((feature, False), (feature | base, True)):
        rig.set(vpci.DEVICE_STATUS, 0)
        rig.set(vpci.DEVICE_STATUS, 3)
        assert rig.accept(accepted | F_VERSION_1) is fits


def test_the_generation_changes_with_the_configuration() -> None:
    rig = Rig(lambda clock: VirtioNet("n", "52:54:00:12:34:56", Port()))
    rig.start(net.F_STATUS)
    before = rig.get(vpci.CONFIG_GENERATION)
    assert rig.get(vpci.CONFIG_GENERATION) == before
    rig.device.receive("link", b"\0")
    assert rig.get(vpci.CONFIG_GENERATION) != before
    assert rig.config(6, 2) == 0
    assert rig.msis == [0x40], "the configuration's vector"


def test_a_transitional_device_offers_version_1_to_modern_drivers_only() -> None:
    rig = disk_rig()
    assert rig.offered() & F_VERSION_1
    assert rig.io(vpci.L_DEVICE_FEATURES) == rig.offered() & 0xFFFF_FFFF
    legacy = disk_rig(modern=False)
    assert legacy.device.offered >> 32 == 0


@pytest.mark.parametrize("packed", [0, F_RING_PACKED])
def test_notification_data(packed: int) -> None:
    """4.1.5.2: the driver says how far its ring is, with the queue in the low half."""
    rig = disk_rig(2)
    rig.start(packed | F_NOTIFICATION_DATA | blk.F_MQ)
    for n in (1, 0):
        rig.rings[n].add([header(blk.T_FLUSH)], [1])
        rig.mmio.write(MODERN_BASE + vpci.NOTIFY_AT + 4 * n, 4, 0x8002 << 16 | n)
        rig.wait()
        assert len(rig.rings[n].collect()) == 1
    over_mmio = MmioRig(lambda clock: VirtioBlk("d", MemoryDisk(64), clock, packed=True))
    over_mmio.start(packed | F_NOTIFICATION_DATA)
    over_mmio.rings[0].add([header(blk.T_FLUSH)], [1])
    over_mmio.set(vmmio.QUEUE_NOTIFY, 0x8002 << 16)
    over_mmio.wait()
    assert len(over_mmio.rings[0].collect()) == 1


@pytest.mark.parametrize("packed", [0, F_RING_PACKED])
def test_a_queue_that_was_reset_starts_anew_beside_another(packed: int) -> None:
    """2.6.1: what was under way in it is dropped, the other queue goes on."""
    rig = disk_rig(2)
    rig.start(packed | F_RING_RESET | blk.F_MQ)
    rig.request([header(blk.T_FLUSH)], [1], 0)
    for n in (0, 1):
        rig.rings[n].add([header(blk.T_FLUSH)], [1])
        rig.kick(n)
    rig.set(vpci.QUEUE_SELECT, 0)
    rig.set(vpci.QUEUE_RESET, 1)
    assert rig.get(vpci.QUEUE_RESET) == rig.get(vpci.QUEUE_ENABLE) == 0
    rig.wait()
    assert rig.rings[0].collect() == []
    assert len(rig.rings[1].collect()) == 1
    ring = type(rig.rings[0])(rig.ram, 8)
    rig.place(0, ring, 8)
    rig.set(vpci.QUEUE_ENABLE, 1)
    rig.rings[0] = ring
    for _ in range(12):
        assert rig.request([header(blk.T_FLUSH)], [1], 0).data == b"\0"
    assert not rig.needs_reset


def test_there_is_no_shared_memory() -> None:
    """4.2.2: the length of a region that does not exist is all ones."""
    rig = MmioRig(lambda clock: VirtioBlk("d", MemoryDisk(64), clock))
    rig.set(vmmio.SHM_SEL, 3)
    for name in ("SHMLenLow", "SHMLenHigh", "SHMBaseLow", "SHMBaseHigh"):
        assert rig.get(vmmio.MAP[name]) == 0xFFFF_FFFF

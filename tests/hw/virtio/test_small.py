"""virtio-rng, virtio-console, and what queues do at their edges."""

from __future__ import annotations

import struct

import pytest

from tests.hw.virtio.disks import MemoryDisk, header
from tests.hw.virtio.driver import Rig
from workbench.core.config import MachineConfig
from workbench.hw import layout
from workbench.hw.board import build_board
from workbench.hw.virtio import blk
from workbench.hw.virtio import pci as vpci
from workbench.hw.virtio.blk import VirtioBlk
from workbench.hw.virtio.console import VirtioConsole
from workbench.hw.virtio.pci import VirtioPci
from workbench.hw.virtio.queue import _cut
from workbench.hw.virtio.rng import VirtioRng
from workbench.hw.virtio.spec import F_EVENT_IDX, F_RING_PACKED, F_RING_RESET


def test_entropy_follows_from_the_seed():
    def first(seed):
        return Rig(lambda clock: VirtioRng("rng", seed)).start().request([], [40, 60]).data

    assert first(1) == first(1) != first(2)
    assert len(set(first(1))) > 50


def test_entropy_goes_on():
    rig = Rig(lambda clock: VirtioRng("rng", 1)).start()
    one = rig.request([], [64]).data
    two = rig.request([], [64]).data
    saved = rig.function.save()
    rig.start()
    three = rig.request([], [64]).data
    assert len({one, two, three}) == 3
    other = Rig(lambda clock: VirtioRng("rng", 1))
    other.function.restore(saved)
    assert other.start().request([], [64]).data == three


def test_a_large_request_gets_a_part():
    rig = Rig(lambda clock: VirtioRng("rng", 1)).start()
    assert rig.request([], [100_000]).written == 65536


def test_console():
    printed = []
    rig = Rig(lambda clock: VirtioConsole("con", printed.append)).start(1)
    assert rig.config(0, 4) == 80 | 25 << 16
    rig.request([b"hello"], [], 1)
    assert printed == [b"hello"]
    rig.device.receive("rx", b"typed ahead")
    assert rig.request([], [5]).data == b"typed"
    assert rig.request([], [50]).written == 6
    rig.rings[0].add([], [8])
    rig.kick(0)
    rig.device.receive("rx", b"x")
    assert rig.rings[0].collect()[0].data[:1] == b"x"
    rig.device.receive("size", b"\x84\0\x2b\0")
    assert rig.config(0, 4) == 132 | 43 << 16
    assert rig.msis[-1] == 0x40
    rig.mmio.write(0xF001_2008, 4, ord("!"))
    assert printed[-1] == b"!"


@pytest.mark.parametrize("features", [F_EVENT_IDX, F_EVENT_IDX | F_RING_PACKED])
def test_event_index(features):
    """Interrupts only when the driver has seen all before, over many turns of the ring."""
    rig = Rig(lambda clock: VirtioBlk("d", MemoryDisk(), clock, packed=True))
    rig.start(features)
    for n in range(60):
        count = n % 4 + 1
        for _ in range(count):
            rig.rings[0].add([header(blk.T_FLUSH)], [1])
        rig.kick()
        before = len(rig.msis)
        rig.wait()
        assert len(rig.msis) == before + 1  # the first one; then the driver is behind
        assert len(rig.rings[0].collect()) == count


def test_kicks_are_asked_for_when_the_queue_is_empty():
    rig = Rig(lambda clock: VirtioBlk("d", MemoryDisk(), clock)).start(F_EVENT_IDX)
    ring = rig.rings[0]
    for _ in range(40):
        old = ring.avail
        ring.add([header(blk.T_FLUSH)], [1])
        assert ring.wants_kick(old)
        rig.kick()
        rig.wait()
        ring.collect()


def test_ring_reset():
    rig = Rig(lambda clock: VirtioBlk("d", MemoryDisk(), clock)).start(F_RING_RESET)
    rig.request([header(blk.T_FLUSH)], [1])
    rig.set(vpci.QUEUE_SELECT, 0)
    rig.set(vpci.QUEUE_RESET, 1)
    assert rig.get(vpci.QUEUE_RESET) == 0
    assert rig.get(vpci.QUEUE_ENABLE) == 0
    assert rig.get(vpci.QUEUE_SIZE) == 256


def test_capabilities_lead_to_the_registers():
    rig = Rig(lambda clock: VirtioRng("rng", 1))
    read = rig.function.read
    at, found = read(0x34, 1), []
    while at:
        found.append((read(at, 1), read(at + 3, 1)))
        if found[-1] == (9, 2):
            assert read(at + 16, 4) == 4
        if found[-1] == (9, 5):
            rig.function.write(at + 4, 1, 4)
            rig.function.write(at + 8, 4, vpci.NUM_QUEUES.offset)
            rig.function.write(at + 12, 4, 2)
            assert read(at + 16, 4) == 1
        at = read(at + 1, 1)
    assert [kind for cap, kind in found if cap == 9] == [1, 3, 4, 2, 5]
    assert found[-1][0] == 0x11


@pytest.mark.parametrize(
    ("options", "device", "revision"),
    [({}, 0x1005, 0), ({"legacy": False}, 0x1044, 1), ({"modern": False}, 0x1005, 0)],
)
def test_identity(options, device, revision):
    rig = Rig(lambda clock: VirtioRng("rng", 1), **options)
    assert rig.function.read(2, 2) == device
    assert rig.function.read(8, 1) == revision
    assert bool(rig.pio.find(0xC000)) == options.get("legacy", True)
    assert bool(rig.mmio.find(0xF001_0000)) == options.get("modern", True)


def test_wrong_options():
    with pytest.raises(ValueError, match="expected an interface"):
        Rig(lambda clock: VirtioRng("rng", 1), legacy=False, modern=False)
    with pytest.raises(ValueError, match="expected 1 to 16 queues"):
        VirtioBlk("d", MemoryDisk(), Rig(lambda c: VirtioRng("r", 1)).clock, num_queues=17)
    with pytest.raises(ValueError, match="expected a power of two"):
        VirtioBlk("e", MemoryDisk(), Rig(lambda c: VirtioRng("r", 1)).clock, queue_size=100)


def test_names_in_the_trace():
    rig = Rig(lambda clock: VirtioRng("rng", 1))
    window = rig.mmio.find(0xF001_0000)
    assert window.name == "rng"
    assert window.regmap.explain(20, 1, 3, write=True) == "device_status[ACKNOWLEDGE=1 DRIVER=1]"
    assert window.regmap.explain(0x3004, 2, 1, write=True) == "queue_notify1=0x0001"


def test_cut():
    spans = [(100, 10), (200, 5), (300, 0), (400, 7)]
    assert _cut(spans, 0, 22) == [(100, 10), (200, 5), (400, 7)]
    assert _cut(spans, 8, 16) == [(108, 2), (200, 5), (400, 1)]
    assert _cut(spans, 30, 40) == []
    assert _cut(spans, 15, 40) == [(400, 7)]
    assert _cut(spans, 21, 22) == [(406, 1)]
    assert _cut(spans, 11, 13) == [(201, 2)]
    assert _cut(spans, 4, 4) == []
    assert _cut([], 0, 1) == []


@pytest.mark.parametrize(
    ("gpa", "length", "inside"),
    [
        (0, 0xA_0000, True),
        (0x9_FFFF, 2, False),
        (0xB_FFFF, 1, False),
        (0xC_0000, 1, True),
        (0xBFFF_FFFF, 1, True),
        (0xBFFF_FFFF, 2, False),
        (0xFEE0_0000, 4, False),
        (1 << 32, 1 << 30, True),
        (1 << 32, (1 << 30) + 1, False),
        ((1 << 64) - 1, 1, False),
        (-1, 1, False),
    ],
)
def test_what_is_ram(gpa, length, inside):
    assert layout.is_ram(4 << 30, gpa, length) is inside


def test_the_board_knows_what_is_ram():
    board = build_board(MachineConfig(ram_bytes=16 << 20))
    function = VirtioPci(VirtioRng("rng", 1))
    board.add_pci(function, 4)
    board.post()
    assert function.dma.contains(0x10_0000, 15 << 20)
    assert not function.dma.contains(0x10_0000, (15 << 20) + 1)


MULTIPORT = 1 << 1
READY, ADD, PORT_READY, CONSOLE_PORT, OPEN, NAME = 0, 1, 3, 4, 6, 7


@pytest.mark.parametrize("features", [MULTIPORT, MULTIPORT | F_RING_PACKED])
def test_ports(features):
    """5.3.6.2: which ports there are, what they are called, and what goes through them."""
    written, printed = [], []

    def device(clock):
        return VirtioConsole(
            "con", printed.append, ports=("org.a", "b"), packed=True,
            port_output=lambda name, data: written.append((name, data)),
        )  # fmt: skip

    rig = Rig(device).start(features)
    assert rig.config(4, 4) == 3

    def tell(port, event, value=1):
        rig.request([struct.pack("<IHH", port, event, value)], [], 3)

    def hear():
        done = rig.rings[2].collect()
        return [(*struct.unpack_from("<IHH", d.data), d.data[8 : d.written]) for d in done]

    def room(count):
        for _ in range(count):
            rig.rings[2].add([], [64])
        rig.kick(2)

    room(3)
    tell(0, READY)
    assert hear() == [(0, ADD, 1, b""), (1, ADD, 1, b""), (2, ADD, 1, b"")]
    tell(0, PORT_READY)
    tell(2, PORT_READY)
    tell(3, PORT_READY)  # there is none
    rig.request([b"short"], [], 3)
    room(1)
    assert hear() == [(0, CONSOLE_PORT, 1, b"")]
    room(4)
    assert hear() == [(0, OPEN, 1, b""), (2, NAME, 1, b"b"), (2, OPEN, 1, b"")]
    rig.request([b"to a"], [], 5)
    rig.request([b"to b"], [], 7)
    rig.request([b"to the console"], [], 1)
    assert written == [("org.a", b"to a"), ("b", b"to b")]
    assert printed == [b"to the console"]
    rig.device.receive("rx2", b"early")
    rig.device.receive("rx3", b"to nobody")
    rig.rings[6].add([], [16])
    rig.kick(6)
    assert not rig.rings[6].collect()  # nobody has the port open
    tell(2, OPEN)
    assert [done.data[: done.written] for done in rig.rings[6].collect()] == [b"early"]


def test_ports_that_the_driver_does_not_know():
    written = []
    rig = Rig(
        lambda clock: VirtioConsole(
            "con", written.append, ports=("a",), port_output=lambda *what: written.append(what)
        )
    ).start()
    rig.request([b"console"], [], 1)
    rig.rings[5].add([b"port"], [])
    rig.kick(5)
    assert written == [b"console"]


def test_what_has_come_in_survives_a_reset():
    rig = Rig(lambda clock: VirtioConsole("con", lambda data: None))
    rig.device.receive("rx", b"typed ahead")
    rig.start(1)
    assert rig.request([], [50]).data[:11] == b"typed ahead"

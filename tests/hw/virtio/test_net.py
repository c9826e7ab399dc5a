"""virtio-net through its rings."""

from __future__ import annotations

import random
import struct

import pytest

from tests.hw.virtio.driver import MODERN_BASE, Rig
from workbench.hw.virtio import net
from workbench.hw.virtio import pci as vpci
from workbench.hw.virtio.net import VirtioNet
from workbench.hw.virtio.offload import checksum, complete, segments
from workbench.hw.virtio.spec import F_RING_PACKED

MAC = bytes.fromhex("525400123456")
OTHER = bytes.fromhex("525400000001")
CTRL = net.F_CTRL_VQ | net.F_CTRL_RX | net.F_CTRL_RX_EXTRA | net.F_CTRL_VLAN | net.F_CTRL_MAC_ADDR


class Port:
    def __init__(self):
        self.sent = []
        self.large = []

    def connect(self, receiver):
        self.receive_all = receiver
        self.receive = lambda kind, data: receiver(kind, [data])

    def send(self, frame):
        self.sent.append(frame)

    def send_large(self, large):
        self.large.append(large)
        for frame in large.cut():
            self.send(frame)


def frame_to(mac=MAC, length=60, kind=b"\x12\x34"):
    return mac + OTHER + kind + bytes(i & 0xFF for i in range(length - 14))


def make(features=net.F_MAC, **options):
    port = Port()
    rig = Rig(lambda clock: VirtioNet("net0", MAC, port, packed=True, **options))
    rig.port = port
    return rig.start(features)


def header(flags=0, gso=0, hdr_len=0, size=0, start=0, offset=0):
    return struct.pack("<BBHHHHH", flags, gso, hdr_len, size, start, offset, 0)


def send(rig, data, **fields):
    return rig.request([header(**fields), data], [], 1)


@pytest.mark.parametrize("features", [0, F_RING_PACKED])
def test_transmit_and_receive(features):
    rig = make(features | net.F_MAC)
    frame = frame_to(OTHER)
    for _ in range(20):
        assert send(rig, frame).written == 0
    assert rig.port.sent == [frame] * 20
    rig.rings[0].add([], [1600])
    rig.kick(0)
    rig.port.receive("frame", frame_to())
    (done,) = rig.rings[0].collect()
    assert done.written == 72
    assert done.data[:72] == bytes(10) + b"\1\0" + frame_to()
    assert rig.msis[-1] == 0x41


def test_configuration():
    rig = make()
    assert bytes(rig.config(n, 1) for n in range(6)) == MAC
    assert rig.config(6, 2) == 1
    assert rig.function.read(0, 4) == 0x1000_1AF4
    rig.mmio.write(MODERN_BASE + vpci.DEVICE_AT, 1, 0)
    assert rig.config(0, 1) == 0x52


def test_mergeable_buffers():
    rig = make(net.F_MRG_RXBUF)
    frame = frame_to(length=1500)
    for _ in range(2):
        rig.rings[0].add([], [600])
    rig.kick(0)
    rig.port.receive("frame", frame)
    assert rig.rings[0].collect() == []  # too few: nothing is used
    rig.rings[0].add([], [600])
    rig.kick(0)
    done = rig.rings[0].collect()
    assert [d.written for d in done] == [600, 600, 312]
    data = b"".join(d.data[: d.written] for d in done)
    assert data[10:12] == b"\3\0"
    assert data[12:] == frame


def test_without_mergeable_buffers_a_large_frame_is_lost():
    rig = make()
    rig.rings[0].add([], [500])
    rig.kick(0)
    rig.port.receive("frame", frame_to(length=1500))
    assert rig.rings[0].collect() == []
    rig.port.receive("frame", frame_to(length=100))
    assert rig.rings[0].collect()[0].written == 112


def test_frames_wait_for_buffers():
    rig = make()
    for n in range(300):
        rig.port.receive("frame", frame_to(length=60 + n % 7))
    assert len(rig.device.state.backlog) == 256
    for _ in range(16):
        rig.rings[0].add([], [1600])
    rig.kick(0)
    assert [d.written - 72 for d in rig.rings[0].collect()] == [n % 7 for n in range(16)]


def test_frames_at_once_are_one_interrupt():
    rig = make()
    for _ in range(12):
        rig.rings[0].add([], [1600])
    rig.kick(0)
    rig.msis.clear()
    frames = [frame_to(length=60 + n) for n in range(12)]
    rig.port.receive_all("frame", frames)
    assert len(rig.msis) == 1
    assert [d.written - 12 for d in rig.rings[0].collect()] == [len(frame) for frame in frames]


@pytest.mark.parametrize("features", [0, F_RING_PACKED, net.F_MRG_RXBUF])
def test_frames_at_once_are_as_frames_one_by_one(features):
    """Buffers, their order and their bytes, many times around the ring; some frames wait."""
    rng = random.Random(features)
    rigs = [make(features | net.F_MAC) for _ in range(2)]
    for _ in range(60):
        buffers = rng.randrange(rigs[0].rings[0].size - len(rigs[0].rings[0].buffers) + 1)
        size = rng.choice((100, 700, 1600))
        frames = [frame_to(length=rng.randrange(60, 1500)) for _ in range(rng.randrange(12))]
        for n, rig in enumerate(rigs):
            for _ in range(buffers):
                rig.rings[0].add([], [size])
            rig.kick(0)
            for part in [frames] if n else [[frame] for frame in frames]:
                rig.port.receive_all("frame", part)
        done = [rig.rings[0].collect() for rig in rigs]
        assert done[0] == done[1]
        assert rigs[0].device.save() == rigs[1].device.save()
        assert not rigs[0].device.state.broken


def test_a_driver_that_breaks_a_rule_gets_what_was_received_before():
    rig = make()
    for _ in range(3):
        rig.rings[0].add([], [1600])
    rig.rings[0].add([b"to the device"], [])
    rig.kick(0)
    rig.port.receive_all("frame", [frame_to()] * 5)
    assert rig.device.state.broken
    assert [d.written for d in rig.rings[0].collect()] == [72] * 3


def test_legacy_header():
    port = Port()
    rig = Rig(lambda clock: VirtioNet("net0", MAC, port))
    rig.start_legacy(net.F_MAC)
    rig.rings[1].add([header()[:10], frame_to(OTHER)], [])
    rig.io(vpci.L_QUEUE_NOTIFY, 1)
    assert port.sent == [frame_to(OTHER)]


def command(rig, group, number, data=b""):
    return rig.request([bytes([group, number]), data], [1], 2).data[0]


def received(rig, frame):
    rig.rings[0].add([], [1600])
    rig.kick(0)
    rig.port.receive("frame", frame)
    done = rig.rings[0].collect()
    if not done:
        rig.device.queues[0].rewind(rig.device.queues[0].mark())
    return bool(done)


def test_filters():
    rig = make(CTRL)
    assert received(rig, frame_to(OTHER))
    assert command(rig, net.CTRL_RX, 0, b"\0") == net.OK  # promiscuous off
    assert received(rig, frame_to())
    assert received(rig, frame_to(b"\xff" * 6))
    assert not received(rig, frame_to(OTHER))
    multicast = bytes.fromhex("01005e000001")
    assert not received(rig, frame_to(multicast))
    table = struct.pack("<I", 1) + OTHER + struct.pack("<I", 1) + multicast
    assert command(rig, net.CTRL_MAC, 0, table) == net.OK
    assert received(rig, frame_to(OTHER))
    assert received(rig, frame_to(multicast))
    assert command(rig, net.CTRL_RX, 5, b"\1") == net.OK
    assert not received(rig, frame_to(b"\xff" * 6))
    tagged = frame_to(kind=b"\x81\x00\x00\x07")
    assert not received(rig, tagged)
    assert command(rig, net.CTRL_VLAN, 0, b"\7\0") == net.OK
    assert received(rig, tagged)
    assert command(rig, net.CTRL_VLAN, 1, b"\7\0") == net.OK
    assert not received(rig, tagged)
    assert command(rig, net.CTRL_MAC, 1, OTHER) == net.OK
    assert rig.config(5, 1) == 1


def test_wrong_commands():
    rig = make(CTRL)
    for group, number, data in (
        (9, 0, b""),
        (net.CTRL_RX, 6, b"\0"),
        (net.CTRL_RX, 0, b""),
        (net.CTRL_MAC, 0, struct.pack("<I", 1 << 31)),
        (net.CTRL_MAC, 1, b"12345"),
        (net.CTRL_VLAN, 0, b"\xff\xff"),
        (net.CTRL_MQ, 0, b"\1\0"),
        (net.CTRL_GUEST_OFFLOADS, 0, b"\1"),
    ):
        assert command(rig, group, number, data) == net.ERR
    assert not rig.needs_reset


def test_link_and_announcement():
    rig = make(CTRL | net.F_STATUS | net.F_GUEST_ANNOUNCE)
    generation = rig.get(vpci.CONFIG_GENERATION)
    rig.port.receive("link", b"\0")
    assert rig.config(6, 2) == 0
    assert rig.get(vpci.CONFIG_GENERATION) != generation
    assert rig.msis == [0x40]
    rig.port.receive("link", b"\1")
    assert rig.config(6, 2) == 3
    assert command(rig, net.CTRL_ANNOUNCE, 0) == net.OK
    assert rig.config(6, 2) == 1


def test_queue_pairs():
    rig = make(net.F_CTRL_VQ | net.F_MQ, pairs=2)
    assert rig.config(8, 2) == 2
    done = rig.request([b"\4\0\2\0"], [1], 4)
    assert done.data == b"\0"
    for n in (0, 2):
        for _ in range(8):
            rig.rings[n].add([], [1600])
    rig.kick(0)
    for n in range(8):
        rig.port.receive("frame", frame_to()[:26] + bytes([n]) * 40)
    counts = [len(rig.rings[n].collect()) for n in (0, 2)]
    assert sum(counts) == 8
    assert min(counts) > 0


# -- offloads --------------------------------------------------------------------------------------


def tcp4(payload, flags=0x18):
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), 7, 0, 64, 6, 0, b"\n\0\0\2", b"\n\0\0\1"
    )
    pseudo = sum(
        struct.unpack(">6H", b"\n\0\0\2\n\0\0\1" + struct.pack(">HH", 6, 20 + len(payload)))
    )
    partial = pseudo % 0xFFFF
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 1000, 5, 0x50, flags, 100, partial, 0)
    return OTHER + MAC + b"\x08\x00" + ip + tcp + payload


def tcp6(payload):
    addresses = bytes(range(32))
    ip = struct.pack(">IHBB", 6 << 28, 20 + len(payload), 6, 64) + addresses
    partial = checksum(addresses + struct.pack(">II", 20 + len(payload), 6)) ^ 0xFFFF
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 1000, 5, 0x50, 0x18, 100, partial, 0)
    return OTHER + MAC + b"\x86\xdd" + ip + tcp + payload


def transport_sum(frame):
    """0 if the checksum of the transport layer is right."""
    if frame[12:14] == b"\x08\x00":
        addresses, at, protocol = frame[26:34], 34, frame[23]
    else:
        addresses, at, protocol = frame[22:54], 54, frame[20]
    pseudo = addresses + struct.pack(">II", len(frame) - at, protocol)
    return checksum(pseudo + frame[at:])


def test_checksum_example():
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2  # RFC 1071, 3
    assert checksum(b"\xff\xff") == 0
    assert complete(b"abcd", 2, 1) is None


def test_checksum_offload():
    rig = make(net.F_CSUM)
    send(rig, tcp4(b"hello"), flags=1, start=34, offset=16)
    (frame,) = rig.port.sent
    assert transport_sum(frame) == 0
    send(rig, tcp4(b"hello"), flags=1, start=34, offset=60000)
    assert len(rig.port.sent) == 1


@pytest.mark.parametrize(("build", "kind", "at"), [(tcp4, 1, 34), (tcp6, 4, 54)])
def test_segmentation(build, kind, at):
    rig = make(net.F_CSUM | net.F_HOST_TSO4 | net.F_HOST_TSO6)
    payload = bytes(range(256)) * 12
    send(rig, build(payload), flags=1, gso=kind, hdr_len=at + 20, size=1000, start=at, offset=16)
    frames = rig.port.sent
    assert b"".join(f[at + 20 :] for f in frames) == payload
    assert [len(f) - at - 20 for f in frames] == [1000, 1000, 1000, 72]
    for n, frame in enumerate(frames):
        assert transport_sum(frame) == 0
        assert struct.unpack(">I", frame[at + 4 : at + 8])[0] == 1000 + 1000 * n
        assert bool(frame[at + 13] & 8) == (n == 3)  # PSH on the last one only
        if kind == 1:
            assert checksum(frame[14:34]) == 0
            assert struct.unpack(">HH", frame[16:20]) == (len(frame) - 14, 7 + n)
        else:
            assert struct.unpack(">H", frame[18:20])[0] == len(frame) - 54
    (large,) = rig.port.large
    assert large.count == 4
    whole = large.whole()
    assert whole[at + 20 :] == payload
    assert transport_sum(whole) == 0
    assert whole[at + 13] & 8
    if kind == 1:
        assert checksum(whole[14:34]) == 0


def test_more_than_an_ip_packet_holds_is_cut():
    frames = segments(tcp4(b"") + b"x" * 65600, 1, 1000, 34)
    assert [len(f) - 54 for f in frames] == [1000] * 65 + [600]


def test_udp_segmentation():
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 0, 7, 0, 64, 17, 0, b"\n\0\0\2", b"\n\0\0\1")
    frame = OTHER + MAC + b"\x08\x00" + ip + struct.pack(">HHHH", 1, 2, 8 + 250, 0) + b"u" * 250
    frames = segments(frame, 5, 100, 34)
    assert [len(f) - 42 for f in frames] == [100, 100, 50]
    assert all(transport_sum(f) == 0 for f in frames)
    assert struct.unpack(">H", frames[2][38:40])[0] == 58


def test_impossible_segmentation():
    frame = tcp4(b"x" * 3000)
    assert segments(frame, 1, 0, 34) == []
    assert segments(frame, 1, 1, 34) == []
    assert segments(frame, 1, 1000, 20) == []
    assert segments(frame, 1, 1000, 5000) == []
    assert segments(frame[:40], 1, 1000, 34) == []
    assert segments(frame[:12] + b"\0\0" + frame[14:], 1, 1000, 34) == []
    rig = make(net.F_CSUM)
    send(rig, frame, flags=1, gso=1, size=1000, start=34, offset=16)  # not negotiated
    assert rig.port.sent == []
    assert not rig.needs_reset


LARGE = net.F_MRG_RXBUF | net.F_GUEST_CSUM | net.F_GUEST_TSO4 | net.F_GUEST_TSO6
CWR = 0x80


@pytest.mark.parametrize(
    ("build", "flags", "features", "expected"),
    [
        (tcp4, 0, LARGE, (1, 1, 54, 1460, 34, 16)),
        (tcp6, 0, LARGE, (1, 4, 74, 1440, 54, 16)),
        (tcp4, 0, LARGE & ~net.F_GUEST_TSO4, (2, 0, 0, 0, 0, 0)),
        (tcp4, CWR, LARGE, (2, 0, 0, 0, 0, 0)),
        (tcp4, CWR, LARGE | net.F_GUEST_ECN, (1, 0x81, 54, 1460, 34, 16)),
    ],
)
def test_a_large_frame_of_a_peer(build, flags, features, expected):
    """5.1.6.4.1: with segments to come, the checksum is left to complete."""
    at = 34 if build is tcp4 else 54
    partial = bytearray(build(b"z" * 4000))  # with the sum of its pseudo header
    partial[at + 13] |= flags
    whole = complete(bytes(partial), at, 16)
    rig = make(features)
    for _ in range(4):
        rig.rings[0].add([], [1600])
    rig.kick(0)
    rig.port.receive("frame", whole)
    done = rig.rings[0].collect()
    data = b"".join(d.data[: d.written] for d in done)
    assert struct.unpack("<BBHHHHH", data[:12]) == (*expected, 3)
    if expected[0] == 1:
        assert data[12:] == partial
        sent = segments(data[12:], expected[1], expected[3], expected[4]).cut()
        assert b"".join(s[expected[2] :] for s in sent) == b"z" * 4000
    else:
        assert data[12:] == whole


def test_a_large_frame_with_a_wrong_checksum_is_the_drivers_to_judge():
    rig = make(LARGE)
    for _ in range(4):
        rig.rings[0].add([], [1600])
    rig.kick(0)
    rig.port.receive("frame", tcp4(b"z" * 4000)[:-1] + b"?")
    assert rig.rings[0].collect()[0].data[:10] == bytes(10)


@pytest.mark.parametrize("offered", [0, net.F_GUEST_CSUM])
def test_a_checksum_is_vouched_for_only_if_it_is_right(offered):
    rig = make(net.F_MAC | offered)
    right = complete(tcp4_with_pseudo_sum(b"data"), 34, 16)
    for frame in (right, right[:-1] + b"?", frame_to()):
        rig.rings[0].add([], [1600])
        rig.kick(0)
        rig.port.receive("frame", frame)
    flags = [done.data[0] for done in rig.rings[0].collect()]
    assert flags == [net.HDR_F_DATA_VALID if offered else 0, 0, 0]


def tcp4_with_pseudo_sum(data):
    """A segment whose checksum field holds the sum of the pseudo header, to be completed."""
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x10, 99, 0, 0) + data
    addresses = bytes([10, 0, 0, 1, 10, 0, 0, 2])
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + addresses
    pseudo = addresses + struct.pack(">BBH", 0, 6, len(tcp))
    start = (checksum(pseudo) ^ 0xFFFF).to_bytes(2, "big")
    return MAC + OTHER + b"\x08\x00" + ip + tcp[:16] + start + tcp[18:]


def test_the_network_is_told_whether_large_frames_are_taken():
    told = []
    rig = make(net.F_MAC | net.F_MRG_RXBUF | net.F_GUEST_CSUM | net.F_GUEST_TSO4)
    rig.port.take_large = told.append
    rig.start(net.F_MAC | net.F_MRG_RXBUF | net.F_GUEST_CSUM | net.F_GUEST_TSO4)
    rig.start(net.F_MAC | net.F_GUEST_CSUM | net.F_GUEST_TSO4)
    assert told == [True, False]

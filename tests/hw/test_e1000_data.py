"""82540EM: frames out and in. Descriptors, offloads, filters, rings."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from tests.hw.e1000_rig import (
    BROADCAST,
    DATA,
    EOP,
    IC,
    IFCS,
    MAC,
    OTHER,
    RING,
    RS,
    RX_DATA,
    RX_RING,
    SLOT_BYTES,
    TSE,
    TX_DATA,
    VLE,
    NicRig,
    ethernet,
)
from workbench.core.checksum import internet_sum
from workbench.core.requests import Burst
from workbench.hw.e1000.offload import check_received
from workbench.hw.e1000.transmit import BATCH

TXDW, TXQE, RXDMT0, RXO, TXD_LOW = 1, 2, 1 << 4, 1 << 6, 1 << 15
SEND = EOP | IFCS | RS
IPV4, IPV6 = 0x0800, 0x86DD
ALL_CHECKS = 0x700


def plain_sum(data: bytes) -> int:
    """RFC 1071, word by word."""
    total = 0
    for (word,) in struct.iter_unpack(">H", data + b"\0" * (len(data) & 1)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize(
    "data", [b"", b"\0\0", b"\xff\xff", b"\xff\xff\0\0", b"a", b"ab", b"abc", bytes(range(256)) * 9]
)
def test_internet_sum(data):
    assert internet_sum(data) == plain_sum(data)


def ipv4(protocol: int, body: bytes, ident: int = 7) -> bytes:
    return struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), ident, 0x4000, 64, protocol, 0,
        bytes([10, 0, 2, 15]), bytes([10, 0, 2, 2]),
    ) + body  # fmt: skip


def pseudo(packet: bytes, protocol: int, length: int) -> int:
    """The partial checksum that a driver leaves; length 0 for segmentation."""
    if packet[0] >> 4 == 4:
        return plain_sum(packet[12:20] + struct.pack(">HH", protocol, length))
    return plain_sum(packet[8:40] + struct.pack(">II", length, protocol))


def tcp(sequence: int, flags: int, data: bytes) -> bytes:
    return struct.pack(">HHIIBBHHH", 1000, 80, sequence, 9, 0x50, flags, 512, 0, 0) + data


def tso_packet(rig: NicRig, data: bytes, *, mss: int, ipv6: bool = False) -> bytes:
    """Queue a context and two data descriptors; gives the headers."""
    segment = tcp(0xFFFF_FF00, 0x19, b"")
    if ipv6:
        ip = struct.pack(">IHBB16s16s", 6 << 28, 0, 6, 64, b"\xfe" * 16, b"\xfd" * 16)
        l3, kind = 40, IPV6
    else:
        ip = ipv4(6, b"", ident=0xFFFF)
        ip = ip[:2] + b"\0\0" + ip[4:]
        l3, kind = 20, IPV4
    segment = segment[:16] + struct.pack(">H", pseudo(ip, 6, 0)) + segment[18:]
    headers = ethernet(ip + segment, kind=kind)
    tu = 14 + l3
    context = 14 | 24 << 8 | (tu - 1) << 16 | tu << 32 | (tu + 16) << 40
    low = 1 << 24 | (0 if ipv6 else 1 << 25) | TSE | len(data)
    rig.context(context, low, len(headers) << 8 | mss << 16)
    options = (2 if ipv6 else 3) << 8
    rig.put(DATA | TSE, options, headers)
    rig.put(DATA | TSE | SEND, options, data)
    return headers


# -- transmit ------------------------------------------------------------------------------------


def test_legacy_descriptor():
    rig = NicRig()
    rig.start_tx()
    rig.set("IMS", TXDW)
    index = rig.put(SEND, 0, ethernet(b"x" * 100))
    assert rig.go() == [ethernet(b"x" * 100)]
    assert rig.tx_status(index) == 1
    assert rig.line
    assert rig.get("ICR") & (TXDW | TXQE) == TXDW | TXQE
    assert rig.get("TDH") == rig.get("TDT") == 1
    assert (rig.get("GPTC"), rig.get("TOTL"), rig.get("PTC127")) == (1, 118, 1)


def test_short_frames_are_padded_and_rs_is_needed_for_status():
    rig = NicRig()
    rig.start_tx()
    index = rig.put(EOP, 0, ethernet(b"x"))
    assert rig.go() == [ethernet(b"x").ljust(60, b"\0")]
    assert rig.tx_status(index) == 0
    assert not rig.get("ICR") & TXDW


def test_a_packet_of_several_descriptors_over_the_end_of_the_ring():
    rig = NicRig()
    rig.start_tx(8)
    for k in range(20):
        parts = [bytes([65 + k]) * 40, b"-" * 30, b"." * 20]
        rig.put(0, 0, ethernet(parts[0]))
        rig.put(0, 0, parts[1])
        rig.put(SEND, 0, parts[2])
        assert rig.go() == [ethernet(b"".join(parts))]


def test_legacy_checksum():
    rig = NicRig()
    rig.start_tx()
    rig.put(SEND | IC | 40 << 16, 14 << 8, ethernet(bytes(range(100))))
    (frame,) = rig.go()
    expected = plain_sum(ethernet(bytes(range(100)))[14:]) ^ 0xFFFF
    assert int.from_bytes(frame[40:42], "big") == expected


def test_extended_checksums():
    rig = NicRig()
    rig.start_tx()
    segment = tcp(1, 0x18, b"hello world")
    packet = ipv4(6, segment)
    partial = pseudo(packet, 6, len(segment))
    packet = packet[:36] + partial.to_bytes(2, "big") + packet[38:]
    frame = ethernet(packet, kind=IPV4)
    rig.context(14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40, 3 << 24, 0)
    rig.put(DATA, 3 << 8, frame[:30])
    rig.put(DATA | SEND, 0, frame[30:])
    (sent,) = rig.go()
    checks = check_received(sent, ALL_CHECKS, internet_sum(sent))
    assert (checks.status, checks.errors) == (0x60, 0)
    assert sent[54:65] == b"hello world"


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(("size", "mss"), [(5000, 1460), (2920, 1460), (100, 1460), (65000, 1000)])
def test_tcp_segmentation(ipv6: bool, size: int, mss: int) -> None:
    rig = NicRig()
    rig.start_tx()
    data = bytes(n * 7 & 0xFF for n in range(size))
    headers = tso_packet(rig, data, mss=mss, ipv6=ipv6)
    frames = rig.go(20_000)
    assert len(frames) == -(-size // mss)
    l3 = 40 if ipv6 else 20
    got = b""
    for n, frame in enumerate(frames):
        ip, last = frame[14:], n == len(frames) - 1
        length = int.from_bytes(ip[4:6], "big") + 40 if ipv6 else int.from_bytes(ip[2:4], "big")
        segment = ip[l3:length]
        checks = check_received(frame, ALL_CHECKS, internet_sum(frame))
        assert (checks.status, checks.errors) == (0x20 if ipv6 else 0x60, 0), n
        assert int.from_bytes(segment[4:8], "big") == (0xFFFF_FF00 + n * mss) & 0xFFFF_FFFF
        assert segment[13] == (0x19 if last else 0x10), "FIN and PSH in the last one only"
        if not ipv6:
            assert int.from_bytes(ip[4:6], "big") == (0xFFFF + n) & 0xFFFF
        assert frame[:14] == headers[:14]
        got += segment[20:]
    assert got == data
    whole = [large.whole() for large in rig.port.large]
    assert b"".join(frame[34 + l3 :] for frame in whole) == data
    assert len(whole) == -(-len(frames) // BATCH), "what leaves at once is one frame"
    for large, frame in zip(rig.port.large, whole, strict=True):
        checks = check_received(frame, ALL_CHECKS, internet_sum(frame))
        assert (checks.status, checks.errors) == (0x20 if ipv6 else 0x60, 0)
        cut = large.cut()
        assert frame[18 + l3 : 22 + l3] == cut[0][18 + l3 : 22 + l3]
        assert frame[27 + l3] == cut[-1][27 + l3]
    assert rig.get("TSCTC") == 1
    assert rig.get("GPTC") == len(frames)
    assert rig.get("TDH") == rig.get("TDT")


def test_segmentation_takes_the_time_of_the_wire():
    rig = NicRig()
    rig.start_tx()
    start = rig.clock.now_ps
    tso_packet(rig, bytes(62_500), mss=1250)
    frames = rig.go(wait_us=500)
    assert len(frames) == 50
    busy_us = (rig.mac.state.tx_free_ps - start) / 1e6
    assert busy_us == pytest.approx(1 + 50 * (1250 + 54 + 24) * 8e-3, abs=0.01)


def test_vlan_tag_is_inserted():
    rig = NicRig()
    rig.start_tx()
    rig.put(SEND | VLE, 0x2123 << 16, ethernet(b"v" * 60))
    assert rig.go() == [ethernet(b"v" * 60)], "CTRL.VME is off"
    rig.set("CTRL", 0x4000_0241)
    rig.put(SEND | VLE, 0x2123 << 16, ethernet(b"v" * 60))
    plain = ethernet(b"v" * 60)
    assert rig.go() == [plain[:12] + b"\x81\x00\x21\x23" + plain[12:]]


def test_too_long_a_packet_is_not_sent():
    rig = NicRig()
    rig.start_tx()
    rig.put(0, 0, bytes(16000))
    rig.put(SEND, 0, bytes(16000))
    rig.put(SEND, 0, ethernet())
    assert rig.go() == [ethernet().ljust(60, b"\0")]


def test_txd_low():
    rig = NicRig()
    rig.start_tx(32)
    rig.set("TXDCTL", 1 << 25)
    for _ in range(20):
        rig.put(SEND, 0, ethernet())
    rig.go(3)
    assert rig.get("ICR") & TXD_LOW


@pytest.mark.parametrize(
    ("name", "value"), [("TDT", 0xFFFF), ("TDH", 0xFFFF), ("TDLEN", 0), ("TCTL", 0)]
)
def test_a_ring_that_makes_no_sense_stands_still(name: str, value: int) -> None:
    rig = NicRig()
    rig.start_tx()
    rig.set("TCTL", 0)
    rig.set("TDT", 4)
    rig.set(name, value)
    if name != "TCTL":
        rig.set("TCTL", 2)
    rig.advance(10**9)
    assert rig.port.sent == []
    assert rig.clock.next_ps is None


# -- receive -------------------------------------------------------------------------------------


def test_receive():
    rig = NicRig()
    rig.start_rx()
    rig.set("IMS", 0x80)
    frame = ethernet(b"r" * 100)
    rig.arrive(frame)
    data, checksum, status, errors, special = rig.rx(0)
    assert data == frame + zlib.crc32(frame).to_bytes(4, "little")
    assert (status, errors, special) == (0x07, 0, 0)
    assert checksum == plain_sum(frame) ^ 0xFFFF
    assert rig.line
    assert rig.get("RDH") == 1
    rig.set("RCTL", 0x0400_8002)
    rig.arrive(ethernet(b"s"))
    assert rig.rx(1)[0] == ethernet(b"s").ljust(60, b"\0"), "SECRC; padded like on the wire"


@pytest.mark.parametrize(
    ("rctl", "size"),
    [(0, 2048), (1 << 16, 1024), (2 << 16, 512), (3 << 16, 256), (1 << 25 | 3 << 16, 4096)],
)
def test_buffer_sizes(rctl: int, size: int) -> None:
    rig = NicRig()
    rig.start_rx(0x0400_8022 | rctl)
    frame = ethernet(bytes(n & 0xFF for n in range(3486)))
    rig.arrive(frame)
    n = -(-len(frame) // size)
    parts = [rig.rx(k) for k in range(n)]
    assert b"".join(p[0] for p in parts) == frame
    assert [len(p[0]) for p in parts[:-1]] == [size] * (n - 1)
    assert [p[2] & 3 for p in parts] == [1] * (n - 1) + [3]


def test_lengths():
    rig = NicRig()
    rig.start_rx()
    assert rig.accepted(ethernet(bytes(1500)))
    assert rig.accepted(ethernet(bytes(1504))), "1522 with FCS is no long packet, tagged or not"
    assert not rig.accepted(ethernet(bytes(1505)))
    assert rig.accepted(ethernet(b"\0\1" + bytes(1502), kind=0x8100))
    assert not rig.accepted(ethernet(b"\0\1" + bytes(1503), kind=0x8100))
    assert not rig.accepted(ethernet(bytes(1505), to=OTHER)), "counted only if it is for us"
    assert rig.get("ROC") == 2
    rig.set("RCTL", 0x8022)
    assert rig.accepted(ethernet(bytes(9000)))
    assert not rig.accepted(ethernet(bytes(16367)))
    rig.arrive(b"short")
    rig.arrive(b"")


def test_address_filters():
    rig = NicRig()
    stranger, group = bytes.fromhex("525400999999"), bytes.fromhex("01005e0000fb")
    rig.start_rx(0x2)
    assert rig.accepted(ethernet())
    assert not rig.accepted(ethernet(to=stranger))
    assert not rig.accepted(ethernet(to=BROADCAST))
    assert not rig.accepted(ethernet(to=group))
    rig.set("RCTL", 0x8002)
    assert rig.accepted(ethernet(to=BROADCAST))
    rig.set("RCTL", 0x000A)
    assert rig.accepted(ethernet(to=stranger))
    assert not rig.accepted(ethernet(to=group))
    rig.set("RCTL", 0x0012)
    assert not rig.accepted(ethernet(to=stranger))
    assert rig.accepted(ethernet(to=group))
    rig.set("RCTL", 0x0002)
    rig.set("RAL3", int.from_bytes(stranger[:4], "little"))
    rig.set("RAH3", int.from_bytes(stranger[4:], "little") | 1 << 31)
    assert rig.accepted(ethernet(to=stranger))
    rig.set("RAH3", int.from_bytes(stranger[4:], "little") | 1 << 31 | 1 << 16)
    assert not rig.accepted(ethernet(to=stranger))
    assert rig.accepted(ethernet(to=OTHER, source=stranger)), "AS: source"
    rig.set("RAH3", 0)
    assert not rig.accepted(ethernet(to=OTHER, source=stranger))


@pytest.mark.parametrize(("offset", "value"), [(0, 0x563), (1, 0xAC6), (2, 0x58D), (3, 0x634)])
def test_multicast_table(offset: int, value: int) -> None:
    """The manual's example address (13.4.22, MO) with the group bit set."""
    rig = NicRig()
    rig.start_rx(0x2 | offset << 12)
    frame = ethernet(to=bytes.fromhex("01aa00123456"))
    assert not rig.accepted(frame)
    rig.set(f"MTA{value >> 5}", 1 << (value & 31))
    assert rig.accepted(frame)
    index = (rig.get("RDH") - 1) % RING
    assert rig.rx(index)[2] & 0x80, "passed by hash only: PIF"


def test_vlan():
    rig = NicRig()
    rig.start_rx(0x0404_8002)
    rig.set("CTRL", 0x4000_0241)
    tagged = ethernet(b"\x20\x45\x88\xb5" + b"t" * 60, kind=0x8100)
    assert not rig.accepted(tagged)
    rig.set("VFTA2", 1 << 5)
    assert rig.accepted(tagged)
    data, _, status, _, special = rig.rx(0)
    assert data == ethernet(b"t" * 60)
    assert status & 8
    assert special == 0x2045
    rig.set("CTRL", 0x241)
    assert rig.accepted(tagged)
    assert rig.rx(1)[0] == tagged, "not stripped without CTRL.VME"
    rig.set("RCTL", 0x040C_8002)
    assert rig.accepted(tagged), "CFI is 0, as RCTL.CFI"
    assert not rig.accepted(ethernet(b"\x30\x45" + bytes(60), kind=0x8100))
    assert rig.accepted(ethernet()), "no tag: no VLAN filter"


def test_receive_checksums():
    rig = NicRig()
    rig.start_rx()
    rig.set("RXCSUM", 0x300)
    body = struct.pack(">HHHH", 1, 2, 13, 0) + b"hello"
    packet = ipv4(17, body)
    udp_sum = plain_sum(packet[12:20] + struct.pack(">HH", 17, 13) + body) ^ 0xFFFF
    body = body[:6] + udp_sum.to_bytes(2, "big") + body[8:]
    packet = packet[:10] + (plain_sum(packet[:20]) ^ 0xFFFF).to_bytes(2, "big") + packet[12:20]
    good = ethernet(packet + body, kind=IPV4)
    for n, (frame, status, errors) in enumerate(
        (
            (good, 0x60, 0),
            (good[:-1] + b"!", 0x60, 0x20),
            (good[:22] + b"\1" + good[23:], 0x60, 0x40),
            (ethernet(), 0x04, 0),
            (good[:40] + b"\0\0" + good[42:], 0x40, 0),
        )
    ):
        rig.arrive(frame)
        _, _, got, error, _ = rig.rx(n)
        assert (got & 0x64, error) == (status, errors), n


def random_packet(rng: random.Random, payload: bytes) -> bytes:
    """TCP or UDP with a checksum that is right, or with one bit that is not as it was."""
    protocol = rng.choice((6, 6, 17))
    head = struct.pack(">HHHH", 1, 2, 8 + len(payload), 0)
    body = tcp(5, 0x10, payload) if protocol == 6 else head + payload
    at = 16 if protocol == 6 else 6
    ip = ipv4(protocol, body)
    ip = ip[:10] + (plain_sum(ip[:20]) ^ 0xFFFF).to_bytes(2, "big") + ip[12:]
    total = plain_sum(pseudo(ip, protocol, len(body)).to_bytes(2, "big") + body) ^ 0xFFFF
    packet = bytearray(ethernet(ip, kind=IPV4))
    packet[34 + at : 36 + at] = total.to_bytes(2, "big")
    if rng.random() < 0.3:
        packet[rng.randrange(34, len(packet))] ^= 1 << rng.randrange(8)
    return bytes(packet) + bytes(rng.choice((0, 0, 3, 4)))


def test_transport_checksums_beside_a_sum_word_by_word() -> None:
    rng = random.Random(1)
    wrong = 0
    for _ in range(300):
        frame = random_packet(rng, rng.randbytes(rng.randrange(200)))
        length = int.from_bytes(frame[16:18], "big") - 20
        body = frame[34 : 34 + length]
        of_pseudo = pseudo(frame[14:], frame[23], length).to_bytes(2, "big")
        none = frame[23] == 17 and body[6:8] == b"\0\0"
        bad = plain_sum(of_pseudo + body) != 0xFFFF
        wrong += bad
        checks = check_received(frame, 0x200, internet_sum(frame))
        status = 0x04 if none else 0x20
        assert (checks.status, checks.errors) == (status, 0x20 if bad and not none else 0)
    assert wrong > 50


def random_frames(rng: random.Random) -> list[bytes]:
    """Wanted and unwanted ones of all lengths, with tags and good and bad checksums."""
    frames = []
    for _ in range(rng.randrange(1, 30)):
        payload = rng.randbytes(rng.choice((1, 46, 300, 1480, 1500, rng.randrange(2100))))
        match rng.randrange(6):
            case 0:
                to = rng.choice((BROADCAST, OTHER, b"\1\0^\0\0\1"))
                frames.append(ethernet(payload, to=to))
            case 1:
                tag = rng.choice((0, 5, 5)).to_bytes(2, "big") + b"\x08\0"
                frames.append(ethernet(tag + payload, kind=0x8100))
            case 2:
                pause = b"\0\1" + rng.randbytes(2) + bytes(42)
                frames.append(ethernet(pause, to=bytes.fromhex("0180c2000001"), kind=0x8808))
            case 3:
                frames.append(MAC + payload[:20])
            case _:
                frames.append(random_packet(rng, payload))
    return frames


@pytest.mark.parametrize("seed", range(40))
def test_frames_at_once_are_as_frames_one_by_one(seed: int) -> None:
    """The same in memory and in the registers, whatever the settings."""
    rng = random.Random(seed)
    rctl = 0x8002 | rng.choice((0, 1 << 5)) | rng.choice((0, 1 << 26)) | rng.choice((0, 1 << 18))
    rctl |= rng.choice((0, 3 << 16, 2 << 16)) | rng.choice((0, 1 << 8))
    settings = {
        "RXCSUM": rng.choice((0, 0x300, 0x700, 0x20E, 0x30F)),
        "VET": 0x8100,
        "CTRL": 0x241 | rng.choice((0, 1 << 30)) | rng.choice((0, 1 << 27)),
        "FCAL": 0x00C28001,
        "FCAH": 0x0100,
        "FCT": 0x8808,
        "PBA": rng.choice((2, 48)),
    }
    rigs = NicRig(), NicRig()
    for rig in rigs:
        rig.start_rx(rctl, tail=rng.randrange(RING) if rig is rigs[0] else rigs[0].get("RDT"))
        rig.mac.state.vfta[0] = 1 << 5
        for name, value in settings.items():
            rig.set(name, value)
    for _ in range(6):
        frames = random_frames(rng)
        rigs[0].arrive(*frames)
        for frame in frames:
            rigs[1].arrive(frame)
        tail = rng.randrange(RING)
        for rig in rigs:
            rig.set("RDT", tail)
        assert rigs[0].ram == rigs[1].ram
        states = [rig.nic.save() for rig in rigs]
        assert states[0] == states[1]
        assert rigs[0].get("ICR") == rigs[1].get("ICR")


def test_a_burst_of_frames_needs_two_transfers_of_descriptors() -> None:
    rig = NicRig()
    heard: list[tuple[int, int, bool]] = []
    rig.root.trace_dma = lambda name, gpa, length, write: heard.append((gpa, length, write))
    bursts: list[Burst] = []
    rig.nic.requests.report_burst = bursts.append
    rig.start_rx()
    rig.arrive(*[ethernet(bytes([n]) * 100) for n in range(12)])
    assert heard == [(RX_RING, 12 * 16, False), (RX_RING, 12 * 16, True)]
    (burst,) = bursts
    found = list(burst.served())
    assert [begin.head for begin, *_ in found] == list(range(12))
    assert [gpa for _, gpa, _, _ in found] == [RX_DATA + n * SLOT_BYTES for n in range(12)]
    assert {size for _, _, size, _ in found} == {118}
    assert [begin.number for begin, *_ in found] == [end.number for *_, end in found]
    heard.clear()
    rig.set("RDT", 10)
    rig.arrive(*[ethernet(bytes([n]) * 100) for n in range(8)])
    pieces = [(RX_RING + 12 * 16, 4 * 16), (RX_RING, 4 * 16)]
    assert heard == [(*piece, write) for write in (False, True) for piece in pieces], "over the end"
    assert [rig.rx(n)[0][14] for n in (12, 15, 0, 3)] == [0, 3, 4, 7]


def test_frames_wait_in_the_packet_buffer():
    rig = NicRig()
    rig.start_rx(tail=2)
    rig.set("IMS", RXO)
    frames = [ethernet(bytes([n]) * 1000) for n in range(60)]
    for frame in frames:
        rig.arrive(frame)
    assert rig.get("RDH") == 2
    assert rig.line, "48 KB are full"
    kept = rig.get("RDFPC")
    assert kept == 48 * 1024 // 1018
    assert rig.get("MPC") == 60 - 2 - kept
    assert rig.get("GPRC") == 2 + kept, "without those that were missed"
    assert rig.get("RNBC") == kept
    rig.set("RDT", 12)
    assert rig.get("RDH") == 12
    assert [rig.rx(n)[0][:-4] for n in range(12)] == frames[:12]


def test_rxdmt0():
    rig = NicRig()
    rig.start_rx(0x8002 | 1 << 8)  # a quarter of 16
    for n in range(1, 15):
        rig.arrive(ethernet())
        assert bool(rig.get("ICR") & RXDMT0) is (n == 11), n


@pytest.mark.parametrize(("name", "value"), [("RDT", 0xFFFF), ("RDH", 0xFFFF), ("RDLEN", 0)])
def test_a_receive_ring_that_makes_no_sense(name: str, value: int) -> None:
    rig = NicRig()
    rig.start_rx()
    rig.set(name, value)
    before = bytes(rig.ram)
    for _ in range(2000):
        rig.arrive(ethernet(to=MAC))
    assert bytes(rig.ram) == before
    assert RX_RING != RX_DATA != TX_DATA

"""82540EM against a driver that does anything: no exception, no endless work, recovery by reset."""

from __future__ import annotations

import random
import struct
import time

import pytest

from tests.hw.e1000_rig import BAR0, IO, NicRig, ethernet
from workbench.hw.e1000.mac import MAP

OPERATIONS = 15_000
INTERESTING = (0, 1, 7, 8, 15, 16, 0x7F, 0x80, 0xFF, 0xFFFF, 0x10_0000, 0xFFFF_FFFF, 0x8000_0000)
RINGS = ("TDBAL", "TDLEN", "TDH", "TDT", "RDBAL", "RDLEN", "RDH", "RDT", "TCTL", "RCTL", "CTRL")


def random_value(rng: random.Random) -> int:
    return rng.choice((rng.choice(INTERESTING), rng.getrandbits(32), rng.getrandbits(12)))


def random_descriptor(rng: random.Random) -> bytes:
    address = rng.choice((rng.getrandbits(22), rng.getrandbits(22), rng.getrandbits(64), BAR0))
    low = rng.getrandbits(32)
    if rng.random() < 0.8:
        low = low & 0xFF00_0000 | rng.choice((0, 1 << 20)) | rng.getrandbits(12)
    return struct.pack("<QII", address, low, rng.getrandbits(32))


def step(rig: NicRig, rng: random.Random) -> None:
    match rng.randrange(12):
        case 0 | 1:
            rig.set(rng.choice(MAP.regs).name, random_value(rng))
        case 2 | 3:
            name = rng.choice(RINGS)
            rig.set(name, random_value(rng))
            if name == "CTRL":
                rig.set("CTRL", 0x241)
        case 4:
            rig.get(rng.choice(MAP.regs).name)
        case 5:
            size = rng.choice((1, 2, 4, 8))
            rig.mmio.write(BAR0 + rng.randrange(0x2_0000 - 8), size, rng.getrandbits(8 * size))
        case 6:
            rig.mmio.read(BAR0 + rng.randrange(0x2_0000 - 8), rng.choice((1, 2, 4, 8)))
        case 7:
            rig.pio.write(IO, 4, rng.choice(MAP.regs).offset)
            rig.pio.write(IO + 4, 4, random_value(rng))
        case 8:
            base = rig.mac.state.tdbal % len(rig.ram)
            raw = b"".join(random_descriptor(rng) for _ in range(16))
            rig.ram[base : base + len(raw)] = raw[: len(rig.ram) - base]
            rig.set("TCTL", 2)
            rig.set("TDLEN", 128 * rng.randrange(3))
            rig.set("TDH", rng.randrange(8))
            rig.set("TDT", rng.randrange(8))
        case 9:
            rig.arrive(rng.randbytes(rng.choice((0, 13, 14, 60, 1514, 9000, 65550))))
            rig.arrive(
                ethernet(rng.randbytes(rng.randrange(1600)), kind=rng.choice((0x800, 0x86DD)))
            )
        case 10:
            rig.clock.icount += rng.randrange(10 ** rng.randrange(2, 8))
            for _ in range(4):
                rig.clock.run_due()
                rig.clock.icount += 2000
        case _:
            rig.port.receiver(
                rng.choice(("link", "frame", "else")), [rng.randbytes(rng.randrange(9))]
            )
            rig.port.sent.clear()


@pytest.mark.parametrize("seed", range(4))
def test_random_driver(seed: int) -> None:
    rng = random.Random(seed)
    rig = NicRig()
    rig.start_tx()
    rig.start_rx()
    begin = time.monotonic()
    for n in range(OPERATIONS):
        step(rig, rng)
        assert len(rig.mac.state.tx_buffer) < 2 << 20
        assert sum(map(len, rig.mac.state.rx_fifo)) < 1 << 26
        if n % 3000 == 2999:
            twin = NicRig()
            twin.nic.restore(rig.nic.save())
            assert twin.nic.save() == rig.nic.save()
    assert time.monotonic() - begin < 120
    works_after_reset(rig)


def works_after_reset(rig: NicRig) -> None:
    rig.port.sent.clear()
    rig.nic.reset()
    rig.nic.write(0x10, 4, BAR0)
    rig.nic.write(0x04, 2, 7)
    rig.port.receiver("link", [b"\1"])
    rig.set("CTRL", 0x241)
    rig.advance(10**11)
    rig.start_tx()
    rig.start_rx()
    rig._queued = 0
    rig.put(0x0B00_0000, 0, ethernet(b"alive" * 20))
    assert rig.go() == [ethernet(b"alive" * 20)]
    mac = (rig.mac.state.rah[0] & 0xFFFF) << 32 | rig.mac.state.ral[0]
    assert rig.accepted(ethernet(to=mac.to_bytes(6, "little")))


def test_an_endless_ring_of_segmentation_lets_the_guest_run() -> None:
    """MSS 0 over megabytes: each go is short, and time passes between them."""
    rig = NicRig()
    rig.start_tx()
    rig.context(14 | 24 << 8 | 34 << 32 | 50 << 40, 7 << 24 | 0xF_FFFF, 54 << 8)
    for _ in range(10):
        rig.put(1 << 29 | 1 << 20 | 1 << 26 | 0xF_FFFF, 0, address=0x1000)
    rig.set("TDT", 11)
    for _ in range(5):
        begin = time.monotonic()
        before = rig.clock.now_ps
        due = rig.clock.next_ps
        assert due is not None
        rig.clock.skip_to(due)
        rig.clock.run_due()
        assert time.monotonic() - begin < 2
        assert rig.clock.now_ps > before
    assert 0 < len(rig.port.sent) <= 5 * 64

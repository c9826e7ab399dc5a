"""IDE against drivers that keep no rule: nothing raises, nothing hangs, a reset repairs it."""

from __future__ import annotations

import json
import os
import random

import pytest

from tests.hw.ide_rig import BM, DRDY, DSC, IdeRig, MemoryDisk
from workbench.hw.ata.ata import AtaDisk
from workbench.hw.ata.atapi import AtapiDrive

OPERATIONS = int(os.environ.get("WORKBENCH_HOSTILE_OPERATIONS", "20000"))
PORTS = (*range(0x1F0, 0x1F8), 0x3F6, *range(0x170, 0x178), 0x376, *range(BM, BM + 16))
COMMANDS = (
    0x06, 0x08, 0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x42, 0x90, 0x91, 0xA0, 0xA0, 0xA0,
    0xB0, 0xC4, 0xC5, 0xC6, 0xC8, 0xCA, 0xCE, 0xE7, 0xEC, 0xEF, 0xA1, 0xF8,
)  # fmt: skip
PACKETS = (0x00, 0x03, 0x12, 0x1B, 0x1E, 0x25, 0x28, 0x43, 0x46, 0x4A, 0x5A, 0xA8, 0xBE, 0xB9, 0x28)


def build():
    disks = MemoryDisk(3000, 5), MemoryDisk(70_000, 6)
    discs = MemoryDisk(400, 7), MemoryDisk(3)
    return IdeRig(
        (
            (AtaDisk("d0", disks[0]), AtaDisk("d1", disks[1])),
            (
                AtapiDrive("cd0", discs[0], discs=discs[1:]),
                AtaDisk("d2", MemoryDisk(64, read_only=True)),
            ),
        )
    )


class Hostile:
    """One random driver."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.rig = build()
        self.rig.root.trace_dma = lambda *event: None  # a million operations would fill memory
        self.seen = []

    def run(self, count):
        for _ in range(count):
            self.operation()
            if len(self.seen) > 100_000:
                self.seen.clear()
                self.rig.edges.clear()
                for channel in self.rig.ide.channels:
                    for drive in channel.drives:
                        for disk in (getattr(drive, "disk", None), *getattr(drive, "discs", ())):
                            if disk is not None:
                                disk.calls.clear()

    def operation(self):
        rng, rig = self.rng, self.rig
        match rng.randrange(16):
            case 0 | 1 | 2:
                size = rng.choice((1, 1, 2, 4))
                value = rig.pio.read(rng.choice(PORTS), size)
                assert 0 <= value < 1 << 8 * size
                self.seen.append(value)
            case 3 | 4:
                size = rng.choice((1, 1, 2, 4))
                value = rng.choice((0, 1, 0xFF, rng.getrandbits(8 * size)))
                port = rng.choice(PORTS)
                if port in (0x3F6, 0x376) and rng.random() < 0.9:
                    value = 0
                rig.pio.write(port, size, value & (1 << 8 * size) - 1)
            case 5 | 6 | 7:
                channel = rng.randrange(2)
                code = rng.choice(COMMANDS) if rng.random() < 0.95 else rng.randrange(256)
                if code == 0xE6 and rng.random() < 0.9:
                    code = 0xA0  # a drive that sleeps is no test
                rig.command(
                    code,
                    rng.choice((0, 1, 63, 30, 2990, 0xFFFF00, rng.getrandbits(48), 0xC24F00)),
                    rng.choice((0, 1, 2, 17, rng.randrange(256), 65535)),
                    features=rng.choice((0, 1, 2, 3, 0xD0, rng.randrange(256))),
                    ext=rng.random() < 0.5,
                    channel=channel,
                    device=rng.choice((0xE0, 0xE0, 0xF0, 0xA0, rng.randrange(256))) & 0xF0,
                )
            case 8:
                window = rig.pio.find(rng.choice((0x1F0, 0x170)))
                if window is not None:
                    size, n = rng.choice((2, 4)), rng.choice((1, 6, 128, 256, 1024))
                    if rng.random() < 0.5:
                        assert len(window.read_block(0, size, n)) == size * n
                    else:
                        packet = bytes((rng.choice(PACKETS),)) + rng.randbytes(size * n)
                        window.write_block(0, size, packet[: size * n])
            case 9:
                self.packet(rng.randrange(2))
            case 14:
                self.prd_table()
                rig.start(
                    rng.randrange(2),
                    to_memory=rng.random() < 0.5,
                    at=rng.choice((0x8000, 0x8000, rng.getrandbits(20))),
                )
            case 10:
                rig.pio.write(BM + 8 * rng.randrange(2), 1, rng.choice((0, 1, 9)))
            case 11 if rng.random() < 0.05:
                rig.ide.write(0x04, 2, rng.choice((0, 1, 4, 5, 5, 5)))
            case 12 if rng.random() < 0.05:
                drive = rig.ide.channels[1].drives[0]
                drive.receive(rng.choice(("eject", "insert", "x")), rng.choice((b"", b"1", b"5")))
            case 13 if rng.random() < 0.02:
                rig.power_up()
            case _:
                for _ in range(3):
                    rig.step()

    def packet(self, channel):
        """A packet, in form if not in sense, and sometimes all that follows it."""
        rng, rig = self.rng, self.rig
        limit = rng.choice((0, 1, 2, 2048, 0xFFFF, rng.getrandbits(16)))
        rig.command(0xA0, limit << 8, 0, features=rng.randrange(3), channel=channel, device=0xA0)
        small = bytes(rng.choice((0, 0, 0, 1, 2, 16, 0xF8, rng.randrange(256))) for _ in range(11))
        data = bytes((rng.choice(PACKETS),)) + small
        rig.pio_out(data, channel=channel)
        for _ in range(rng.randrange(6)):
            rig.step()
            window = rig.pio.find((0x1F0, 0x170)[channel])
            if window is not None:
                self.seen.append(window.read_block(0, 4, rng.choice((1, 512, 16384)))[:8])

    def prd_table(self):
        """Descriptors that are short, long, out of memory, without an end."""
        rng, ram = self.rng, self.rig.ram
        at = rng.randrange(len(ram) - 64)
        if rng.random() < 0.5:
            at = 0x8000
        ram[at : at + 64] = b"".join(
            rng.choice((0x4000, rng.getrandbits(32))).to_bytes(4, "little")
            + rng.choice((2, 0, 512, 1 << 31, 1 << 31 | 512, rng.getrandbits(32))).to_bytes(
                4, "little"
            )
            for _ in range(8)
        )


@pytest.mark.parametrize("seed", range(4))
def test_random_driver(seed):
    hostile = Hostile(seed)
    hostile.run(OPERATIONS)
    rig = hostile.rig
    rig.power_up()
    for channel in (0, 1):
        rig.control(4, channel)
        rig.control(0, channel)
        rig.wait(channel)
    rig.command(0xEF, count=0x0C, features=3)
    assert rig.wait() == DRDY | DSC
    rig.command(0x20, 5)
    rig.wait()
    disk = rig.ide.channels[0].drives[0].disk
    assert rig.pio_in() == disk.data[5 * 512 : 6 * 512]
    for _ in range(1000):
        if not rig.step():
            break
    else:
        pytest.fail("timers for ever")


def test_equal_drivers_see_equal_things():
    one, two = Hostile(99), Hostile(99)
    one.run(3000)
    two.run(3000)
    assert one.seen == two.seen
    assert one.rig.edges == two.rig.edges
    assert one.rig.ide.save() == two.rig.ide.save()
    assert one.rig.ram == two.rig.ram


def test_snapshots_in_the_middle_change_nothing():
    one, two = Hostile(7), Hostile(7)
    for _ in range(60):
        one.run(50)
        two.run(50)
        saved = json.loads(json.dumps(two.rig.ide.save()))
        edges = list(two.rig.edges)
        two.rig.ide.restore(saved)
        assert two.rig.ide.save() == saved == one.rig.ide.save()
        assert two.rig.edges == edges == one.rig.edges
    assert one.seen == two.seen

"""PIIX3 IDE with a disk: what settings and addresses do to what is seen later."""

from __future__ import annotations

import struct

import pytest

from tests.hw.ide_rig import DRDY, DRQ, DSC, ERR, IdeRig, MemoryDisk
from workbench.hw.ata.ata import AtaDisk

OK = DRDY | DSC


class EmptyDisk(MemoryDisk):
    """As large as it says, full of its addresses, without the memory."""

    def __init__(self, sectors):
        super().__init__(0)
        self.sectors = sectors

    def read(self, lba, count):
        assert lba + count <= self.sectors
        return b"".join(struct.pack("<Q", n) * 64 for n in range(lba, lba + count))


@pytest.fixture
def rig():
    return IdeRig()


def words(rig):
    rig.command(0xEC)
    assert rig.wait() == OK | DRQ
    return struct.unpack("<256H", rig.pio_in())


def test_identify_follows_the_settings(rig):
    before = words(rig)
    assert before[82] == before[85]
    assert before[84] == before[87]
    for features, bit in ((0x82, 5), (0x55, 6)):
        rig.command(0xEF, features=features)
        assert rig.wait() == OK
        assert not words(rig)[85] >> bit & 1
    rig.command(0xB0, 0xC24F00, features=0xD9)
    assert rig.wait() == OK
    assert not words(rig)[85] & 1
    for features in (0x02, 0xAA):
        rig.command(0xEF, features=features)
        rig.wait()
    rig.command(0xB0, 0xC24F00, features=0xD8)
    rig.wait()
    assert words(rig)[85] == before[85]
    for count in (8, 0):
        rig.command(0xC6, count=count)
        rig.wait()
        assert words(rig)[59] == (0x100 | count if count else 0)


def test_large_disk():
    """An address of 48 bits, whose upper part is in the previous contents; 28 bits do not reach."""
    sectors = (1 << 40) + 3
    rig = IdeRig(((AtaDisk("a", EmptyDisk(sectors)), None), (None, None)))
    data = words(rig)
    assert data[60] | data[61] << 16 == (1 << 28) - 1
    assert sum(data[100 + n] << 16 * n for n in range(4)) == sectors
    rig.command(0x24, sectors - 1, 1, ext=True)
    assert rig.wait() == OK | DRQ
    assert struct.unpack_from("<Q", rig.pio_in())[0] == sectors - 1
    rig.command(0x27, 0, 0, ext=True)
    assert rig.wait() == OK
    low = [rig.reg(n) for n in (3, 4, 5)]
    rig.control(0x80)
    high = [rig.reg(n) for n in (3, 4, 5)]
    assert int.from_bytes(bytes(low + high), "little") == sectors - 1
    rig.control(0)
    rig.command(0xF8)
    rig.wait()
    assert [rig.reg(n) for n in (3, 4, 5)] + [rig.reg(6) & 0xF] == [0xFE, 0xFF, 0xFF, 0xF]


def test_count_of_48_bits():
    """A count of 0 is 65,536 sectors; one that leads over the end moves nothing."""
    rig = IdeRig(((AtaDisk("a", EmptyDisk(70_000)), None), (None, None)))
    rig.command(0x42, 4464, 0, ext=True)
    assert rig.wait() == OK
    rig.command(0x42, 4465, 0, ext=True)
    assert rig.wait() == OK | ERR
    assert rig.reg(1) == 0x10
    assert rig.reg(3) | rig.reg(4) << 8 | rig.reg(5) << 16 == 70_000  # the first that is not there


@pytest.mark.parametrize(("code", "multiple"), [(0x20, 1), (0xC4, 2)])
def test_error_in_the_middle_of_a_transfer(rig, code, multiple):
    """Blocks before it are given; then ERR, UNC and the address, with an interrupt and no DRQ."""
    rig.disk.bad.add(14)
    rig.command(0xC6, count=2)
    rig.wait()
    rig.command(code, 10, 8)
    for _ in range(4 // multiple):
        assert rig.wait() == OK | DRQ
        rig.pio_in(block=512 * multiple)
    assert rig.wait() == OK | ERR
    assert rig.reg(1) == 0x40
    assert rig.reg(3) == 14
    assert rig.lines[0].level
    rig.command(0x20, 20)
    assert rig.wait() == OK | DRQ
    assert rig.reg(1) == 0


def smart(rig, what, log=0, count=1):
    rig.command(0xB0, 0xC24F00 | log, count, features=what)
    return rig.wait()


def test_smart_thresholds_are_of_the_same_attributes(rig):
    assert smart(rig, 0xD0) == OK | DRQ
    values = rig.pio_in()
    assert smart(rig, 0xD1) == OK | DRQ
    thresholds = rig.pio_in()
    for at in range(2, 362, 12):
        assert values[at] == thresholds[at]
        worst = min(values[at + 3], values[at + 4])
        assert not values[at] or worst > thresholds[at + 1]  # none fails, or ever did
    assert sum(thresholds) & 0xFF == 0


def test_smart_logs_are_those_of_the_directory(rig):
    assert smart(rig, 0xD5, log=0) == OK | DRQ
    directory = rig.pio_in()
    for log in range(1, 256):
        there = int.from_bytes(directory[2 * log : 2 * log + 2], "little")
        assert (smart(rig, 0xD5, log=log) == OK | DRQ) == bool(there)
        if there:
            assert sum(rig.pio_in()) & 0xFF == 0
    assert smart(rig, 0xD5, log=1, count=0) == OK | ERR


def test_smart_without_self_tests(rig):
    assert smart(rig, 0xD2, count=0xF1) == OK
    assert smart(rig, 0xD4, log=0) == OK
    for test in (1, 2, 0x81):
        assert smart(rig, 0xD4, log=test) == OK | ERR
    assert smart(rig, 0xD0) == OK | DRQ
    assert not rig.pio_in()[367] & 0x10  # and says so


def test_flush_interrupts_and_does(rig):
    for code in (0xE7, 0xEA):
        rig.disk.calls.clear()
        rig.command(code)
        assert rig.status() & 0x80
        assert not rig.disk.calls
        assert rig.wait() == OK
        assert rig.disk.calls == [("flush",)]
        assert rig.lines[0].level
        rig.status()


def test_security_changes_nothing(rig):
    """Word 128 says that there is none, and each command of it is aborted without taking data."""
    data = words(rig)
    assert not data[82] & 2
    assert data[128] == 0
    for code in range(0xF1, 0xF7):
        rig.command(code)
        assert rig.wait() == OK | ERR
        assert rig.reg(1) == 4
        rig.pio_out(bytes(512))
    rig.command(0x20, 3)
    assert rig.wait() == OK | DRQ
    assert rig.pio_in() == rig.disk.data[3 * 512 : 4 * 512]


def test_nien_keeps_the_interrupt(rig):
    """One that comes while nIEN is set is seen when it is cleared, as Status has not been read."""
    rig.control(2)
    rig.command(0x40)
    rig.wait()
    assert not rig.lines[0].level
    rig.control(0)
    assert rig.lines[0].level
    rig.control(2)
    assert not rig.lines[0].level
    rig.status()
    rig.control(0)
    assert not rig.lines[0].level

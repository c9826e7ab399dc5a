"""The CD-ROM drive behind PIIX3 IDE: packets by PIO and DMA, media, sense."""

from __future__ import annotations

import pytest

from tests.hw.ide_rig import BM, DRDY, DRQ, DSC, ERR, IdeRig, MemoryDisk
from workbench.hw.ata.atapi import AtapiDrive
from workbench.hw.ata.rawsector import cut

OK = DRDY | DSC
CHECK = OK | ERR
NO_MEDIUM, CHANGED, LOCKED = 0x023A00, 0x062800, 0x055302


@pytest.fixture
def rig():
    return IdeRig()


def cd(rig):
    return rig.ide.channels[1].drives[0]


def test_identify_packet_device(rig):
    rig.command(0xA1, channel=1)
    assert rig.wait(1) == OK | DRQ
    data = rig.pio_in(channel=1)
    assert data[0:2] == b"\xc0\x85"
    assert sum(data) & 0xFF == 0
    assert rig.status(1) == OK


def test_identify_device_is_aborted_with_the_signature(rig):
    rig.command(0xEC, channel=1)
    assert rig.wait(1) == CHECK
    assert rig.reg(1, 1) == 4
    assert (rig.reg(4, 1), rig.reg(5, 1)) == (0x14, 0xEB)


def test_inquiry(rig):
    data = rig.packet_in(0x12, 0, 0, 0, 36)
    assert len(data) == 36
    assert data[0] == 5
    assert data[1] == 0x80
    assert data[16:32] == b"WORKBENCH CD-ROM"
    assert len(rig.packet_in(0x12, 0, 0, 0, 5)) == 5


def test_capacity(rig):
    assert rig.packet_in(0x25) == bytes((0, 0, 0, 63, 0, 0, 8, 0))


@pytest.mark.parametrize("limit", [2048, 512, 100, 5120, 0xFFFF, 0xFFFE, 1023])
def test_read_10_by_pio(rig, limit):
    assert rig.packet_in(0x28, 0, 0, 0, 0, 3, 0, 0, 5, limit=limit) == rig.iso.data[6144:16384]


def test_interrupts_of_a_packet(rig):
    rig.packet(0x28, 0, 0, 0, 0, 0, 0, 0, 1)
    assert rig.edges == [(15, True)]  # for the data, not for the packet
    assert rig.status(1) == OK | DRQ
    rig.pio_in(channel=1, block=2048)
    rig.wait(1)
    assert rig.edges == [(15, True), (15, False), (15, True)]
    assert rig.reg(2, 1) == 3


def test_read_12_by_dma(rig):
    rig.table((0x4000, 4096))
    rig.command(0xA0, count=0, features=1, channel=1, device=0xA0)
    rig.pio_out(bytes((0xA8, 0, 0, 0, 0, 10, 0, 0, 0, 2, 0, 0)), channel=1)
    rig.start(1)
    assert rig.wait(1) == OK
    assert rig.bmis(1) == 4
    assert rig.reg(2, 1) == 3
    assert rig.ram[0x4000:0x5000] == rig.iso.data[20480:24576]


def test_short_reply_by_dma(rig):
    rig.table((0x4000, 36))
    rig.command(0xA0, count=0, features=1, channel=1, device=0xA0)
    rig.pio_out(bytes((0x12, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0)), channel=1)
    rig.start(1)
    assert rig.wait(1) == OK
    assert rig.ram[0x4008:0x4010] == b"WORKBNCH"


def test_byte_count_limit_of_zero(rig):
    assert rig.packet(0x28, 0, 0, 0, 0, 0, 0, 0, 1, limit=0) == CHECK
    assert rig.reg(1, 1) == 4


def test_outside_the_disc(rig):
    assert rig.packet(0x28, 0, 0, 0, 0, 63, 0, 0, 2) == CHECK
    assert rig.reg(1, 1) == 0x54
    assert rig.sense() == 0x052100
    assert rig.sense() == 0


def test_bad_block(rig):
    rig.iso.bad.add(9)
    assert rig.packet(0x28, 0, 0, 0, 0, 2, 0, 0, 1) == CHECK
    assert rig.sense() == 0x031100


def test_unknown_packet(rig):
    assert rig.packet(0xFF) == CHECK
    assert rig.sense() == 0x052000


def test_toc(rig):
    toc = rig.packet_in(0x43, 0, 0, 0, 0, 0, 0, 1, 0)
    assert toc == bytes.fromhex("0012 0101 0014 0100 00000000 0016 aa00 00000040")
    toc = rig.packet_in(0x43, 2, 0, 0, 0, 0xAA, 0, 1, 0)
    assert rig.packet_in(0x43, 2, 0, 0, 0, 0, 0xAA, 1, 0)[8:] == bytes((0, 0, 2, 64))
    assert rig.packet_in(0x43, 0, 1, 0, 0, 0, 0, 1, 0)[:4] == bytes((0, 10, 1, 1))
    assert len(rig.packet_in(0x43, 0, 2, 0, 0, 0, 0, 1, 0)) == 4 + 4 * 11
    assert rig.packet(0x43, 0, 0, 0, 0, 0, 2, 1, 0) == CHECK


def test_mode_sense(rig):
    assert rig.packet_in(0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 128)[8:10] == b"\x2a\x12"
    assert rig.packet_in(0x1A, 0, 0x0E, 0, 128)[4:6] == b"\x0e\x0e"
    assert rig.packet(0x5A, 0, 0x33, 0, 0, 0, 0, 0, 128) == CHECK
    assert rig.sense() == 0x052400


def test_configuration_and_events(rig):
    data = rig.packet_in(0x46, 0, 0, 0, 0, 0, 0, 0, 255)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert data[6:8] == b"\0\x08"
    data = rig.packet_in(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8)
    assert data == bytes((0, 4, 4, 0x10, 0, 2, 0, 0))


def test_eject_and_insert(rig):
    assert rig.packet(0x1B, 0, 0, 0, 2) == OK
    assert rig.packet(0x00) == CHECK
    assert rig.sense() == NO_MEDIUM
    assert rig.packet(0x1B, 0, 0, 0, 3) == OK
    assert rig.packet(0x00) == CHECK
    assert rig.sense() == CHANGED
    assert rig.packet(0x00) == OK


def test_the_button(rig):
    assert rig.packet(0x1E, 0, 0, 0, 1) == OK
    cd(rig).receive("eject", b"")
    assert rig.packet(0x00) == OK
    assert rig.packet_in(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8)[4] == 1  # asks to be ejected
    assert rig.packet(0x1B, 0, 0, 0, 2) == CHECK
    assert rig.sense() == LOCKED
    assert rig.packet(0x1E) == OK
    cd(rig).receive("eject", b"")
    assert rig.packet_in(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8)[4:6] == b"\x03\x01"
    assert rig.packet(0x25) == CHECK
    assert rig.sense() == NO_MEDIUM


def test_another_disc():
    discs = [MemoryDisk(40), MemoryDisk(80)]
    rig = IdeRig(((None, None), (AtapiDrive("cd0", discs[0], discs=discs[1:]), None)))
    assert rig.packet_in(0x25)[3] == 9
    cd(rig).receive("eject", b"")
    cd(rig).receive("insert", b"1")
    assert rig.sense() == CHANGED
    assert rig.packet_in(0x25)[3] == 19
    for odd in (b"", b"x", b"77", b"99999999", b"\xff"):
        cd(rig).receive("insert", odd)


def test_no_disc_at_all():
    rig = IdeRig(((None, None), (AtapiDrive("cd0"), None)))
    for packet in ((0x00,), (0x25,), (0x28, 0, 0, 0, 0, 0, 0, 0, 1), (0x43,)):
        assert rig.packet(*packet) == CHECK
        assert rig.sense() == NO_MEDIUM


def test_device_reset(rig):
    rig.packet(0x28, 0, 0, 0, 0, 0, 0, 0, 1)
    rig.put(7, 0x08, 1)
    assert rig.status(1) == 0
    assert (rig.reg(4, 1), rig.reg(5, 1)) == (0x14, 0xEB)


def test_read_cd(rig):
    packet = (0xBE, 0, 0, 0, 0, 1, 0, 0, 1, 0x10)
    assert rig.packet_in(*packet) == rig.iso.data[2048:4096]


@pytest.mark.parametrize("dma", [False, True])
def test_read_cd_gives_raw_sectors(rig, dma):
    """Through PIO in blocks that end inside of sectors, and through DMA; by block and by MSF."""
    expected = cut(rig.iso.data[2048 : 3 * 2048], 1, 0xF8)
    for packet in (
        (0xBE, 0, 0, 0, 0, 1, 0, 0, 2, 0xF8),
        (0xBE, 8, 0, 0, 0, 1, 0, 0, 2, 0xB8),
        (0xB9, 0, 0, 0, 2, 1, 0, 2, 3, 0xF8),
    ):
        if dma:
            rig.table((0x4000, 4704))
            rig.command(0xA0, count=0, features=1, channel=1, device=0xA0)
            rig.pio_out(bytes(packet).ljust(12, b"\0"), channel=1)
            rig.start(1)
            assert rig.wait(1) == OK
            rig.pio.write(BM + 8, 1, 0)
            assert bytes(rig.ram[0x4000 : 0x4000 + 4704]) == expected
        else:
            assert rig.packet_in(*packet, limit=1000) == expected
    assert (
        rig.packet_in(0xBE, 0, 0, 0, 0, 1, 0, 0, 2, 0x20) == expected[12:16] + expected[2364:2368]
    )


def refused(rig, *packet):
    """The sense of a packet that fails."""
    assert rig.packet(*packet) == CHECK
    return rig.sense()


INVALID_FIELD = 0x052400


def test_vital_product_data():
    rig = IdeRig(((None, None), (AtapiDrive("cd0", MemoryDisk(256), serial="S123"), None)))
    assert rig.packet_in(0x12, 1, 0x00, 0, 255) == b"\x05\0\0\2\0\x80"
    assert rig.packet_in(0x12, 1, 0x80, 0, 255) == b"\x05\x80\0\4S123"
    assert rig.packet_in(0x12, 1, 0x80, 0, 6) == b"\x05\x80\0\4S1"
    assert refused(rig, 0x12, 1, 0x83, 0, 255) == INVALID_FIELD
    assert refused(rig, 0x12, 0, 0x80, 0, 255) == INVALID_FIELD


def test_mode_page_control(rig):
    """Current and default values are equal, nothing can be changed, nothing is saved."""
    now = rig.packet_in(0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 128)
    assert rig.packet_in(0x5A, 0, 0x2A | 0x80, 0, 0, 0, 0, 0, 128) == now
    mask = rig.packet_in(0x5A, 0, 0x2A | 0x40, 0, 0, 0, 0, 0, 128)
    assert mask[8:10] == b"\x2a\x12"
    assert mask[10:] == bytes(18)
    assert refused(rig, 0x5A, 0, 0x2A | 0xC0, 0, 0, 0, 0, 0, 128) == 0x053900
    pages = rig.packet_in(0x5A, 0, 0x3F, 0, 0, 0, 0, 1, 0)
    assert int.from_bytes(pages[:2], "big") == len(pages) - 2


def test_the_lock_is_in_the_capabilities_page(rig):
    def locked():
        return rig.packet_in(0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 128)[8 + 6] >> 1 & 1

    assert not locked()
    rig.packet(0x1E, 0, 0, 0, 1)
    assert locked()
    rig.control(4, 1)
    rig.control(0, 1)
    rig.wait(1)
    assert not locked()


def test_configuration_by_feature(rig):
    one = rig.packet_in(0x46, 2, 0, 3, 0, 0, 0, 1, 0)
    assert one == bytes.fromhex("0000000c 00000008 00030304 29000000")
    assert rig.packet_in(0x46, 0, 0, 0x1E, 0, 0, 0, 1, 0)[8:10] == b"\0\x1e"
    assert len(rig.packet_in(0x46, 2, 0x01, 0, 0, 0, 0, 1, 0)) == 8
    rig.packet(0x1B, 0, 0, 0, 2)
    assert rig.packet_in(0x46, 0, 0, 0, 0, 0, 0, 1, 0)[6:8] == b"\0\0"
    assert refused(rig, 0x46, 3, 0, 0, 0, 0, 0, 1, 0) == INVALID_FIELD


def test_disc_information(rig):
    data = rig.packet_in(0x51, 0, 0, 0, 0, 0, 0, 0, 64)
    assert data[:7] == bytes((0, 32, 0x0E, 1, 1, 1, 1))
    assert len(data) == 34
    assert refused(rig, 0x51, 1, 0, 0, 0, 0, 0, 0, 64) == INVALID_FIELD
    rig.packet(0x1B, 0, 0, 0, 2)
    assert refused(rig, 0x51, 0, 0, 0, 0, 0, 0, 0, 64) == NO_MEDIUM


def test_sub_channel(rig):
    assert rig.packet_in(0x42, 0, 0, 0, 0, 0, 0, 0, 64) == b"\0\x15\0\0"
    position = rig.packet_in(0x42, 2, 0x40, 1, 0, 0, 0, 0, 64)
    assert position == bytes.fromhex("0015000c 01140101 00000200 00000200")
    for format_code in (2, 3):
        data = rig.packet_in(0x42, 0, 0x40, format_code, 0, 0, 0, 0, 64)
        assert (len(data), data[3], data[4]) == (24, 20, format_code)
        assert data[8] == 0  # MCVAL, TCVAL: there is none
    assert refused(rig, 0x42, 0, 0x40, 4, 0, 0, 0, 0, 64) == INVALID_FIELD


def test_mechanism_status(rig):
    assert rig.packet_in(0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 64) == bytes((0, 0, 0, 0, 0, 1, 0, 0))
    rig.packet(0x1B, 0, 0, 0, 2)
    assert rig.packet_in(0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 64)[1] == 0x10  # the door is open


def test_full_toc(rig):
    data = rig.packet_in(0x43, 0, 2, 0, 0, 0, 0, 1, 0)
    points = {data[at + 3]: data[at : at + 11] for at in range(4, len(data), 11)}
    assert list(points) == [0xA0, 0xA1, 0xA2, 1]
    assert points[0xA0][8] == points[0xA1][8] == 1  # first and last track
    assert points[0xA2][7:] == bytes((0, 0, 2, 64))  # the lead-out, 64 frames after 0:02:00
    assert points[1][7:] == bytes((0, 0, 2, 0))
    assert rig.packet_in(0x43, 0, 0, 0, 0, 0, 0, 1, 0, 0x80) == data  # SFF-8020's way
    assert refused(rig, 0x43, 0, 5, 0, 0, 0, 0, 1, 0) == INVALID_FIELD


def test_events(rig):
    def event(classes, length=8):
        return rig.packet_in(0x4A, 1, 0, 0, classes, 0, 0, 0, length)

    assert event(0x02) == bytes((0, 2, 0x80, 0x10))  # no such class; media only
    rig.packet(0x1B, 0, 0, 0, 2)
    assert event(0xFF, 4) == bytes((0, 4, 4, 0x10))
    assert event(0xFF) == bytes((0, 4, 4, 0x10, 3, 1, 0, 0))  # the header alone took nothing
    assert event(0xFF)[4] == 0
    rig.packet(0x1B, 0, 0, 0, 3)
    assert event(0x10)[4:6] == bytes((2, 2))  # does not take the unit attention
    assert rig.sense() == CHANGED
    assert refused(rig, 0x4A, 0, 0, 0, 0x10, 0, 0, 0, 8) == INVALID_FIELD


def test_attention_waits_for_a_command_that_reports_it(rig):
    rig.packet(0x1B, 0, 0, 0, 2)
    rig.packet(0x1B, 0, 0, 0, 3)
    assert len(rig.packet_in(0x12, 0, 0, 0, 36)) == 36
    assert refused(rig, 0x28, 0, 0, 0, 0, 0, 0, 0, 1) == CHANGED
    assert rig.packet_in(0x28, 0, 0, 0, 0, 0, 0, 0, 1) == rig.iso.data[:2048]


def test_a_power_condition_moves_no_tray(rig):
    assert rig.packet(0x1B, 0, 0, 0, 0x32) == OK
    assert rig.packet(0x00) == OK


@pytest.mark.parametrize(
    ("packet", "sense"),
    [
        ((0xBE, 4, 0, 0, 0, 1, 0, 0, 1, 0x10), 0x056400),  # audio
        ((0xBE, 0, 0, 0, 0, 1, 0, 0, 1, 0x12), INVALID_FIELD),  # error flags
        ((0xBE, 0, 0, 0, 0, 1, 0, 0, 1, 0x90), INVALID_FIELD),  # sync and data, no header
        ((0xBE, 0, 0, 0, 0, 63, 0, 0, 2, 0xF8), 0x052100),
        ((0xB9, 0, 0, 0, 2, 9, 0, 2, 8, 0xF8), INVALID_FIELD),  # ends before it begins
        ((0xB9, 0, 0, 0, 1, 9, 0, 2, 8, 0xF8), INVALID_FIELD),  # in the pregap
        ((0xB9, 0, 0, 0, 2, 9, 99, 2, 8, 0xF8), 0x052100),
        ((0xBE, 0, 0, 0, 0, 1, 0, 0, 1, 0x10, 1), INVALID_FIELD),  # sub-channels
        ((0xBE, 0, 0, 0, 0, 63, 0, 0, 2, 0x10), 0x052100),
        ((0x2B, 0, 0, 0, 0, 64), 0x052100),
        ((0xA8, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF), 0x052100),
    ],
)
def test_what_a_disc_cannot_give(rig, packet, sense):
    assert refused(rig, *packet) == sense
    rig.packet(0x1B, 0, 0, 0, 2)
    assert refused(rig, *packet) == NO_MEDIUM


def test_read_cd_of_nothing(rig):
    assert rig.packet(0xB9, 0, 0, 0, 2, 8, 0, 2, 8, 0xF8) == OK
    assert rig.packet(0xBE, 0, 0, 0, 0, 1, 0, 0, 1, 0x00) == OK
    assert rig.packet(0xBE, 0, 0, 0, 0, 1, 0, 0, 0, 0x10) == OK

"""PIIX3 IDE with a disk: what a driver sees at its registers."""

from __future__ import annotations

import struct

import pytest

from tests.hw.ide_rig import BM, BSY, DRDY, DRQ, DSC, ERR, IdeRig, MemoryDisk
from workbench.core.config import DriveConfig, FirmwareConfig, MachineConfig
from workbench.hw.ata.ata import AtaDisk
from workbench.hw.board import build_pc
from workbench.hw.piix_ide import BMIDE_MAP

OK = DRDY | DSC


@pytest.fixture
def rig():
    return IdeRig()


def sectors(rig, lba, count):
    return bytes(rig.disk.data[lba * 512 : (lba + count) * 512])


# -- configuration space, decoding -----------------------------------------------------------------


def test_identity(rig):
    assert rig.ide.read(0, 4) == 0x7010_8086
    assert rig.ide.read(8, 4) >> 8 == 0x010180
    rig.ide.write(0x20, 4, 0xFFFF_FFFF)
    assert rig.ide.read(0x20, 4) == 0xFFFF_FFF1
    assert rig.ide.read(0x10, 4) == 0


def test_decode_needs_iose_and_idetim(rig):
    assert rig.pio.find(0x1F0)
    assert rig.pio.find(0x3F6)
    assert rig.pio.find(0x377) is None
    rig.ide.write(0x42, 2, 0)
    assert rig.pio.find(0x170) is None
    assert rig.pio.find(0x1F0)
    rig.ide.write(0x04, 2, 4)
    assert rig.pio.find(0x1F0) is None
    assert rig.pio.find(BM) is None


@pytest.mark.parametrize("bios", [False, True])
def test_reset_leaves_the_channels_decoded_for_firmware(bios):
    """UEFI never writes IDETIM."""
    config = MachineConfig(
        drives=(DriveConfig("drive0", "ide", 1 << 20),), firmware=FirmwareConfig() if bios else None
    )
    pio = build_pc(config).pio
    pio.write(0xCF8, 4, 0x8000_0904)
    pio.write(0xCFC, 2, 1)  # IOSE
    if bios:
        assert pio.find(0x1F0) is not None
        pio.write(0xCF8, 4, 0x8000_0940)
        assert pio.read(0xCFC, 4) == 0x8000_8000
        pio.write(0xCFC, 2, 0)
        assert pio.find(0x1F0) is None
        assert pio.find(0x170) is not None


def test_trace_names():
    assert BMIDE_MAP.explain(0, 1, 9, write=True) == "BMICP[SSBM=1 RWCON=1]"
    assert BMIDE_MAP.explain(10, 1, 0x25, write=False) == "BMISS[BMIDEA=1 IDEINTS=1 DMA0CAP=1]"


def test_explain_command(rig):
    window = rig.pio.find(0x1F0)
    assert window.regmap.explain(7, 1, 0xEC, write=True) == "COMMAND[CODE=IDENTIFY DEVICE]"
    assert window.regmap.explain(7, 1, 0x58, write=False) == "STATUS[DRQ=1 DSC=1 DRDY=1]"
    assert window.regmap.explain(0, 4, 5, write=False) == "DATA=0x00000005"


# -- reset, selection, signatures ------------------------------------------------------------------


def signature(rig, channel):
    return [rig.reg(n, channel) for n in (1, 2, 3, 4, 5)]


def test_signatures_after_power_on(rig):
    assert signature(rig, 0) == [1, 1, 1, 0, 0]
    assert rig.status() == OK
    assert signature(rig, 1) == [1, 1, 1, 0x14, 0xEB]
    assert rig.status(1) == 0


def test_software_reset(rig):
    rig.command(0x91, count=17, device=0xA3)
    rig.control(4)
    assert rig.status() == BSY
    rig.control(0)
    assert rig.status() == BSY
    assert rig.wait() == OK
    assert signature(rig, 0) == [1, 1, 1, 0, 0]
    assert not rig.lines[0].level


def test_software_reset_ends_a_command(rig):
    rig.command(0x30, 5, 2)
    rig.control(4)
    rig.control(0)
    assert rig.wait() == OK
    rig.pio_out(bytes(512))
    assert not rig.disk.calls


def test_device_one_is_not_there(rig):
    rig.put(6, 0xB0)
    assert rig.status() == 0
    assert rig.reg(3) == 1  # drive 0 answers for it
    rig.put(7, 0xEC)
    assert not rig.step()
    rig.put(6, 0xB0, 1)
    assert signature(rig, 1) == [0, 0, 0, 0, 0]  # a packet device answers with zeros


def test_empty_channel():
    rig = IdeRig(((None, None), (None, None)))
    assert rig.status() == 0
    assert rig.pio.read(0x1F0, 2) == 0
    rig.command(0xEC)
    assert not rig.step()
    assert rig.edges == []


def test_two_disks_on_a_cable():
    disks = [MemoryDisk(1000, 3), MemoryDisk(2000, 4)]
    rig = IdeRig(((AtaDisk("a", disks[0]), AtaDisk("b", disks[1])), (None, None)))
    for unit in (0, 1):
        rig.command(0x20, 7, device=0xE0 | unit << 4)
        assert rig.wait() == OK | DRQ
        assert rig.pio_in() == disks[unit].data[7 * 512 : 8 * 512]
    rig.put(7, 0x90)
    assert rig.wait() == OK
    assert rig.reg(6) == 0xA0
    assert rig.lines[0].level


def test_both_drives_take_the_task_file():
    rig = IdeRig(((AtaDisk("a", MemoryDisk(99)), AtaDisk("b", MemoryDisk(99))), (None, None)))
    rig.put(6, 0xA0)
    rig.put(2, 0x55)
    rig.put(6, 0xB0)
    assert rig.reg(2) == 0x55


def test_previous_content_by_hob(rig):
    rig.put(3, 0x12)
    rig.put(3, 0x34)
    assert rig.reg(3) == 0x34
    rig.control(0x80)
    assert rig.reg(3) == 0x12
    rig.put(4, 0)  # any write of the command block clears HOB
    assert rig.reg(3) == 0x34


# -- interrupts ------------------------------------------------------------------------------------


def test_interrupt_and_status(rig):
    rig.command(0xE7)
    assert rig.alternate() & BSY
    assert not rig.lines[0].level
    rig.wait()
    assert rig.lines[0].level
    assert rig.bmis() == 4
    rig.alternate()
    assert rig.lines[0].level
    assert rig.status() == OK
    assert not rig.lines[0].level
    assert rig.disk.calls == [("flush",)]
    rig.pio.write(BM + 2, 1, 4)
    assert rig.bmis() == 0


def test_nien(rig):
    rig.control(2)
    rig.command(0xE7)
    rig.wait()
    assert not rig.edges
    rig.control(0)
    assert rig.edges == [(14, True)]


def test_the_other_drive_has_no_interrupt():
    rig = IdeRig(((AtaDisk("a", MemoryDisk(99)), AtaDisk("b", MemoryDisk(99))), (None, None)))
    rig.command(0xE7)
    rig.wait()
    rig.put(6, 0xB0)
    assert not rig.lines[0].level
    rig.put(6, 0xA0)
    assert rig.lines[0].level


def test_secondary_channel_is_irq_15(rig):
    rig.command(0xA1, channel=1)
    rig.wait(1)
    assert rig.edges == [(15, True)]


# -- IDENTIFY --------------------------------------------------------------------------------------


def text(words, first, last):
    return b"".join(struct.pack(">H", w) for w in words[first : last + 1]).decode()


def test_identify():
    rig = IdeRig(((AtaDisk("a", MemoryDisk(5000), serial="S123", model="M x"), None), (None, None)))
    rig.command(0xEC)
    assert rig.wait() == OK | DRQ
    data = rig.pio_in()
    assert rig.wait() == OK
    words = struct.unpack("<256H", data)
    assert sum(data) & 0xFF == 0
    assert data[510] == 0xA5
    assert text(words, 10, 19) == "S123".ljust(20)
    assert text(words, 27, 46) == "M x".ljust(40)
    assert words[60] | words[61] << 16 == 5000
    assert words[100] == 5000
    assert words[83] & 1 << 10
    assert words[47] == 0x8010
    assert words[63] == 0x0007
    assert words[88] == 0x003F
    assert words[80] & 1 << 7


@pytest.mark.parametrize(
    ("mode", "word", "value"),
    [(0x22, 63, 0x0407), (0x45, 88, 0x203F), (0x0C, 63, 0x0007)],
)
def test_set_transfer_mode(rig, mode, word, value):
    rig.command(0xEF, count=mode, features=3)
    assert rig.wait() == OK
    rig.command(0xEC)
    rig.wait()
    assert struct.unpack("<256H", rig.pio_in())[word] == value


@pytest.mark.parametrize("mode", [0x23, 0x46, 0x10, 0xFF, 0x0D])
def test_transfer_modes_that_do_not_exist(rig, mode):
    rig.command(0xEF, count=mode, features=3)
    assert rig.wait() == OK | ERR
    assert rig.reg(1) == 4


def test_write_cache_off_means_flush_after_writes(rig):
    rig.command(0xEF, features=0x82)
    rig.wait()
    rig.command(0x30, 9)
    rig.pio_out(bytes(512))
    assert rig.wait() == OK
    assert rig.disk.calls == [("flush",), ("write", 9, 1), ("flush",)]


# -- PIO -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("ext", [False, True])
def test_read_sectors(rig, size, ext):
    rig.command(0x24 if ext else 0x20, 100, 3, ext=ext)
    got = b""
    for n in range(3):
        assert rig.alternate() & BSY
        assert rig.wait() == OK | DRQ
        assert rig.lines[0].level
        rig.status()
        got += rig.pio_in(size)
        assert len(rig.edges) == 2 * (n + 1)
    assert rig.status() == OK
    assert not rig.lines[0].level
    assert got == sectors(rig, 100, 3)


def test_count_zero_is_256(rig):
    rig.command(0x20, 0, 0)
    got = b""
    for _ in range(256):
        assert rig.wait() & DRQ
        got += rig.pio_in(4)
    assert rig.wait() == OK
    assert got == sectors(rig, 0, 256)


def test_read_multiple(rig):
    rig.command(0xC6, count=4)
    assert rig.wait() == OK
    rig.command(0xC4, 50, 6)
    rig.wait()
    got = rig.pio_in(block=2048)
    assert rig.alternate() & BSY
    rig.wait()
    got += rig.pio_in(block=1024)
    assert rig.status() == OK
    assert got == sectors(rig, 50, 6)


@pytest.mark.parametrize("count", [3, 32, 255])
def test_set_multiple_that_cannot_be(rig, count):
    rig.command(0xC6, count=count)
    assert rig.wait() == OK | ERR
    rig.command(0xC4, 50, 6)  # and multiple commands are disabled
    assert rig.wait() == OK | ERR
    assert rig.reg(1) == 4


def test_write_sectors(rig):
    data = bytes(range(256)) * 4
    rig.command(0x30, 20, 2)
    assert rig.alternate() == OK | DRQ
    assert not rig.edges
    rig.pio_out(data[:512], 4)
    assert rig.alternate() & BSY
    assert rig.wait() == OK | DRQ
    assert rig.lines[0].level
    rig.status()
    rig.pio_out(data[512:])
    assert rig.wait() == OK
    assert rig.lines[0].level
    assert sectors(rig, 20, 2) == data


def test_write_multiple_ext(rig):
    data = bytes(range(256)) * 40
    rig.command(0x39, 4096, 20, ext=True)
    rig.pio_out(data[:8192])
    rig.wait()
    rig.pio_out(data[8192:])
    assert rig.wait() == OK
    assert sectors(rig, 4096, 20) == data


def test_chs(rig):
    rig.put(2, 1)
    rig.put(3, 5)
    rig.put(4, 1)
    rig.put(5, 0)
    rig.put(6, 0xA2)
    rig.put(7, 0x20)
    rig.wait()
    assert rig.pio_in() == sectors(rig, (16 + 2) * 63 + 4, 1)
    rig.put(3, 0)  # sectors are counted from 1
    rig.put(7, 0x20)
    assert rig.wait() & ERR
    assert rig.reg(1) == 0x10


@pytest.mark.parametrize(
    ("code", "ext"), [(0x20, False), (0x30, False), (0x25, True), (0xCA, False), (0x42, True)]
)
def test_outside_the_disk(rig, code, ext):
    rig.command(code, 8190, 3, ext=ext)
    assert rig.wait() == OK | ERR
    assert rig.reg(1) == 0x10
    assert rig.reg(3) | rig.reg(4) << 8 == 8192 & 0xFFFF
    assert rig.lines[0].level


@pytest.mark.parametrize(("code", "dma"), [(0x20, False), (0xC8, True)])
def test_bad_sector(rig, code, dma):
    rig.disk.bad.add(12)
    rig.table((0x2000, 512))
    rig.command(code, 12)
    if dma:
        rig.start()
    assert rig.wait() == OK | ERR
    assert (rig.reg(1), rig.reg(3)) == (0x40, 12)
    assert rig.bmis() == (5 if dma else 4)


def test_read_only_disk():
    disk = MemoryDisk(100, read_only=True)
    rig = IdeRig(((AtaDisk("a", disk), None), (None, None)))
    for code in (0x30, 0xC5, 0xCA, 0x35):
        rig.command(code, 1)
        assert rig.wait() == OK | ERR
        assert rig.reg(1) == 4


def test_block_access_is_the_same_as_single_ones(rig):
    window = rig.pio.find(0x1F0)
    rig.command(0x20, 33)
    rig.wait()
    assert window.read_block(0, 4, 100) + window.read_block(0, 2, 60) == (
        sectors(rig, 33, 1) + bytes(8)
    )
    assert rig.alternate() == OK
    rig.command(0x30, 34)
    assert window.write_block(0, 2, b"ab" * 200)
    assert window.write_block(0, 4, b"cdef" * 40)
    rig.wait()
    assert sectors(rig, 34, 1) == b"ab" * 200 + b"cdef" * 28
    assert window.read_block(1, 2, 4) is None
    assert not window.write_block(2, 2, b"1234")
    assert window.read_block(0, 1, 4) is None


def test_data_port_without_drq(rig):
    assert rig.pio.read(0x1F0, 2) == 0
    rig.pio.write(0x1F0, 4, 0x12345678)
    assert rig.status() == OK


# -- DMA -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "ext"), [(0xC8, False), (0x25, True)])
def test_read_dma(rig, code, ext):
    rig.table((0x2000, 512), (0x8000, 1024))
    rig.command(code, 77, 3, ext=ext)
    rig.start()
    assert rig.bmis() == 1
    assert rig.wait() == OK
    assert rig.bmis() == 4
    assert rig.lines[0].level
    want = sectors(rig, 77, 3)
    assert rig.ram[0x2000:0x2200] + rig.ram[0x8000:0x8400] == want
    assert rig.dma == [
        (0x1000, 8, False), (0x1008, 8, False), (0x2000, 512, True), (0x8000, 1024, True),
    ]  # fmt: skip


@pytest.mark.parametrize(("code", "flushes"), [(0x35, 0), (0x3D, 1)])
def test_write_dma(rig, code, flushes):
    rig.ram[0x2000:0x2400] = data = bytes(range(256)) * 4
    rig.table((0x2000, 1024))
    rig.command(code, 8190, 2, ext=True)
    rig.start(to_memory=False)
    assert rig.wait() == OK
    assert rig.bmis() == 4
    assert sectors(rig, 8190, 2) == data
    assert rig.disk.calls == [("write", 8190, 2)] + [("flush",)] * flushes


def test_length_0_is_64_kib(rig):
    rig.table((0x10000, 0))
    rig.command(0xC8, 0, 128)
    rig.start()
    assert rig.wait() == OK
    assert rig.bmis() == 4
    assert rig.ram[0x10000:0x20000] == sectors(rig, 0, 128)


def test_engine_started_late(rig):
    rig.table((0x2000, 512))
    rig.command(0xC8, 3)
    while rig.step():
        pass
    assert rig.alternate() & BSY
    rig.start()
    assert rig.wait() == OK
    assert rig.bmis() == 4
    assert rig.ram[0x2000:0x2200] == sectors(rig, 3, 1)


def test_table_longer_than_the_transfer(rig):
    rig.table((0x2000, 4096))
    rig.command(0xC8, 3)
    rig.start()
    rig.wait()
    assert rig.bmis() == 5
    rig.pio.write(BM, 1, 0)
    assert rig.bmis() == 4
    assert rig.ram[0x2200:0x3000] == bytes(0xE00)


def test_table_shorter_than_the_transfer(rig):
    rig.table((0x2000, 512))
    rig.command(0xC8, 3, 2)
    rig.start()
    assert rig.wait() == OK
    assert rig.bmis() == 0
    assert not rig.edges
    rig.command(0xC8, 3, 1)
    rig.pio.write(BM, 1, 0)
    rig.start()
    rig.wait()
    assert rig.bmis() == 4


def test_short_table_writes_whole_sectors_only(rig):
    before = bytes(rig.disk.data)
    rig.table((0x2000, 700))
    rig.command(0xCA, 3, 2)
    rig.start(to_memory=False)
    rig.wait()
    assert sectors(rig, 3, 1) == bytes(512)
    assert rig.disk.data[4 * 512 :] == before[4 * 512 :]


def test_table_without_an_end(rig):
    """Entries of two bytes, and nowhere an end: the engine gives up after 64 KiB of table."""
    rig.ram[:] = bytes.fromhex("0080000002000000") * (len(rig.ram) // 8)
    rig.command(0x25, 0, 8192, ext=True)
    rig.start(at=0xFF00)
    assert rig.wait() == OK
    assert rig.bmis() == 2
    assert not rig.edges
    assert sum(n for gpa, n, write in rig.dma if not write) == 65536
    assert sum(n for gpa, n, write in rig.dma if write) == 2 * 8192
    assert {gpa >> 16 for gpa, n, write in rig.dma if not write} == {0}  # it wraps in 64 KiB


def test_table_in_the_last_dword_of_its_block(rig):
    rig.ram[0xFFFC:0x10004] = bytes.fromhex("0020000000020080")
    rig.command(0xC8, 3)
    rig.start(at=0xFFFC)
    assert rig.wait() == OK
    assert rig.bmis() == 4
    assert rig.ram[0x2000:0x2200] == sectors(rig, 3, 1)


def test_dma_outside_memory(rig):
    rig.table((0xFFFF_FFF0, 512), (0xFEE0_0000, 512))
    rig.command(0xC8, 3, 2)
    rig.start()
    assert rig.wait() == OK
    assert rig.bmis() == 4
    rig.command(0xC8, 3, 2)
    rig.pio.write(BM, 1, 0)
    rig.start(at=0xFFFF_0000)
    rig.wait()
    assert rig.status() in (OK, OK | ERR)


def test_bus_master_off(rig):
    rig.ide.write(0x04, 2, 1)
    rig.table((0x2000, 512))
    rig.command(0xC8, 3)
    rig.start()
    assert rig.wait() == OK
    assert rig.bmis() == 5
    assert rig.ram[0x2000:0x2200] == bytes(512)
    assert rig.dma == []


def test_stop_lets_the_transfer_finish(rig):
    rig.table((0x2000, 512))
    rig.command(0xC8, 3)
    rig.start()
    rig.pio.write(BM, 1, 0)
    assert rig.bmis() == 4
    assert rig.status() == OK
    assert rig.ram[0x2000:0x2200] == sectors(rig, 3, 1)


# -- TRIM ------------------------------------------------------------------------------------------


def trim(rig, *ranges):
    rig.ram[0x2000:0x2200] = b"".join(
        (lba | count << 48).to_bytes(8, "little") for lba, count in ranges
    ).ljust(512, b"\0")
    rig.table((0x2000, 512))
    rig.command(0x06, 0, 1, features=1, ext=True)
    rig.start(to_memory=False)
    return rig.wait()


def test_trim(rig):
    assert trim(rig, (10, 5), (0, 0), (100, 65)) == OK
    assert rig.disk.calls == [("discard", 10, 5), ("discard", 100, 65)]
    assert rig.bmis() == 4


def test_trim_outside_the_disk(rig):
    assert trim(rig, (10, 5), (8190, 3)) == OK | ERR
    assert rig.reg(1) == 4
    assert rig.bmis() == 4
    assert not rig.disk.calls


def test_dsm_without_trim(rig):
    rig.command(0x06, 0, 1)
    assert rig.wait() == OK | ERR


# -- the rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF9, 0x00, 0x08, 0xA0, 0xA1,
                                  0x92, 0xC7, 0x60, 0x61, 0xB1, 0xFF])  # fmt: skip
def test_commands_that_the_drive_does_not_have(rig, code):
    rig.command(code)
    assert rig.wait() == OK | ERR
    assert rig.reg(1) == 4
    assert rig.lines[0].level


def test_diagnostic(rig):
    rig.put(6, 0xB0)
    rig.put(7, 0x90)
    assert rig.wait() == OK
    assert signature(rig, 0) == [1, 1, 1, 0, 0]
    assert rig.reg(6) == 0xA0
    assert rig.lines[0].level


def test_power(rig):
    for code, count in ((0xE5, 0xFF), (0xE0, None), (0xE5, 0), (0xE1, None), (0xE5, 0xFF)):
        rig.command(code)
        assert rig.wait() == OK
        assert count is None or rig.reg(2) == count
    rig.command(0xE6)
    rig.wait()
    rig.command(0xEC)
    assert not rig.step()  # asleep
    rig.control(4)
    rig.control(0)
    rig.wait()
    rig.command(0xEC)
    assert rig.wait() & DRQ


def test_reading_ends_standby(rig):
    rig.command(0xE2)
    rig.wait()
    rig.command(0x40)
    rig.wait()
    rig.command(0xE5)
    rig.wait()
    assert rig.reg(2) == 0xFF


def test_native_max(rig):
    rig.command(0xF8)
    rig.wait()
    assert [rig.reg(n) for n in (3, 4, 5)] == [0xFF, 0x1F, 0]
    assert rig.reg(6) & 0xF == 0
    rig.command(0x27, ext=True)
    rig.wait()
    assert [rig.reg(n) for n in (3, 4, 5)] == [0xFF, 0x1F, 0]


def smart(rig, what, **kwargs):
    rig.command(0xB0, 0xC24F00 | kwargs.get("log", 0), features=what)
    return rig.wait()


def test_smart(rig):
    assert smart(rig, 0xD0) == OK | DRQ
    data = rig.pio_in()
    assert sum(data) & 0xFF == 0
    assert data[0] == 0x10
    assert smart(rig, 0xDA) == OK
    assert (rig.reg(4), rig.reg(5)) == (0x4F, 0xC2)
    assert smart(rig, 0xD9) == OK
    assert smart(rig, 0xDA) == OK | ERR
    assert smart(rig, 0xD8) == OK
    assert smart(rig, 0xD5, log=1) == OK | DRQ
    rig.pio_in()
    rig.command(0xB0, 0x123400, features=0xD0)
    assert rig.wait() == OK | ERR


def test_commands_while_busy_are_ignored(rig):
    rig.command(0x20, 7)
    rig.put(7, 0xEC)
    rig.put(3, 99)
    rig.wait()
    assert rig.pio_in() == sectors(rig, 7, 1)


def test_pci_reset(rig):
    rig.command(0xE7)
    rig.wait()
    rig.command(0xC8, 5)
    rig.ide.reset()
    assert not rig.lines[0].level
    assert rig.pio.find(0x1F0) is None
    assert not rig.step()
    rig.power_up()
    assert rig.status() == OK
    assert signature(rig, 0) == [1, 1, 1, 0, 0]

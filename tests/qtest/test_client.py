"""Drivers in Python on the devices of a board: the scenarios that every driver has."""

import struct

import pytest

from workbench.errors import UsageError
from workbench.qtest.client import Client

DATA, COUNT, LBA0, DEVICE, COMMAND = 0x1F0, 0x1F2, 0x1F3, 0x1F6, 0x1F7
BSY, DRDY, DRQ, ERR = 0x80, 0x40, 0x08, 0x01
STATUS_LU = 2


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(b"".join(bytes([n]) * 512 for n in range(256)))
    return path


def ata(bench, code, lba=0, count=1):
    bench.outb(DEVICE, 0xE0)
    for port, value in ((COUNT, count), (LBA0, lba), (LBA0 + 1, 0), (LBA0 + 2, 0)):
        bench.outb(port, value)
    bench.outb(COMMAND, code)


def test_ide_identify(disk):
    with Client(f"-drive file={disk},if=ide -global ide-hd.serial=S1 -global ide-hd.ver=2.5") as b:
        b.pci(1, 1).enable()
        ata(b, 0xEC)
        assert b.irq(14)
        assert b.inb(COMMAND) == DRDY | DRQ | 0x10
        assert not b.irq(14)
        words = [b.inw(DATA) for _ in range(256)]
        text = b"".join(word.to_bytes(2, "big") for word in words)
        assert text[20:40].strip() == b"S1"
        assert text[46:54].strip() == b"2.5"
        assert words[60] == 256
        assert b.inb(COMMAND) & DRQ == 0


def test_ide_dma(disk):
    with Client(f"-drive file={disk},if=ide") as bench:
        ide = bench.pci(1, 1)
        ide.enable()
        master = ide.bar(4)
        bench.memwrite(0x10_0000, struct.pack("<IIII", 0x20_0000, 512, 0x30_0000, 512 | 1 << 31))
        bench.outl(master + 4, 0x10_0000)
        ata(bench, 0xC8, lba=7, count=2)
        bench.outb(master, 9)
        assert bench.inb(master + 2) == 4
        assert bench.irq(14)
        assert bench.memread(0x20_0000, 512) == b"\x07" * 512
        assert bench.memread(0x30_0000, 512) == b"\x08" * 512
    assert disk.read_bytes()[7 * 512] == 7


def test_timed_work_takes_guest_time(disk):
    with Client(f"-drive file={disk},if=ide", timed=True) as bench:
        bench.pci(1, 1).enable()
        ata(bench, 0x20, lba=3)
        assert bench.inb(COMMAND) & BSY
        bench.clock_step(10_000_000)
        assert bench.inb(COMMAND) & (BSY | DRQ) == DRQ
        assert bench.inl(DATA) == 0x03030303


def test_nothing_is_written_to_the_image(disk):
    before = disk.read_bytes()
    with Client(f"-drive file={disk},if=ide") as bench:
        bench.pci(1, 1).enable()
        ata(bench, 0x30, lba=1)
        for _ in range(256):
            bench.outw(DATA, 0x55AA)
        ata(bench, 0x20, lba=1)
        assert bench.inw(DATA) == 0x55AA
    assert disk.read_bytes() == before


def test_virtio_blk(disk):
    """The legacy interface: a queue of three descriptors reads a sector."""
    with Client(f"-drive file={disk},if=virtio,serial=x") as bench:
        device = bench.pci(3)
        device.enable()
        io = device.bar(0)
        assert bench.inl(io + 20) == 256
        for status in (1, 3):
            bench.outb(io + 18, status)
        bench.outl(io + 4, 0)
        bench.outw(io + 14, 0)
        size = bench.inw(io + 12)
        desc = 0x10_0000
        avail = desc + 16 * size
        used = avail + 4 + 2 * size + 4095 & -4096
        bench.outl(io + 8, desc >> 12)
        bench.outb(io + 18, 7)
        bench.memwrite(0x20_0000, struct.pack("<IIQ", 0, 0, 9))
        for n, (gpa, length, flags) in enumerate(
            ((0x20_0000, 16, 1), (0x20_1000, 512, 3), (0x20_2000, 1, 2))
        ):
            bench.memwrite(desc + 16 * n, struct.pack("<QIHH", gpa, length, flags, n + 1))
        bench.writeb(0x20_2000, 0xFF)
        bench.memwrite(avail, struct.pack("<HHH", 0, 1, 0))
        bench.outw(io + 16, 0)
        assert bench.readw(used + 2) == 1
        assert bench.readl(used + 8) == 513
        assert bench.readb(0x20_2000) == 0
        assert bench.memread(0x20_1000, 512) == b"\x09" * 512
        assert bench.inb(io + 19) == 1
        bench.qmp("block_resize", device="drive0", size=1 << 20)
        assert bench.inl(io + 20) == 2048
        assert bench.inb(io + 19) & 2


def test_e1000_sends_a_frame():
    with Client("-netdev hubport,id=n -device e1000,netdev=n,mac=52:54:00:aa:bb:cc,addr=5") as b:
        nic = b.pci(5)
        nic.enable()
        regs = nic.bar(0)
        assert b.readl(regs + 0x5400) == 0xAA005452
        b.writel(regs, b.readl(regs) | 0x40)  # CTRL.SLU
        b.clock_step(5_000_000_000)
        assert b.readl(regs + 8) & STATUS_LU
        b.memwrite(0x10_0000, struct.pack("<QHBBBBH", 0x20_0000, 60, 0, 0x0B, 0, 0, 0) + bytes(112))
        for offset, value in ((0x3800, 0x10_0000), (0x3804, 0), (0x3808, 128), (0x3810, 0)):
            b.writel(regs + offset, value)
        b.writel(regs + 0x400, 2)
        b.writel(regs + 0xD0, 3)
        b.writel(regs + 0x3818, 1)
        assert b.readb(0x10_000C) & 1  # DD
        assert b.readl(regs + 0x40D4) == 1  # TPT
        assert b.irq(11) or b.irq(10)
        assert b.readl(regs + 0xC0) & 1
        assert not b.irq(11)
        assert not b.irq(10)


def test_a_guest_resets_and_switches_off():
    with Client() as bench:
        bench.writel(0x1000, 0x12345678)
        bench.outl(0xCF8, 0x80000008)
        bench.outb(0xCF9, 6)
        assert bench.events == [("RESET", {"guest": True, "reason": "guest-reset"})]
        assert bench.inl(0xCF8) == 0
        assert bench.readl(0x1000) == 0x12345678
        bench.outw(0x604, 0x2000)
        assert bench.events[1:] == [
            ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}),
            ("STOP", {}),
        ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("-frobnicate", "-frobnicate: invalid option"),
        ("-device sound", "'sound' is not a valid device model name"),
        ("-device virtio-blk-pci", "drive property not set"),
        ("-device virtio-blk-pci,drive=d", "Can't find value 'd' of virtio-blk-pci.drive"),
        ("-device e1000,addr=40", "expected addr=SLOT.FUNCTION, not '40'"),
        ("-device e1000,addr=1", "PCI slot 1.0 is in use"),
        ("-device e1000,mac=1", "expected mac=52:54:00:12:34:56 or the like"),
        ("-device e1000,netdev=n", "Property 'netdev' can't find value 'n'"),
        ("-device ide-hd,bus=ide.2", "Bus 'ide.2' not found"),
        ("-device virtserialport", "No 'virtio-serial-bus' bus found"),
        ("-m 0", "expected 1 MiB to 64 GiB of RAM"),
        ("-m x", "expected a size such as 128 or 1G, not 'x'"),
        ("-machine q35", "expected a machine of pc, "),
        (
            "-netdev socket,fd=999,id=n -device e1000,netdev=n",
            "expected the descriptor of a socket",
        ),
    ],
)
def test_options_that_are_wrong(options, sentence):
    with pytest.raises(UsageError) as raised:
        Client(options)
    assert str(raised.value).startswith(sentence)


def test_a_read_without_a_bus_master_ends(disk):
    """COMMAND.BME is 0: no table is read, memory stays, the drive is done."""
    with Client(f"-drive file={disk},if=ide") as bench:
        ide = bench.pci(1, 1)
        ide.config_write(0x04, 2, 1)
        master = ide.bar(4)
        bench.memwrite(0x10_0000, struct.pack("<II", 0x20_0000, 512 | 1 << 31))
        bench.outl(master + 4, 0x10_0000)
        ata(bench, 0xC8, lba=7)
        bench.outb(master, 9)
        assert bench.inb(master + 2) == 5
        assert bench.inb(COMMAND) & (BSY | DRQ | ERR) == 0
        assert bench.memread(0x20_0000, 512) == bytes(512)
        assert ide.config_read(0x06, 2) & 0x2000  # received master abort


def test_trim_with_the_count_written_once(disk):
    """What the register held before, the signature's 1, is no part of the count."""
    with Client(f"-drive file={disk},if=ide") as bench:
        ide = bench.pci(1, 1)
        ide.enable()
        master = ide.bar(4)
        bench.memwrite(0x10_0000, struct.pack("<II", 0x20_0000, 512 | 1 << 31))
        bench.memwrite(0x20_0000, struct.pack("<Q", 3 << 48 | 8))
        bench.outl(master + 4, 0x10_0000)
        bench.outb(0x1F1, 1)
        bench.outb(COUNT, 1)
        bench.outb(COMMAND, 0x06)
        bench.outb(master, 1)
        assert bench.inb(COMMAND) & ERR == 0
        ata(bench, 0x20, lba=8)
        assert bench.inw(DATA) == 0


def test_a_message_whose_address_is_memory_is_written_there():
    with Client() as bench:
        bench.testbed.board.pci.msi(0x12_3454, 0xA5A5_0001)
        assert bench.readq(0x12_3450) == 0xA5A5_0001 << 32
        bench.testbed.board.pci.msi(0xFFFF_FFF0_0000, 1)  # nobody there

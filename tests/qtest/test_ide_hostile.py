"""Descriptor tables that a guest should not make, on the whole board: devices are no memory."""

import struct

import pytest

from workbench.qtest.client import Client

TABLE, RAM = 0x10_0000, 8 << 20
COMMAND, CONTROL = 0x1F7, 0x3F6
IOAPIC, LAPIC, HPET, ROM, VGA = 0xFEC0_0000, 0xFEE0_0000, 0xFED0_0000, 0xFFFF_0000, 0xA_0000


@pytest.fixture
def bench(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"\xa5" * (1 << 20))
    with Client(f"-m 8 -drive file={path},if=ide,format=raw -device e1000,addr=5") as bench:
        bench.pci(1, 1).enable()
        bench.pci(5).enable()
        yield bench


def transfer(bench, code, *entries, count=8, table=TABLE):
    """Status and BMIS after it, with the engine stopped."""
    master = bench.pci(1, 1).bar(4)
    if entries:
        bench.memwrite(TABLE, b"".join(struct.pack("<II", *entry) for entry in entries))
    bench.outl(master + 4, table)
    bench.outb(master + 2, 6)
    for n, value in enumerate((count, 0, 0, 0, 0xE0), start=2):
        bench.outb(0x1F0 + n, value)
    bench.outb(COMMAND, code)
    bench.outb(master, 9 if code == 0xC8 else 1)
    status, bmis = bench.inb(CONTROL), bench.inb(master + 2)
    bench.outb(master, 0)
    bench.inb(COMMAND)
    return status, bmis & 7


def works(bench):
    """After a software reset the drive reads as ever."""
    bench.outb(CONTROL, 4)
    bench.outb(CONTROL, 0)
    bench.clock_step(10_000_000)
    status, bmis = transfer(bench, 0xC8, (0x20_0000, 4096 | 1 << 31))
    assert (status, bmis) == (0x50, 4)
    assert bench.memread(0x20_0000, 4096) == b"\xa5" * 4096


@pytest.mark.parametrize("code", [0xC8, 0xCA])
@pytest.mark.parametrize("where", ["e1000", IOAPIC, LAPIC, HPET, ROM, VGA, RAM, RAM - 512,
                                   0xFFFF_F000])  # fmt: skip
def test_data_in_device_memory(bench, code, where):
    """Nothing of a device changes, and the machine goes on."""
    nic = bench.pci(5).bar(0)
    gpa = nic if where == "e1000" else where
    before = [bench.readl(at) for at in (nic, nic + 0x100, IOAPIC, HPET, LAPIC + 0x20)]
    status, _ = transfer(bench, code, (gpa, 4096 | 1 << 31))
    assert status & 0x88 == 0
    assert before == [bench.readl(at) for at in (nic, nic + 0x100, IOAPIC, HPET, LAPIC + 0x20)]
    works(bench) if code == 0xC8 else None


@pytest.mark.parametrize("table", ["e1000", IOAPIC, LAPIC, HPET, VGA, RAM, 0xFFFF_FFFC])
def test_table_in_device_memory(bench, table):
    at = bench.pci(5).bar(0) if table == "e1000" else table
    status, _ = transfer(bench, 0xC8, table=at)
    assert status & 0x80 == 0
    works(bench)


def test_a_read_of_icr_by_dma_clears_nothing(bench):
    """The e1000's cause register is cleared by being read: by the processor, not by a neighbour."""
    nic = bench.pci(5).bar(0)
    bench.writel(nic + 0xC8, 4)  # ICS: a cause
    transfer(bench, 0xCA, (nic + 0xC0, 512 | 1 << 31), count=1)
    assert bench.readl(nic + 0xC0) & 4


def test_a_table_that_feeds_on_itself(bench):
    """The data are written over the table while it is read: what was fetched counts."""
    entries = [(TABLE, 512)] * 7 + [(TABLE, 512 | 1 << 31)]
    status, bmis = transfer(bench, 0xC8, *entries)
    assert (status, bmis) == (0x50, 4)
    works(bench)


@pytest.mark.parametrize("length", [2, 0, 0xFFFE])
def test_a_table_without_an_end(bench, length):
    bench.memwrite(0, struct.pack("<II", 0x20_0000, length) * (1 << 16))
    for count in (1, 255, 0):
        status, bmis = transfer(bench, 0xC8, count=count, table=0x4_0000)
        assert status & 0x88 == 0
        assert bmis in (2, 5)  # given up, or a table longer than the transfer
    works(bench)

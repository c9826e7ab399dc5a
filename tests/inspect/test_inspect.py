"""Inspectors: what they show of known states, and that nothing of the guest can hurt or be hurt."""

from __future__ import annotations

import io
import json
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from workbench import inspect
from workbench.core.config import DriveConfig, MachineConfig, NicConfig
from workbench.core.machine import Machine
from workbench.errors import UsageError
from workbench.hw.board import build_pc
from workbench.hw.virtio.spec import F_EVENT_IDX, F_INDIRECT_DESC, F_RING_PACKED, F_VERSION_1
from workbench.inspect.page import Page

RAM_BYTES = 8 << 20
CONFIG = MachineConfig(
    ram_bytes=RAM_BYTES,
    drives=(
        DriveConfig("hd", "ide", 1 << 20),
        DriveConfig("cd", "cdrom", 1 << 20, read_only=True),
        DriveConfig("vd", "virtio", 1 << 20),
    ),
    nics=(
        NicConfig("card", "e1000", "52:54:00:00:00:01"),
        NicConfig("vnet", "virtio-net", "52:54:00:00:00:02"),
    ),
)
DESC, DRIVER, DEVICE = 0x10_0000, 0x11_0000, 0x12_0000


@pytest.fixture(scope="module")
def shared() -> Machine:
    return build_pc(CONFIG)


@pytest.fixture
def machine(shared: Machine) -> Machine:
    """A machine as it is after power-on, with its memory empty."""
    for name, device in shared.devices.items():
        if name not in ("i440fx", "piix3", "piix4_pm"):
            device.reset()
    ide: Any = shared.devices["piix3_ide"]
    ide.post()
    ide.write(4, 2, 5)
    shared.memory.write(0x10_0000, bytes(0x10_0000))
    return shared


def rows(page: Page, title: str) -> list[tuple[str, ...]]:
    found = [table for table in page.tables if title in table.title]
    assert found, [table.title for table in page.tables]
    return list(found[0].rows)


def value(page: Page, title: str, name: str) -> str:
    return next(row[1] for row in rows(page, title) if row[0] == name)


def descriptor(gpa: int, length: int, third: int, fourth: int) -> bytes:
    return struct.pack("<QIHH", gpa, length, third, fourth)


def queue(machine: Machine, name: str, features: int, size: int = 8) -> Any:
    device: Any = machine.devices[name]
    device.virtio.state.driver_features = features
    state = device.virtio.state.queues[0]
    state.ready, state.size = True, size
    state.desc, state.driver, state.device = DESC, DRIVER, DEVICE
    return state


# What is shown.


def test_the_names(machine: Machine) -> None:
    names = inspect.names(machine)
    assert {"ide0", "ide1", "vd", "card", "vnet", "pci", "irq", "timers", "cpu", "tlb"} <= set(
        names
    )
    assert {"com1", "i8042", "rtc", "hpet"} <= set(names)
    assert [inspect.resolve(machine, n) for n in ("virtio0", "virtio1", "e1000-0")] == [
        "vd", "vnet", "card",
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"expected one of ide0, .*, not 'sata'"):
        inspect.capture(machine, "sata")


def test_an_ide_command_and_its_descriptor_table(machine: Machine) -> None:
    ide: Any = machine.devices["piix3_ide"]
    prd = struct.pack("<IIIIII", 0x20_0000, 0x1000, 0xFFFF_0000, 0, 0x30_0000, 0x200 | 1 << 31)
    machine.memory.write(DESC, prd)
    ide.master.write(4, 4, DESC)
    for offset, byte in ((2, 8), (3, 0x20), (4, 0), (5, 0), (6, 0xE0), (7, 0xC8)):
        machine.pio.write(0x1F0 + offset, 1, byte)
    page = inspect.capture(machine, "ide0")
    assert value(page, "drive 0, hd: command", "last command") == "0xc8 READ DMA"
    assert value(page, "drive 0, hd: command", "phase") == "dma"
    assert value(page, "drive 0, hd: command", "DMA") == "4,096 bytes to memory"
    assert value(page, "drive 0, hd: command", "due in").endswith("us")
    status = next(row for row in rows(page, "task file") if row[0] == "STATUS")
    assert "BSY" in status[2].split()
    assert rows(page, "PRD") == [
        ("0", "0x100000", "0x200000", "4,096", ""),
        ("1", "0x100008", "0xffff0000", "65,536", "outside RAM"),
        ("2", "0x100010", "0x300000", "512", "EOT"),
    ]
    ide.master.write(0xC, 4, 0xFFFF_FFF0)
    assert rows(inspect.capture(machine, "ide1"), "PRD")[0][-1] == "outside RAM"


def test_a_descriptor_table_without_an_end(machine: Machine) -> None:
    ide: Any = machine.devices["piix3_ide"]
    ide.master.write(4, 4, DESC)
    found = next(t for t in inspect.capture(machine, "ide0", 10).tables if "PRD" in t.title)
    assert len(found.rows) == 10
    assert "no EOT" in found.note


def test_a_split_queue_is_followed_into_its_requests(machine: Machine) -> None:
    state = queue(machine, "vd", F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC)
    memory = machine.memory
    memory.write(0x20_0000, struct.pack("<IIQ", 0, 0, 99))
    table = descriptor(0x20_0000, 16, 1, 1) + descriptor(0x21_0000, 4096, 3, 2)
    memory.write(0x18_0000, table + descriptor(0x22_0000, 1, 2, 0))
    memory.write(DESC, descriptor(0x18_0000, 48, 4, 0) + descriptor(0x20_0000, 16, 1, 2))
    memory.write(DESC + 32, descriptor(0x7000_0000, 512, 3, 1))
    memory.write(DRIVER, struct.pack("<HHHH", 0, 2, 0, 1))
    memory.write(DEVICE, struct.pack("<HHII", 0, 1, 0, 4097))
    state.next_avail, state.next_used = 1, 0
    page = inspect.capture(machine, "virtio0")
    assert ("32", "VIRTIO_F_VERSION_1", "yes", "yes") in rows(page, "features")
    assert value(page, "queue 0 (requestq)", "available, not taken") == "1"
    assert value(page, "queue 0 (requestq)", "outstanding in the device") == "1"
    first, second = rows(page, "chains")
    assert first[:3] == ("0", "outstanding, slot 0", "3")
    assert first[3].startswith("VIRTIO_BLK_T_IN sector 99; 16 bytes to the device, 4,097 bytes")
    assert second[1] == "available, slot 1"
    assert second[3].endswith("a loop of descriptors")
    wild = [row for row in rows(page, "descriptors of these chains") if "outside RAM" in row[4]]
    assert wild[0][2] == "0x70000000"
    assert rows(page, "last used")[0] == ("0", "0", "4,097")
    assert len(rows(page, "descriptor table")) == 3


def test_more_available_than_there_can_be(machine: Machine) -> None:
    state = queue(machine, "vd", F_VERSION_1, size=0xFFFF)
    machine.memory.write(DRIVER, struct.pack("<HH", 0, 0x8123))
    page = inspect.capture(machine, "vd")
    assert "there can be" in value(page, "queue 0 (requestq)", "available, not taken")
    state.desc = state.driver = state.device = (1 << 64) - 4096
    page = inspect.capture(machine, "vd")
    assert value(page, "queue 0 (requestq)", "available ring") == "idx ?, flags ?"


def test_a_packed_queue(machine: Machine) -> None:
    state = queue(machine, "vnet", F_VERSION_1 | F_RING_PACKED, size=4)
    ring = [
        descriptor(0x20_0000, 100, 7, 0x80 | 1),
        descriptor(0x21_0000, 200, 7, 0x80 | 2),
        descriptor(0x22_0000, 50, 3, 0x8080),
        descriptor(0, 0, 0, 0),
    ]
    machine.memory.write(DESC, b"".join(ring))
    machine.memory.write(DRIVER, struct.pack("<HH", 0x8002, 2))
    page = inspect.capture(machine, "vnet")
    (chain,) = rows(page, "chains")
    assert chain[:3] == ("0", "available, slot 0", "2")
    assert [row[5] for row in rows(page, "ring")] == ["available", "available", "used"]
    driver = value(page, "queue 0 (receiveq1)", "driver event suppression")
    assert driver == "DESC, slot 2, wrap 1"
    state.next_avail = 60000
    assert inspect.capture(machine, "vnet").tables


def test_rings_of_the_e1000(machine: Machine) -> None:
    card: Any = machine.devices["card"]
    mac = card.mac.state
    mac.tdbal, mac.tdlen, mac.tdh, mac.tdt = DESC, 8 * 16, 1, 3
    legacy = struct.pack("<QII", 0x20_0000, 60 | 0x0B << 24, 1)
    context = struct.pack("<QII", 0, 1500 | 0x27 << 24, 1448 << 16 | 54 << 8)
    data = struct.pack("<QII", 0x21_0000, 700 | 1 << 20 | 0x29 << 24, 0)
    machine.memory.write(DESC, legacy + context + data)
    mac.rdbal, mac.rdlen, mac.rdh, mac.rdt = DRIVER, 8 * 16, 0, 9
    machine.memory.write(DRIVER, struct.pack("<QHHBBH", 0x22_0000, 64, 0, 0x0F, 0, 5))
    mac.icr, mac.ims = 0x84, 0x80
    mac.tx_paused = True
    page = inspect.capture(machine, "e1000-0")
    assert ("transmitter", "paused by the other end") in rows(page, "state")
    sent = rows(page, "transmit ring")
    assert sent[0] == ("0", "", "driver", "0x200000", "60", "legacy: EOP IFCS RS DD")
    assert sent[1][:3] == ("1", "head", "device")
    assert sent[1][5] == "context: TCP IP TSE DEXT; header 54, MSS 1448"
    assert sent[2][3:] == ("0x210000", "700", "data: EOP RS DEXT")
    assert sent[3][:3] == ("3", "tail", "driver")
    assert rows(page, "receive ring")[0][3:] == ("0x220000", "64", "DD EOP IXSM VP VLAN 5")
    ring = next(t for t in page.tables if t.title == "receive ring")
    assert "outside the ring" in ring.note
    assert ("RXT0", "1", "1") in rows(page, "interrupts")
    assert ("LSC", "1", "") in rows(page, "interrupts")


def test_pci(machine: Machine) -> None:
    page = inspect.capture(machine, "pci")
    assert ("00:01.1", "4") in [row[:2] for row in rows(page, "base addresses")]
    assert [row[3] for row in rows(page, "capabilities") if row[0] == "00:04.0"] == [
        "power management PM",
        "MSI MSI",
    ]
    assert any("MSI of 00:04.0" in table.title for table in page.tables)
    assert any("MSI-X of 00:03.0 vd" in table.title for table in page.tables)


def test_why_an_interrupt_waits(machine: Machine) -> None:
    pic: Any = machine.devices["pic"]
    for chip, base in ((pic.master, 0x30), (pic.slave, 0x38)):
        for offset, byte in ((0, 0x11), (1, base), (1, 4 if chip is pic.master else 2), (1, 1)):
            chip.write(offset, 1, byte)
    pic.master.write(1, 1, 0x08)
    pic.set_irq(3, True)
    pic.set_irq(1, True)
    pic.set_irq(4, True)
    lapic: Any = machine.devices["lapic"]
    lapic.write(0xF0, 4, 0x1FF)
    lapic.write(0x80, 4, 0x50)
    lapic.deliver(0, False, 0, 0x41, False)
    lapic.deliver(0, False, 0, 0x61, False)
    ioapic: Any = machine.devices["ioapic"]
    ioapic.set_pin(17, True)
    why = {
        (where, what): text
        for where, what, text in rows(inspect.capture(machine, "irq"), "pending")
    }
    assert why["pic0", "IRQ 3"] == "masked (IMR)"
    assert why["pic0", "IRQ 4"] == "IR1 goes first"
    assert why["pic0", "IRQ 1"] == "nothing: INT is up"
    assert why["lapic", "vector 0x41"] == "its class is not above PPR: TPR 0x50"
    assert why["lapic", "vector 0x61"] == "RFLAGS.IF is 0"
    assert why["ioapic", "pin 17"].startswith("masked")
    ioapic.set_pin(17, False)
    for irq in (1, 3, 4):
        pic.set_irq(irq, False)


def test_timers(machine: Machine) -> None:
    pit: Any = machine.devices["pit"]
    for offset, byte in ((3, 0x34), (0, 0x10), (0, 0x27)):
        pit.write(offset, 1, byte)
    page = inspect.capture(machine, "timers")
    assert rows(page, "8254")[0][:4] == ("0", "2", "10000", "10000")
    assert any(row[0].startswith("pit") for row in rows(page, "deadlines"))


def test_cpu_and_tlb(machine: Machine) -> None:
    page = inspect.capture(machine, "cpu")
    assert value(page, "state", "mode") == "real mode"
    assert any(row[:1] == ("CR0",) and "ET" in row[2] for row in rows(page, "flags and control"))
    assert len(inspect.capture(machine, "tlb").tables) == 3


# How it is shown.


def test_what_has_changed_is_marked(machine: Machine) -> None:
    before = inspect.capture(machine, "cpu")
    machine.cpu.set("rbx", 0x1234)
    shown = inspect.plain(inspect.capture(machine, "cpu"), before)
    marked = [line for line in shown.splitlines() if line.startswith("*")]
    assert [line.split() for line in marked] == [["*", "rbx", "0000000000001234"]]
    machine.cpu.set("rbx", 0)


def test_text_is_plain_and_as_wide_as_wanted(machine: Machine) -> None:
    machine.memory.write(DESC, b"\x1b[31m" * 20)
    for name in inspect.names(machine):
        for width in (40, 80, 200):
            shown = inspect.text(machine, name, width)
            assert max(map(len, shown.splitlines())) <= width
            assert all(c.isprintable() or c == "\n" for c in shown)


def test_pages_are_plain_data_and_renderable(machine: Machine) -> None:
    for name in inspect.names(machine):
        page = inspect.capture(machine, name)
        assert json.loads(json.dumps(page.to_json()))["name"] == name
        Console(file=io.StringIO(), width=100).print(inspect.inspect(machine, name, page))


# Whatever the guest does.


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), noise=st.sampled_from([0, 0x7F, 0xFF, 0xFFFF]))
def test_hostile_state_and_memory(shared: Machine, seed: int, noise: int) -> None:
    """Random rings, registers and addresses: pages are made, of bounded size, and nothing moves."""
    rng = random.Random(seed)
    for gpa in (DESC, DRIVER, DEVICE, 0x20_0000):
        words = [rng.choice((rng.getrandbits(16), rng.randrange(16), noise)) for _ in range(2048)]
        shared.memory.write(gpa, struct.pack("<2048H", *words))
    places = [DESC, DRIVER, DEVICE, RAM_BYTES - 8, 0x9_FFFC, (1 << 32) - 4, (1 << 64) - 16, 0]
    for name in ("vd", "vnet"):
        device: Any = shared.devices[name]
        state = device.virtio.state
        state.driver_features = rng.getrandbits(64)
        for q in state.queues:
            q.ready, q.size = True, rng.choice((0, 1, 8, 256, 0xFFFF))
            q.desc, q.driver, q.device = (rng.choice(places) for _ in range(3))
            q.next_avail, q.next_used = rng.getrandbits(16), rng.getrandbits(16)
            q.avail_wrap, q.used_wrap = rng.random() < 0.5, rng.random() < 0.5
    card: Any = shared.devices["card"]
    mac = card.mac.state
    for name in ("rdbal", "tdbal"):
        setattr(mac, name, rng.choice(places) & 0xFFFF_FFFF)
    for name in ("rdlen", "tdlen", "rdh", "tdh", "rdt", "tdt", "icr", "rctl"):
        setattr(mac, name, rng.choice((0, 128, 0xFFF80, rng.getrandbits(32))))
    ide: Any = shared.devices["piix3_ide"]
    ide.state.master.bmidtp[:] = [rng.choice(places) & 0xFFFF_FFFC for _ in range(2)]
    before = shared.digest()
    for name in inspect.names(shared):
        page = inspect.capture(shared, name, 20)
        assert sum(len(table.rows) for table in page.tables) < 2000
        if seed % 8 == 0:
            inspect.plain(page)
    assert shared.digest() == before

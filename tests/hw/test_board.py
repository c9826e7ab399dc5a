"""The `pc` board: what is wired to what, and what firmware leaves."""

from __future__ import annotations

import gc

import pytest

from workbench.core.config import MachineConfig
from workbench.hw.board import build_board, build_pc
from workbench.hw.pci.config import Bar, PciState, config_map
from workbench.hw.pci.function import PciFunction

MIB = 1 << 20
LAPIC, IOAPIC, HPET = 0xFEE0_0000, 0xFEC0_0000, 0xFED0_0000


class Nic(PciFunction[PciState]):
    MAP = config_map("nic", vendor=0x8086, device=0x100E, class_code=0x020000, interrupt_pin=1)
    STATE = PciState
    BARS = (Bar(0, 0x2_0000), Bar(1, 0x40, io=True))

    def connected(self):
        self.add_bar(0, lambda offset, size: offset, lambda offset, size, value: None)
        self.add_bar(1, lambda offset, size: size, lambda offset, size, value: None)


@pytest.fixture(autouse=True)
def _room():
    """Machines are cycles of references, and each has a large arena in the low 2 GiB."""
    gc.collect()


@pytest.fixture
def board():
    made = build_board(MachineConfig(ram_bytes=16 * MIB, serial_ports=("com1", "com2")))
    made.post()
    return made


@pytest.fixture
def machine(board):
    return board.machine


def inb(machine, port):
    return machine.pio.read(port, 1)


def outb(machine, port, value):
    machine.pio.write(port, 1, value)


def redirect(machine, pin, value):
    machine.mmio.write(IOAPIC, 4, 0x10 + 2 * pin)
    machine.mmio.write(IOAPIC + 0x10, 4, value)


def intr(machine):
    return machine.cpu.get("irq_pending")


def unmask(machine, irq):
    if irq >= 8:
        outb(machine, 0xA1, 0xFF & ~(1 << irq - 8))
        irq = 2
    outb(machine, 0x21, 0xFF & ~(1 << irq))


def pass_time(machine, ps):
    clock = machine.clock
    until = clock.now_ps + ps
    while (due := clock.next_ps) is not None and due <= until:
        clock.skip_to(due)
        clock.run_due()
    clock.skip_to(until)


def test_devices_by_name(machine):
    assert {
        "pic", "pit", "rtc", "com1", "com2", "i8042", "lapic", "ioapic", "hpet", "pci", "i440fx",
        "piix3", "piix4_pm",
    } <= set(machine.devices)  # fmt: skip
    assert all(device.name == name for name, device in machine.devices.items())


def test_two_machines_are_the_same_and_share_nothing():
    config = MachineConfig(ram_bytes=4 * MIB)
    one, other = build_pc(config), build_pc(config)
    assert one.digest() == other.digest()
    outb(one, 0x3FF, 0x55)
    assert one.digest() != other.digest()


def test_pit_through_8259_and_virtual_wire(machine):
    unmask(machine, 0)
    outb(machine, 0x43, 0x34)
    outb(machine, 0x40, 0x00)
    outb(machine, 0x40, 0x10)
    assert not intr(machine)
    pass_time(machine, 4100 * 838_096)
    assert intr(machine)
    assert machine.irq.acknowledge() == 0x08
    assert not intr(machine)


def test_pit_reaches_pin_2_of_the_io_apic(machine):
    redirect(machine, 2, 0x30)
    outb(machine, 0x43, 0x34)
    outb(machine, 0x40, 0x00)
    outb(machine, 0x40, 0x10)
    pass_time(machine, 4100 * 838_096)
    assert machine.irq.acknowledge() == 0x30


def test_hpet_takes_irq_0(machine):
    redirect(machine, 2, 0x30)
    machine.mmio.write(HPET + 0x100, 8, 4)
    machine.mmio.write(HPET + 0x108, 8, 1000)
    machine.mmio.write(HPET + 0x010, 8, 3)
    pass_time(machine, 10_000_000)
    assert machine.irq.acknowledge() == 0x30


def test_serial_port_interrupts(machine):
    redirect(machine, 4, 0x34)
    outb(machine, 0x3F9, 2)  # THRE
    outb(machine, 0x3FC, 8)  # OUT2 lets the interrupt out
    assert machine.irq.acknowledge() == 0x34


def test_power_button_is_irq_9(machine):
    unmask(machine, 9)
    machine.pio.write(0x602, 2, 1 << 8)
    machine.inputs.post("acpi", "power", b"")
    for item in machine.inputs.due(0, 0):
        machine.inputs.dispatch(item)
    assert machine.irq.acknowledge() == 0x71
    machine.pio.write(0x600, 2, 1 << 8)
    assert not intr(machine)


def test_soft_off_and_reset_end_the_run(machine):
    machine.pio.write(0x604, 2, 1 | 1 << 13)
    stop = machine.run()
    assert (stop.kind, stop.code, stop.reason) == ("shutdown", 0, "ACPI S5")
    outb(machine, 0xCF9, 0x06)
    stop = machine.run()
    assert (stop.kind, stop.reason) == ("reset", "RC, port 0xcf9: hard reset")


def test_nmi_arrives_through_lint1(board):
    board.lapic.set_lint(1, True)
    assert board.machine._nmi


def test_apic_page_moves_and_goes(machine):
    read, write = machine.msr_handlers[0x1B]
    assert read() == 0xFEE0_0900
    assert machine.mmio.read(LAPIC + 0x30, 4) == 0x0005_0014
    write(0xFED4_0900)
    assert machine.mmio.find(LAPIC) is None
    assert machine.mmio.read(0xFED4_0030, 4) == 0x0005_0014
    assert 0x802 not in machine.msr_handlers
    write(0xFED4_0D00)
    assert machine.mmio.find(0xFED4_0000) is None
    assert machine.msr_handlers[0x803][0]() == 0x0005_0014
    write(0xFED4_0000 | 0x100)
    assert 0x802 not in machine.msr_handlers


def test_tsc_deadline_follows_the_tsc(machine):
    machine.mmio.write(LAPIC + 0x320, 4, 2 << 17 | 0xEC)
    machine.msr_handlers[0x6E0][1](5000)
    assert machine.clock.next_ps == machine.tsc_ps(5000)


def test_firmware_places_bars_and_routes_interrupts():
    board = build_board(MachineConfig(ram_bytes=4 * MIB))
    nic = Nic("nic")
    board.add_pci(nic, 2)
    board.post()
    machine = board.machine
    assert nic.bar_base(0) % 0x2_0000 == 0
    assert machine.mmio.read(nic.bar_base(0) + 0x1234, 4) == 0x1234
    assert machine.pio.read(nic.bar_base(1), 2) == 2
    machine.pio.write(0xCF8, 4, 0x8000_103C)
    assert inb(machine, 0xCFC) == 10  # slot 2, INTA: PIRQB
    redirect(machine, 10, 0x8051)
    nic.set_intx(True)
    assert machine.irq.acknowledge() == 0x51
    nic.set_intx(False)
    machine.mmio.write(LAPIC + 0xB0, 4, 0)
    assert not intr(machine)
    assert machine.devices["nic"] is nic


def test_observers_hear_configuration_accesses_and_lines(machine):
    from workbench.core.machine import Observer

    class Ear(Observer):
        def __init__(self):
            self.heard = []
            self.lines = []

        def on_irq_line(self, name, level, icount):
            self.lines.append((name, level))

        def on_access(self, kind, device, offset, size, is_write, value, *rest):
            self.heard.append((kind, device, offset, size, is_write, value))

    ear = Ear()
    machine.observers.append(ear)
    machine.pio.write(0xCF8, 4, 0x8000_0800)
    machine.pio.read(0xCFE, 2)
    assert ("cfg", "piix3", 2, 2, False, 0x7000) in ear.heard
    outb(machine, 0x3F9, 2)
    outb(machine, 0x3FC, 8)
    assert ear.lines == [("IRQ4", True)]


def test_save_and_restore_of_everything():
    config = MachineConfig(ram_bytes=4 * MIB)
    one, other = build_pc(config), build_pc(config)
    unmask(one, 0)
    outb(one, 0x43, 0x34)
    outb(one, 0x40, 0x00)
    outb(one, 0x40, 0x10)
    redirect(one, 4, 0x34)
    outb(one, 0x3F9, 2)
    outb(one, 0x3FC, 8)
    pass_time(one, 10**10)
    one.msr_handlers[0x1B][1](0xFED4_0900)
    states = {name: device.save() for name, device in one.devices.items()}
    intr_before = intr(other)
    for name, state in states.items():
        other.devices[name].restore(state)
        assert other.devices[name].save() == state
    other.clock.restore(one.clock.save())
    assert intr(other) == intr_before, "restoring makes no edge"
    assert other.mmio.find(0xFED4_0000).device == "lapic"
    assert other.irq.acknowledge() == one.irq.acknowledge() == 0x34


@pytest.mark.parametrize("ports", [(), ("com1", "com2", "com3", "com4")])
def test_serial_ports(ports):
    machine = build_pc(MachineConfig(ram_bytes=4 * MIB, serial_ports=ports))
    assert [name for name in machine.devices if name.startswith("com")] == list(ports)

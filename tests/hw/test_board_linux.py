"""An unmodified Linux on the board: it finds every device, and its snapshots change nothing."""

from __future__ import annotations

import gc
import json

import pytest

from guests.build import ensure
from guests.errors import GuestError
from workbench import firmware
from workbench.core.config import MachineConfig
from workbench.core.machine import Observer
from workbench.hw.board import build_pc

pytestmark = [pytest.mark.slow, pytest.mark.guest]
STEP = 97_000_003


class Ear(Observer):
    def __init__(self):
        self.text = bytearray()

    def on_console(self, device, data, icount):
        self.text += data


def boot(*, disturb):
    """Run Debian's cloud kernel to power-off; `disturb`: save and restore all devices often."""
    try:
        guest = ensure("cloud")
    except GuestError as error:
        pytest.skip(str(error))
    gc.collect()
    machine = build_pc(MachineConfig(rtc_epoch_s=1_700_000_000))
    ear = Ear()
    machine.observers.append(ear)
    firmware.load(
        machine, guest.kernel.read_bytes(), guest.images["boot"].read_bytes(), "console=ttyS0"
    )
    until = STEP
    while (stop := machine.run(until if disturb else None)).kind == "icount":
        until += STEP
        for device in machine.devices.values():
            saved = json.loads(json.dumps(device.save()))
            device.restore(saved)
            assert device.save() == saved
        machine.clock.restore(json.loads(json.dumps(machine.clock.save())))
    return stop, machine.clock.icount, machine.digest(), ear.text.decode("latin-1")


@pytest.fixture(scope="module")
def straight():
    return boot(disturb=False)


def test_linux_switches_off(straight):
    stop = straight[0]
    assert (stop.kind, stop.code, stop.reason) == ("shutdown", 0, "ACPI S5")


def test_linux_finds_the_devices(straight):
    for line in (
        "IOAPIC[0]: apic_id 0, version 32, address 0xfec00000, GSI 0-23",
        "TSC deadline timer available",
        "..TIMER: vector=0x30 apic1=0 pin1=2 apic2=-1 pin2=-1",
        "hpet0: 3 comparators, 64-bit 100.000000 MHz counter",
        "pci 0000:00:01.3: [8086:7113] type 00 class 0x068000",
        "ACPI: PCI: Interrupt link LNKC configured for IRQ 11",
        "clocksource: acpi_pm: mask: 0xffffff",
        "00:02: ttyS0 at I/O 0x3f8 (irq = 4, base_baud = 115200) is a 16550A",
        "rtc_cmos 00:00: setting system clock to 2023-11-14T22:13:20 UTC (1700000000)",
    ):
        assert line in straight[3], line


def test_linux_has_no_complaint(straight):
    for word in ("ACPI Error", "ACPI BIOS", "[Firmware Bug]", "nobody cared", "spurious interrupt"):
        assert word not in straight[3]


def test_saving_and_restoring_all_devices_changes_nothing(straight):
    assert boot(disturb=True)[1:] == straight[1:]

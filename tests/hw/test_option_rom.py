"""The expansion ROM of a PCI function (PCI Local Bus Specification 3.0, 6.2.5.2)."""

from __future__ import annotations

import pytest

from workbench import firmware
from workbench.core.config import MachineConfig, NicConfig
from workbench.firmware import LoaderError, bios
from workbench.hw.board import build_pc
from workbench.hw.pci.function import PciFunction

ROM, COMMAND, MSE = 0x30, 0x04, 2
IMAGE = b"\x55\xaa" + bytes(range(250)) * 20  # 5,002 bytes: a window of 8 KiB
BASE = 0xD000_0000
CONFIG = MachineConfig(nics=(NicConfig("net0", "e1000", "52:54:00:12:34:56"),))


def test_the_rom_answers_where_it_is_put_while_enabled() -> None:
    machine = build_pc(CONFIG)
    nic = machine.devices["net0"]
    assert isinstance(nic, PciFunction)
    nic.write(ROM, 4, 0xFFFF_FFFF)
    assert nic.read(ROM, 4) == 0  # there is none
    firmware.plug_rom(machine, "net0", IMAGE)
    nic.write(ROM, 4, 0xFFFF_FFFE)
    assert nic.read(ROM, 4) == 0xFFFF_E000
    nic.write(COMMAND, 2, MSE)
    nic.write(ROM, 4, BASE)
    assert machine.mmio.read(BASE, 2) == 0xFFFF
    nic.write(ROM, 4, BASE | 1)
    assert machine.mmio.read(BASE, 4) == int.from_bytes(IMAGE[:4], "little")
    assert machine.mmio.read(BASE + 5000, 4) == int.from_bytes(IMAGE[5000:] + b"\xff\xff", "little")
    machine.mmio.write(BASE, 4, 0)
    assert machine.mmio.read(BASE, 2) == 0xAA55
    state = nic.save()
    nic.write(COMMAND, 2, 0)
    assert machine.mmio.read(BASE, 2) == 0xFFFF
    nic.restore(state)
    assert machine.mmio.read(BASE, 2) == 0xAA55
    nic.reset()
    assert machine.mmio.read(BASE, 2) == 0xFFFF


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("net7", IMAGE, "a device on PCI, not for 'net7'"),
        ("net0", b"MZ", "begins with 55 aa, not 2 bytes that begin with 4d 5a"),
        ("net0", b"", "not 0 bytes"),
    ],
)
def test_what_is_no_rom_is_refused(name: str, image: bytes, message: str) -> None:
    with pytest.raises(LoaderError, match=message):
        firmware.plug_rom(build_pc(CONFIG), name, image)


def test_a_rom_gets_the_identification_of_its_function() -> None:
    """And its sum stays; what has no PCI data structure of a PC BIOS stays as it is."""
    rom = bytearray(IMAGE)
    rom[0x18:0x1A] = b"\x40\0"
    rom[0x40:0x48] = b"PCIR\xf4\x1a\x41\x10"
    rom[0x54] = 0
    fitted = bios.rom_for(bytes(rom), 0x8086, 0x100E)
    assert fitted[0x44:0x48] == b"\x86\x80\x0e\x10"
    assert sum(fitted) & 0xFF == sum(rom) & 0xFF
    assert bios.rom_for(fitted, 0x8086, 0x100E) == fitted
    rom[0x54] = 3  # for EFI
    assert bios.rom_for(bytes(rom), 0x8086, 0x100E) == bytes(rom)
    assert bios.rom_for(IMAGE, 0x8086, 0x100E) == IMAGE

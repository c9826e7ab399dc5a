"""`--boot menu=on`: Esc at the BIOS's prompt shows what can be booted, a number boots it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from workbench import firmware
from workbench.cli.roms import SEABIOS_FILES, first_of
from workbench.core.config import DriveConfig, FirmwareConfig, MachineConfig
from workbench.core.machine import Machine, Observer
from workbench.hw.board import build_pc

CONFIG = MachineConfig(
    ram_bytes=64 << 20, seed=1, rtc_epoch_s=10**9,
    firmware=FirmwareConfig(menu=True, splash_time_ms=2000),
    drives=(DriveConfig("disk", "ide", 1 << 20, serial="D1"),),
)  # fmt: skip
# What is at 0:7C00: the text to the serial port, then HLT for good.
SECTOR = bytes.fromhex("be0f7c 2eac 84c0 7406 baf803 ee ebf4") + b"booted from the menu\n\0"
LIMIT = 100_000_000


class Disk:
    """A megabyte that begins with a boot sector, as `block.Image` is for a drive."""

    size_bytes = 1 << 20
    read_only = True
    name = "disk"
    format = "raw"

    def read(self, offset: int, count: int) -> bytes:
        whole = SECTOR.ljust(510, b"\xf4") + b"\x55\xaa"
        return whole[offset : offset + count].ljust(count, b"\0")

    def close(self) -> None:
        """Nothing is open."""


class Ear(Observer):
    def __init__(self) -> None:
        self.text = bytearray()

    def on_console(self, device: str, data: bytes, icount: int) -> None:
        if device == "com1":
            self.text += data


def run_until(machine: Machine, ear: Ear, text: bytes) -> None:
    while text not in ear.text:
        assert machine.clock.icount < LIMIT, ear.text
        machine.run(machine.clock.icount + 1_000)


def test_a_drive_alone_at_the_last_place_is_booted() -> None:
    path = first_of(SEABIOS_FILES)
    if path is None:
        pytest.skip("SeaBIOS is not installed")
    alone = DriveConfig("disk", "ide", 1 << 20, serial="D1", place=3)
    config = replace(CONFIG, firmware=FirmwareConfig(), drives=(alone,))
    machine, ear = build_pc(config, {"disk": Disk()}), Ear()
    machine.observers.append(ear)
    firmware.load_bios(machine, Path(path).read_bytes())
    run_until(machine, ear, b"booted from the menu")


def test_escape_shows_the_menu_and_a_number_boots() -> None:
    path = first_of(SEABIOS_FILES)
    if path is None:
        pytest.skip("SeaBIOS is not installed")
    machine, ear = build_pc(CONFIG, {"disk": Disk()}), Ear()
    firmware.load_bios(machine, Path(path).read_bytes())
    machine.observers.append(ear)
    run_until(machine, ear, b"Press ESC for boot menu")
    machine.inputs.post("com1", "rx", b"\x1b")
    run_until(machine, ear, b"Select boot device")
    run_until(machine, ear, b"1. ata0-0")
    ear.text.clear()
    machine.inputs.post("com1", "rx", b"1")
    run_until(machine, ear, b"booted from the menu")

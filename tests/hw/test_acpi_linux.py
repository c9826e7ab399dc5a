"""The tables in an unmodified Linux on QEMU's `pc`, whose chipset is the same: a second opinion.

Linux takes replacements of firmware's tables from an uncompressed archive in front of the initial
RAM disk if OEM names agree and the revision is higher.
"""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest

from guests.build import ensure
from guests.cpio import Archive
from guests.errors import GuestError
from workbench.core.config import MachineConfig
from workbench.hw.acpi import build_tables

QEMU = shutil.which("qemu-system-x86_64")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.guest,
    pytest.mark.qemu,
    pytest.mark.skipif(QEMU is None, reason="needs qemu-system-x86_64"),
]
MIB = 1 << 20
REPLACED = (b"DSDT", b"APIC", b"HPET")


@pytest.fixture(scope="module")
def boot_log(tmp_path_factory):
    try:
        guest = ensure("cloud")
    except GuestError as error:
        pytest.skip(str(error))
    work = tmp_path_factory.mktemp("acpi")
    archive = Archive()
    config = MachineConfig(ram_bytes=256 * MIB)
    for _, data in build_tables(config)[1]:
        if data[:4] in REPLACED:
            newer = bytearray(data)
            struct.pack_into("<I", newer, 24, 0x1000)
            newer[9] = newer[9] - sum(newer) & 0xFF
            archive.file(f"kernel/firmware/acpi/{data[:4].decode().lower()}.aml", bytes(newer))
    initrd = work / "initrd"
    initrd.write_bytes(archive.to_bytes() + guest.images["boot"].read_bytes())
    command = [
        QEMU, "-M", "pc,x-oem-id=WRKBNC,x-oem-table-id=WORKBNCH", "-m", "256", "-nodefaults",
        "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(guest.kernel),
        "-initrd", str(initrd), "-append", "console=ttyS0 panic=-1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout


def test_all_were_taken(boot_log):
    for signature in REPLACED:
        assert f"Table Upgrade: override [{signature.decode()}-WRKBNC-WORKBNCH]" in boot_log


def test_linux_has_no_complaint(boot_log):
    for word in ("ACPI Error", "ACPI BIOS", "ACPI Warning", "ACPI: Unable", "[Firmware Bug]"):
        assert word not in boot_log


def test_linux_finds_what_they_describe(boot_log):
    for line in (
        "INT_SRC_OVR (bus 0 bus_irq 0 global_irq 2 dfl dfl)",
        "ACPI: PCI: Interrupt link LNKC configured for IRQ 11",
        "root bus resource [mem 0xc0000000-0xfebfffff window]",
        "hpet0: 3 comparators, 64-bit 100.000000 MHz counter",
        "00:02: ttyS0 at I/O 0x3f8 (irq = 4",
        "i8042: PNP: PS/2 Controller [PNP0303:KBD] at 0x60,0x64 irq 1",
        "ACPI: PM: Preparing to enter system sleep state S5",
    ):
        assert line in boot_log

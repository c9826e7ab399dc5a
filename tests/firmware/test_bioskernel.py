"""`--bios` with `--kernel`: the BIOS boots the kernel by QEMU's option ROM."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from guests.initramfs import run_option
from tests.firmware.images import bzimage
from workbench import firmware
from workbench.cli.roms import LINUXBOOT_FILES, SEABIOS_FILES, first_of
from workbench.core.config import FirmwareConfig, MachineConfig
from workbench.firmware import LoaderError, bios_kernel
from workbench.hw.board import build_pc

RAM = 256 << 20


def number(items: dict[int, bytes], key: int) -> int:
    return int(struct.unpack("<I", items[key])[0])


def test_items_are_where_the_boot_protocol_has_them() -> None:
    image, initrd = bzimage(), b"initrd" * 1000
    items = bios_kernel(image, initrd, "quiet", RAM)
    setup = items[0x18]
    assert len(setup) == number(items, 0x17)
    assert setup + items[0x11] != image, "the header is filled in"
    assert items[0x11] == image[len(setup) :]
    assert items[0x15] == b"quiet\0"
    at, size, pointer = (struct.unpack_from("<I", setup, n)[0] for n in (0x218, 0x21C, 0x228))
    assert (at, size) == (number(items, 0x0A), len(initrd))
    assert at % 4096 == 0
    assert at + size <= RAM - (1 << 20)
    assert pointer == number(items, 0x13) == 0x2_0000
    assert setup[0x211] & 0x81 == 0x81
    none = bios_kernel(image, None, "", RAM)
    assert number(none, 0x0A) == number(none, 0x0B) == 0


@pytest.mark.parametrize(
    ("image", "cmdline", "ram", "message"),
    [
        (b"\x7fELF" + bytes(8192), "", RAM, "a Linux bzImage to boot through a BIOS"),
        (b"", "a\0b", RAM, "without NUL"),
        (b"", "x" * 100_000, RAM, "a command line of at most"),
        (b"", "", 1 << 21, "give it more with -m"),
    ],
)
def test_what_cannot_be_booted_so(image: bytes, cmdline: str, ram: int, message: str) -> None:
    with pytest.raises(LoaderError, match=message):
        bios_kernel(image or bzimage(), None, cmdline, ram)


def test_the_rom_comes_first_in_the_boot_order() -> None:
    config = MachineConfig(firmware=FirmwareConfig(strict=True))
    machine = build_pc(config)
    image = bytes(0xFFF0) + b"\xea" + bytes(15)
    rom = {firmware.KERNEL_ROM: b"\x55\xaa"}
    firmware.load_bios(machine, image, rom, bios_kernel(bzimage(), None, "", RAM))
    fw_cfg = machine.devices["fw_cfg"]
    assert fw_cfg.file("bootorder") == b"/rom@genroms/linuxboot_dma.bin\nHALT\0"  # type: ignore[attr-defined]
    assert fw_cfg.items[0x15] == b"\0"  # type: ignore[attr-defined]


@pytest.mark.guest
@pytest.mark.slow
def test_seabios_boots_the_kernel_and_the_trace_holds_it(guest, tmp_path: Path) -> None:
    if first_of(SEABIOS_FILES) is None or first_of(LINUXBOOT_FILES) is None:
        pytest.skip("not installed: seabios or qemu-system-data")
    made = guest("generic")
    trace = tmp_path / "t.wbt"

    def workbench(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "workbench", *map(str, arguments)],
            capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    console = workbench("record", "--bios", "seabios", "--kernel", made.kernel, "--initrd",
                        made.images["drivers"],
                        "--append", f"console=ttyS0 {run_option('echo came by ROM')}",
                        "-o", trace)  # fmt: skip
    assert "Booting from ROM" in console
    assert "DMI: " in console  # SMBIOS is the BIOS's
    assert "came by ROM" in console
    assert workbench("replay", trace) == console

"""What firmware would find on the board: its own image, fw_cfg, and the boot order in CMOS RAM.

QEMU's `pc` has a BIOS always; here there is an image only with `-bios` (or as a read-only flash).
"""

from __future__ import annotations

import struct
import uuid
from typing import Final

from workbench.block.hostfile import HostFile
from workbench.core.config import BOOT_DEVICES, FirmwareConfig
from workbench.errors import UsageError
from workbench.firmware import bios
from workbench.hw.board import boot_digits
from workbench.hw.fw_cfg import FwCfg
from workbench.hw.shadow import ShadowRam
from workbench.qtest.options import Wanted
from workbench.qtest.testbed import Testbed

__all__ = ["config_of", "plug_bios"]

ORDER: Final = "cad"
CMOS_ORDER, CMOS_ORDER_AND_FLOPPY = 0x3D, 0x38


def config_of(wanted: Wanted) -> FirmwareConfig:
    """What `-boot` says; raises UsageError."""
    boot = wanted.boot
    try:
        return FirmwareConfig(
            boot_order=boot.get("order") or ORDER,
            menu=boot.get("menu") == "on",
            splash_time_ms=int(boot.get("splash-time", "-1")),
            reboot_timeout_ms=int(boot.get("reboot-timeout", "-1")),
            strict=boot.get("strict") == "on",
        )
    except ValueError as error:
        raise UsageError(f"-boot: {error}") from None


def plug_bios(testbed: Testbed, wanted: Wanted) -> None:
    """Put the image in its place and fill fw_cfg; raises WorkbenchError."""
    machine = testbed.machine
    fw_cfg, shadow = machine.devices["fw_cfg"], machine.devices["shadow"]
    assert isinstance(fw_cfg, FwCfg)
    assert isinstance(shadow, ShadowRam)
    bios.tell(fw_cfg, machine.config, machine.devices["pci"])
    fw_cfg.add_item(bios.NOGRAPHIC, struct.pack("<H", wanted.nographic))
    if wanted.boot.get("reboot-timeout") == "-1":
        fw_cfg.add_file("etc/boot-fail-wait", struct.pack("<i", -1))
    if wanted.uuid:
        try:
            fw_cfg.add_item(bios.UUID, uuid.UUID(wanted.uuid).bytes)
        except ValueError:
            raise UsageError(f"expected -uuid with a UUID, not {wanted.uuid!r}") from None
    if wanted.bios:
        image = _image(wanted.bios)
        machine.memory.map_rom(image)
        shadow.plug(image)
        testbed.rom_bytes = len(image)
    normal = wanted.boot.get("order", ORDER)
    _order(testbed, wanted, wanted.boot.get("once", normal))
    testbed.after_reset.append(lambda: _order(testbed, wanted, normal))


def _image(path: str) -> bytes:
    file = HostFile(path, read_only=True, lock=False)
    try:
        if not bios.LEAST_BYTES <= file.size_bytes <= bios.MOST_BYTES or file.size_bytes % 4096:
            raise UsageError(
                f"expected a BIOS image of 64 KiB to 16 MiB in pages of 4 KiB, not {path!r} of "
                f"{file.size_bytes:,} bytes"
            )
        return file.read(0, file.size_bytes)
    finally:
        file.close()


def _order(testbed: Testbed, wanted: Wanted, order: str) -> None:
    """The bytes by which a PC BIOS knows from where to boot (as `board.boot_bytes`)."""
    if len(order) > 3 or set(order) - set(BOOT_DEVICES):
        raise UsageError(f"expected -boot with up to three of {BOOT_DEVICES}, not {order!r}")
    digits = boot_digits(order)
    cmos = testbed.board.rtc.state.cmos
    cmos[CMOS_ORDER] = digits[1] << 4 | digits[0]
    cmos[CMOS_ORDER_AND_FLOPPY] = digits[2] << 4 | wanted.no_floppy_check

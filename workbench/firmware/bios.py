"""A PC BIOS: its image at the end of the first 4 GiB, and what it is told through fw_cfg.

The names and layouts of the items are those that SeaBIOS reads (its document Runtime_config; QEMU's
fw_cfg specification). The BIOS finds the machine as reset leaves it and sets up everything itself.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.core.config import FLASH_BLOCK, FirmwareConfig, MachineConfig
from workbench.firmware import bioskernel, bootorder, loader_script, smbios
from workbench.firmware.errors import LoaderError
from workbench.hw.acpi import build_relocatable
from workbench.hw.fw_cfg import FwCfg
from workbench.hw.layout import COM_PORTS, HIGH_RAM_BASE, LOW_RAM_LIMIT, PM_BASE
from workbench.hw.pci.function import PciFunction
from workbench.hw.pflash import Flash
from workbench.hw.shadow import ShadowRam

if TYPE_CHECKING:
    from workbench.core.machine import Machine

LEAST_RAM_BYTES = 16 << 20
CODE_TYPE = 0x14
LEAST_BYTES, MOST_BYTES = 64 << 10, 16 << 20
RESET_VECTOR = -16
ROM_SIGNATURE, MOST_OPTION_ROM_BYTES = b"\x55\xaa", 16 << 20
JUMPS = (0xEA, 0xE9, 0xEB, 0x0F, 0x90, 0xFA)

# Items without a name
UUID, RAM_SIZE, NOGRAPHIC, NB_CPUS = 0x02, 0x03, 0x04, 0x05
NUMA, BOOT_MENU, MAX_CPUS = 0x0D, 0x0E, 0x0F
IRQ0_OVERRIDE = 0x8002


def load(
    machine: "Machine",
    image: bytes,
    option_roms: Mapping[str, bytes] | None = None,
    kernel: Mapping[int, bytes] | None = None,
    variables: Sequence[bytes] = (),
) -> None:
    """Put the BIOS into a machine that was configured for one; `option_roms` by file name;
    `variables` are the flash devices after the first one, if the BIOS is in flash.

    `kernel`: items of a kernel to boot (`bioskernel.items`); its option ROM is among the others.
    Raises `LoaderError` if the image can be no BIOS.
    """
    config = machine.config
    if config.firmware is None:
        raise LoaderError("the machine was not configured for a BIOS")
    check(image, FLASH_BLOCK if config.flash else LEAST_BYTES)
    if config.ram_bytes < LEAST_RAM_BYTES:
        raise LoaderError(
            f"a BIOS needs {LEAST_RAM_BYTES >> 20} MiB of memory, not "
            f"{config.ram_bytes / (1 << 20):g} MiB: give the guest more with -m"
        )
    _map(machine, [image, *variables])
    shadow, fw_cfg = machine.devices["shadow"], machine.devices["fw_cfg"]
    assert isinstance(shadow, ShadowRam)
    assert isinstance(fw_cfg, FwCfg)
    shadow.plug(image)
    first = f"/rom@genroms/{bioskernel.ROM_NAME}" if kernel else ""
    tell(fw_cfg, config, machine.devices["pci"], first)
    _follow_pm_base(fw_cfg, config, machine.devices["piix4_pm"])
    for key, data in (kernel or {}).items():
        fw_cfg.add_item(key, data)
    for name, rom in (option_roms or {}).items():
        try:
            fw_cfg.add_file(f"genroms/{name}", rom)
        except ValueError as error:
            raise LoaderError(f"the option ROM {name}: {error}") from None


def _map(machine: "Machine", images: Sequence[bytes]) -> None:
    """Put ROM or flash at the end of the first 4 GiB, each below the one before it."""
    flash = machine.config.flash
    if flash and [len(image) for image in images] != [part.size_bytes for part in flash]:
        raise LoaderError("expected flash of the sizes that the machine was configured for")
    machine.memory.map_rom(b"".join(reversed(images)))
    for part, image in zip(flash, images, strict=False):
        device = machine.devices[part.name]
        assert isinstance(device, Flash)
        device.plug(image)


def plug_rom(machine: "Machine", name: str, image: bytes) -> None:
    """Give the PCI function `name` an expansion ROM; raises `LoaderError`."""
    function = machine.devices.get(name)
    if not isinstance(function, PciFunction):
        raise LoaderError(f"expected a ROM for a device on PCI, not for {name!r}")
    if not image.startswith(ROM_SIGNATURE) or len(image) > MOST_OPTION_ROM_BYTES:
        raise LoaderError(
            f"expected an expansion ROM of {name} of at most 16 MiB that begins with 55 aa, not "
            f"{len(image):,} bytes that begin with {image[:2].hex(' ')}"
        )
    regs = function.map
    function.plug_rom(
        rom_for(image, regs["VENDOR_ID"].reset, regs["DEVICE_ID"].reset),
    )


def rom_for(image: bytes, vendor: int, device: int) -> bytes:
    """A legacy expansion ROM with the identification of the function that it is put into (PCI
    Firmware Specification, PCI data structure): one ROM serves a family, a BIOS runs it only when
    it fits. Byte 6, of no meaning, keeps the sum of all bytes.
    """
    at = int.from_bytes(image[0x18:0x1A], "little")
    if image[at : at + 4] != b"PCIR" or image[at + CODE_TYPE : at + CODE_TYPE + 1] != b"\0":
        return image
    wanted = struct.pack("<HH", vendor, device)
    patched = bytearray(image)
    patched[at + 4 : at + 8] = wanted
    patched[6] = (patched[6] + sum(image[at + 4 : at + 8]) - sum(wanted)) & 0xFF
    return bytes(patched)


def check(image: bytes, step_bytes: int = LEAST_BYTES) -> None:
    """Raise `LoaderError` for what cannot be a BIOS; `step_bytes` divides its size."""
    size = len(image)
    if not LEAST_BYTES <= size <= MOST_BYTES or size % step_bytes:
        raise LoaderError(
            f"expected a BIOS image of 64 KiB to 16 MiB in steps of {step_bytes >> 10} KiB, not "
            f"{size:,} bytes"
        )
    if image[RESET_VECTOR] not in JUMPS:
        raise LoaderError(
            "expected a BIOS image with a jump 16 bytes before its end, not "
            f"{image[RESET_VECTOR:][:5].hex(' ')}"
        )


def tell(fw_cfg: FwCfg, config: MachineConfig, pci: Any, first: str = "") -> None:
    """Fill fw_cfg from the configuration and from what is on the PCI bus.

    `first`: the path of what is booted before all else.
    """
    firmware = config.firmware
    assert firmware is not None
    fw_cfg.add_item(UUID, bytes(16))
    fw_cfg.add_item(RAM_SIZE, struct.pack("<Q", config.ram_bytes))
    fw_cfg.add_item(NOGRAPHIC, struct.pack("<H", 1))
    fw_cfg.add_item(NB_CPUS, struct.pack("<H", 1))
    fw_cfg.add_item(MAX_CPUS, struct.pack("<H", 1))
    fw_cfg.add_item(NUMA, bytes(16))
    fw_cfg.add_item(BOOT_MENU, struct.pack("<H", firmware.menu))
    fw_cfg.add_item(IRQ0_OVERRIDE, struct.pack("<I", 1))
    fw_cfg.add_file("etc/e820", e820_entries(config))
    for name, data in timing(firmware).items():
        fw_cfg.add_file(name, data)
    order = bootorder.lines(config, pci, first)
    if order:
        fw_cfg.add_file("bootorder", order)
    if config.serial_ports:  # the screen of a machine without one
        fw_cfg.add_file("etc/sercon-port", struct.pack("<Q", COM_PORTS[0]))
    tables = build_relocatable(config)
    fw_cfg.add_file(loader_script.TABLES_FILE, tables.tables)
    fw_cfg.add_file(loader_script.RSDP_FILE, tables.rsdp)
    fw_cfg.add_file("etc/table-loader", loader_script.script(tables))
    anchor, structures = smbios.build(config)
    fw_cfg.add_file("etc/smbios/smbios-anchor", anchor)
    fw_cfg.add_file("etc/smbios/smbios-tables", structures)


def _follow_pm_base(fw_cfg: FwCfg, config: MachineConfig, pm: Any) -> None:
    """The FADT says where firmware has put the ports of power management before it reads this."""
    built: dict[int, bytes] = {}

    def tables() -> bytes:
        base = pm.base or PM_BASE
        if base not in built:
            built.clear()
            built[base] = build_relocatable(config, base).tables
        return built[base]

    fw_cfg.make_live(loader_script.TABLES_FILE, tables)


def e820_entries(config: MachineConfig) -> bytes:
    """RAM as (base, bytes, type) of 20 bytes each; the BIOS makes its own reservations."""
    low = min(config.ram_bytes, LOW_RAM_LIMIT)
    ranges = [(0, low), (HIGH_RAM_BASE, config.ram_bytes - low)]
    return b"".join(struct.pack("<QQI", base, size, 1) for base, size in ranges if size)


def timing(firmware: FirmwareConfig) -> dict[str, bytes]:
    """How long the boot menu and a failed boot wait, in milliseconds."""
    files = {}
    if firmware.splash_time_ms >= 0:
        files["etc/boot-menu-wait"] = struct.pack("<H", firmware.splash_time_ms)
    if firmware.reboot_timeout_ms >= 0:
        files["etc/boot-fail-wait"] = struct.pack("<I", firmware.reboot_timeout_ms)
    return files

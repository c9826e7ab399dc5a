"""The file `bootorder`: devices by their boot index, as Open Firmware paths (IEEE 1275, PCI bus
binding), one a line.
"""

from typing import Any

from workbench.core.config import MachineConfig, ide_places

__all__ = ["lines"]

ROOT = "/pci@i0cf8"


def lines(config: MachineConfig, pci: Any, first: str = "") -> bytes:
    """Lines of the devices that have an index, least first; `pci` is the bus they are on, `first`
    a path that goes before them.
    """
    firmware = config.firmware
    assert firmware is not None
    slots = {function.name: address for address, function in pci.functions.items()}
    found: list[tuple[int, str]] = []
    places = {drive.name: place for place, drive in ide_places(config.drives).items()}
    for drive in config.drives:
        if drive.name in places:
            bus, unit = divmod(places[drive.name], 2)
            found.append((drive.boot_index, f"{ROOT}/ide@1,1/drive@{bus:x}/disk@{unit:x}"))
        elif drive.name in slots:  # over MMIO, a BIOS does not find it
            path = f"{ROOT}/scsi@{slots[drive.name].device:x}/disk@0,0"
            found.append((drive.boot_index, path))
    found += [
        (nic.boot_index, f"{ROOT}/ethernet@{slots[nic.name].device:x}/ethernet-phy@0")
        for nic in config.nics
        if nic.name in slots
    ]
    order = [path for index, path in sorted(found) if index >= 0]
    if first:
        order.insert(0, first)
    if firmware.strict:
        order.append("HALT")
    return "\n".join(order).encode() + b"\0" if order else b""

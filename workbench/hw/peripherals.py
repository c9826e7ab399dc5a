"""Drives and network interfaces of the `pc` board, as the machine's configuration lists them.

IDE drives and CD-ROMs fill the four places of the PIIX3 IDE function in the order of the list: a
controller that is only there when one of its places is taken.  Each virtio disk and each NIC is a
PCI device of its own, from slot 3 on, in the order of the list.

What is behind them is given apart: images by drive name, network ports by NIC name.  A replay gives
neither; what the run read from them is in its trace.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from workbench.block.disk import Disk
from workbench.core.machine import Machine
from workbench.hw.ata.ata import AtaDisk
from workbench.hw.ata.atapi import AtapiDrive
from workbench.hw.ata.drive import Drive
from workbench.hw.piix_ide import PiixIde
from workbench.hw.virtio.blk import VirtioBlk
from workbench.hw.virtio.pci import VirtioPci
from workbench.net.port import NetPort

if TYPE_CHECKING:
    from workbench.block.image import Image
    from workbench.core.config import DriveConfig, NicConfig
    from workbench.hw.board import Board
    from workbench.net.port import Backend

FIRST_SLOT = 3
IDE_SLOT, IDE_FUNCTION, IDE_IRQS = 1, 1, (14, 15)
IDE_PLACES = 4


class Peripherals:
    """What `attach` made: disks and ports by name, to be closed when the run is over."""

    def __init__(self) -> None:
        self.disks: dict[str, Disk] = {}
        self.ports: dict[str, NetPort] = {}

    def close(self) -> None:
        """Close images and networks."""
        for port in self.ports.values():
            port.close()
        for disk in self.disks.values():
            disk.close()


def attach(
    board: Board,
    images: Mapping[str, Image],
    networks: Mapping[str, Backend],
    write_through: Collection[str] = (),
) -> Peripherals:
    """Add the configured drives and NICs to a board; raises ValueError for too many of them."""
    machine = board.machine
    made = Peripherals()
    places: list[Drive | None] = []
    slot = FIRST_SLOT
    for drive in machine.config.drives:
        disk = Disk(
            drive.name,
            images.get(drive.name),
            machine.inputs.fetch,
            drive.read_only,
            size_bytes=drive.size_bytes,
            write_through=drive.name in write_through,
        )
        made.disks[drive.name] = disk
        machine.attach(disk)
        if drive.interface == "virtio":
            blk = VirtioBlk(drive.name, disk, machine.clock, serial=drive.serial)
            board.add_pci(VirtioPci(blk), slot)
            slot += 1
        else:
            places.append(_ide_drive(machine, drive, disk))
    if len(places) > IDE_PLACES:
        raise ValueError(f"expected at most {IDE_PLACES} IDE drives, not {len(places)}")
    if places:
        places += [None] * (IDE_PLACES - len(places))
        irqs = (board.irq("ide0", IDE_IRQS[0]), board.irq("ide1", IDE_IRQS[1]))
        ide = PiixIde((places[:2], places[2:]), machine.clock, irqs)
        board.add_pci(ide, IDE_SLOT, IDE_FUNCTION)
        ide.post()
    for nic in machine.config.nics:
        port = NetPort(nic.name, machine.inputs)
        made.ports[nic.name] = port
        board.add_pci(NICS[nic.model](board, nic, port), slot)
        slot += 1
        if nic.name in networks:
            port.attach(networks[nic.name])
    return made


def _ide_drive(machine: Machine, drive: DriveConfig, disk: Disk) -> Drive:
    if drive.interface == "cdrom":
        cdrom = AtapiDrive(drive.name, disk if disk.sectors else None, serial=drive.serial)
        machine.inputs.register(drive.name, cdrom.receive)
        return cdrom
    return AtaDisk(drive.name, disk, serial=drive.serial)


def _e1000(board: Board, nic: NicConfig, port: NetPort) -> Any:
    from workbench.hw.e1000.e1000 import E1000

    return E1000(board.machine.clock, nic.name, bytes.fromhex(nic.mac.replace(":", "")), port)


def _virtio_net(board: Board, nic: NicConfig, port: NetPort) -> Any:
    from workbench.hw.virtio.net import VirtioNet

    return VirtioPci(VirtioNet(nic.name, nic.mac, port))


NICS: dict[str, Callable[[Board, NicConfig, NetPort], Any]] = {
    "e1000": _e1000,
    "virtio-net": _virtio_net,
}

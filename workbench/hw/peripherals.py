"""Drives, network interfaces and other devices of the `pc` board, as the configuration lists them.

IDE drives and CD-ROMs take their places of the PIIX3 IDE function, or the next free one: a
controller that is only there when one of its places is taken.  Each virtio disk and each NIC is a
PCI device of its own, from slot 3 on, in the order of the list; the other devices follow.  What is
to be reached over MMIO has a window from `layout.VIRTIO_MMIO_BASE` on instead, in the same order.

What is behind them is given apart: images by drive name, network ports by NIC name.  A replay gives
neither; what the run read from them is in its trace.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from workbench.block.disk import Disk
from workbench.core.config import IDE_PLACES, ide_places
from workbench.hw import layout
from workbench.hw.ata.ata import AtaDisk
from workbench.hw.ata.atapi import AtapiDrive
from workbench.hw.ata.drive import Drive
from workbench.hw.piix_ide import PiixIde
from workbench.hw.virtio.blk import VirtioBlk
from workbench.hw.virtio.mmio import SystemMemory, VirtioMmio
from workbench.hw.virtio.pci import VirtioPci
from workbench.net.port import NetPort

if TYPE_CHECKING:
    from workbench.block.image import Image
    from workbench.core.config import DeviceConfig, DriveConfig, NicConfig, VirtioConfig
    from workbench.hw.board import Board
    from workbench.hw.virtio.console import VirtioConsole
    from workbench.hw.virtio.device import VirtioDevice
    from workbench.net.port import Backend

FIRST_SLOT, LAST_SLOT = 3, 31
IDE_SLOT, IDE_FUNCTION, IDE_IRQS = 1, 1, (14, 15)


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
    """Add all that is configured to a board; raises ValueError for too much of it."""
    builder = _Builder(board)
    config = board.machine.config
    for drive in config.drives:
        through = drive.name in write_through
        builder.add_drive(drive, images.get(drive.name), through)
    builder.add_ide()
    for nic in config.nics:
        builder.add_nic(nic, networks.get(nic.name))
    for device in config.devices:
        builder.add_device(device)
    return builder.made


class _Builder:
    """The places that are taken so far."""

    def __init__(self, board: Board) -> None:
        self.made = Peripherals()
        self._board = board
        self._machine = board.machine
        self._slot = FIRST_SLOT
        self._mmio = 0
        self._ide: dict[str, Drive] = {}

    # -- places ----------------------------------------------------------------------------------

    def _add_pci(self, function: Any) -> None:
        if self._slot > LAST_SLOT:
            most = LAST_SLOT - FIRST_SLOT + 1
            raise ValueError(f"expected at most {most} PCI devices besides the chipset")
        self._board.add_pci(function, self._slot)
        self._slot += 1

    def _add_virtio(self, device: VirtioDevice[Any], config: VirtioConfig) -> None:
        """Put a device on the transport that it is configured for."""
        if config.transport == "pci":
            legacy, modern = config.flavour != "modern", config.flavour != "legacy"
            self._add_pci(VirtioPci(device, legacy=legacy, modern=modern))
            return
        machine, n = self._machine, self._mmio
        if n == layout.VIRTIO_MMIO_MOST:
            raise ValueError(f"expected at most {n} virtio devices over MMIO")
        self._mmio += 1
        memory = SystemMemory(
            device.name,
            machine.memory.read,
            machine.memory.write,
            partial(layout.is_ram, machine.config.ram_bytes),
            machine.trace_dma,
        )
        irq = self._board.irq(device.name, layout.virtio_mmio_gsi(n))
        base = layout.VIRTIO_MMIO_BASE + n * layout.VIRTIO_MMIO_BYTES
        transport = VirtioMmio(device, memory, irq, base=base, legacy=config.flavour == "legacy")
        for window in transport.windows():
            machine.mmio.map(window)
        machine.attach(transport)

    # -- parts -----------------------------------------------------------------------------------

    def add_drive(self, drive: DriveConfig, image: Image | None, write_through: bool) -> None:
        """A disk, a CD-ROM drive, or a disc for the last one of these."""
        machine = self._machine
        disk = Disk(
            drive.name,
            image,
            machine.inputs.fetch,
            drive.read_only,
            size_bytes=drive.size_bytes,
            write_through=write_through,
        )
        self.made.disks[drive.name] = disk
        machine.attach(disk)
        if drive.interface == "virtio":
            blk = VirtioBlk(
                drive.name,
                disk,
                machine.clock,
                serial=drive.serial,
                num_queues=drive.queues,
                **_ring(drive),
            )
            self._add_virtio(blk, drive)
        elif drive.interface == "ide":
            self._ide[drive.name] = AtaDisk(drive.name, disk, serial=drive.serial)
        elif drive.interface == "cdrom":
            cdrom = AtapiDrive(drive.name, disk if disk.sectors else None, serial=drive.serial)
            machine.inputs.register(drive.name, cdrom.receive)
            self._ide[drive.name] = cdrom
        else:
            drives = [one for one in self._ide.values() if isinstance(one, AtapiDrive)]
            if not drives:
                raise ValueError(f"expected a CD-ROM drive before the disc {drive.name!r}")
            drives[-1].discs += (disk,)

    def add_ide(self) -> None:
        """The IDE function, if there is a drive for it."""
        board, taken = self._board, ide_places(self._machine.config.drives)
        if not taken:
            return
        places = [self._ide[taken[n].name] if n in taken else None for n in range(IDE_PLACES)]
        irqs = (board.irq("ide0", IDE_IRQS[0]), board.irq("ide1", IDE_IRQS[1]))
        decoded = self._machine.config.firmware is not None
        ide = PiixIde((places[:2], places[2:]), self._machine.clock, irqs, decoded=decoded)
        board.add_pci(ide, IDE_SLOT, IDE_FUNCTION)

    def add_nic(self, nic: NicConfig, network: Backend | None) -> None:
        """A network interface and its cable."""
        machine = self._machine
        port = NetPort(nic.name, machine.inputs)
        port.tap = machine.frames_sent
        self.made.ports[nic.name] = port
        if nic.model == "e1000":
            from workbench.hw.e1000.e1000 import E1000

            address = bytes.fromhex(nic.mac.replace(":", ""))
            self._add_pci(E1000(machine.clock, nic.name, address, port, link=nic.link))
        else:
            from workbench.hw.virtio.net import VirtioNet

            net = VirtioNet(nic.name, nic.mac, port, pairs=nic.queues, link=nic.link, **_ring(nic))
            self._add_virtio(net, nic)
        if network is not None:
            port.attach(network)

    def add_device(self, config: DeviceConfig) -> None:
        """Entropy or a console."""
        machine, name = self._machine, config.name
        if config.model == "virtio-rng":
            from workbench.hw.virtio.rng import VirtioRng

            self._add_virtio(VirtioRng(name, machine.config.seed, **_ring(config)), config)
        else:
            from workbench.hw.virtio.console import VirtioConsole

            ports = config.port_names
            console = VirtioConsole(
                name,
                partial(machine.console, name),
                ports=ports,
                port_output=lambda port, data: machine.console(f"{name}.{port}", data),
                **_ring(config),
            )
            machine.inputs.register(name, console.receive)
            for number, port in enumerate(ports, start=1):
                machine.inputs.register(f"{name}.{port}", _to_port(console, number))
            self._add_virtio(console, config)


def _to_port(console: VirtioConsole, number: int) -> Callable[[str, bytes], None]:
    """Input of a port of its own, which is `rx` as for the console."""
    return lambda kind, data: console.receive(f"rx{number}" if kind == "rx" else "", data)


def _ring(config: VirtioConfig) -> dict[str, Any]:
    """Arguments of `VirtioDevice` for the features of the rings."""
    return {
        "packed": config.packed,
        "event_idx": config.event_idx,
        "indirect": config.indirect,
        "in_order": config.in_order,
    }

"""`--drive`, `--cdrom`, `--nic`, `--netdev` and `--device`: from what the user writes to parts of
the machine, with what is behind them opened.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from workbench.cli import flash, specs
from workbench.core.config import DeviceConfig, DriveConfig, NicConfig
from workbench.errors import UsageError

if TYPE_CHECKING:
    from workbench.block.image import Image
    from workbench.net.port import Backend
    from workbench.trace.guest import Builder

DRIVE_HELP = (
    "a disk: file=IMAGE,if=ide|virtio|cdrom|disc|none[,format=F][,readonly=on][,rw=on][,backing=on]"
    "[,serial=S][,bootindex=N][,VIRTIO]; or firmware's flash: if=pflash,file=FILE"
    "[,readonly=on][,rw=on][,unit=0|1]; an image is not written unless rw=on (may be repeated)"
)
NIC_HELP = (
    "a network interface: e1000|virtio-net[,mac=M][,link=off][,bootindex=N][,romfile=FILE|ipxe]"
    "[,VIRTIO][,none|user|stream|dgram|tap|pcap[,OPTION=VALUE...]] (default: user; may be repeated)"
)
NETDEV_HELP = "a network for --device: user|stream|dgram|tap|pcap,id=NAME[,OPTION=VALUE...]"
DEVICE_HELP = (
    "virtio-blk,drive=ID, ide-hd,drive=ID, ide-cd,drive=ID, virtio-net,netdev=ID, e1000,netdev=ID, "
    "virtio-rng, virtio-console[,output=stdio|file:PATH], virtserialport,name=NAME[,output=...] "
    "(a further port of the console before it), with [,VIRTIO]: disable-legacy=on, "
    "disable-modern=on, packed=on, num-queues=N, transport=pci|mmio, event_idx=off, "
    "indirect_desc=off, in_order=off (may be repeated)"
)


@dataclass
class Attachments:
    """The configured parts and what is behind them, by name."""

    drives: list[DriveConfig] = field(default_factory=list)
    nics: list[NicConfig] = field(default_factory=list)
    devices: list[DeviceConfig] = field(default_factory=list)
    images: dict[str, Image] = field(default_factory=dict)
    networks: dict[str, Backend] = field(default_factory=dict)
    write_through: set[str] = field(default_factory=set)
    consoles: dict[str, str] = field(default_factory=dict)
    """Where virtio consoles print, as in `--serial`."""
    roms: dict[str, str] = field(default_factory=dict)
    """Files of expansion ROMs, by NIC."""

    def config(self) -> dict[str, Any]:
        """The settings of the machine for them."""
        kinds = (("drives", self.drives), ("nics", self.nics), ("devices", self.devices))
        return {name: [asdict(part) for part in parts] for name, parts in kinds if parts}

    def builder(self) -> Builder | None:
        """What builds a machine with them; None when there are none."""
        from workbench.trace.guest import build_machine

        if not self.drives and not self.nics and not self.images:
            return None
        return partial(
            build_machine,
            images=self.images,
            networks=self.networks,
            write_through=self.write_through,
        )

    def close(self) -> None:
        """Close everything that was opened."""
        for network in self.networks.values():
            network.close()
        for image in self.images.values():
            image.close()


def add_devices(parser: argparse.ArgumentParser) -> None:
    """Add the options."""

    def add(name: str, metavar: str, text: str) -> None:
        parser.add_argument(
            f"--{name}", f"-{name}", metavar=metavar, action="append", default=[], help=text
        )

    add("drive", "SPEC", DRIVE_HELP)
    add("cdrom", "IMAGE", "short for --drive file=IMAGE,if=cdrom; again for a disc to insert later")
    add("nic", "SPEC", NIC_HELP)
    add("netdev", "SPEC", NETDEV_HELP)
    add("device", "SPEC", DEVICE_HELP)


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[Attachments]:
    """Open what the options name, and close it in the end; raises WorkbenchError."""
    made = Attachments()
    drives, nics, others = _parse(args)
    try:
        for drive in drives:
            _open_drive(made, drive)
        for nic in nics:
            _open_nic(made, nic)
        for other in others:
            kind = other.model.removeprefix("virtio-")
            name = f"{kind}{sum(part.model == other.model for part in made.devices)}"
            made.devices.append(_device(name, other))
            if kind == "console":
                made.consoles[name] = other.output
                made.consoles |= {f"{name}.{port}": to for port, to in other.ports.items()}
        yield made
    finally:
        made.close()


def _parse(
    args: argparse.Namespace,
) -> tuple[list[specs.Drive], list[specs.Nic], list[specs.Other]]:
    """All parts in the order of their places: drives with an interface, then those of --device."""
    drives: list[specs.Drive] = []
    waiting: dict[str, specs.Drive] = {}
    for spec in args.drive:
        if flash.is_flash(spec):
            continue
        name, drive = specs.drive(spec)
        if drive.interface != "none":
            drives.append(drive)
        elif name in waiting:
            raise UsageError(f"expected one --drive with id={name}")
        else:
            waiting[name] = drive
    for n, path in enumerate(args.cdrom):
        drives.append(specs.Drive("disc" if n else "cdrom", {"file": path}))
    nics = [specs.nic(spec) for spec in args.nic]
    networks = _networks(args.netdev)
    more_drives, more_nics, others = specs.devices(args.device, waiting, networks)
    if waiting or networks:
        name = next(iter({**waiting, **networks}))
        raise UsageError(f"expected a --device for the drive or network with id={name}")
    return [*drives, *more_drives], [*nics, *more_nics], others


def _networks(netdevs: list[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for spec in netdevs:
        parts = spec.split(",")
        ids = [part for part in parts if part.startswith("id=") and len(part) > 3]
        if len(ids) != 1 or ids[0][3:] in out:
            raise UsageError(f"expected --netdev with an id= of its own, not {spec!r}")
        out[ids[0][3:]] = ",".join(part for part in parts if part not in ids)
    return out


def _open_drive(made: Attachments, drive: specs.Drive) -> None:
    from workbench.block.opening import open_image

    name, image = f"drive{len(made.drives)}", drive.image
    through = image.get("rw") == "on"
    size_bytes = 0
    if "file" in image:
        opened = open_image(
            image["file"],
            read_only=not through,
            allow_backing=specs.switch("--drive", image, "backing"),
            format_name=image.get("format"),
        )
        made.images[name] = opened
        size_bytes = opened.size_bytes
    if through:
        made.write_through.add(name)
    read_only = drive.interface in ("cdrom", "disc") or image.get("readonly") == "on"
    try:
        config = DriveConfig(
            name,
            drive.interface,
            size_bytes,
            read_only,
            drive.serial,
            drive.boot_index,
            drive.place,
            **drive.virtio,
        )
    except ValueError as error:
        raise UsageError(f"--drive file={image.get('file')}: {error}") from None
    made.drives.append(config)


def _device(name: str, other: specs.Other) -> DeviceConfig:
    try:
        return DeviceConfig(name, other.model, ",".join(other.ports), **other.virtio)
    except ValueError as error:
        raise UsageError(f"--device {other.model}: {error}") from None


def _open_nic(made: Attachments, nic: specs.Nic) -> None:
    from workbench.net.spec import open_backend

    number = len(made.nics)
    name = f"net{number}"
    mac = nic.mac or f"52:54:00:12:34:{0x56 + number & 0xFF:02x}"
    try:
        made.nics.append(NicConfig(name, nic.model, mac, nic.link, nic.boot_index, **nic.virtio))
    except ValueError as error:
        raise UsageError(f"--nic {nic.model}: {error}") from None
    if nic.rom is not None:
        made.roms[name] = nic.rom
    backend = open_backend(nic.network)
    if backend is not None:
        made.networks[name] = backend

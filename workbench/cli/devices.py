"""`--drive`, `--cdrom` and `--nic`: from what the user writes to parts of the machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from workbench.core.config import DRIVE_INTERFACES, NIC_MODELS, DriveConfig, NicConfig
from workbench.errors import UsageError

if TYPE_CHECKING:
    from workbench.block.image import Image
    from workbench.net.port import Backend
    from workbench.trace.guest import Builder

DRIVE_HELP = (
    "a disk: file=IMAGE,if=ide|virtio|cdrom[,format=F][,readonly=on][,rw=on][,backing=on]"
    "[,serial=S]; the image is not written unless rw=on (may be repeated)"
)
NIC_HELP = (
    "a network interface: e1000|virtio-net[,mac=M]"
    "[,none|user|stream|dgram|tap|pcap[,OPTION=VALUE...]] (default: user; may be repeated)"
)
SWITCH = {"on": True, "off": False}


@dataclass
class Attachments:
    """The configured parts and what is behind them, by name."""

    drives: list[DriveConfig] = field(default_factory=list)
    nics: list[NicConfig] = field(default_factory=list)
    images: dict[str, Image] = field(default_factory=dict)
    networks: dict[str, Backend] = field(default_factory=dict)
    write_through: set[str] = field(default_factory=set)

    def config(self) -> dict[str, Any]:
        """The settings of the machine for them."""
        return {
            name: [asdict(part) for part in parts]
            for name, parts in (("drives", self.drives), ("nics", self.nics))
            if parts
        }

    def builder(self) -> Builder | None:
        """What builds a machine with them; None when there are none."""
        from workbench.trace.guest import build_machine

        if not self.drives and not self.nics:
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
    add = parser.add_argument
    add("--drive", "-drive", metavar="SPEC", action="append", default=[], help=DRIVE_HELP)
    add("--cdrom", "-cdrom", metavar="IMAGE", help="short for --drive file=IMAGE,if=cdrom")
    add("--nic", "-nic", metavar="SPEC", action="append", default=[], help=NIC_HELP)


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[Attachments]:
    """Open what the options name, and close it in the end; raises WorkbenchError."""
    made = Attachments()
    specs = list(args.drive)
    if args.cdrom:
        specs.append(f"file={args.cdrom},if=cdrom")
    try:
        for n, spec in enumerate(specs):
            _open_drive(made, f"drive{n}", spec)
        for n, spec in enumerate(args.nic):
            _open_nic(made, n, spec)
        yield made
    finally:
        made.close()


def _pairs(option: str, spec: str, known: tuple[str, ...]) -> dict[str, str]:
    """``key=value,...`` as QEMU writes it; a comma in a value is doubled."""
    out: dict[str, str] = {}
    for part in spec.replace(",,", "\0").split(","):
        key, equals, value = part.replace("\0", ",").partition("=")
        if not equals or key not in known:
            raise UsageError(f"expected {option} with {'=, '.join(known)}=, not {part!r}")
        out[key] = value
    return out


def _switch(option: str, values: dict[str, str], key: str) -> bool:
    text = values.get(key, "off")
    if text not in SWITCH:
        raise UsageError(f"expected {option} {key}=on or {key}=off, not {text!r}")
    return SWITCH[text]


def _open_drive(made: Attachments, name: str, spec: str) -> None:
    from workbench.block.opening import open_image

    known = ("file", "if", "media", "format", "readonly", "rw", "backing", "serial")
    values = _pairs("--drive", spec, known)
    interface = values.get("if", "ide")
    if values.get("media") == "cdrom":
        interface = "cdrom"
    if interface not in DRIVE_INTERFACES:
        raise UsageError(
            f"expected --drive if= one of {', '.join(DRIVE_INTERFACES)}, not {interface!r}"
        )
    if "file" not in values:
        raise UsageError(f"expected --drive with file=, not {spec!r}")
    read_only = _switch("--drive", values, "readonly") or interface == "cdrom"
    through = _switch("--drive", values, "rw")
    if through and read_only:
        raise UsageError(f"--drive {spec}: readonly and rw=on exclude each other")
    image = open_image(
        values["file"],
        read_only=not through,
        allow_backing=_switch("--drive", values, "backing"),
        format_name=values.get("format"),
    )
    made.images[name] = image
    if through:
        made.write_through.add(name)
    serial = values.get("serial", "")
    made.drives.append(DriveConfig(name, interface, image.size_bytes, read_only, serial))


def _open_nic(made: Attachments, number: int, spec: str) -> None:
    from workbench.net.spec import KINDS, open_backend

    name = f"net{number}"
    model, mac, rest = "", f"52:54:00:12:34:{0x56 + number:02x}", []
    for part in spec.split(","):
        key, equals, value = part.partition("=")
        if key == "model" and equals:
            model = value
        elif key == "mac" and equals:
            mac = value.lower()
        elif not equals and key in NIC_MODELS:
            model = key
        else:
            rest.append(part)
    model = {"virtio": "virtio-net", "virtio-net-pci": "virtio-net"}.get(model, model or "e1000")
    if model not in NIC_MODELS:
        raise UsageError(f"expected --nic {' or '.join(NIC_MODELS)}, not {model!r}")
    if not rest or rest[0] not in KINDS:
        rest.insert(0, "user")
    try:
        made.nics.append(NicConfig(name, model, mac))
    except ValueError as error:
        raise UsageError(f"--nic {spec}: {error}") from None
    backend = open_backend(",".join(rest))
    if backend is not None:
        made.networks[name] = backend

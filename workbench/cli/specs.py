"""What `--drive`, `--nic`, `--netdev` and `--device` say, as configurations of parts.

The words are QEMU's where it has them. Nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar

from workbench.cli import qemudrive
from workbench.cli.roms import ipxe_path
from workbench.core.config import DRIVE_INTERFACES, NIC_MODELS, VirtioConfig
from workbench.errors import UsageError

__all__ = ["Drive", "Nic", "Other", "devices", "drive", "nic", "pairs", "parts", "switch"]

SWITCH = {"on": True, "off": False}
VIRTIO_KEYS = (
    "transport", "disable-legacy", "disable-modern", "packed", "num-queues", "queues",
    "event_idx", "indirect_desc", "in_order",
)  # fmt: skip
IMAGE_KEYS = ("file", "format", "readonly", "rw", "backing")
# --device: (what it is, its interface or model)
MODELS = {
    "ide-hd": ("drive", "ide"),
    "ide-cd": ("drive", "cdrom"),
    "virtio-blk": ("drive", "virtio"),
    "e1000": ("nic", "e1000"),
    "virtio-net": ("nic", "virtio-net"),
    "virtio-rng": ("other", "virtio-rng"),
    "virtio-console": ("other", "virtio-console"),
    "virtio-serial": ("other", "virtio-console"),
}
PORT = "virtserialport"
# Suffixes of virtio models, and what they say about the transport.
SUFFIXES: dict[str, dict[str, str]] = {
    "": {},
    "-pci-transitional": {"disable-legacy": "off"},
    "-pci-non-transitional": {"disable-legacy": "on"},
    "-pci": {},
    "-device": {"transport": "mmio"},
}
Values = dict[str, str]


@dataclass
class Drive:
    """A disk and its image."""

    interface: str
    image: Values = field(default_factory=dict)
    serial: str = ""
    boot_index: int = -1
    virtio: dict[str, Any] = field(default_factory=dict)
    place: int = -1


@dataclass
class Nic:
    """A NIC; `network` is a network as `net.spec` takes it."""

    model: str
    mac: str = ""
    link: bool = True
    network: str = "user"
    boot_index: int = -1
    rom: str | None = None
    virtio: dict[str, Any] = field(default_factory=dict)


@dataclass
class Other:
    """A device without an image or a network; `output` is where a console prints, `ports` has the
    same for its further ports, by name.
    """

    model: str
    output: str = "none"
    ports: dict[str, str] = field(default_factory=dict)
    virtio: dict[str, Any] = field(default_factory=dict)


def parts(spec: str) -> list[str]:
    """Split at commas; a doubled one stands for itself."""
    return [part.replace("\0", ",") for part in spec.replace(",,", "\0").split(",")]


def pairs(
    option: str, texts: list[str], known: Collection[str], also: Collection[str] = ()
) -> Values:
    """`key=value` of each part; a message names the `known` keys, not those that are `also` so."""
    out: Values = {}
    for part in texts:
        key, equals, value = part.partition("=")
        if not equals or key not in (*known, *also):
            raise UsageError(f"expected {option} with {'=, '.join(known)}=, not {part!r}")
        out[key] = value
    return out


def switch(option: str, values: Values, key: str, default: str = "off") -> bool:
    """The value of `key`, on or off; raises UsageError."""
    text = values.get(key, default)
    if text not in SWITCH:
        raise UsageError(f"expected {option} {key}=on or {key}=off, not {text!r}")
    return SWITCH[text]


def _boot_index(option: str, values: Values, default: int = -1) -> int:
    text = values.get("bootindex", "")
    if "bootindex" not in values:
        return default
    if not text.isdecimal() or len(text) > 6:
        raise UsageError(f"expected {option} bootindex= with a whole number, not {text!r}")
    return int(text)


def _virtio(option: str, values: Values) -> dict[str, Any]:
    """The settings of a `VirtioConfig`, checked."""
    no_legacy = switch(option, values, "disable-legacy")
    no_modern = switch(option, values, "disable-modern")
    if no_legacy and no_modern:
        raise UsageError(f"expected {option} with the legacy or the modern interface, or both")
    queues = values.get("num-queues", values.get("queues", "1"))
    out: dict[str, Any] = {
        "transport": values.get("transport", "pci"),
        "flavour": "modern" if no_legacy else "legacy" if no_modern else "transitional",
        "packed": switch(option, values, "packed"),
        "queues": int(queues) if queues.isdecimal() and len(queues) < 6 else 0,
        "event_idx": switch(option, values, "event_idx", "on"),
        "indirect": switch(option, values, "indirect_desc", "on"),
        "in_order": switch(option, values, "in_order", "on"),
    }
    try:
        VirtioConfig(**out).check_virtio()
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
    return out


def _only_virtio(option: str, values: Values, is_virtio: bool) -> dict[str, Any]:
    given = [key for key in values if key in VIRTIO_KEYS]
    if given and not is_virtio:
        raise UsageError(f"expected {option} {given[0]}= for a virtio device only")
    return _virtio(option, values)


def drive(spec: str) -> tuple[str, Drive]:
    """`--drive`: (id, drive). With if=none only `--device` makes it a part of the machine."""
    known = ("if", "media", "id", "serial", "bootindex", *IMAGE_KEYS, *VIRTIO_KEYS)
    values = pairs("--drive", parts(spec), known, qemudrive.KEYS)
    values, place = qemudrive.understood(spec, values)
    interface = values.get("if", "ide")
    if values.get("media") == "cdrom" and interface != "disc":
        interface = "cdrom"
    if interface not in (*DRIVE_INTERFACES, "none"):
        choices = ", ".join((*DRIVE_INTERFACES, "none"))
        raise UsageError(f"expected --drive if= one of {choices}, not {interface!r}")
    if not values.get("file", "" if interface != "cdrom" else "none"):
        raise UsageError(f"expected --drive with file=, not {spec!r}")
    read_only = switch("--drive", values, "readonly") or interface in ("cdrom", "disc")
    if read_only and switch("--drive", values, "rw"):
        raise UsageError(f"--drive {spec}: readonly and rw=on exclude each other")
    if interface == "none" and "id" not in values:
        raise UsageError(f"expected --drive if=none with id=, not {spec!r}")
    virtio = _only_virtio("--drive", values, interface == "virtio")
    image = {key: values[key] for key in IMAGE_KEYS if key in values}
    index = _boot_index("--drive", values)
    made = Drive(interface, image, values.get("serial", ""), index, virtio, place)
    return values.get("id", ""), made


def nic(spec: str) -> Nic:
    """`--nic MODEL[,OPTION...][,NETWORK[,OPTION...]]`."""
    from workbench.net.spec import KINDS

    values: Values = {}
    model, rest = "", []
    for part in spec.split(","):
        key, equals, value = part.partition("=")
        if equals and key in ("model", "mac", "link", "bootindex", "romfile", *VIRTIO_KEYS):
            values[key] = value
        elif not equals and (key in NIC_MODELS or _model(key, "nic")):
            model = key
        else:
            rest.append(part)
    model = model or values.get("model", "e1000")
    model = "virtio-net" if model == "virtio" else model
    found = _model(model, "nic")
    if found is None:
        raise UsageError(f"expected --nic {' or '.join(NIC_MODELS)}, not {model!r}")
    model, more = found
    if rest and "=" not in rest[0] and rest[0] not in KINDS:
        raise UsageError(
            f"expected --nic with a model ({', '.join(NIC_MODELS)}) or a network "
            f"({', '.join(KINDS)}), not {rest[0]!r}"
        )
    if not rest or rest[0] not in KINDS:
        rest.insert(0, "user")
    return _nic("--nic", model, {**more, **values}, ",".join(rest))


def _nic(option: str, model: str, values: Values, network: str) -> Nic:
    return Nic(
        model,
        values.get("mac", "").lower(),
        switch(option, values, "link", "on"),
        network,
        _boot_index(option, values),
        ipxe_path(values["romfile"], model) if "romfile" in values else None,
        _only_virtio(option, values, model == "virtio-net"),
    )


def _model(text: str, kind: str) -> tuple[str, Values] | None:
    """What a model's name says: the model, and settings by its suffix."""
    for suffix, more in SUFFIXES.items():
        base = text.removesuffix(suffix) if suffix else text
        if suffix and (base == text or not base.startswith("virtio-")):
            continue
        found = MODELS.get(base)
        if found is not None and found[0] == kind:
            return found[1], dict(more)
    return None


def devices(
    specs: list[str], drives: dict[str, Drive], networks: dict[str, str]
) -> tuple[list[Drive], list[Nic], list[Other]]:
    """`--device` for each; `drives` and `networks` are those with an id, and are used up."""
    made: tuple[list[Drive], list[Nic], list[Other]] = ([], [], [])
    makers: dict[str, Callable[[str, str, Values, list[str]], None]] = {}

    def add_drive(option: str, interface: str, more: Values, texts: list[str]) -> None:
        places = qemudrive.DEVICE_PLACE if interface in ("ide", "cdrom") else ()
        known = ("drive", "serial", "bootindex", "id", *VIRTIO_KEYS)
        values = more | pairs(option, texts, known, places)
        found = _used(option, "drive", values, drives)
        found.interface = interface
        found.place = qemudrive.device_place(option, values)
        found.serial = values.get("serial", found.serial)
        found.boot_index = _boot_index(option, values, found.boot_index)
        found.virtio = _only_virtio(option, values, interface == "virtio")
        if interface == "cdrom" and found.image.get("rw") == "on":
            raise UsageError(f"{option}: a CD-ROM is not written, expected no rw=on")
        made[0].append(found)

    def add_nic(option: str, model: str, more: Values, texts: list[str]) -> None:
        values = more | pairs(
            option, texts, ("netdev", "mac", "link", "bootindex", "romfile", "id", *VIRTIO_KEYS)
        )
        network = _used(option, "netdev", values, networks) if "netdev" in values else "none"
        made[1].append(_nic(option, model, values, network))

    def add_other(option: str, model: str, more: Values, texts: list[str]) -> None:
        console = ("output",) if model == "virtio-console" else ()
        known = [key for key in VIRTIO_KEYS if key not in ("num-queues", "queues")]
        values = more | pairs(option, texts, ("id", *console, *known))
        virtio = _virtio(option, values)
        made[2].append(Other(model, values.get("output", "none"), virtio=virtio))

    def add_port(texts: list[str]) -> None:
        values = pairs("--device virtserialport", texts, ("name", "output", "id"))
        consoles = [other for other in made[2] if other.model == "virtio-console"]
        if not consoles:
            raise UsageError("expected --device virtio-serial before --device virtserialport")
        name = values.get("name", "")
        if not name or name in consoles[-1].ports:
            raise UsageError(
                f"expected --device virtserialport with a name= of its own, not {name!r}"
            )
        consoles[-1].ports[name] = values.get("output", "none")

    makers.update({"drive": add_drive, "nic": add_nic, "other": add_other})
    for spec in specs:
        text, *more = parts(spec)
        if text == PORT:
            add_port(more)
            continue
        for kind, make in makers.items():
            found = _model(text, kind)
            if found is not None:
                make(f"--device {text}", *found, more)
                break
        else:
            why = ": the machine has no display" if "vga" in text.lower() else ""
            raise UsageError(f"expected --device {', '.join((*MODELS, PORT))}, not {text!r}{why}")
    return made


T = TypeVar("T")


def _used(option: str, key: str, values: Values, known: dict[str, T]) -> T:
    name = values.get(key, "")
    if name not in known:
        raise UsageError(f"expected {option} {key}= with the id of a --{key}, not {name!r}")
    return known.pop(name)

"""What a machine is made of: everything that a replay must have the same, as JSON in the trace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

LEAST_RAM, MOST_RAM = 1 << 20, 64 << 30
MOST_DRIVE_BYTES = 1 << 57
BOOT_DEVICES = "acdn"
DRIVE_INTERFACES = ("ide", "virtio", "cdrom", "disc")
NIC_MODELS = ("e1000", "virtio-net")
MOST_PORTS = 30
_PORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
DEVICE_MODELS = ("virtio-rng", "virtio-console")
VIRTIO_TRANSPORTS = ("pci", "mmio")
VIRTIO_FLAVOURS = ("transitional", "legacy", "modern")
MOST_VIRTIO_QUEUES = 16
IDE_PLACES = 4
END, RESTART = "end", "restart"
FLASH_BLOCK, MOST_FLASH, FLASH_UNITS = 4096, 16 << 20, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtioConfig:
    """How a virtio device shows itself; of no effect on other devices.

    `flavour`: which interfaces it has; over MMIO "transitional" is as "modern", for a device there
    has one. `queues`: of requests (disk), or pairs of receive and transmit queues (NIC).
    """

    transport: str = "pci"
    flavour: str = "transitional"
    packed: bool = False
    queues: int = 1
    event_idx: bool = True
    indirect: bool = True
    in_order: bool = True

    def check_virtio(self) -> None:
        """Raises ValueError for what no device can be."""
        if self.transport not in VIRTIO_TRANSPORTS:
            raise ValueError(f"expected a transport of pci or mmio, not {self.transport!r}")
        if self.flavour not in VIRTIO_FLAVOURS:
            choices = ", ".join(VIRTIO_FLAVOURS)
            raise ValueError(f"expected a virtio interface of {choices}, not {self.flavour!r}")
        if self.packed and self.flavour == "legacy":
            raise ValueError("expected packed rings with the modern interface, not with legacy")
        if not 1 <= self.queues <= MOST_VIRTIO_QUEUES:
            raise ValueError(f"expected 1 to {MOST_VIRTIO_QUEUES} queues, not {self.queues!r}")


@dataclass(frozen=True, slots=True)
class DriveConfig(VirtioConfig):
    """A disk or CD-ROM drive: what the guest sees of it, without its contents.

    A "disc" is no drive: it can be put into the CD-ROM drive before it in the list. `place` is one
    of the four of the IDE function, -1 the first that is free.
    """

    name: str
    interface: str
    size_bytes: int
    read_only: bool = False
    serial: str = ""
    boot_index: int = -1
    place: int = -1

    def __post_init__(self) -> None:
        if not -1 <= self.place < IDE_PLACES or (self.place >= 0 and not self.is_ide):
            raise ValueError(f"expected place 0 to 3 of an IDE drive, not {self.place!r}")
        if self.interface not in DRIVE_INTERFACES:
            choices = ", ".join(DRIVE_INTERFACES)
            raise ValueError(f"expected a drive interface ({choices}), not {self.interface!r}")
        if not 0 <= self.size_bytes <= MOST_DRIVE_BYTES:
            raise ValueError(f"expected a drive of at most 128 PiB, not {self.size_bytes!r} bytes")
        self.check_virtio()
        if self.interface != "virtio" and self.transport != "pci":
            raise ValueError(f"expected a virtio disk over MMIO, not {self.interface}")

    @property
    def is_ide(self) -> bool:
        """Does it take a place of the IDE function?"""
        return self.interface in ("ide", "cdrom")


def ide_places(drives: Iterable[DriveConfig]) -> dict[int, DriveConfig]:
    """The IDE drives by their places, taken in the order of the list; raises ValueError for two at
    one, and for more than there are.
    """
    found: dict[int, DriveConfig] = {}
    for drive in drives:
        if not drive.is_ide:
            continue
        place = drive.place
        if place < 0:
            place = next((n for n in range(IDE_PLACES) if n not in found), IDE_PLACES)
        if place == IDE_PLACES:
            raise ValueError(f"expected at most {IDE_PLACES} IDE drives")
        if place in found:
            raise ValueError(
                f"expected IDE drives at places of their own, not two with index {place}"
            )
        found[place] = drive
    return found


@dataclass(frozen=True, slots=True)
class NicConfig(VirtioConfig):
    """A network interface: its model and address, and whether its cable is in at the start."""

    name: str
    model: str
    mac: str
    link: bool = True
    boot_index: int = -1

    def __post_init__(self) -> None:
        self.check_virtio()
        if self.model == "e1000" and self.transport != "pci":
            raise ValueError(f"expected an e1000 on PCI, not over {self.transport}")
        if self.model not in NIC_MODELS:
            raise ValueError(f"expected a NIC ({', '.join(NIC_MODELS)}), not {self.model!r}")
        if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", self.mac):
            raise ValueError(f"expected a MAC address such as 52:54:00:12:34:56, not {self.mac!r}")


@dataclass(frozen=True, slots=True)
class DeviceConfig(VirtioConfig):
    """A device with nothing of the host behind it but a console; `ports` are the names of further
    ports of one, with commas between.
    """

    name: str
    model: str
    ports: str = ""

    def __post_init__(self) -> None:
        if self.model not in DEVICE_MODELS:
            raise ValueError(f"expected a device ({', '.join(DEVICE_MODELS)}), not {self.model!r}")
        self.check_virtio()
        names = self.port_names
        for name in names:
            if not _PORT_NAME.fullmatch(name):
                raise ValueError(
                    "expected the name of a port of up to 32 letters, digits, dots, dashes and "
                    f"underscores, not {name!r}"
                )
        if len(names) > MOST_PORTS or len({*names}) < len(names):
            raise ValueError(f"expected at most {MOST_PORTS} ports with names of their own")
        if names and self.model != "virtio-console":
            raise ValueError(f"expected ports of a virtio-console, not of a {self.model}")

    @property
    def port_names(self) -> tuple[str, ...]:
        """The names apart."""
        return tuple(self.ports.split(",")) if self.ports else ()


@dataclass(frozen=True, slots=True)
class FlashConfig:
    """A flash device: unit 0 ends where the first 4 GiB do, and has the firmware; each further one
    lies below the one before it.
    """

    name: str
    size_bytes: int
    read_only: bool = False

    def __post_init__(self) -> None:
        if not FLASH_BLOCK <= self.size_bytes <= MOST_FLASH or self.size_bytes % FLASH_BLOCK:
            raise ValueError(
                "expected a flash of 4 KiB to 16 MiB in steps of 4 KiB, not "
                f"{self.size_bytes:,} bytes"
            )


@dataclass(frozen=True, slots=True)
class FirmwareConfig:
    """A machine that starts in its BIOS, and what the BIOS is told about booting.

    `boot_order` has up to three of a, c, d, n: floppy, disk, CD-ROM, network; times of -1 are left
    to the BIOS; `strict` forbids devices that have no boot index; `once` is the order until the
    first reset, "" the same.
    """

    boot_order: str = "cad"
    menu: bool = False
    splash_time_ms: int = -1
    reboot_timeout_ms: int = -1
    strict: bool = False
    once: str = ""

    def __post_init__(self) -> None:
        for order in (self.boot_order, self.once or "c"):
            if not 1 <= len(order) <= 3 or len({*order} & {*BOOT_DEVICES}) < len(order):
                raise ValueError(
                    f"expected up to three of {BOOT_DEVICES} to boot from, not {order!r}"
                )
        for name in ("splash_time_ms", "reboot_timeout_ms"):
            if not -1 <= getattr(self, name) <= 0xFFFF:
                raise ValueError(f"expected {name} from 0 to 65535, not {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """One machine.  Times are guest time: a retired instruction takes `ps_per_insn` picoseconds, a
    device
    access `access_cost_ps` more (so that loops which poll a timer chip take as many rounds as on
    real
    hardware, where an access costs about a microsecond).
    """

    ram_bytes: int = 256 << 20
    ps_per_insn: int = 1000
    access_cost_ps: int = 500_000
    tsc_period_ps: int = 1000
    rtc_epoch_s: int = 0
    seed: int = 0
    serial_ports: tuple[str, ...] = ("com1",)
    drives: tuple[DriveConfig, ...] = ()
    nics: tuple[NicConfig, ...] = ()
    devices: tuple[DeviceConfig, ...] = ()
    flash: tuple[FlashConfig, ...] = ()
    board: str = "pc"
    firmware: FirmwareConfig | None = None
    at_reset: str = END
    """What a reset by the guest does: the run ends, or the guest starts again."""

    def __post_init__(self) -> None:
        if not LEAST_RAM <= self.ram_bytes <= MOST_RAM or self.ram_bytes % 4096:
            raise ValueError(
                f"expected 1 MiB to 64 GiB of RAM in whole pages, not {self.ram_bytes} bytes"
            )
        for name in ("ps_per_insn", "tsc_period_ps"):
            if not 1 <= getattr(self, name) <= 1_000_000:
                raise ValueError(f"expected {name} from 1 to 1000000, not {getattr(self, name)!r}")
        if not 0 <= self.access_cost_ps <= 10**12:
            raise ValueError(
                f"expected access_cost_ps from 0 to 10^12, not {self.access_cost_ps!r}"
            )
        if self.at_reset not in (END, RESTART):
            raise ValueError(f"expected at_reset {END!r} or {RESTART!r}, not {self.at_reset!r}")
        total = sum(part.size_bytes for part in self.flash)
        if len(self.flash) > FLASH_UNITS or total > MOST_FLASH:
            raise ValueError(
                f"expected at most {FLASH_UNITS} flash devices of 16 MiB together, not {total:,} "
                "bytes"
            )
        if self.flash and self.firmware is None:
            raise ValueError("expected firmware where there is flash")
        if self.board != "pc":
            raise ValueError(f"expected the board 'pc', not {self.board!r}")

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        plain = asdict(self)
        for name in ("firmware", "flash"):
            if not plain[name]:
                del plain[name]
        if self.at_reset == END:
            del plain["at_reset"]
        return {n: list(v) if isinstance(v, tuple) else v for n, v in plain.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MachineConfig:
        """From plain values; an unknown or wrong one is a ValueError that names it."""
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in data.items():
            if name not in known:
                raise ValueError(f"expected a setting of a machine, not {name!r}")
            if name == "serial_ports":
                if not isinstance(value, list | tuple) or not all(
                    isinstance(v, str) for v in value
                ):
                    raise ValueError(f"expected names of serial ports, not {value!r}")
                value = tuple(value)
            elif name in PARTS:
                value = tuple(_part(PARTS[name], name, v) for v in _list(name, value))
            elif name == "firmware":
                value = _part(FirmwareConfig, name, value)
            elif name in _WORDS:
                if not isinstance(value, str):
                    raise ValueError(f"expected {_WORDS[name]}, not {value!r}")
            elif not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"expected a whole number for {name}, not {value!r}")
            values[name] = value
        return cls(**values)


PartConfig = DriveConfig | NicConfig | DeviceConfig | FlashConfig
PARTS: dict[str, type[PartConfig]] = {
    "drives": DriveConfig,
    "nics": NicConfig,
    "devices": DeviceConfig,
    "flash": FlashConfig,
}


def _list(name: str, value: object) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list of {name}, not {value!r}")
    return value


def _part(cls: Any, name: str, value: object) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected the settings of {_ONE_OF[name]}, not {value!r}")
    types = {f.name: f.type for f in fields(cls)}
    for key, v in value.items():
        if key not in types or type(v).__name__ != types[key]:
            raise ValueError(f"expected a setting of {_ONE_OF[name]}, not {key}={v!r}")
    try:
        return cls(**value)
    except TypeError:
        raise ValueError(f"expected all settings of {_ONE_OF[name]}, not {value!r}") from None


_WORDS = {"board": "the name of a board", "at_reset": f"{END!r} or {RESTART!r}"}
_ONE_OF = {
    "drives": "one of the drives",
    "nics": "one of the nics",
    "devices": "one of the devices",
    "flash": "a flash",
    "firmware": "the firmware",
}

"""QEMU's command line, the part of it that tests of devices use.

What describes the machine becomes a `Wanted`; what only concerns a host that is not here (displays,
sound, accelerators) is read over. A comma in a value is doubled. An option that is neither is an
error, so that no test believes in a device that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from workbench.errors import UsageError

__all__ = ["MACHINES", "Node", "Part", "Wanted", "parse", "properties"]

MACHINES: Final = ("pc", "pc-i440fx-7.2", "none")

IGNORED: Final = frozenset((
    "accel", "audio", "audiodev", "cpu", "display", "k", "L", "monitor", "name", "nic",
    "object", "parallel", "qtest-log", "serial", "smp", "trace", "vga", "vnc", "msg",
    "sandbox", "global-prop", "overcommit", "watchdog-action", "action",
))  # fmt: skip
"""Options with a value that have no effect."""
SWITCHES: Final = frozenset((
    "nodefaults", "no-user-config", "S", "no-acpi", "no-hpet", "enable-kvm", "snapshot",
    "only-migratable",
))  # fmt: skip
"""Options without a value that have no effect."""

Properties = dict[str, str]


@dataclass
class Part:
    """A `-device` (or `device_add`): its model and properties."""

    model: str
    properties: Properties


@dataclass
class Node:
    """A disk image of `-drive` or `-blockdev`, by its name."""

    name: str
    file: str
    format: str | None = None
    read_only: bool = False
    size_bytes: int = 0
    write_error: str = "enospc"


@dataclass
class Wanted:
    """What a command line asks for."""

    machine: str = "pc"
    ram_bytes: int = 128 << 20
    rtc: str = "utc"
    qtest: str = ""
    qmp: list[str] = field(default_factory=list)
    chardevs: dict[str, Properties] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    netdevs: dict[str, Properties] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    globals: dict[str, Properties] = field(default_factory=dict)
    boot: Properties = field(default_factory=dict)
    """What `-boot` says; later ones go before earlier ones."""
    bios: str = ""
    uuid: str = ""
    nographic: bool = False
    no_floppy_check: bool = False
    shutdown_ends: bool = True
    reset_ends: bool = False


def properties(text: str, first: str = "") -> Properties:
    """`key=value,...`; a first part without `=` is the value of `first`, a later one is `on`."""
    out: Properties = {}
    for n, part in enumerate(text.replace(",,", "\0").split(",")):
        key, equals, value = part.replace("\0", ",").partition("=")
        if not equals:
            key, value = (first, key) if n == 0 and first else (key, "on")
        if key:
            out[key] = value
    return out


def size_bytes(text: str) -> int:
    """A size with a suffix, as `-m` takes it: megabytes without one."""
    units = {"k": 10, "m": 20, "g": 30, "t": 40, "b": 0}
    digits, unit = (text[:-1], text[-1].lower()) if text[-1:].lower() in units else (text, "m")
    if not digits.isdecimal() or len(digits) > 15:
        raise UsageError(f"expected a size such as 128 or 1G, not {text!r}")
    return int(digits) << units[unit]


def parse(arguments: Sequence[str]) -> Wanted:
    """Read a command line (without the program's name). Raises UsageError."""
    wanted = Wanted()
    left = list(arguments)
    while left:
        option = left.pop(0)
        if not option.startswith("-"):
            raise UsageError(f"expected an option, not {option!r}")
        name = option.lstrip("-")
        if name in SWITCHES:
            continue
        if name == "no-shutdown":
            wanted.shutdown_ends = False
        elif name == "no-reboot":
            wanted.reset_ends = True
        elif name == "nographic":
            wanted.nographic = True
        elif name == "no-fd-bootchk":
            wanted.no_floppy_check = True
        elif name in IGNORED or name in _TAKES:
            if not left:
                raise UsageError(f"expected a value after {option}")
            value = left.pop(0)
            if name in _TAKES:
                _TAKES[name](wanted, value)
        else:
            raise UsageError(
                f"{option}: invalid option (see docs/qtest.md for those that are known)"
            )
    return wanted


# -- one function for each option that matters


def _machine(wanted: Wanted, value: str) -> None:
    wanted.machine = properties(value, "type")["type"]
    if wanted.machine not in MACHINES:
        raise UsageError(f"expected a machine of {', '.join(MACHINES)}, not {wanted.machine!r}")


def _memory(wanted: Wanted, value: str) -> None:
    wanted.ram_bytes = size_bytes(properties(value, "size").get("size", "128"))


def _chardev(wanted: Wanted, value: str) -> None:
    given = properties(value, "backend")
    if "id" not in given:
        raise UsageError(f"expected -chardev with id=, not {value!r}")
    wanted.chardevs[given["id"]] = given


def _monitor(wanted: Wanted, value: str) -> None:
    given = properties(value, "chardev")
    if given.get("mode") != "control":
        return
    chardev = wanted.chardevs.get(given.get("chardev", ""))
    if chardev is None:
        raise UsageError(f"expected -mon with the id of an earlier -chardev, not {value!r}")
    wanted.qmp.append(address_of(chardev))


def address_of(chardev: Properties) -> str:
    """A socket chardev as `-qmp` would write it."""
    if chardev.get("backend") != "socket":
        raise UsageError(f"expected a chardev of kind socket, not {chardev.get('backend')!r}")
    place = (
        f"unix:{chardev['path']}"
        if "path" in chardev
        else f"tcp:{chardev.get('host', '')}:{chardev.get('port', '')}"
    )
    return place + (",server=on" if chardev.get("server", "off") == "on" else "")


def _drive(wanted: Wanted, value: str) -> None:
    given = properties(value)
    interface = given.get("if", "ide")
    if interface == "pflash":
        wanted.bios = given.get("file", "")
        return
    media = given.get("media", "disk")
    number = len(wanted.nodes)
    name = given.get("id") or f"drive{number}"
    node = Node(
        name,
        given.get("file", given.get("file.filename", "")),
        given.get("format"),
        given.get("readonly", "off") == "on" or media == "cdrom",
        write_error=given.get("werror", "enospc"),
    )
    if given.get("driver") == "null-co" or node.file.startswith("null-co:"):
        node.file, node.size_bytes = "null-co://", int(given.get("size", 1 << 30))
    wanted.nodes[name] = node
    model = {"ide": "ide-cd" if media == "cdrom" else "ide-hd", "virtio": "virtio-blk-pci"}
    if interface in model:
        part = {"drive": name} if node.file else {}
        if "index" in given and interface == "ide" and given["index"].isdecimal():
            place = int(given["index"])
            part |= {"bus": f"ide.{place // 2}", "unit": str(place % 2)}
        wanted.parts.append(Part(model[interface], part))
    elif interface != "none":
        raise UsageError(f"expected -drive if= ide, virtio, pflash or none, not {interface!r}")


def _blockdev(wanted: Wanted, value: str) -> None:
    given = properties(value, "driver")
    name, driver = given.get("node-name", ""), given.get("driver")
    node = Node(name, "", read_only=given.get("read-only", "off") == "on")
    if not name:
        raise UsageError(f"expected -blockdev with node-name=, not {value!r}")
    if driver == "file":
        node.file = given.get("filename", "")
    elif driver == "null-co":
        node.file, node.size_bytes = "null-co://", int(given.get("size", 1 << 30))
    elif driver in ("raw", "qcow2"):
        node.format = driver
        below = wanted.nodes.get(given.get("file", ""))
        node.file = given.get("file.filename", "") if below is None else below.file
        if below is not None:
            node.size_bytes = below.size_bytes
    else:
        raise UsageError(f"expected -blockdev driver= file, raw, qcow2 or null-co, not {driver!r}")
    wanted.nodes[name] = node


def _disk(place: int) -> str:
    return f"if=ide,index={place},format=raw,file="


def _netdev(wanted: Wanted, value: str) -> None:
    given = properties(value, "type")
    if "id" not in given:
        raise UsageError(f"expected -netdev with id=, not {value!r}")
    wanted.netdevs[given["id"]] = given


def _device(wanted: Wanted, value: str) -> None:
    given = properties(value, "driver")
    wanted.parts.append(Part(given.pop("driver", ""), given))


def _global(wanted: Wanted, value: str) -> None:
    where, equals, setting = value.partition("=")
    model, dot, key = where.partition(".")
    if not equals or not dot:
        given = properties(value)
        model, key, setting = (given.get(k, "") for k in ("driver", "property", "value"))
    wanted.globals.setdefault(model, {})[key] = setting


def _rtc(wanted: Wanted, value: str) -> None:
    base = properties(value).get("base", "utc")
    wanted.rtc = "utc" if base == "localtime" else base


def _qtest(wanted: Wanted, value: str) -> None:
    wanted.qtest = value


def _bios(wanted: Wanted, value: str) -> None:
    wanted.bios = value


def _uuid(wanted: Wanted, value: str) -> None:
    wanted.uuid = value


_TAKES = {
    "machine": _machine,
    "M": _machine,
    "m": _memory,
    "rtc": _rtc,
    "bios": _bios,
    "uuid": _uuid,
    "boot": lambda wanted, value: wanted.boot.update(properties(value, "order")),
    "qtest": _qtest,
    "qmp": lambda wanted, value: wanted.qmp.append(value),
    "chardev": _chardev,
    "mon": _monitor,
    "drive": _drive,
    "blockdev": _blockdev,
    "hda": lambda wanted, value: _drive(wanted, _disk(0) + value.replace(",", ",,")),
    "hdb": lambda wanted, value: _drive(wanted, _disk(1) + value.replace(",", ",,")),
    "hdc": lambda wanted, value: _drive(wanted, _disk(2) + value.replace(",", ",,")),
    "hdd": lambda wanted, value: _drive(wanted, _disk(3) + value.replace(",", ",,")),
    "cdrom": lambda wanted, value: _drive(
        wanted, "media=cdrom," + _disk(2) + value.replace(",", ",,")
    ),
    "netdev": _netdev,
    "device": _device,
    "global": _global,
}

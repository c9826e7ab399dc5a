"""The types of QEMU's object model that this machine has, with what each of them implements.

`qom-list-types` lists them: libqos learns from it which of its drivers have a device to drive.
"""

from __future__ import annotations

from typing import Final

from workbench.qtest.options import MACHINES
from workbench.qtest.plug import MODELS, PORTS

__all__ = ["PROPERTIES", "machines", "types"]

_ABSTRACT: Final = {
    "object": "",
    "device": "object",
    "bus": "object",
    "machine": "object",
    "pci-device": "device",
    "ide-device": "device",
    "virtio-serial-port": "device",
    "virtio-device": "device",
    "sys-bus-device": "device",
    "x86-machine": "machine",
    "generic-pc-machine": "x86-machine",
}
_CONCRETE: Final = {
    **dict.fromkeys((*MODELS, "i440FX", "PIIX3", "piix3-ide", "PIIX4_PM"), "pci-device"),
    **dict.fromkeys(("ide-hd", "ide-cd"), "ide-device"),
    **dict.fromkeys(PORTS, "virtio-serial-port"),
    **dict.fromkeys(
        ("virtio-blk-device", "virtio-net-device", "virtio-rng-device", "virtio-serial-device"),
        "virtio-device",
    ),
    **dict.fromkeys(("i440FX-pcihost", "ioapic", "hpet"), "sys-bus-device"),
    **dict.fromkeys(("isa-serial", "isa-pit", "isa-i8259", "mc146818rtc", "i8042"), "device"),
    "PCI": "bus",
    "IDE": "bus",
    **{f"{name}-machine": "generic-pc-machine" for name in MACHINES if name.startswith("pc-")},
    "none-machine": "machine",
}
_VIRTIO: Final = {"disable-legacy": "OnOffAuto", "disable-modern": "bool", "packed": "bool"}
_PCI: Final = {"addr": "int32"}
PROPERTIES: Final[dict[str, dict[str, str]]] = {
    "ide-hd": {"drive": "str", "unit": "uint32", "serial": "str", "ver": "str"},
    "ide-cd": {"drive": "str", "unit": "uint32", "serial": "str", "ver": "str"},
    "e1000": {"mac": "str", "netdev": "str", **_PCI},
    "e1000-82540em": {"mac": "str", "netdev": "str", **_PCI},
    "virtio-blk-pci": {
        "drive": "str", "serial": "str", "num-queues": "uint16", **_VIRTIO, **_PCI,
    },
    "virtio-net-pci": {"mac": "str", "netdev": "str", **_VIRTIO, **_PCI},
    "virtio-rng-pci": {**_VIRTIO, **_PCI},
    "virtio-serial-pci": {**_VIRTIO, **_PCI},
}  # fmt: skip


def _ancestors(name: str) -> list[str]:
    out = []
    while name:
        out.append(name)
        name = _CONCRETE.get(name) or _ABSTRACT.get(name, "")
    return out


def types(implements: str | None = None, abstract: bool = False) -> list[dict[str, object]]:
    """As `qom-list-types` gives them: those that implement a type, abstract ones if wanted."""
    names = [*_CONCRETE, *(_ABSTRACT if abstract else ())]
    out: list[dict[str, object]] = []
    for name in sorted(names):
        line = _ancestors(name)
        if implements is not None and implements not in line:
            continue
        entry: dict[str, object] = {"name": name}
        if name in _ABSTRACT:
            entry["abstract"] = True
        if len(line) > 1:
            entry["parent"] = line[1]
        out.append(entry)
    return out


def machines() -> list[dict[str, object]]:
    """As `query-machines` gives them."""
    out: list[dict[str, object]] = []
    for name in MACHINES:
        if name == "pc":
            continue
        entry: dict[str, object] = {
            "name": name,
            "cpu-max": 1,
            "hotpluggable-cpus": False,
            "numa-mem-supported": False,
            "deprecated": False,
        }
        if name != "none":
            entry |= {"alias": "pc", "is-default": True, "default-cpu-type": "qemu64-x86_64-cpu"}
        out.append(entry)
    return out

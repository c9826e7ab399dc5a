"""From accesses to registers, without a live device: which map a name in a trace means.

The `device` of an access is the name of a bus window, or of a PCI function for kind `cfg`. Names of
fixed chips are listed here; those of serial ports, drives and NICs are in the header of the trace.
A `Decoder` walks over accesses in order and keeps, for each window, what earlier writes have
selected (a UART's DLAB, an index register, the next initialisation word). Its steps are remembered,
so that a run which polls one register costs one look into a dictionary for each access.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from workbench.core.regs import RegMap

if TYPE_CHECKING:
    from workbench.core.regs import Reg

CFG: Final = "cfg"
_MEMO_LIMIT: Final = 1 << 16

_HW = "workbench.hw."
_CHIPS: Final[dict[tuple[str, str], str]] = {
    ("pio", "pic0"): "i8259:I8259.MAP",
    ("pio", "pic1"): "i8259:I8259.MAP",
    ("pio", "elcr"): "i8259:ELCR_MAP",
    ("pio", "pit"): "i8254:I8254.MAP",
    ("pio", "rtc"): "mc146818:PORTS",
    ("pio", "i8042-data"): "i8042:I8042.MAP",
    ("pio", "i8042-command"): "i8042:I8042.MAP@4+1",
    ("pio", "port61"): "port61:Port61.MAP",
    ("pio", "port80"): "port80:Port80.MAP",
    ("pio", "port92"): "port92:Port92.MAP",
    ("pio", "debugcon"): "debugcon:DebugCon.MAP",
    ("pio", "debugexit"): "debugexit:DebugExit.MAP",
    ("pio", "bios-debugcon"): "debugcon:DebugCon.MAP",
    ("pio", "fw_cfg"): "fw_cfg:FwCfg.MAP",
    ("pio", "fw_cfg-dma"): "fw_cfg:FwCfg.MAP@4+8",
    ("pio", "config-address"): "pci_root:MAP",
    ("pio", "config-data"): "pci_root:DATA_MAP",
    ("pio", "pm"): "piix4_pm:IO_MAP",
    ("pio", "bmide"): "piix_ide:BMIDE_MAP",
    ("mmio", "lapic"): "lapic:MAP",
    ("mmio", "ioapic"): "ioapic:MAP",
    ("mmio", "hpet"): "hpet:MAP",
    (CFG, "i440fx"): "i440fx:I440fx.MAP",
    (CFG, "piix3"): "piix3:Piix3.MAP",
    (CFG, "piix4_pm"): "piix4_pm:Piix4Pm.MAP",
    (CFG, "piix3_ide"): "piix_ide:PiixIde.MAP",
    **{("pio", f"ide{n}"): "ata.registers:COMMAND_BLOCK" for n in (0, 1)},
    **{("pio", f"ide{n}.control"): "ata.registers:CONTROL_BLOCK" for n in (0, 1)},
}
_UART: Final = "uart16550:Uart16550.MAP"
_VIRTIO: Final = {
    "virtio": "virtio.blk:VirtioBlk.MAP",
    "virtio-net": "virtio.net:VirtioNet.MAP",
    "virtio-rng": "virtio.rng:VirtioRng.MAP",
    "virtio-console": "virtio.console:VirtioConsole.MAP",
}


def _load(spec: str) -> RegMap | None:
    """Import `module:name` or `module:name@offset+length`; None for what is not a map."""
    module, _, path = spec.partition(":")
    path, _, part = path.partition("@")
    try:
        found: Any = importlib.import_module(_HW + module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        return None
    if not isinstance(found, RegMap):
        return None
    if part:
        at, _, length = part.partition("+")
        return found.part(int(at), int(length))
    return found


def _combine(name: str, parts: list[tuple[int, RegMap]]) -> RegMap:
    regs = [replace(reg, offset=reg.offset + at) for at, part in parts for reg in part.regs]
    return RegMap(name, max((reg.end for reg in regs), default=0), regs)


def _virtio(kind: str, device_map: str) -> RegMap | None:
    """The window of a virtio PCI function: legacy in port space, modern in memory."""
    from workbench.hw.virtio import pci

    own = _load(device_map)
    config = [] if own is None else [own]
    if kind == CFG:
        return pci.VirtioPci.MAP
    if kind == "pio":
        parts = [(0, pci.LEGACY), *((pci.LEGACY_BYTES, m) for m in config)]
        return _combine("virtio-pci-legacy", parts)
    parts = [
        (pci.COMMON_AT, pci.COMMON),
        (pci.ISR_AT, pci.ISR_MAP),
        *((pci.DEVICE_AT, m) for m in config),
        (pci.NOTIFY_AT, pci.NOTIFY),
    ]
    return _combine("virtio-pci-modern", parts)


def _virtio_mmio(device_map: str, legacy: bool) -> RegMap:
    """The window of a virtio device over MMIO."""
    from workbench.hw.virtio import mmio

    own = _load(device_map)
    config = [] if own is None else [(mmio.CONFIG_AT, own)]
    return _combine("virtio-mmio", [(0, mmio.LEGACY_MAP if legacy else mmio.MAP), *config])


class Catalogue:
    """Finds the register map of a window from its name and from the machine of the header."""

    def __init__(self, machine: Mapping[str, Any]) -> None:
        """`machine` is the configuration in the header of the trace: any JSON object."""
        self._serial = _strings(machine.get("serial_ports"))
        self._virtio: dict[str, str] = {}
        self._legacy_mmio: dict[str, bool] = {}
        self._e1000 = set()
        for part, key in (("drives", "interface"), ("nics", "model"), ("devices", "model")):
            for name, what in _named(machine.get(part)):
                model = str(what.get(key))
                if model in _VIRTIO:
                    self._virtio[name] = _VIRTIO[model]
                    if what.get("transport") == "mmio":
                        self._legacy_mmio[name] = what.get("flavour") == "legacy"
                elif model == "e1000":
                    self._e1000.add(name)

    def find(self, kind: str, device: str) -> RegMap | None:
        """The map of a window (`pio`, `mmio`) or PCI function (`cfg`), None when none is known."""
        spec = _CHIPS.get((kind, device))
        if spec is not None:
            return _load(spec)
        if device in self._serial and kind == "pio":
            return _load(_UART)
        if device in self._legacy_mmio:
            return _virtio_mmio(self._virtio[device], self._legacy_mmio[device])
        if device in self._virtio:
            return _virtio(kind, self._virtio[device])
        if device.endswith(".msix") and kind == "mmio":
            return _load("pci.msix:MAP")
        if device in self._e1000:
            return _load("e1000.e1000:E1000.MAP" if kind == CFG else "e1000.mac:MAP")
        if device.removesuffix(".io") in self._e1000:
            return _load("e1000.e1000:IO_MAP")
        return self._any_function if kind == CFG else None

    @cached_property
    def _any_function(self) -> RegMap:
        """The header that all functions have, for those that are not known and for empty slots."""
        from workbench.hw.pci.config import config_map

        return config_map("pci-config", vendor=0xFFFF, device=0xFFFF, class_code=0)


def _strings(value: object) -> frozenset[str]:
    return frozenset(v for v in value if isinstance(v, str)) if isinstance(value, list) else _NONE


_NONE: Final[frozenset[str]] = frozenset()


def _named(value: object) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict) and isinstance(item.get("name"), str):
            yield item["name"], item


@dataclass(frozen=True, slots=True)
class Register:
    """What one access means: the register's name, and its fields (`[SSBM=1 RWCON=1]`) or parts."""

    name: str
    meaning: str


def register_names(name: str) -> tuple[str, ...]:
    """A register behind an index register goes by either name; one of several by its own."""
    return (name, *name.replace("+", ":").split(":")) if ":" in name or "+" in name else (name,)


class _Node:
    """One state of a window: what earlier writes have selected, and the steps seen from here."""

    __slots__ = ("index", "labels", "steps", "when")

    def __init__(
        self, when: str | None, labels: tuple[str, ...] = (), index: tuple[int | None, ...] = ()
    ) -> None:
        self.when = when
        self.labels = labels
        self.index = index
        self.steps: dict[tuple[int, int, int, bool], tuple[Register, _Node]] = {}


class WindowDecoder:
    """Decodes the accesses to one window in their order."""

    def __init__(self, regmap: RegMap) -> None:
        self.map = regmap
        select = regmap.select
        when = None if select is None else select.label(select.reg.reset)
        self._nodes: dict[tuple[object, ...], _Node] = {}
        self._node = self._goto(when, (), (None,) * len(regmap.indirect))
        self._known = 0
        self._by_value = any(reg.match is not None for reg in regmap.regs)

    def needs_order(self, write: bool) -> bool:
        """Whether a register follows from more than offset, size and direction."""
        regmap = self.map
        selects = regmap.select or regmap.indirect or regmap.follow
        return bool(selects) or (write and self._by_value)

    def selects(self, offset: int, size: int, write: bool) -> bool:
        """Whether an access there has to be decoded alone: it may change what later ones mean, or
        its own register follows from the value.
        """
        regmap = self.map
        if not write:
            return False
        if regmap.follow is not None or self._by_value:
            return True
        regs = [ind.index for ind in regmap.indirect]
        if regmap.select is not None:
            regs.append(regmap.select.reg)
        return any(offset < reg.end and reg.offset < offset + size for reg in regs)

    def decode(self, offset: int, size: int, value: int, write: bool) -> Register:
        """Say what an access means, and follow what it selects."""
        key = (offset, size, value, write)
        found = self._node.steps.get(key)
        if found is None:
            found = self._step(key)
        self._node = found[1]
        return found[0]

    @property
    def state(self) -> tuple[str | None, tuple[str, ...], tuple[int | None, ...]]:
        """What earlier writes have selected; may be given to another decoder of the same map."""
        return self._node.when, self._node.labels, self._node.index

    @state.setter
    def state(self, state: tuple[str | None, tuple[str, ...], tuple[int | None, ...]]) -> None:
        self._node = self._goto(*state)

    def _goto(
        self, when: str | None, labels: tuple[str, ...], index: tuple[int | None, ...]
    ) -> _Node:
        key = (when, labels, index)
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = _Node(when, labels, index)
        return node

    def _step(self, key: tuple[int, int, int, bool]) -> tuple[Register, _Node]:
        offset, size, value, write = key
        node, regmap = self._node, self.map
        self._known += 1
        if self._known > _MEMO_LIMIT:
            self._known = 0
            self._nodes.clear()
            node = self._goto(node.when, node.labels, node.index)
        reg = regmap.find(offset, size, write, node.when, value)
        name = _name(regmap, offset, size, value, write, node.when)
        meaning = _meaning(regmap, offset, size, value, write, node.when)
        when, labels, index = node.when, node.labels, list(node.index)
        for place, ind in enumerate(regmap.indirect):
            chosen = index[place]
            if reg is ind.data and chosen is not None:
                inner = (chosen & ind.mask) * ind.scale
                meaning = _meaning(ind.map, inner, size, value, write, None)
                name = f"{name}:{_name(ind.map, inner, size, value, write, None)}"
            if write and reg is ind.index:
                index[place] = value
        if write and regmap.select is not None and reg is regmap.select.reg:
            when = regmap.select.label(value)
        if write and regmap.follow is not None and reg is not None:
            labels = regmap.follow(labels, reg, value)
            when = labels[0] if labels else None
        after = self._goto(when, labels, tuple(index))
        node.steps[key] = found = (Register(name, meaning), after)
        return found


def _name(regmap: RegMap, offset: int, size: int, value: int, write: bool, when: str | None) -> str:
    """Name the register of an access, or those that it touches when it is not exactly one."""
    reg = regmap.find(offset, size, write, when, value)
    if reg is not None:
        return reg.name
    cover = regmap.cover(write, when)
    names: dict[str, None] = {}
    for at in range(offset, offset + min(size, 8)):
        regs: tuple[Reg, ...] = cover.get(at, ())
        if regs:
            names[regs[0].name] = None
    return "+".join(names) or f"+{offset:#x}"


def _meaning(
    regmap: RegMap, offset: int, size: int, value: int, write: bool, when: str | None
) -> str:
    """Fields of a register in brackets; else, of several registers or a part of one, all in words;
    empty when the value says everything.
    """
    text = regmap.explain(offset, size, value, write, when)
    reg = regmap.find(offset, size, write, when, value)
    if reg is None:
        return text
    fields = text.removeprefix(reg.name)
    return "" if fields.startswith("=") else fields


class Decoder:
    """Decodes all accesses of a trace in their order."""

    def __init__(self, machine: Mapping[str, Any]) -> None:
        self._catalogue = Catalogue(machine)
        self._windows: dict[tuple[str, str], WindowDecoder | None] = {}

    def window(self, kind: str, device: str) -> WindowDecoder | None:
        """The decoder of one window, None when its registers are not known."""
        key = (kind, device)
        if key not in self._windows:
            regmap = self._catalogue.find(kind, device)
            self._windows[key] = None if regmap is None else WindowDecoder(regmap)
        return self._windows[key]

    def decode(
        self, kind: str, device: str, offset: int, size: int, value: int, write: bool
    ) -> Register:
        """Say what an access means; what has no map is named by its offset."""
        window = self.window(kind, device)
        if window is None:
            return Register(f"+{offset:#x}", "")
        return window.decode(offset, size, value, write)

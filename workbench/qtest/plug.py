"""From what a command line or `device_add` names to parts on a testbed.

Models have QEMU's names. A device without `addr=` goes into the first free slot, a drive without
`bus=` to the first free place. Nothing is written to an image: writes stay in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from workbench.block.image import Image
from workbench.block.opening import open_image
from workbench.errors import UsageError
from workbench.hw.ata.ata import AtaDisk
from workbench.hw.ata.atapi import AtapiDrive
from workbench.hw.ata.drive import Drive
from workbench.hw.e1000.e1000 import E1000
from workbench.hw.pci.function import PciFunction
from workbench.hw.pci_root import Address
from workbench.hw.peripherals import IDE_FUNCTION, IDE_IRQS, IDE_SLOT
from workbench.hw.piix_ide import PiixIde
from workbench.hw.virtio.blk import VirtioBlk
from workbench.hw.virtio.console import VirtioConsole
from workbench.hw.virtio.net import VirtioNet
from workbench.hw.virtio.pci import VirtioPci
from workbench.hw.virtio.rng import VirtioRng
from workbench.net.port import Backend, NetPort
from workbench.net.sockets import SocketBackend
from workbench.net.spec import KINDS, open_backend
from workbench.qtest.blkdebug import DebugDisk, read_rules
from workbench.qtest.options import Node, Part, Properties, Wanted

if TYPE_CHECKING:
    from workbench.qtest.testbed import Testbed

__all__ = ["Plug"]

FIRST_SLOT: Final = 3
SLOTS: Final = 32
IDE_PLACES: Final = ((0, 0), (0, 1), (1, 0), (1, 1))
PORTS: Final = ("virtconsole", "virtserialport")
VIRTIO_SUFFIXES: Final = ("-transitional", "-non-transitional")


class NullImage(Image):
    """`null-co`: reads as zeroes; what is written to it the disk's overlay keeps."""

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def _read(self, offset: int, length: int) -> bytes:
        return bytes(length)

    def _write(self, offset: int, data: bytes) -> None:
        """Nothing to do."""

    def _write_zeroes(self, offset: int, length: int) -> None:
        """Nothing to do."""


class QtestIde(PiixIde):
    """The IDE function with one bit more: libqos insists that COMMAND.MSE can be set in every
    function that it enables; 82371SB 2.3.3 has it hardwired to 0 here, where no memory decodes.
    """

    COMMAND_WRITABLE = 0x7


class Plug:
    """What is plugged into one testbed."""

    def __init__(self, testbed: Testbed, wanted: Wanted) -> None:
        """Plug everything in that `wanted` lists. Raises WorkbenchError."""
        self.testbed = testbed
        self.wanted = wanted
        self.disks: dict[str, DebugDisk] = {}
        self.functions: dict[str, PciFunction[Any]] = {}
        """Parts on the PCI bus, by their id."""
        self.others: set[str] = set()
        """Ids of parts that are on another bus."""
        self.ports: dict[str, NetPort] = {}
        self.macs: dict[str, bytes] = {}
        """Addresses of the NICs that can announce themselves, by the name of their port."""
        self.on_stop: Callable[[], None] = lambda: None
        self.console: Callable[[bytes], None] = lambda data: None
        self._images: list[Image] = []
        self._count = 0
        self._used: set[str] = set()
        """Ids that were ever given: the clock and the inputs keep names for good."""
        try:
            self._ide(self._drives())
            for part in wanted.parts:
                if part.model not in ("ide-hd", "ide-cd"):
                    self.add(part)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let images and networks go."""
        for port in self.ports.values():
            port.close()
        for image in self._images:
            image.close()

    # -- disks

    def _disk(self, node: Node) -> DebugDisk:
        rules, file = "", node.file
        debugged = file.startswith("blkdebug:")
        if debugged:
            _, rules, file = file.split(":", 2) if file.count(":") > 1 else ("", "", file[9:])
        if file == "null-co://":
            image: Image = NullImage(node.name, node.size_bytes, read_only=False)
        else:
            image = open_image(file, format_name=node.format)
        self._images.append(image)
        fetch = self.testbed.machine.inputs.fetch
        disk = DebugDisk(node.name, image, fetch, node.read_only)
        if debugged:
            disk.rules = read_rules(rules)
            disk.stops = node.write_error == "stop"
            disk.on_stop = self._stopped
        self.disks[node.name] = disk
        self.testbed.machine.attach(disk)
        return disk

    def _stopped(self) -> None:
        self.on_stop()

    def _node(self, part: Part) -> DebugDisk | None:
        name = part.properties.get("drive")
        if name is None:
            return None
        node = self.wanted.nodes.get(name)
        if node is None:
            raise UsageError(f"Can't find value '{name}' of {part.model}.drive")
        if name in self.disks:
            raise UsageError(f"drive {name!r} is in use by another device")
        return self._disk(node)

    def _drives(self) -> dict[tuple[int, int], Drive]:
        """The drives of the IDE function, by channel and place."""
        drives: dict[tuple[int, int], Drive] = {}
        for part in self.wanted.parts:
            if part.model not in ("ide-hd", "ide-cd"):
                continue
            values = self._properties(part)
            place = _place(values, drives)
            disk = self._node(part)
            kind = "cd" if part.model == "ide-cd" else "hd"
            name = values.get("id") or f"ide{place[0]}-{kind}{place[1]}"
            serial, firmware = values.get("serial", ""), values.get("ver", "1.0")
            if kind == "cd":
                drives[place] = AtapiDrive(name, disk, serial=serial, firmware=firmware)
            elif disk is None:
                raise UsageError("expected -device ide-hd with drive=")
            else:
                drives[place] = AtaDisk(name, disk, serial=serial, firmware=firmware)
            if disk is not None:
                self.disks[f"ide{place[0]}-{kind}{place[1]}"] = disk
            self.others.add(name)
        return drives

    def _ide(self, drives: dict[tuple[int, int], Drive]) -> None:
        board = self.testbed.board
        places = [drives.get(place) for place in IDE_PLACES]
        irqs = (board.irq("ide0", IDE_IRQS[0]), board.irq("ide1", IDE_IRQS[1]))
        ide = QtestIde((places[:2], places[2:]), self.testbed.machine.clock, irqs)
        board.add_pci(ide, IDE_SLOT, IDE_FUNCTION)
        self.testbed.power_on = ide.post
        ide.post()

    # -- functions

    def add(self, part: Part) -> str:
        """Plug in a part; gives its id. Raises WorkbenchError."""
        values = self._properties(part)
        name = values.get("id") or self._name(part.model)
        if name in self.functions or name in self.others:
            raise UsageError(f"Duplicate device ID '{name}'")
        if part.model in PORTS:
            if not any(isinstance(f, VirtioPci) and isinstance(f.virtio, VirtioConsole)
                       for f in self.functions.values()):  # fmt: skip
                raise UsageError(f"No 'virtio-serial-bus' bus found for device '{part.model}'")
            self.others.add(name)
            return name
        model, suffix = part.model, ""
        for end in VIRTIO_SUFFIXES:
            if model.startswith("virtio-") and model.endswith(end):
                model, suffix = model.removesuffix(end), end
        make = MODELS.get(model)
        if make is None:
            raise UsageError(f"'{part.model}' is not a valid device model name")
        values["suffix"] = suffix
        slot, number = self._address(values)
        self._count += 1
        inside = name if name not in self._used else f"{name}.{self._count}"
        self._used.add(name)
        try:
            function = make(self, inside, part, values)
            self.testbed.board.add_pci(function, slot, number)
        except ValueError as error:
            raise UsageError(f"{part.model}: {error}") from None
        self.functions[name] = function
        return name

    def remove(self, name: str) -> bool:
        """Pull a function out; False if none has that id."""
        function = self.functions.pop(name, None)
        if function is None:
            return False
        self.testbed.board.pci.remove(function)
        del self.testbed.machine.devices[function.name]
        return True

    def slot_of(self, name: str) -> int | None:
        """The slot of a function, None for other parts."""
        function = self.functions.get(name)
        for address, other in self.testbed.board.pci.functions.items():
            if other is function:
                return address.device
        return None

    def _name(self, model: str) -> str:
        self._count += 1
        return f"{model}.{self._count}"

    def _properties(self, part: Part) -> Properties:
        return self.wanted.globals.get(part.model, {}) | part.properties

    def _address(self, values: Properties) -> tuple[int, int]:
        taken = self.testbed.board.pci.functions
        text = values.get("addr")
        if text is None:
            for slot in range(FIRST_SLOT, SLOTS):
                if Address(0, slot, 0) not in taken:
                    return slot, 0
            raise UsageError("there is no free slot on the PCI bus")
        slot_text, _, function_text = text.partition(".")
        try:
            slot, function = int(slot_text, 16), int(function_text or "0", 16)
            if not (0 <= slot < SLOTS and 0 <= function < 8):
                raise ValueError
        except ValueError:
            raise UsageError(f"expected addr=SLOT.FUNCTION, not {text!r}") from None
        if Address(0, slot, function) in taken:
            raise UsageError(f"PCI slot {slot:x}.{function} is in use")
        return slot, function

    def port(self, name: str, values: Properties) -> NetPort:
        """The cable of a NIC, plugged into what `netdev=` names."""
        port = NetPort(name, self.testbed.machine.inputs)
        self.ports[name] = port
        backend = self._backend(values.get("netdev"))
        if backend is not None:
            port.attach(backend)
        return port

    def _backend(self, netdev: str | None) -> Backend | None:
        if netdev is None:
            return None
        given = self.wanted.netdevs.get(netdev)
        if given is None:
            raise UsageError(f"Property 'netdev' can't find value '{netdev}'")
        kind = given.get("type", "")
        if kind == "hubport":
            return None
        if kind == "socket" and given.get("fd", "").isdecimal():
            return SocketBackend(int(given["fd"]))
        if kind == "socket":
            kind = "stream"
        if kind not in KINDS:
            raise UsageError(f"expected a -netdev of {', '.join(KINDS)}, not {kind!r}")
        rest = [f"{key}={value}" for key, value in given.items() if key not in ("type", "id")]
        return open_backend(",".join([kind, *rest]))


def _place(values: Properties, taken: dict[tuple[int, int], Drive]) -> tuple[int, int]:
    bus, unit = values.get("bus"), values.get("unit")
    if bus is not None and bus not in ("ide.0", "ide.1"):
        raise UsageError(f"Bus '{bus}' not found")
    if unit is not None and unit not in ("0", "1"):
        raise UsageError(f"expected unit=0 or unit=1, not {unit!r}")
    for place in IDE_PLACES:
        if (bus or f"ide.{place[0]}") != f"ide.{place[0]}" or (unit or str(place[1])) != str(
            place[1]
        ):
            continue
        if place not in taken:
            return place
    raise UsageError("there is no free place for a drive on the IDE bus")


def _mac(values: Properties) -> bytes:
    text = values.get("mac", "52:54:00:12:34:56")
    try:
        mac = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        mac = b""
    if len(mac) != 6:
        raise UsageError(f"expected mac=52:54:00:12:34:56 or the like, not {text!r}")
    return mac


def _switch(values: Properties, key: str, default: bool = False) -> bool:
    return values.get(key, "on" if default else "off") in ("on", "true", "yes")


def _count(values: Properties, key: str, default: int) -> int:
    text = values.get(key, str(default))
    if not text.isdecimal() or len(text) > 6:
        raise UsageError(f"expected {key}=NUMBER, not {text!r}")
    return int(text)


def _virtio(device: Any, values: Properties) -> VirtioPci:
    suffix = values["suffix"]
    legacy = suffix != "-non-transitional" and not _switch(values, "disable-legacy")
    modern = not _switch(values, "disable-modern")
    return VirtioPci(device, legacy=legacy, modern=modern)


def _blk(plug: Plug, name: str, part: Part, values: Properties) -> VirtioPci:
    disk = plug._node(part)
    if disk is None:
        raise UsageError("drive property not set")
    device = VirtioBlk(
        name,
        disk,
        plug.testbed.machine.clock,
        serial=values.get("serial", ""),
        num_queues=_count(values, "num-queues", 1),
        packed=_switch(values, "packed"),
    )
    return _virtio(device, values)


def _net(plug: Plug, name: str, part: Part, values: Properties) -> VirtioPci:
    mac = plug.macs[name] = _mac(values)
    device = VirtioNet(name, mac, plug.port(name, values), packed=_switch(values, "packed"))
    return _virtio(device, values)


def _rng(plug: Plug, name: str, part: Part, values: Properties) -> VirtioPci:
    seed = plug.testbed.machine.config.seed
    return _virtio(VirtioRng(name, seed, packed=_switch(values, "packed")), values)


def _serial(plug: Plug, name: str, part: Part, values: Properties) -> VirtioPci:
    console = VirtioConsole(name, plug.console, packed=_switch(values, "packed"))
    return _virtio(console, values)


def _e1000(plug: Plug, name: str, part: Part, values: Properties) -> E1000:
    return E1000(plug.testbed.machine.clock, name, _mac(values), plug.port(name, values))


MODELS: Final[dict[str, Callable[[Plug, str, Part, Properties], PciFunction[Any]]]] = {
    "virtio-blk-pci": _blk,
    "virtio-net-pci": _net,
    "virtio-rng-pci": _rng,
    "virtio-serial-pci": _serial,
    "e1000": _e1000,
    "e1000-82540em": _e1000,
}

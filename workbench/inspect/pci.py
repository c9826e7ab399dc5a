"""PCI: functions, base addresses, capabilities, MSI-X tables (PCI Local Bus Specification 3.0)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from workbench.hw.pci.config import COMMAND, STATUS
from workbench.hw.pci.function import PciFunction
from workbench.hw.pci.msi import Msi
from workbench.hw.pci.msix import ENABLE, FUNCTION_MASK, MASKED, Msix
from workbench.hw.pci_root import PciRoot
from workbench.inspect.banks import bits
from workbench.inspect.page import Page, Table, pairs, table
from workbench.inspect.subject import Row, of_register

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["msi_text", "msix", "pci"]

_CLASSES: Final = {
    0x0100: "SCSI controller", 0x0101: "IDE controller", 0x0106: "SATA controller",
    0x0200: "Ethernet controller", 0x0300: "VGA controller", 0x0600: "host bridge",
    0x0601: "ISA bridge", 0x0680: "bridge", 0x0780: "communication controller",
    0x00FF: "unclassified",
}  # fmt: skip
_CAPABILITIES: Final = {
    0x01: "power management", 0x05: "MSI", 0x09: "vendor specific", 0x10: "PCI Express",
    0x11: "MSI-X",
}  # fmt: skip
_VECTOR: Final = ("MSG_ADDR", "MSG_UPPER", "MSG_DATA", "VECTOR_CTRL")
_DELIVERY: Final = ("Fixed", "LowestPriority", "SMI", "3", "NMI", "INIT", "6", "ExtINT")


def pci(machine: Machine, name: str, rows: int) -> Page:
    """The bus and all its functions."""
    root = machine.devices["pci"]
    assert isinstance(root, PciRoot)
    functions = [(str(at), function) for at, function in sorted(root.functions.items(), key=_order)]
    tables = [
        table(
            "functions",
            ("address", "name", "vendor:device", "class", "COMMAND", "INTx"),
            (_function(at, function) for at, function in functions),
            rows,
        ),
        table(
            "base addresses",
            ("address", "BAR", "base", "bytes", "kind", "decoded"),
            (row for at, function in functions for row in _bars(at, function)),
            rows,
            keys=2,
        ),
        table(
            "capabilities",
            ("address", "offset", "id", "name"),
            (row for at, function in functions for row in _capabilities(at, function)),
            rows,
            keys=2,
        ),
        pairs("configuration address", [("CONFADD", f"{root.state.confadd:#010x}")]),
    ]
    for at, function in functions:
        part = getattr(function, "msix", None)
        if isinstance(part, Msix):
            tables += msix(f"{at} {function.name}", part, function.name)
        message = getattr(function, "msi", None)
        if isinstance(message, Msi):
            tables.append(msi(f"{at} {function.name}", message))
    return Page(name, "PCI bus 0", tuple(tables))


def _order(item: tuple[Any, Any]) -> tuple[int, int, int]:
    return item[0].bus, item[0].device, item[0].function


def _reset(function: PciFunction[Any], reg: str) -> int:
    return function.map[reg].reset


def _function(at: str, function: PciFunction[Any]) -> Row:
    state = function.state
    kind = _reset(function, "CLASS")
    pin = _reset(function, "INTERRUPT_PIN")
    intx = "-"
    if pin and function.port is not None and function.port.intx is not None:
        intx = f"INT{'ABCD'[pin - 1]} {'up' if function.port.intx.level else 'down'}"
        intx += f", line {state.interrupt_line}"
    cells = (
        at,
        function.name,
        f"{_reset(function, 'VENDOR_ID'):04x}:{_reset(function, 'DEVICE_ID'):04x}",
        _CLASSES.get(kind, f"{kind:#06x}"),
        bits(COMMAND.fields, state.command),
        intx,
    )
    return Row(cells, of_register(function.name, COMMAND.name, config=True))


def _bars(at: str, function: PciFunction[Any]) -> Iterator[Row]:
    for bar in function.BARS:
        kind = "ports" if bar.io else "memory, 64-bit" if bar.wide else "memory"
        on = function.state.command & (1 if bar.io else 2)
        base = function.bar_base(bar.index)
        shown = "yes" if on and base else "no"
        cells = at, str(bar.index), f"{base:#x}", f"{bar.size:#x}", kind, shown
        yield Row(cells, of_register(function.name, f"BAR{bar.index}", config=True))


def _capabilities(at: str, function: PciFunction[Any]) -> Iterator[tuple[str, ...]]:
    regs = {reg.offset: reg for reg in function.map.regs}
    place = _reset(function, "CAP_PTR")
    for _ in range(48):
        if not place or place not in regs:
            return
        found = regs[place].reset
        name = regs[place].name.removesuffix("_CAP_ID")
        yield at, f"{place:#04x}", f"{found:#04x}", f"{_CAPABILITIES.get(found, '')} {name}".strip()
        after = regs.get(place + 1)
        place = after.reset if after is not None else 0


def msix(title: str, part: Msix, device: str) -> list[Table]:
    """The vectors of one function."""
    s = part.state
    on = "on" if s.control & ENABLE else "off"
    masked = ", function masked" if s.control & FUNCTION_MASK else ""
    rows = (
        Row(
            (
                str(n),
                "masked" if s.vector_ctrl[n] & MASKED else "open",
                "pending" if s.pending >> n & 1 else "",
                f"{s.msg_upper[n] << 32 | s.msg_addr[n]:#x}",
                f"{s.msg_data[n]:#x}",
                msi_text(s.msg_addr[n], s.msg_data[n]),
            ),
            of_register(device, *(f"{register}{n}" for register in _VECTOR)),
        )
        for n in range(part.vectors)
    )
    columns = ("entry", "mask", "", "address", "data", "meaning")
    return [table(f"MSI-X of {title}", columns, rows, note=f"{on}{masked}")]


def msi(title: str, part: Msi) -> Table:
    """The one address of a function, and its data."""
    s = part.state
    on = "on" if part.enabled else "off"
    rows = [
        ("address", f"{s.msi_upper << 32 | s.msi_addr:#x}"),
        ("data", f"{s.msi_data:#x}"),
        ("meaning", msi_text(s.msi_addr, s.msi_data)),
        ("messages", str(part.allocated)),
        ("mask", f"{s.msi_mask:#x}"),
        ("pending", f"{s.msi_pending:#x}"),
    ]
    return pairs(f"MSI of {title}, {on}", rows)


def msi_text(address: int, data: int) -> str:
    """A message-signalled interrupt in words (SDM volume 3A, 11.11)."""
    if address >> 20 != 0xFEE:
        return "no interrupt message" if address or data else "not set"
    way = "logical " if address & 4 else ""
    kind = _DELIVERY[data >> 8 & 7]
    level = ", level" if data & 0x8000 else ""
    return f"vector {data & 0xFF:#04x} to {way}{address >> 12 & 0xFF:#x}, {kind}{level}"


def header(function: PciFunction[Any]) -> Table:
    """The two registers of a function that a driver of it looks at first."""
    status = function.state.status
    command = of_register(function.name, COMMAND.name, config=True)
    return pairs(
        "PCI",
        [
            Row(("COMMAND", bits(COMMAND.fields, function.state.command)), command),
            ("STATUS", bits(STATUS.fields, status)),
            ("INTx", "wanted" if function.state.intx else "not wanted"),
            ("DMA refused", f"{function.dma.refused:,}"),
        ],
    )

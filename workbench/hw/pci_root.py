"""PCI bus 0: slots, configuration mechanism 1 at 0xCF8 and 0xCFC, INTx wiring.

PCI Local Bus Specification 3.0, 3.2.2.3.2, and 82441FX (order number 290549), CONFADD and CONFDATA.
Port 0xCF9, a byte inside CONFADD's dword, is PIIX3's reset control register: the host bridge
forwards byte accesses to the PCI bus, and so does this. Deliberately not modelled: other buses
(bridges), special cycles and configuration mechanism 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from workbench.core.bus import Bus, Window
from workbench.core.irq import IrqLine, SharedLine
from workbench.core.regs import Field, Reg, RegBank, RegMap, on_command, on_read
from workbench.core.spans import Spans, pairs
from workbench.hw.layout import PORT_PCI_CONFIG
from workbench.hw.pci.config import CONFIG_BYTES
from workbench.hw.pci.function import PciFunction

__all__ = ["CONFADD", "CONFDATA", "MAP", "RC", "Address", "PciRoot", "PciRootState", "Slot"]

PIRQS: Final = 4

CONFADD = Reg(
    "CONFADD", 0x0, 4,
    fields=(
        Field("REG", 2, 6),
        Field("FUNC", 8, 3),
        Field("DEV", 11, 5),
        Field("BUS", 16, 8),
        Field("CONE", 31),
    ),
    ref="82441FX 3.1",
    exact=True,
)  # fmt: skip
RC = Reg(
    "RC", 0x1, 1,
    fields=(Field("SRST", 1), Field("RCPU", 2)),
    ref="82371SB 2.5",
    exact=True,
)  # fmt: skip
CONFDATA = Reg("CONFDATA", 0x0, 4, ref="82441FX 3.1")

MAP = RegMap("pci-config-address", 4, (CONFADD, RC), fill=0xFF, ref="82441FX 3.1")
DATA_MAP = RegMap("pci-config-data", 4, (CONFDATA,), ref="82441FX 3.1")


@dataclass(frozen=True, slots=True)
class Address:
    """Bus, device and function number."""

    bus: int
    device: int
    function: int

    def __str__(self) -> str:
        return f"{self.bus:02x}:{self.device:02x}.{self.function}"


class Slot:
    """What the bus gives to the function at one address (see `pci.function.PciPort`)."""

    def __init__(self, root: PciRoot, intx: IrqLine | None, name: str) -> None:
        self.pio = root.pio
        self.mmio = root.mmio
        self.intx = intx
        self._root = root
        self._name = name

    def dma_read(self, device: str, gpa: int, length_bytes: int) -> bytes:
        data = self._root.memory_read(gpa, length_bytes)
        self._root.trace_dma(device, gpa, length_bytes, False)
        return data

    def dma_write(self, device: str, gpa: int, data: bytes) -> None:
        self._root.memory_write(gpa, data)
        self._root.trace_dma(device, gpa, len(data), True)

    def dma_scatter(self, device: str, spans: Spans, data: bytes | memoryview) -> None:
        self._root.memory_scatter(spans, data)
        self._root.trace_dma_spans(device, spans, True)

    def dma_burst(self, spans: Spans, data: bytes | memoryview) -> None:
        self._root.memory_scatter(spans, data)

    def is_memory(self, gpa: int, length_bytes: int) -> bool:
        return self._root.is_memory(gpa, length_bytes)

    def msi(self, address: int, data: int) -> None:
        name = f"{self._name}.msi{data & 0xFF}"
        self._root.trace_line(name, True)
        self._root.msi(address, data)
        self._root.trace_line(name, False)


@dataclass(slots=True)
class PciRootState:
    """CONFADD and RC."""

    confadd: int = 0
    rc: int = 0


def _no_trace(*args: Any) -> None:
    """Until the board wires a tracer."""


class PciRoot(RegBank[PciRootState]):
    """The bus and the two registers that reach configuration space."""

    MAP = MAP
    STATE = PciRootState

    def __init__(
        self,
        pio: Bus,
        mmio: Bus,
        *,
        memory_read: Callable[[int, int], bytes],
        memory_write: Callable[[int, bytes], None],
        pirq: Callable[[int, bool], None],
        name: str = "pci",
    ) -> None:
        """`pirq(n, level)` is the interrupt router's input PIRQ[A:D]."""
        # Wires
        self.pio = pio
        self.mmio = mmio
        self.memory_read = memory_read
        self.memory_write = memory_write
        self.memory_scatter: Callable[[Spans, bytes | memoryview], None] = self._scatter
        self.msi: Callable[[int, int], None] = lambda address, data: None
        self.is_memory: Callable[[int, int], bool] = lambda gpa, length_bytes: True
        self.request_reset: Callable[[str], None] = lambda reason: None
        self.trace_cfg: Callable[[str, int, int, bool, int], None] = _no_trace
        self.trace_dma: Callable[[str, int, int, bool], None] = _no_trace
        self.trace_dma_spans: Callable[[str, Spans, bool], None] = self._trace_spans
        self.trace_line: Callable[[str, bool], None] = _no_trace
        self.functions: dict[Address, PciFunction[Any]] = {}
        self.pirq = [SharedLine(f"PIRQ{'ABCD'[n]}", partial(pirq, n)) for n in range(PIRQS)]
        # Book-keeping
        self._target: PciFunction[Any] | None = None
        self._target_of: int | None = None
        # State
        super().__init__(name)

    def windows(self, device: str) -> tuple[Window, Window]:
        """The two port windows; `device` is the host bridge, which answers there."""
        return (
            Window("config-address", device, PORT_PCI_CONFIG, 4, self.read, self.write, MAP),
            Window(
                "config-data",
                device,
                PORT_PCI_CONFIG + 4,
                4,
                self._read_data,
                self._write_data,
                DATA_MAP,
            ),
        )

    def _trace_spans(self, device: str, spans: Spans, is_write: bool) -> None:
        for gpa, length in pairs(spans):
            self.trace_dma(device, gpa, length, is_write)

    def _scatter(self, spans: Spans, data: bytes | memoryview) -> None:
        at = 0
        for gpa, length in pairs(spans):
            self.memory_write(gpa, bytes(data[at : at + length]))
            at += length

    def reset(self) -> None:
        """CONFADD and RC are 0 after reset."""
        self.set_state(PciRootState())

    def add(self, function: PciFunction[Any], device: int, number: int = 0) -> None:
        """Put a function into a slot; its pin x of slot s is wired to PIRQ (s + x - 1) mod 4."""
        address = Address(0, device, number)
        if address in self.functions:
            raise ValueError(
                f"expected a free slot, not {address}, which {self.functions[address].name} has"
            )
        pin = function.map["INTERRUPT_PIN"].reset
        intx = (
            self.pirq[(device + pin - 2) % PIRQS].source(f"{function.name}.intx") if pin else None
        )
        self.functions[address] = function
        self._target_of = None
        function.connect(Slot(self, intx, function.name))

    def remove(self, function: PciFunction[Any]) -> None:
        """Pull a function out of its slot: its windows, its interrupt and its DMA end."""
        (address,) = (at for at, other in self.functions.items() if other is function)
        function.reset()
        function.port = None
        del self.functions[address]
        self._target_of = None

    # -- configuration mechanism 1 ---------------------------------------------------------------

    @on_command(RC)
    def _write_rc(self, value: int) -> None:
        state = self.state
        rising = value & ~state.rc & 4
        state.rc = value & 6
        if rising:
            kind = "hard" if value & 2 else "soft"
            self.request_reset(f"RC, port 0xcf9: {kind} reset")

    @on_read(RC)
    def _read_rc(self) -> int:
        return self.state.rc

    def _select(self) -> PciFunction[Any] | None:
        confadd = self.state.confadd
        if confadd >> 8 != self._target_of:
            self._target_of = confadd >> 8
            address = Address(confadd >> 16 & 0xFF, confadd >> 11 & 0x1F, confadd >> 8 & 7)
            self._target = self.functions.get(address)
        return self._target

    def _where(self) -> str:
        confadd = self.state.confadd
        return str(Address(confadd >> 16 & 0xFF, confadd >> 11 & 0x1F, confadd >> 8 & 7))

    def _read_data(self, offset: int, size: int) -> int:
        confadd = self.state.confadd
        if not confadd >> 31:
            return (1 << 8 * size) - 1
        reg = (confadd & 0xFC) + offset
        function = self._select()
        if function is None:
            value = (1 << 8 * size) - 1
            self.trace_cfg(self._where(), reg, size, False, value)
        else:
            value = function.read(reg, size)
            self.trace_cfg(function.name, reg, size, False, value)
        return value

    def _write_data(self, offset: int, size: int, value: int) -> None:
        confadd = self.state.confadd
        if not confadd >> 31:
            return
        reg = (confadd & 0xFC) + offset
        function = self._select()
        if function is not None:
            function.write(reg, size, value)
        self.trace_cfg(self._where() if function is None else function.name, reg, size, True, value)


assert CONFIG_BYTES == 256, "CONFADD.REG selects one of 64 dwords"

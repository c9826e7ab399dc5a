"""The guest's side in Python: a board, its devices and nobody else, in one process.

    from workbench.qtest.client import Client

    with Client("-drive file=disk.raw,if=ide -device e1000,addr=04.0") as bench:
        nic = bench.pci(4)
        nic.enable()
        assert bench.readl(nic.bar(0) + 0x8) & 2 == 0  # STATUS.LU: the link takes a while
        bench.clock_step(3_000_000_000)

The options are those of `workbench-qtest`. The board is as firmware leaves it: base address
registers are set, interrupts routed. Guest time stands still but for `clock_step`; what devices do
for a request is done at once, or with `timed` in guest time.
"""

from __future__ import annotations

import shlex
from typing import Any, Self

from workbench.hw.layout import PORT_PCI_CONFIG
from workbench.qtest.assembly import assemble
from workbench.qtest.options import parse

__all__ = ["Client", "PciDevice"]

COMMAND, BAR0 = 0x04, 0x10
IOSE, MSE, BME = 1, 2, 4


class Client:
    """A machine without a guest. Raises WorkbenchErrors (UsageError for its options)."""

    def __init__(self, options: str = "", *, timed: bool = False) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        """What QMP would have told: (name, data)."""
        made = assemble(parse(shlex.split(options)), self._event, timed=timed, firmware=True)
        self._plug, self._monitor = made.plug, made.monitor
        self.testbed = made.testbed
        self.machine = made.testbed.machine
        self._levels: dict[int, bool] = {}
        self.testbed.listen(self._levels.__setitem__)

    def close(self) -> None:
        """Let images and networks go."""
        self._plug.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _event(self, name: str, data: dict[str, Any] | None = None) -> None:
        self.events.append((name, data or {}))

    # -- ports

    def inb(self, port: int) -> int:
        """IN, one byte."""
        return self.testbed.port_read(port, 1)

    def inw(self, port: int) -> int:
        """IN, two bytes."""
        return self.testbed.port_read(port, 2)

    def inl(self, port: int) -> int:
        """IN, four bytes."""
        return self.testbed.port_read(port, 4)

    def outb(self, port: int, value: int) -> None:
        """OUT, one byte."""
        self._out(port, 1, value)

    def outw(self, port: int, value: int) -> None:
        """OUT, two bytes."""
        self._out(port, 2, value)

    def outl(self, port: int, value: int) -> None:
        """OUT, four bytes."""
        self._out(port, 4, value)

    def _out(self, port: int, size: int, value: int) -> None:
        self.testbed.port_write(port, size, value)
        self._monitor.follow(reset_ends=False, shutdown_ends=False)

    # -- memory and memory-mapped registers

    def readb(self, gpa: int) -> int:
        """A load of one byte."""
        return self.testbed.load(gpa, 1)

    def readw(self, gpa: int) -> int:
        """A load of two bytes."""
        return self.testbed.load(gpa, 2)

    def readl(self, gpa: int) -> int:
        """A load of four bytes."""
        return self.testbed.load(gpa, 4)

    def readq(self, gpa: int) -> int:
        """A load of eight bytes."""
        return self.testbed.load(gpa, 8)

    def writeb(self, gpa: int, value: int) -> None:
        """A store of one byte."""
        self.testbed.store(gpa, 1, value)

    def writew(self, gpa: int, value: int) -> None:
        """A store of two bytes."""
        self.testbed.store(gpa, 2, value)

    def writel(self, gpa: int, value: int) -> None:
        """A store of four bytes."""
        self.testbed.store(gpa, 4, value)

    def writeq(self, gpa: int, value: int) -> None:
        """A store of eight bytes."""
        self.testbed.store(gpa, 8, value)

    def memread(self, gpa: int, length: int) -> bytes:
        """Bytes of memory."""
        return self.testbed.read(gpa, length)

    def memwrite(self, gpa: int, data: bytes) -> None:
        """Write bytes to memory."""
        self.testbed.write(gpa, data)

    # -- time, interrupts, the rest

    def clock_step(self, ns: int | None = None) -> int:
        """Let so many nanoseconds pass, or as many as there are to the next timer; gives the
        time.
        """
        return self.testbed.step(ns)

    def clock_set(self, ns: int) -> int:
        """Let time pass until `ns`; gives the time."""
        return self.testbed.set_clock(ns)

    def irq(self, number: int) -> bool:
        """Level of an input of the I/O APIC (ISA interrupt n is n)."""
        return self._levels.get(number, False)

    def reset(self) -> None:
        """Reset the machine; memory stays."""
        self.testbed.reset()

    def board_post(self) -> None:
        """What firmware does: base address registers, interrupt routing."""
        self.testbed.power_on()

    def qmp(self, command: str, **arguments: Any) -> Any:
        """A command of the monitor, with `_` for the `-` in its arguments' names; gives what it
        returns.
        """
        given = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._monitor.execute(command, given)

    def pci(self, slot: int, function: int = 0) -> PciDevice:
        """The PCI function at an address, there or not."""
        return PciDevice(self, slot, function)


class PciDevice:
    """A PCI function as its driver sees it, by configuration mechanism 1."""

    def __init__(self, client: Client, slot: int, function: int) -> None:
        self._client = client
        self._address = 1 << 31 | slot << 11 | function << 8

    def config_read(self, offset: int, size: int) -> int:
        """Read 1, 2 or 4 bytes of configuration space."""
        testbed = self._client.testbed
        testbed.port_write(PORT_PCI_CONFIG, 4, self._address | offset & 0xFC)
        return testbed.port_read(PORT_PCI_CONFIG + 4 + (offset & 3), size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Write 1, 2 or 4 bytes of configuration space."""
        testbed = self._client.testbed
        testbed.port_write(PORT_PCI_CONFIG, 4, self._address | offset & 0xFC)
        testbed.port_write(PORT_PCI_CONFIG + 4 + (offset & 3), size, value)

    def enable(self) -> None:
        """Decode I/O and memory, master the bus."""
        self.config_write(COMMAND, 2, self.config_read(COMMAND, 2) | IOSE | MSE | BME)

    def bar(self, index: int) -> int:
        """The port or address in a base address register, of one or two dwords."""
        value = self.config_read(BAR0 + 4 * index, 4)
        if value & 1:
            return value & ~3
        if value & 6 == 4:
            value |= self.config_read(BAR0 + 4 * index + 4, 4) << 32
        return value & ~15

    def capability(self, kind: int, after: int = 0) -> int:
        """Offset of the first capability of a kind behind another one, 0 if there is none."""
        at = self.config_read(after + 1 if after else 0x34, 1)
        for _ in range(48):
            if not at or self.config_read(at, 1) == kind:
                return at
            at = self.config_read(at + 1, 1)
        return 0

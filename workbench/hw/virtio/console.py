"""Console device (Virtual I/O Device 1.2, 5.3) with one port.

What the guest writes goes to `output` at once. What is typed waits, as state, for receive buffers.
Deliberately not modelled: VIRTIO_CONSOLE_F_MULTIPORT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from workbench.core.regs import RO, WO, Reg, on_command
from workbench.hw.virtio import spec
from workbench.hw.virtio.device import VirtioDevice, VirtioState, regmap

__all__ = ["ConsoleState", "VirtioConsole"]

QUEUE_SIZE: Final = 64
MOST_WAITING: Final = 64 << 10
F_SIZE, F_EMERG_WRITE = 1 << 0, 1 << 2
RECEIVE, TRANSMIT = 0, 1

REF = "VIRTIO 1.2 5.3.4"
COLS = Reg("cols", 0, 2, access=RO, ref=REF)
ROWS = Reg("rows", 2, 2, access=RO, ref=REF)
EMERG_WR = Reg("emerg_wr", 8, 4, access=WO, ref=REF)


@dataclass(slots=True)
class ConsoleState(VirtioState):
    """Size of the terminal, and input that waits for buffers."""

    cols: int = 80
    rows: int = 25
    waiting: bytes = b""


class VirtioConsole(VirtioDevice[ConsoleState]):
    """One terminal."""

    TYPE = spec.CONSOLE
    TRANSITIONAL_ID = 0x1003
    CLASS_CODE = 0x078000
    MAP = regmap(
        "virtio-console",
        (COLS, ROWS, Reg("max_nr_ports", 4, 4, 1, RO, ref=REF), EMERG_WR),
        REF,
    )
    STATE = ConsoleState

    def __init__(
        self,
        name: str,
        output: Callable[[bytes], None],
        *,
        packed: bool = False,
        **features: bool,
    ) -> None:
        """`output` gets what the guest prints; `features` as in `VirtioDevice`."""
        self._output = output
        super().__init__(name, (QUEUE_SIZE, QUEUE_SIZE), packed=packed, **features)

    def device_features(self) -> int:
        return F_SIZE | F_EMERG_WRITE

    @on_command(EMERG_WR)
    def _emergency_write(self, value: int) -> None:
        self._output(bytes([value & 0xFF]))

    def receive(self, kind: str, data: bytes) -> None:
        """Inputs: "rx" is typed, "size" two 16-bit numbers, columns and rows."""
        state = self.state
        if kind == "rx":
            state.waiting = (state.waiting + data)[:MOST_WAITING]
            if self.running and state.status & spec.DRIVER_OK:
                self.guard(RECEIVE, self._fill)
        elif kind == "size" and len(data) == 4:
            state.cols = int.from_bytes(data[:2], "little")
            state.rows = int.from_bytes(data[2:], "little")
            if self.has(F_SIZE):
                self.config_changed()

    def service(self, index: int) -> None:
        """Print, or hand over what was typed."""
        if index == RECEIVE:
            self._fill(index)
            return
        queue = self.queues[index]
        for _ in range(queue.state.size):
            chain = queue.pop()
            if chain is None:
                break
            request = self.begin(index, chain, "tx", length=chain.readable_bytes, write=True)
            if chain.readable_bytes:
                self._output(chain.read())
            self.finish(index, chain, 0, request)
        self.interrupt(index)

    def _fill(self, index: int) -> None:
        queue, state = self.queues[index], self.state
        if not state.waiting:
            queue.quiet()
            return
        for _ in range(queue.state.size):
            chain = queue.pop() if state.waiting else None
            if chain is None:
                break
            request = self.begin(index, chain, "rx", length=chain.writable_bytes)
            count = chain.write(state.waiting[: chain.writable_bytes])
            state.waiting = state.waiting[count:]
            self.finish(index, chain, count, request)
        self.interrupt(index)

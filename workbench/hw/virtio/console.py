"""Console device (Virtual I/O Device 1.2, 5.3): port 0 is a console, further ones have names.

What the guest writes goes to an output at once. What comes in waits, as state, for receive buffers.
Deliberately not modelled: ports that come and go, messages about the size with several ports.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from workbench.core.regs import RO, WO, Reg, on_command
from workbench.core.state import StateError
from workbench.hw.virtio import spec
from workbench.hw.virtio.device import VirtioDevice, VirtioState, regmap

__all__ = ["MOST_PORTS", "ConsoleState", "VirtioConsole"]

QUEUE_SIZE: Final = 64
MOST_WAITING: Final = 64 << 10
MOST_PORTS: Final = 31
MOST_MESSAGES: Final = 8 * MOST_PORTS
F_SIZE, F_MULTIPORT, F_EMERG_WRITE = 1 << 0, 1 << 1, 1 << 2
RECEIVE, TRANSMIT, CONTROL_RECEIVE, CONTROL_TRANSMIT = range(4)
MESSAGE: Final = struct.Struct("<IHH")  # port, event, value (5.3.6.2)
DEVICE_READY, DEVICE_ADD, PORT_READY, CONSOLE_PORT = 0, 1, 3, 4
PORT_OPEN, PORT_NAME = 6, 7

REF = "VIRTIO 1.2 5.3.4"
COLS = Reg("cols", 0, 2, access=RO, ref=REF)
ROWS = Reg("rows", 2, 2, access=RO, ref=REF)
EMERG_WR = Reg("emerg_wr", 8, 4, access=WO, ref=REF)


@dataclass(slots=True)
class ConsoleState(VirtioState):
    """Size of the terminal, and what waits for buffers: input of port 0 and of the others, and
    messages about ports.
    """

    cols: int = 80
    rows: int = 25
    max_nr_ports: int = 1
    waiting: bytes = b""
    inputs: list[bytes] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    opened: int = 0
    """The ports that somebody in the guest has open, by bit: a driver throws away what comes to
    others (but for the console).
    """


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
        ports: Sequence[str] = (),
        port_output: Callable[[str, bytes], None] = lambda name, data: None,
        packed: bool = False,
        **features: bool,
    ) -> None:
        """`output` gets what the guest prints, `port_output` what it writes to one of `ports`, the
        names of ports 1 and up; `features` as in `VirtioDevice`.
        """
        if len(ports) > MOST_PORTS - 1:
            raise ValueError(f"expected at most {MOST_PORTS - 1} ports, not {len(ports)}")
        self.ports = tuple(ports)
        self._output = output
        self._port_output = port_output
        queues = 2 * len(ports) + 4 if ports else 2
        super().__init__(name, (QUEUE_SIZE,) * queues, packed=packed, **features)

    def init_state(self, state: ConsoleState) -> None:
        """Nothing waits for any port."""
        state.max_nr_ports = len(self.ports) + 1
        state.inputs = [b""] * len(self.ports)

    def _check_values(self, state: ConsoleState) -> None:
        super()._check_values(state)
        ports = len(self.ports)
        if state.max_nr_ports != ports + 1 or len(state.inputs) != ports:
            raise StateError(f"{self.name}: expected {ports + 1} ports, not {state.max_nr_ports}")
        if len(state.messages) > MOST_MESSAGES:
            raise StateError(f"{self.name}: expected at most {MOST_MESSAGES} messages")

    def reset(self) -> None:
        """What has come in and nobody has read goes on waiting."""
        waiting, inputs = self.state.waiting, self.state.inputs
        super().reset()
        self.state.waiting, self.state.inputs = waiting, inputs

    def device_features(self) -> int:
        return F_SIZE | F_EMERG_WRITE | (F_MULTIPORT if self.ports else 0)

    @on_command(EMERG_WR)
    def _emergency_write(self, value: int) -> None:
        self._output(bytes([value & 0xFF]))

    def receive(self, kind: str, data: bytes) -> None:
        """Inputs: "rx" is typed, "rx" and a number comes to that port, "size" are two 16-bit
        numbers, columns and rows.
        """
        state = self.state
        if kind == "size" and len(data) == 4:
            state.cols = int.from_bytes(data[:2], "little")
            state.rows = int.from_bytes(data[2:], "little")
            if self.has(F_SIZE):
                self.config_changed()
            return
        number = kind.removeprefix("rx") or "0"
        if not kind.startswith("rx") or number not in map(str, range(len(self.ports) + 1)):
            return
        port = int(number)
        self._set_waiting(port, (self._waiting(port) + data)[:MOST_WAITING])
        if self.running and state.status & spec.DRIVER_OK:
            self.guard(2 * port + 2 if port else RECEIVE, self.service)

    def _waiting(self, port: int) -> bytes:
        return self.state.inputs[port - 1] if port else self.state.waiting

    def _set_waiting(self, port: int, data: bytes) -> None:
        if port:
            self.state.inputs[port - 1] = data
        else:
            self.state.waiting = data

    def service(self, index: int) -> None:
        """Print, hand over what came in, or talk about ports."""
        if index > TRANSMIT and not self.has(F_MULTIPORT):
            return
        if index == CONTROL_RECEIVE:
            self._send_messages()
        elif index % 2:
            self._take(index)
        else:
            self._fill(index)

    @staticmethod
    def _port(index: int) -> int:
        """The port that a queue belongs to, not that of messages (5.3.2)."""
        return index // 2 - 1 if index > TRANSMIT else 0

    def _take(self, index: int) -> None:
        queue = self.queues[index]
        for _ in range(queue.state.size):
            chain = queue.pop()
            if chain is None:
                break
            control = index == CONTROL_TRANSMIT
            kind = "control" if control else "tx"
            request = self.begin(index, chain, kind, length=chain.readable_bytes, write=True)
            data = chain.read() if chain.readable_bytes else b""
            if control:
                self._message(data)
            elif data and (port := self._port(index)):
                self._port_output(self.ports[port - 1], data)
            elif data:
                self._output(data)
            self.finish(index, chain, 0, request)
        self.interrupt(index)
        if index == CONTROL_TRANSMIT:
            self._send_messages()

    def _fill(self, index: int) -> None:
        queue, port = self.queues[index], self._port(index)
        if not self._waiting(port) or (port and not self.state.opened >> port & 1):
            queue.quiet()
            return
        for _ in range(queue.state.size):
            waiting = self._waiting(port)
            chain = queue.pop() if waiting else None
            if chain is None:
                break
            request = self.begin(index, chain, "rx", length=chain.writable_bytes)
            count = chain.write(waiting[: chain.writable_bytes])
            self._set_waiting(port, waiting[count:])
            self.finish(index, chain, count, request)
        self.interrupt(index)

    # -- ports (5.3.6.2) -------------------------------------------------------------------------

    def _message(self, data: bytes) -> None:
        """What the driver says; to what is no message, or about no port, there is no answer."""
        if len(data) < MESSAGE.size:
            return
        port, event, value = MESSAGE.unpack_from(data)
        if event == DEVICE_READY and value == 1:
            for number in range(len(self.ports) + 1):
                self._say(number, DEVICE_ADD)
        elif event == PORT_READY and value == 1 and port <= len(self.ports):
            if port:
                self._say(port, PORT_NAME, self.ports[port - 1].encode())
            else:
                self._say(port, CONSOLE_PORT)
            self._say(port, PORT_OPEN)
        elif event == PORT_OPEN and port <= len(self.ports):
            opened = self.state.opened & ~(1 << port)
            self.state.opened = opened | (value & 1) << port
            if port and value & 1:
                self._fill(2 * port + 2)

    def _say(self, port: int, event: int, name: bytes = b"") -> None:
        messages = self.state.messages
        if len(messages) < MOST_MESSAGES:
            messages.append(MESSAGE.pack(port, event, 1) + name)

    def _send_messages(self) -> None:
        queue, messages = self.queues[CONTROL_RECEIVE], self.state.messages
        if not messages:
            queue.quiet()
            return
        while messages:
            chain = queue.pop()
            if chain is None:
                break
            request = self.begin(CONTROL_RECEIVE, chain, "control", length=chain.writable_bytes)
            count = chain.write(messages.pop(0)[: chain.writable_bytes])
            self.finish(CONTROL_RECEIVE, chain, count, request)
        self.interrupt(CONTROL_RECEIVE)

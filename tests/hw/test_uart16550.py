"""16550A: registers, FIFOs, interrupts, loopback, and host input that is never lost."""

from __future__ import annotations

import pytest

from workbench.core.irq import IrqLine
from workbench.core.regs import Explainer
from workbench.hw.uart16550 import Uart16550

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7


class Pc:
    """Plays the guest."""

    def __init__(self) -> None:
        self.sent = b""
        self.edges: list[bool] = []
        self.uart = Uart16550("com1", 0x3F8, IrqLine("IRQ4", self.edges.append), self._send)

    def _send(self, data: bytes) -> None:
        self.sent += data

    def __getitem__(self, reg: int) -> int:
        return self.uart.read(reg, 1)

    def __setitem__(self, reg: int, value: int) -> None:
        self.uart.write(reg, 1, value)

    def type(self, data: bytes) -> None:
        self.uart.receive("rx", data)

    def driver(self) -> None:
        """As an interrupt-driven driver sets it up: FIFO with trigger level 8, OUT2, data
        interrupt.
        """
        self[FCR] = 0x87
        self[MCR] = 0x0B
        self[IER] = 0x01

    def drain(self) -> bytes:
        data = b""
        while self[LSR] & 1:
            data += bytes([self[RBR]])
        return data


def test_reset_values() -> None:
    pc = Pc()
    assert [pc[r] for r in (IER, IIR, LCR, MCR, LSR, MSR)] == [0, 1, 0, 0, 0x60, 0xB0]


def test_output_is_immediate() -> None:
    pc = Pc()
    for byte in b"hello":
        assert pc[LSR] == 0x60
        pc[THR] = byte
    assert pc.sent == b"hello"


def test_divisor_latch_and_scratch() -> None:
    pc = Pc()
    pc[LCR] = 0x83
    pc.uart.write(DLL, 2, 0x0180)
    assert (pc[DLL], pc[DLM]) == (0x80, 0x01)
    pc[LCR] = 0x03
    assert pc.sent == b""
    pc[IER] = 0xFF
    assert pc[IER] == 0x0F
    pc[SCR] = 0xA5
    assert pc[SCR] == 0xA5


def test_fifo_is_detected_as_16550a() -> None:
    pc = Pc()
    assert pc[IIR] == 0x01
    pc[FCR] = 0x01
    assert pc[IIR] == 0xC1
    pc[FCR] = 0x21
    assert pc[IIR] == 0xC1  # no 64-byte FIFO


def test_thr_empty_interrupt() -> None:
    pc = Pc()
    pc[MCR] = 0x08
    pc[IER] = 0x02
    assert pc.edges == [True]
    assert pc[IIR] == 0x02
    assert pc.edges == [True, False]
    assert pc[IIR] == 0x01
    pc[THR] = 0x41
    assert pc.edges == [True, False, True]
    pc[IER] = 0
    assert pc.edges[-1] is False
    pc[IER] = 2
    assert pc.edges[-1] is True


def test_interrupt_is_gated_by_out2() -> None:
    pc = Pc()
    pc[IER] = 0x02
    assert pc.edges == []
    assert pc[IIR] == 0x02
    pc[THR] = 1
    pc[MCR] = 0x08
    assert pc.edges == [True]


def test_received_data_interrupt_and_timeout() -> None:
    pc = Pc()
    pc.driver()
    pc.type(b"a")
    assert pc.edges == [True]
    assert pc[IIR] == 0xCC
    pc.type(b"bcdefghi")
    assert pc[IIR] == 0xC4
    assert pc.drain() == b"abcdefghi"
    assert pc.edges == [True, False]
    assert pc[IIR] == 0xC1


def test_long_input_passes_the_fifo_in_order() -> None:
    pc = Pc()
    pc.driver()
    data = bytes(range(256)) * 3
    pc.type(data)
    assert len(pc.uart.state.fifo) == 16
    assert pc.drain() == data
    assert pc.edges == [True, False]


def test_without_fifo_one_byte_at_a_time() -> None:
    pc = Pc()
    pc[MCR] = 0x08
    pc[IER] = 0x01
    pc.type(b"xy")
    assert len(pc.uart.state.fifo) == 1
    assert pc[IIR] == 0x04
    assert pc.drain() == b"xy"


def test_input_typed_before_the_driver_is_there_waits() -> None:
    """The probing of a driver reads RBR and resets the FIFOs; nothing typed may be lost."""
    pc = Pc()
    pc.type(b"ls\n")
    for _ in range(3):
        pc[LSR]
        pc[THR] = 0x2E  # a boot message: one LSR read for each byte
    for reg in (LSR, RBR, IIR, MSR, LSR, RBR):
        pc[reg]
    pc.driver()
    assert pc.drain() == b"ls\n"


def test_polling_guest_gets_its_input() -> None:
    pc = Pc()
    pc.type(b"ok")
    assert pc[LSR] == 0x60
    assert pc[LSR] == 0x61
    assert pc[RBR] == ord("o")
    assert pc[LSR] == 0x61  # it has shown that it reads
    assert pc[RBR] == ord("k")
    assert pc[RBR] == 0


def test_fifo_reset_loses_nothing() -> None:
    pc = Pc()
    pc.driver()
    pc.type(bytes(range(20)))
    pc[IER] = 0
    pc[FCR] = 0x87
    assert pc.uart.state.fifo == []
    pc[IER] = 1
    assert pc.drain() == bytes(range(20))


def test_loopback() -> None:
    pc = Pc()
    pc[FCR] = 0x01
    pc[MCR] = 0x1A  # LOOP, OUT2, RTS: the probe of Linux
    assert pc[MSR] & 0xF0 == 0x90
    pc[MCR] = 0x1F
    assert pc[MSR] & 0xF0 == 0xF0
    pc[THR] = 0x55
    assert pc.sent == b""
    assert pc[LSR] == 0x61
    assert pc[RBR] == 0x55
    for byte in range(17):
        pc[THR] = byte
    assert pc[LSR] & 2
    assert not pc[LSR] & 2


def test_loopback_keeps_host_input_out() -> None:
    pc = Pc()
    pc[FCR] = 0x01
    pc[IER] = 0x01
    pc[MCR] = 0x10
    pc.type(b"q")
    assert pc[LSR] & 1 == 0
    pc[MCR] = 0x03
    assert pc.drain() == b"q"


def test_modem_status_deltas() -> None:
    pc = Pc()
    pc[MCR] = 0x10
    assert pc[MSR] == 0x0B  # CTS, DSR, DCD fell
    assert pc[MSR] == 0x00
    pc[MCR] = 0x14
    assert pc[MSR] == 0x40
    pc[MCR] = 0x10
    assert pc[MSR] == 0x04  # TERI: trailing edge of RI
    pc[IER] = 0x08
    pc[MCR] = 0x11
    assert pc[IIR] & 0x0F == 0x00
    pc[MSR]
    assert pc[IIR] & 0x0F == 0x01


def test_break_shows_in_lsr_once() -> None:
    pc = Pc()
    pc.driver()
    pc[IER] = 0x05
    pc.uart.receive("break", b"")
    assert pc[IIR] == 0xC6
    assert pc[LSR] == 0xF1
    assert pc[RBR] == 0
    assert pc[LSR] == 0x60


def test_reset_keeps_input_that_waits() -> None:
    pc = Pc()
    pc.driver()
    pc.type(bytes(20))
    pc.uart.reset()
    assert len(pc.uart.state.backlog) == 20
    assert pc[IER] == 0


def test_unknown_input_is_ignored() -> None:
    pc = Pc()
    pc.uart.receive("resize", b"80x25")
    assert pc.uart.state.backlog == []


@pytest.mark.parametrize(
    ("access", "words"),
    [
        ((THR, 1, 0x41, True), "THR=0x41"),
        ((IIR, 1, 0xC1, False), "IIR[ID=none FIFO=3]"),
        ((FCR, 1, 0x87, True), "FCR[ENABLE=1 RFR=1 XFR=1 TRIGGER=8]"),
        ((LSR, 1, 0x60, False), "LSR[THRE=1 TEMT=1]"),
    ],
)
def test_words(access: tuple[int, int, int, bool], words: str) -> None:
    assert Explainer(Uart16550.MAP).explain(*access) == words


def test_words_follow_dlab() -> None:
    explainer = Explainer(Uart16550.MAP)
    assert explainer.explain(LCR, 1, 0x83, write=True) == "LCR[WLS=8 DLAB=1]"
    assert explainer.explain(DLL, 1, 1, write=True) == "DLL=0x01"

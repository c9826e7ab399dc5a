"""The one-register devices: ports 0x61, 0x80, 0x92, 0xE9, 0xF4."""

from __future__ import annotations

from workbench.core.clock import Clock
from workbench.core.irq import IrqLine
from workbench.hw.debugcon import DebugCon
from workbench.hw.debugexit import DebugExit
from workbench.hw.i8254 import I8254
from workbench.hw.port61 import Port61
from workbench.hw.port80 import Port80
from workbench.hw.port92 import Port92


def test_port_61_drives_the_gate() -> None:
    pit = I8254(Clock(), IrqLine("IRQ0", lambda level: None))
    port = Port61(pit)
    port.write(0, 1, 0xFF)
    assert port.read(0, 1) & 0xDF == 0x0F
    assert pit.gate(2)
    port.write(0, 1, 0xFE)
    assert not pit.gate(2)


def test_port_80_reads_back() -> None:
    port = Port80()
    port.write(0, 1, 0x5A)
    assert port.read(0, 1) == 0x5A


def test_port_92() -> None:
    resets: list[str] = []
    a20: list[bool] = []
    port = Port92(resets.append, IrqLine("A20", a20.append))
    assert port.read(0, 1) == 2
    port.write(0, 1, 0)
    port.write(0, 1, 2)
    assert (a20, resets) == ([False, True], [])
    port.write(0, 1, 3)
    port.write(0, 1, 3)
    assert resets == ["port 0x92"]
    assert port.map.explain(0, 1, 3, write=True) == "SCPA[FAST_INIT=1 A20=1]"


def test_debug_exit() -> None:
    calls: list[tuple[int, str]] = []
    port = DebugExit(lambda code, reason: calls.append((code, reason)))
    port.write(0, 1, 0)
    port.write(0, 4, 0x10)
    assert calls == [(1, "debug exit with 0x0"), (0x21, "debug exit with 0x10")]


def test_debug_console() -> None:
    sent: list[bytes] = []
    port = DebugCon(sent.append)
    assert port.read(0, 1) == 0xE9
    port.write(0, 1, 0x41)
    assert sent == [b"A"]

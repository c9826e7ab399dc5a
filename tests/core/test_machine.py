"""Machine: when interrupts and inputs land."""

from __future__ import annotations

import pytest

from workbench.core.bus import Window
from workbench.core.config import MachineConfig
from workbench.core.machine import Machine, Observer

CODE, ISR, PORT, VECTOR = 0x1000, 0x2000, 0x10, 0x20


class OneLine:
    """A controller with one line, raised by a write to its port and lowered when acknowledged."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.level = False
        machine.irq = self
        machine.pio.map(Window("line", "line", PORT, 1, self.read, self.write))

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self.level = True
        self.machine.set_intr(True)

    def pending(self) -> bool:
        return self.level

    def acknowledge(self) -> int:
        self.level = False
        self.machine.set_intr(False)
        return VECTOR


class Interrupts(Observer):
    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_interrupt(self, vector: int, icount: int, pc: int) -> None:
        self.seen.append((icount, pc))


def real_mode(code: str) -> Machine:
    machine = Machine(MachineConfig(ram_bytes=1 << 20))
    machine.memory.write(CODE, bytes.fromhex(code))
    machine.memory.write(ISR, bytes.fromhex("cf"))  # iret
    machine.memory.write(VECTOR * 4, ISR.to_bytes(4, "little"))
    machine.cpu.set_segment("cs", 0, 0, 0xFFFF, 0x9B)
    machine.cpu.set("rip", CODE)
    machine.cpu.set("rsp", 0x8000)
    return machine


@pytest.mark.parametrize("cut", [None, 2, 3])
def test_interrupt_of_an_access_comes_right_behind_its_instruction(cut: int | None) -> None:
    # sti; nop; out 0x10, al; inc bx; inc bx; inc bx; hlt
    machine = real_mode("fb 90 e6 10 43 43 43 f4")
    OneLine(machine)
    watcher = Interrupts()
    machine.observers.append(watcher)
    if cut is not None:
        machine.run(cut)
    machine.run(8)
    assert watcher.seen == [(3, CODE + 4)]


def test_an_input_is_taken_once_at_a_moment() -> None:
    machine = real_mode("90 90 90 90 f4")
    taken: list[tuple[int, bytes]] = []
    machine.inputs.register("x", lambda kind, data: taken.append((machine.clock.icount, data)))
    machine.run(2)
    machine.inputs.post("x", "k", b"late")  # the moment (2, t) is over
    machine.run(2)
    assert taken == []
    machine.run(3)
    assert taken == [(3, b"late")]

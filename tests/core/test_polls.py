"""Reads that the processor makes itself: the same run as with reads that leave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from workbench.core.bus import Window
from workbench.core.config import MachineConfig
from workbench.core.machine import Machine, Observer
from workbench.core.polls import Polls, Steady

CODE, ISR, TIMER_PORT, DATA_PORT, VECTOR, GPA = 0x1000, 0x2000, 0x40, 0x50, 0x20, 0x10_0000
HZ, MASK = 3_579_545, 0xFFFFFF
PERIOD_PS = 700_000_000


class Chip:
    """A timer that can be read, a status that each period changes, and an interrupt with it."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.name, self.status, self.level = machine, "chip", 0, False
        machine.irq = self
        timer = Window("timer", "chip", TIMER_PORT, 4, self._timer, self._ignore)
        timer.steady = lambda offset, size: Steady(5, HZ, MASK) if size == 4 else None
        status = Window("status", "chip", GPA, 8, lambda o, n: self.status, self._ignore)
        status.steady = lambda offset, size: Steady(self.status) if not offset else None
        machine.pio.map(timer)
        machine.pio.map(Window("data", "chip", DATA_PORT, 4, self._timer, self._ignore))
        machine.mmio.map(status)
        self.tick = machine.clock.timer("chip", self._tick)
        self.tick.arm(PERIOD_PS)
        machine.inputs.register("chip", self._input)
        machine.attach(self)

    def reset(self) -> None: ...

    def save(self) -> dict[str, Any]:
        return {"status": self.status, "level": self.level}

    def restore(self, state: dict[str, Any]) -> None:
        self.status, self.level = state["status"], state["level"]

    def _input(self, kind: str, data: bytes) -> None:
        self.status += 0x100

    def _tick(self) -> None:
        self.status += 1
        self.level = True
        self.machine.set_intr(True)
        self.tick.arm(self.tick.fired_ps + PERIOD_PS)

    def _timer(self, offset: int, size: int) -> int:
        now = self.machine.clock.now_ps
        return (now * HZ // 10**12 + 5 & MASK) >> 8 * offset & (1 << 8 * size) - 1

    def _ignore(self, offset: int, size: int, value: int) -> None: ...

    def pending(self) -> bool:
        return self.level

    def acknowledge(self) -> int:
        self.level = False
        self.machine.set_intr(False)
        return VECTOR


class Log(Observer):
    def __init__(self, each: bool) -> None:
        self.each_access = each
        self.events: list[tuple[Any, ...]] = []
        self.inputs: list[Any] = []
        self.batches = 0

    def on_access(self, *args: Any, **kwargs: Any) -> None:
        self.events.append(args[:9])

    def on_polls(self, polls: Polls) -> None:
        self.batches += 1
        super().on_polls(polls)

    def on_interrupt(self, vector: int, icount: int, pc: int) -> None:
        self.events.append((vector, icount, pc))

    def on_input(self, inp: Any) -> None:
        self.events.append((inp.icount, inp.time_ps))
        self.inputs.append(inp)


LOOPS = {
    # sti; mov dx, 0x40; mov ax, 0xffff; mov ds, ax;
    # l: in eax, dx; inc ebx; mov ecx, [0x10]; add esi, ecx; add edi, eax; jmp l
    "both": "fb ba4000 b8ffff 8ed8 66ed 6643 668b0e1000 6601ce 6601c7 ebee",
    # l: in eax, dx; add edi, eax; xor ebp, edi; jmp l
    "timer": "fb ba4000 66ed 6601c7 6631fd ebf6",
    # mov ax, 0xffff; mov ds, ax; l: add edi, [0x10]; jmp l
    "status": "fb b8ffff 8ed8 66033e1000 ebf9",
    # the last bytes of a slow instruction before it, and a status that crosses nothing
    # l: in eax, dx; push dword [0x10]; pop ecx; in al, dx; add edi, ecx; rdtsc; add ebp, eax; jmp l
    "mixed": "fb ba4000 b8ffff 8ed8 66ed 66ff361000 6659 ec 6601cf 0f31 6601c5 ebec",
}


def machine_of(loop: str, each: bool) -> tuple[Machine, Log]:
    machine = Machine(MachineConfig(ram_bytes=1 << 20))
    Chip(machine)
    machine.memory.write(CODE, bytes.fromhex(LOOPS[loop]))
    machine.memory.write(ISR, bytes.fromhex("6640 cf"))  # inc eax; iret
    machine.memory.write(VECTOR * 4, ISR.to_bytes(4, "little"))
    machine.cpu.set_segment("cs", 0, 0, 0xFFFF, 0x9B)
    machine.cpu.set("rip", CODE)
    machine.cpu.set("rsp", 0x8000)
    log = Log(each)
    machine.observers.append(log)
    return machine, log


def slices(end: int, step: int) -> Iterator[int]:
    yield from range(step, end, step)
    yield end


@pytest.mark.parametrize("loop", LOOPS)
def test_the_same_run_as_with_reads_that_leave(loop: str) -> None:
    end = 20_000
    plain, expected = machine_of(loop, True)
    plain.run(end)
    assert expected.batches == 0
    for step in (end, 9_973, 61):
        machine, log = machine_of(loop, False)
        for until in slices(end, step):
            machine.run(until)
        assert log.events == expected.events
        assert machine.digest() == plain.digest()
        assert machine.pio.find(TIMER_PORT).reads == plain.pio.find(TIMER_PORT).reads
        if step == end and loop in ("timer", "status"):
            assert len(expected.events) > 100 * log.batches > 0


@pytest.mark.parametrize("loop", ["timer", "status", "both"])
@pytest.mark.parametrize("each", [False, True])
def test_inputs_come_where_they_came(loop: str, each: bool) -> None:
    machine, log = machine_of(loop, each)
    for n in range(40):
        machine.inputs.schedule(PERIOD_PS // 9 * n + 77_777 * n, "chip", "tick", b"")
    for until in slices(20_000, 511):
        machine.run(until)
        machine.inputs.post("chip", "key", b"x")
    assert len(log.inputs) > 30
    for other in (False, True):
        again, heard = machine_of(loop, other)
        again.inputs.replay(log.inputs)
        again.run(20_000)
        assert heard.events == log.events
        assert again.digest() == machine.digest()


def test_no_reads_beside_watchpoints() -> None:
    machine, log = machine_of("status", False)
    machine.cpu.set("watching", 1)
    machine.run(5_000)
    assert log.batches == 0


def test_a_snapshot_has_no_offer() -> None:
    machine, log = machine_of("timer", False)
    machine.run(10_000)
    then = machine.save()
    machine.run(20_000)
    digest, count = machine.digest(), len(log.events)
    machine.restore(then)
    machine.run(20_000)
    assert machine.digest() == digest
    assert len(log.events) - count < count

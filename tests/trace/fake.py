"""A small deterministic machine with the API of the real one: it makes events of every kind.

Its behaviour depends on its configuration, its guest, and its inputs only, so that it can be
recorded and replayed; `sabotage` changes it at one event, to test the verifier.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from workbench.core.regs import Field, Reg, RegMap
from workbench.trace.guest import Guest

LCR = Reg("LCR", 3, 1, fields=(Field("DLAB", 7),))
UART = RegMap("uart", 8, (Reg("THR", 0, 1), LCR, Reg("LSR", 5, 1)))


@dataclass
class Stop:
    kind: str
    code: int = 0
    reason: str = ""


@dataclass
class Input:
    icount: int
    time_ps: int
    target: str
    kind: str
    data: bytes


class Inputs:
    def __init__(self) -> None:
        self.posted: deque[tuple[str, str, bytes]] = deque()
        self.log: deque[Any] | None = None
        self.wake: Callable[[], None] | None = None

    def post(self, target: str, kind: str, data: bytes) -> None:
        if self.log is None:
            self.posted.append((target, kind, data))
            if self.wake is not None:
                self.wake()

    def replay(self, inputs: Any) -> None:
        self.log = deque(inputs)


class Clock:
    def __init__(self) -> None:
        self.icount = 0

    @property
    def now_ps(self) -> int:
        return self.icount * 1000


class Bus:
    def find(self, addr: int) -> Any:
        return type("W", (), {"regmap": UART})() if 0x3F8 <= addr < 0x400 else None


class Cpu:
    def get(self, name: str) -> int:
        assert name == "rip"
        return 0x1234


class FakeMachine:
    """Makes an event about every 50 instructions until `insns` are done."""

    def __init__(self, config: Mapping[str, Any], guest: Guest) -> None:
        self.observers: list[Any] = []
        self.undefined: dict[bytes, int] = {}
        self.clock = Clock()
        self.cpu = Cpu()
        self.inputs = Inputs()
        self.pio = Bus()
        self.mmio = Bus()
        self.insns = int(config["insns"])
        self.stop = Stop(config.get("stop", "shutdown"), config.get("code", 0), "the guest said so")
        self._random = random.Random(f"{config['seed']} {guest.cmdline}")
        self._state = blake2b(guest.kernel + (guest.initrd or b""), digest_size=32)
        self._next = 10
        self.made = 0
        self.sabotage: Callable[[int, list[Any]], list[Any] | None] = lambda index, args: args
        self.on_slice: Callable[[FakeMachine], None] = lambda machine: None

    def digest(self) -> bytes:
        copy = self._state.copy()
        copy.update(b"%d" % self.clock.icount)
        return copy.digest()

    def interrupt(self) -> None:
        """It never waits."""

    def undefined_opcodes(self) -> list[tuple[str, str, int]]:
        return [(code.hex(" "), "nonsense", times) for code, times in self.undefined.items()]

    def run(self, until_icount: int | None = None, until_ps: int | None = None) -> Stop:
        self.on_slice(self)
        while True:
            self._deliver()
            limit = self.insns if until_icount is None else min(until_icount, self.insns)
            if self._next >= limit:
                self.clock.icount = limit
                if limit == self.insns and (until_icount is None or until_icount > self.insns):
                    return self.stop
                return Stop("icount")
            self.clock.icount = self._next
            self._event()
            self._next += self._random.choice([20, 50, 51, 80])

    def _deliver(self) -> None:
        if self.inputs.log is not None:
            while self.inputs.log and self.inputs.log[0].icount <= self.clock.icount:
                self._input(self.inputs.log.popleft())
        while self.inputs.posted:
            target, kind, data = self.inputs.posted.popleft()
            self._input(Input(self.clock.icount, self.clock.now_ps, target, kind, data))

    def _input(self, inp: Any) -> None:
        self._state.update(inp.data)
        self._emit("on_input", inp)
        self._emit("on_irq_line", "irq4", True, self.clock.icount)

    def _emit(self, name: str, *args: Any) -> None:
        changed = self.sabotage(self.made, [name, *args])
        self.made += 1
        if changed is None:
            return
        for observer in self.observers:
            getattr(observer, changed[0])(*changed[1:])

    def _event(self) -> None:
        rng = self._random
        now = self.clock.icount
        pc = 0xFFFF_FFFF_8100_0000 + 16 * rng.randrange(64)
        value = rng.getrandbits(8)
        self._state.update(b"%d %d" % (now, value))
        choice = rng.random()
        if choice < 0.5:
            self._emit("on_access", "pio", "com1", 5, 1, False, 0x60, 0x3FD, now, pc)
            self._emit("on_access", "pio", "com1", 0, 1, True, value, 0x3F8, now, pc + 2)
            self._emit("on_console", "com1", bytes([32 + value % 90]), now)
        elif choice < 0.7:
            args = ("mmio", "lapic", 0xB0, 4, True, 0, 0xFEE000B0, now, pc, 1)
            self._emit("on_access", *args)
        elif choice < 0.75:
            self._emit("on_access", "pio", "ide", 0, 2, False, 0xFFFF, 0x1F0, now, pc, 256)
            self._emit("on_dma", "ide", value * 4096, 512, True, now)
            self._emit("on_irq_line", "irq14", bool(value & 1), now)
        elif choice < 0.85:
            self._emit("on_interrupt", 0x30 + value % 4, now, pc)
        elif choice < 0.9:
            self._emit("on_exception", 13, 0x18, now, pc, 0)
        else:
            self._emit("on_exit", rng.choice(["hlt", "cpuid", "rdmsr"]), now, pc, -value)


def config(insns: int = 20_000, seed: int = 1, **more: Any) -> dict[str, Any]:
    return {"insns": insns, "seed": seed, **more}


GUEST = Guest(b"MZ kernel" * 1000, b"initrd" * 500, "console=ttyS0", "vmlinuz", "initrd.gz")

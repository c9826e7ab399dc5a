"""The lazily computed 82C54 against one that really ticks, over random operations."""

from __future__ import annotations

import random

import pytest

from workbench.core.clock import Clock
from workbench.core.irq import IrqLine
from workbench.hw.i8254 import I8254, ps_of_tick


class TickingCounter:
    """One counter, clock by clock, from the mode descriptions (LSB only, binary)."""

    def __init__(self) -> None:
        self.mode = 2
        self.gate = False
        self.reload = 0
        self.ce = 0
        self.load_next = False
        self.counting = False
        self.out = True
        self.high = True
        self.left = 0

    def control(self, mode: int) -> None:
        self.mode = mode
        self.counting = self.load_next = False
        self.reload = 0
        self.out = mode != 0

    def write(self, count: int) -> None:
        first = not self.reload
        self.reload = count
        if self.mode in (0, 4):
            self.load_next = True
            if self.mode == 0:
                self.out = False
        elif self.mode in (2, 3):
            self.load_next = self.load_next or first

    def set_gate(self, level: bool) -> None:
        rising = level and not self.gate
        self.gate = level
        if self.mode in (2, 3):
            if not level:
                self.out = True
            elif rising and self.reload:
                self.load_next = True
        elif self.mode in (1, 5) and rising and self.reload:
            self.load_next = True

    def clock(self) -> None:
        if self.load_next:
            self.load_next = False
            self.counting = True
            self.ce = self.reload
            self._start_half(high=True)
            if self.mode == 1:
                self.out = False
            elif self.mode in (4, 5):
                self.out = True
            return
        if not self.counting or (not self.gate and self.mode not in (1, 5)):
            return
        if self.mode == 3:
            self.left -= 1
            self.ce -= 2
            if not self.left:
                self._start_half(high=not self.high)
                self.out = self.high
            return
        self.ce = (self.ce - 1) & 0xFFFF
        match self.mode:
            case 0 | 1:
                self.out = self.out or self.ce == 0
            case 2:
                if self.ce == 0:
                    self.ce = self.reload
                self.out = self.ce != 1
            case _:
                self.out = self.ce != 0

    def _start_half(self, *, high: bool) -> None:
        if self.mode == 3:
            self.high = high
            self.left = (self.reload + high) // 2
            self.ce = self.reload & ~1


@pytest.mark.parametrize("mode", range(6))
@pytest.mark.parametrize("seed", range(25))
def test_same_out_and_count(mode: int, seed: int) -> None:
    rng = random.Random(seed * 6 + mode)
    clock = Clock(1)
    pit = I8254(clock, IrqLine("IRQ0", lambda level: None))
    model = TickingCounter()
    tick = 0
    history: list[object] = []

    def advance(count: int) -> None:
        nonlocal tick
        for _ in range(count):
            tick += 1
            model.clock()
            clock.skip_to(ps_of_tick(tick))
            assert pit.out(2) is model.out, (history, tick)
            if model.counting and not model.load_next:
                pit.write(3, 1, 0x80)
                assert pit.read(2, 1) == model.ce & 0xFF, (history, tick)

    def start() -> None:
        history.append((tick, "control"))
        model.control(mode)
        pit.write(3, 1, 0x90 | mode << 1)
        write()

    def write() -> None:
        count = rng.randrange(2, 13)
        history.append((tick, "count", count))
        model.write(count)
        pit.write(2, 1, count)

    start()
    for _ in range(40):
        advance(rng.randrange(1, 16))
        match rng.randrange(6):
            case 0:
                start()
            case 1 | 2:
                write()
            case _:
                level = rng.random() < 0.7
                history.append((tick, "gate", level))
                model.set_gate(level)
                pit.set_gate(2, level)

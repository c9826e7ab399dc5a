"""82C54: the modes tick by tick, latches, read-back, BCD, gates, IRQ0."""

from __future__ import annotations

import pytest

from workbench.core.clock import PS_PER_SECOND, Clock
from workbench.core.irq import IrqLine
from workbench.hw.i8254 import I8254, ps_of_tick, tick_of_ps
from workbench.hw.port61 import Port61


class Pc:
    """Plays the guest; time moves only by `to`."""

    def __init__(self) -> None:
        self.clock = Clock(1)
        self.edges: list[tuple[int, bool]] = []
        line = IrqLine("IRQ0", lambda level: self.edges.append((self.pit.tick(), level)))
        self.pit = I8254(self.clock, line)
        self.port61 = Port61(self.pit)

    def to(self, tick: int) -> None:
        """Advance to a tick, stopping at each deadline on the way as a run loop does."""
        target = ps_of_tick(tick)
        while (due := self.clock.next_ps) is not None and due <= target:
            self.clock.skip_to(due)
            self.clock.run_due()
        self.clock.skip_to(target)

    def out(self, port: int, *values: int) -> None:
        for value in values:
            self.pit.write(port, 1, value)

    def count(self, counter: int) -> int:
        self.out(3, counter << 6)
        return self.pit.read(counter, 1) | self.pit.read(counter, 1) << 8

    def outs(self, counter: int, ticks: range) -> str:
        text = ""
        for tick in ticks:
            self.to(tick)
            text += "-" if self.pit.out(counter) else "_"
        return text


def test_frequency() -> None:
    assert tick_of_ps(PS_PER_SECOND * 88) == 105_000_000
    for tick in (1, 7, 1000, 123_456_789):
        assert tick_of_ps(ps_of_tick(tick)) == tick
        assert tick_of_ps(ps_of_tick(tick) - 1) == tick - 1


def test_mode_0_goes_high_n_plus_1_ticks_after_the_write() -> None:
    """82C54, figure 15: LSB = 4."""
    pc = Pc()
    pc.out(3, 0x10)
    assert not pc.pit.out(0)
    pc.out(0, 4)
    assert pc.outs(0, range(8)) == "_____---"


def test_mode_0_counts_down_and_wraps() -> None:
    pc = Pc()
    pc.out(3, 0x30)
    pc.out(0, 3, 0)
    pc.to(1)
    assert pc.count(0) == 3
    pc.to(3)
    assert pc.count(0) == 1
    pc.to(6)
    assert pc.count(0) == 0xFFFE


def test_mode_0_first_byte_stops_the_counter() -> None:
    pc = Pc()
    pc.out(3, 0x30)
    pc.out(0, 2, 0)
    pc.to(9)
    assert pc.pit.out(0)
    pc.out(0, 5)
    assert not pc.pit.out(0)
    pc.to(20)
    pc.out(0, 0)
    assert pc.outs(0, range(20, 28)) == "______--"


def test_mode_0_gate_pauses() -> None:
    pc = Pc()
    pc.port61.write(0, 1, 1)
    pc.out(3, 0x90)
    pc.out(2, 4)
    pc.to(3)
    pc.port61.write(0, 1, 0)
    pc.to(50)
    assert not pc.pit.out(2)
    pc.port61.write(0, 1, 1)
    assert pc.outs(2, range(50, 55)) == "__---"


def test_mode_1_one_shot_is_retriggerable() -> None:
    """82C54, figure 16: count 3."""
    pc = Pc()
    pc.out(3, 0x92)
    pc.out(2, 3)
    assert pc.outs(2, range(3)) == "---"
    pc.pit.set_gate(2, True)
    assert pc.outs(2, range(3, 8)) == "___--"
    pc.pit.set_gate(2, False)
    pc.pit.set_gate(2, True)
    pc.to(9)
    pc.pit.set_gate(2, False)
    pc.pit.set_gate(2, True)
    assert pc.outs(2, range(10, 15)) == "___--"


def test_mode_2_divides_by_n() -> None:
    """82C54, figure 17: count 3, OUT low while the count is 1."""
    pc = Pc()
    pc.out(3, 0x14)
    pc.out(0, 3)
    assert pc.outs(0, range(1, 10)) == "--_--_--_"
    pc.to(10)
    assert pc.pit.read(0, 1) == 3
    pc.to(12)
    assert pc.pit.read(0, 1) == 1


def test_mode_2_new_count_waits_for_the_end_of_the_period() -> None:
    pc = Pc()
    pc.out(3, 0x14)
    pc.out(0, 4)
    pc.to(2)
    pc.out(0, 3)
    assert pc.outs(0, range(2, 12)) == "--_--_--_-"


def test_mode_2_gate_restarts() -> None:
    pc = Pc()
    pc.pit.set_gate(2, True)
    pc.out(3, 0x94)
    pc.out(2, 4)
    pc.to(3)
    pc.pit.set_gate(2, False)
    assert pc.pit.out(2)
    pc.to(20)
    assert pc.pit.out(2)
    pc.pit.set_gate(2, True)
    assert pc.outs(2, range(21, 29)) == "---_---_"


def test_mode_3_even_and_odd() -> None:
    """82C54, figure 18: counts 4 and 5."""
    pc = Pc()
    pc.out(3, 0x16)
    pc.out(0, 4)
    assert pc.outs(0, range(1, 9)) == "--__--__"
    values = []
    for tick in range(9, 13):
        pc.to(tick)
        values.append(pc.pit.read(0, 1))
    assert values == [4, 2, 4, 2]
    pc = Pc()
    pc.out(3, 0x16)
    pc.out(0, 5)
    assert pc.outs(0, range(1, 11)) == "---__---__"
    values = []
    for tick in range(11, 16):
        pc.to(tick)
        values.append(pc.pit.read(0, 1))
    assert values == [4, 2, 0, 4, 2]


def test_mode_3_new_count_waits_for_the_half_period() -> None:
    pc = Pc()
    pc.out(3, 0x16)
    pc.out(0, 8)
    pc.to(2)
    pc.out(0, 4)
    assert pc.outs(0, range(2, 13)) == "---__--__--"


def test_mode_4_strobes_once() -> None:
    """82C54, figure 19: count 3."""
    pc = Pc()
    pc.out(3, 0x18)
    pc.out(0, 3)
    assert pc.outs(0, range(8)) == "----_---"


def test_mode_5_strobes_after_the_gate() -> None:
    pc = Pc()
    pc.out(3, 0x9A)
    pc.out(2, 3)
    assert pc.outs(2, range(6)) == "------"
    pc.pit.set_gate(2, True)
    assert pc.outs(2, range(6, 12)) == "---_--"


def test_latch_holds_until_read_and_a_second_latch_is_ignored() -> None:
    pc = Pc()
    pc.out(3, 0x34)
    pc.out(0, 0, 0x10)
    pc.to(1)
    pc.out(3, 0x00)
    pc.to(100)
    pc.out(3, 0x00)
    assert pc.pit.read(0, 1) | pc.pit.read(0, 1) << 8 == 0x1000
    assert pc.count(0) == 0x1000 - 99


def test_read_back_of_status_and_count() -> None:
    pc = Pc()
    pc.out(3, 0x36)
    pc.out(3, 0xE2)
    assert pc.pit.read(0, 1) == 0xF6  # OUT, null count, both bytes, mode 3
    pc.out(0, 0, 1)
    pc.to(3)
    pc.out(3, 0xC2)
    assert pc.pit.read(0, 1) == 0xB6
    assert pc.pit.read(0, 1) | pc.pit.read(0, 1) << 8 == 0x100 - 4


def test_bcd() -> None:
    pc = Pc()
    pc.out(3, 0x31)
    pc.out(0, 0x00, 0x10)
    pc.to(2)
    assert pc.count(0) == 0x0999
    pc.out(3, 0x31)
    pc.out(0, 0, 0)
    pc.to(4)
    assert pc.count(0) == 0x9999


def test_single_byte_access() -> None:
    pc = Pc()
    pc.out(3, 0x24)
    pc.out(0, 2)
    pc.to(1)
    assert pc.pit.read(0, 1) == 2
    assert pc.pit.state.counter[0].count == 0x200


def test_irq0_in_mode_2_pulses_each_period() -> None:
    pc = Pc()
    pc.out(3, 0x34)
    pc.out(0, 100, 0)
    pc.to(350)
    assert pc.edges == [(t, up) for t in (101, 201, 301) for up in (False, True)]


def test_irq0_in_mode_0_rises_once() -> None:
    pc = Pc()
    pc.out(3, 0x30)
    pc.out(0, 100, 0)
    pc.to(1000)
    assert pc.edges == [(0, False), (101, True)]
    assert pc.clock.next_ps is None


def test_irq0_in_mode_3_is_a_square_wave() -> None:
    pc = Pc()
    pc.out(3, 0x36)
    pc.out(0, 10, 0)
    pc.to(21)
    assert pc.edges == [(6, False), (11, True), (16, False), (21, True)]


def test_one_shot_of_linux_uses_mode_4() -> None:
    pc = Pc()
    pc.out(3, 0x38)
    pc.out(0, 50, 0)
    pc.to(500)
    assert pc.edges == [(52, False), (52, True)]


def test_calibration_with_port_61() -> None:
    """Linux: gate on, mode 0, wait for OUT2 with port 0x61 bit 5."""
    pc = Pc()
    pc.port61.write(0, 1, pc.port61.read(0, 1) & ~2 | 1)
    pc.out(3, 0xB0)
    pc.out(2, 0xFF, 0x00)
    assert not pc.port61.read(0, 1) & 0x20
    pc.to(255)
    assert not pc.port61.read(0, 1) & 0x20
    pc.to(256)
    assert pc.port61.read(0, 1) & 0x20


def test_refresh_toggles() -> None:
    pc = Pc()
    seen = []
    for tick in (0, 17, 18, 35, 36):
        pc.to(tick)
        seen.append(pc.port61.read(0, 1) >> 4 & 1)
    assert seen == [0, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0x34, "CW[M=mode2 RW=lsb+msb]"),
        (0xB0, "CW[M=mode0 RW=lsb+msb SC=2]"),
        (0x40, "LATCH[SC=1]"),
        (0xC2, "RBC[CNT=1 STATUS#=latch COUNT#=latch RBC=3]"),
    ],
)
def test_words(value: int, words: str) -> None:
    assert I8254.MAP.explain(3, 1, value, write=True) == words

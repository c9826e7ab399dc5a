"""8259A pair: initialization, priorities, end of interrupt, modes, cascade, spurious interrupts."""

from __future__ import annotations

import pytest

from workbench.core.bus import Bus, Window
from workbench.core.irq import IrqLine
from workbench.core.regs import Explainer
from workbench.hw.i8259 import I8259, I8259Pair

M0, M1, S0, S1 = 0x20, 0x21, 0xA0, 0xA1


class Pc:
    """Plays the guest."""

    def __init__(self, *, icw4: int = 1, mask: int = 0, ltim: int = 0) -> None:
        self.edges: list[bool] = []
        self.pic = I8259Pair(IrqLine("INTR", self.edges.append))
        self.bus = Bus("pio", 0x10000)
        for window in self.pic.windows():
            self.bus.map(window)
        for c0, c1, base, cascade in ((M0, M1, 0x20, 4), (S0, S1, 0x28, 2)):
            self.out(c0, 0x11 | ltim)
            self.out(c1, base)
            self.out(c1, cascade)
            self.out(c1, icw4)
            self.out(c1, mask)

    def out(self, port: int, value: int) -> None:
        self.bus.write(port, 1, value)

    def inb(self, port: int) -> int:
        return self.bus.read(port, 1)

    def irq(self, number: int, level: bool = True) -> None:
        self.pic.set_irq(number, level)

    def take(self) -> int:
        return self.pic.acknowledge()

    def irr(self, port: int = M0) -> int:
        self.out(port, 0x0A)
        return self.inb(port)

    def isr(self, port: int = M0) -> int:
        self.out(port, 0x0B)
        return self.inb(port)


def test_vector_and_in_service() -> None:
    pc = Pc()
    pc.irq(4)
    assert pc.pic.pending()
    assert pc.irr() == 0x10
    assert pc.take() == 0x24
    assert (pc.irr(), pc.isr()) == (0, 0x10)
    assert not pc.pic.pending()
    pc.out(M0, 0x20)
    assert pc.isr() == 0
    assert pc.edges == [True, False]


def test_edge_input_asks_once() -> None:
    pc = Pc()
    pc.irq(4)
    pc.take()
    pc.out(M0, 0x20)
    assert not pc.pic.pending()
    pc.irq(4, False)
    pc.irq(4)
    assert pc.pic.pending()


def test_edge_request_goes_with_the_input() -> None:
    pc = Pc()
    pc.irq(4)
    pc.irq(4, False)
    assert not pc.pic.pending()
    assert pc.take() == 0x27
    assert pc.isr() == 0


def test_level_input_asks_until_it_falls() -> None:
    pc = Pc()
    pc.out(0x4D0, 0xFF)
    assert pc.inb(0x4D0) == 0xF8
    pc.irq(5)
    assert pc.take() == 0x25
    pc.out(M0, 0x20)
    assert pc.pic.pending()
    pc.irq(5, False)
    assert not pc.pic.pending()


def test_elcr_of_the_slave_has_fixed_bits() -> None:
    pc = Pc()
    pc.bus.write(0x4D0, 2, 0xFFFF)
    assert pc.bus.read(0x4D0, 2) == 0xDEF8


def test_ltim_makes_all_inputs_level() -> None:
    pc = Pc(ltim=8)
    pc.irq(3)
    pc.take()
    pc.out(M0, 0x20)
    assert pc.pic.pending()


def test_fully_nested_priorities() -> None:
    pc = Pc()
    pc.irq(5)
    assert pc.take() == 0x25
    pc.irq(6)
    assert not pc.pic.pending()
    pc.irq(1)
    assert pc.take() == 0x21
    pc.out(M0, 0x20)
    assert pc.isr() == 0x20
    pc.out(M0, 0x20)
    assert pc.take() == 0x26


def test_mask() -> None:
    pc = Pc(mask=0xFF)
    pc.irq(1)
    assert not pc.pic.pending()
    assert pc.inb(M1) == 0xFF
    pc.out(M1, 0xFD)
    assert pc.pic.pending()
    pc.out(M1, 0xFF)
    assert not pc.pic.pending()


def test_cascade() -> None:
    pc = Pc()
    pc.irq(14)
    assert pc.irr() == 0x04
    assert pc.take() == 0x2E
    assert (pc.isr(), pc.isr(S0)) == (0x04, 0x40)
    pc.out(S0, 0x20)
    pc.out(M0, 0x20)
    assert (pc.isr(), pc.isr(S0)) == (0, 0)


def test_second_slave_request_waits_for_eoi() -> None:
    pc = Pc()
    pc.irq(14)
    pc.take()
    pc.irq(15)
    assert not pc.pic.pending()
    pc.out(S0, 0x20)
    assert not pc.pic.pending()
    pc.out(M0, 0x20)
    assert pc.take() == 0x2F


def test_higher_slave_request_needs_special_fully_nested_mode() -> None:
    for icw4, passes in ((0x01, False), (0x11, True)):
        pc = Pc(icw4=icw4)
        pc.irq(14)
        pc.take()
        pc.irq(8)
        assert pc.pic.pending() is passes


def test_spurious_of_the_slave() -> None:
    pc = Pc()
    pc.irq(14)
    pc.out(S1, 0xFF)
    assert not pc.pic.pending()
    # The slave withdraws between the request to the CPU and INTA: the master's IR7 is given.
    assert pc.take() == 0x27
    assert (pc.isr(), pc.isr(S0)) == (0, 0)


def test_specific_eoi() -> None:
    pc = Pc()
    pc.irq(5)
    pc.take()
    pc.irq(1)
    pc.take()
    pc.out(M0, 0x65)
    assert pc.isr() == 0x02


def test_automatic_eoi_and_rotation() -> None:
    pc = Pc(icw4=3)
    pc.out(M0, 0x80)
    pc.irq(3)
    assert pc.take() == 0x23
    assert pc.isr() == 0
    # 3 has the lowest priority now, so 4 is the highest.
    pc.irq(3, False)
    pc.irq(3)
    pc.irq(4)
    assert pc.take() == 0x24


def test_automatic_eoi_with_two_slave_requests() -> None:
    pc = Pc(icw4=3)
    pc.irq(14)
    pc.irq(15)
    assert pc.take() == 0x2E
    assert pc.pic.pending()
    assert pc.take() == 0x2F
    assert not pc.pic.pending()


def test_rotate_on_non_specific_eoi() -> None:
    """8259A data sheet, figure 8: IR4 served, then lowest."""
    pc = Pc()
    pc.irq(4)
    pc.irq(6)
    assert pc.take() == 0x24
    pc.out(M0, 0xA0)
    assert pc.pic.master.state.lowest == 4
    pc.irq(1)
    assert pc.take() == 0x26


def test_set_priority() -> None:
    pc = Pc()
    pc.out(M0, 0xC5)
    pc.irq(0)
    pc.irq(6)
    assert pc.take() == 0x26


def test_rotate_on_specific_eoi() -> None:
    pc = Pc()
    pc.irq(2 + 1)
    pc.take()
    pc.out(M0, 0xE3)
    assert (pc.isr(), pc.pic.master.state.lowest) == (0, 3)


def test_special_mask_mode_lets_lower_priorities_in() -> None:
    pc = Pc()
    pc.irq(4)
    pc.take()
    pc.irq(6)
    pc.out(M1, 0x10)
    assert not pc.pic.pending()
    pc.out(M0, 0x68)
    assert pc.take() == 0x26
    pc.out(M0, 0x20)
    assert pc.isr() == 0x10
    pc.out(M0, 0x48)
    assert not pc.pic.master.state.special_mask


def test_poll() -> None:
    pc = Pc()
    pc.irq(5)
    pc.out(M0, 0x0C)
    assert pc.inb(M0) == 0x85
    assert pc.isr() == 0x20
    pc.out(M0, 0x0C)
    assert pc.inb(M0) == 0


def test_icw1_clears_masks_and_edges() -> None:
    pc = Pc(mask=0x55)
    pc.irq(1)
    pc.out(M0, 0x11)
    pc.out(M1, 0x40)
    pc.out(M1, 0x04)
    pc.out(M1, 0x01)
    assert (pc.inb(M1), pc.irr()) == (0, 0)
    pc.irq(1, False)
    pc.irq(1)
    assert pc.take() == 0x41


def test_sequence_without_icw4_and_single() -> None:
    pc = Pc()
    pc.out(M0, 0x12)
    pc.out(M1, 0x50)
    pc.out(M1, 0xAA)
    assert pc.inb(M1) == 0xAA


def test_irq2_has_no_pin() -> None:
    pc = Pc()
    pc.irq(2)
    assert not pc.pic.pending()


def test_restore_makes_no_edge() -> None:
    pc, other = Pc(), Pc()
    pc.irq(3)
    other.pic.restore(pc.pic.save())
    assert other.edges == []
    assert other.pic.pending()
    assert other.take() == 0x23
    assert other.edges == [False]


@pytest.mark.parametrize(
    ("port", "value", "words"),
    [
        (0, 0x11, "ICW1[IC4=1 SNGL=cascade LTIM=edge ICW1=1]"),
        (0, 0x20, "OCW2[CMD=eoi]"),
        (0, 0x63, "OCW2[L=3 CMD=specific-eoi]"),
        (0, 0x0B, "OCW3[RIS=isr RR=1 OCW3=1]"),
        (1, 0xFB, "OCW1=0xfb"),
    ],
)
def test_words(port: int, value: int, words: str) -> None:
    window: Window = Pc().pic.windows()[0]
    assert window.regmap is not None
    assert window.regmap.explain(port, 1, value, write=True) == words


def test_words_follow_the_initialization() -> None:
    explainer = Explainer(I8259.MAP)
    words = [
        explainer.explain(offset, 1, value, write=True)
        for offset, value in ((0, 0x11), (1, 0x30), (1, 0x04), (1, 0x01), (1, 0xFB))
    ]
    assert words[1:] == ["ICW2[T7-3=6]", "ICW3=0x04", "ICW4[uPM=8086]", "OCW1=0xfb"]

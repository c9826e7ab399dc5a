"""Local APIC at register level (SDM volume 3A, chapter 11)."""

from __future__ import annotations

import pytest

from workbench.core.clock import Clock
from workbench.hw.ioapic import Ioapic
from workbench.hw.lapic import (
    DFR,
    EOI,
    ESR,
    ICR_HIGH,
    ICR_LOW,
    ID,
    IRR,
    ISR,
    LDR,
    LVT_ERROR,
    LVT_LINT0,
    LVT_LINT1,
    LVT_TIMER,
    MASKED,
    PPR,
    SVR,
    TDCR,
    TMCCT,
    TMICT,
    TMR,
    TPR,
    VERSION,
    Lapic,
)

ONE_SHOT, PERIODIC, TSC_DEADLINE = 0, 1 << 17, 2 << 17
DIV1 = 0xB
US = 1_000_000


class Rig:
    """A local APIC and what its pins did."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.intr: list[bool] = []
        self.nmis = 0
        self.lapic = Lapic(self.clock, set_intr=self.intr.append, set_nmi=self._nmi)
        self.write(SVR, 0x1FF)

    def _nmi(self) -> None:
        self.nmis += 1

    def write(self, reg, value):
        self.lapic.write(reg.offset, 4, value)

    def read(self, reg):
        return self.lapic.read(reg.offset, 4)

    def message(self, vector, *, level=False, mode=0, destination=0, logical=False):
        return self.lapic.deliver(destination, logical, mode, vector, level)

    def wait(self, ps):
        """Let time pass, firing timers at their deadlines."""
        until = self.clock.now_ps + ps
        while (due := self.clock.next_ps) is not None and due <= until:
            self.clock.skip_to(due)
            self.clock.run_due()
        self.clock.skip_to(until)


@pytest.fixture
def rig():
    return Rig()


def test_identity_after_reset(rig):
    assert rig.read(ID) == 0
    assert rig.read(VERSION) == 0x0005_0014
    rig.lapic.reset()
    assert rig.read(SVR) == 0xFF
    assert rig.read(DFR) == 0xFFFF_FFFF
    for reg in (LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR):
        assert rig.read(reg) == MASKED


def test_interrupt_goes_from_irr_to_isr_and_away_with_eoi(rig):
    rig.message(0x31)
    assert rig.intr == [True]
    assert rig.read(IRR[1]) == 1 << 0x11
    assert rig.lapic.acknowledge() == 0x31
    assert rig.read(IRR[1]) == 0
    assert rig.read(ISR[1]) == 1 << 0x11
    assert rig.read(PPR) == 0x30
    rig.write(EOI, 0)
    assert rig.read(ISR[1]) == 0
    assert rig.read(PPR) == 0
    assert rig.intr == [True, False]


def test_same_class_waits_for_eoi_higher_class_does_not(rig):
    rig.message(0x41)
    assert rig.lapic.acknowledge() == 0x41
    rig.message(0x4F)
    assert not rig.lapic.pending()
    rig.message(0x50)
    assert rig.lapic.acknowledge() == 0x50
    rig.write(EOI, 0)  # ends 0x50
    assert not rig.lapic.pending()
    rig.write(EOI, 0)  # ends 0x41
    assert rig.lapic.acknowledge() == 0x4F


def test_task_priority_holds_back_its_class_and_below(rig):
    rig.write(TPR, 0x40)
    rig.message(0x4F)
    assert not rig.lapic.pending()
    rig.message(0x51)
    assert rig.lapic.acknowledge() == 0x51
    rig.write(EOI, 0)
    rig.lapic.write_cr8(3)
    assert rig.lapic.read_cr8() == 3
    assert rig.read(TPR) == 0x30
    assert rig.lapic.acknowledge() == 0x4F


def test_spurious_vector_when_the_request_went_away(rig):
    rig.write(SVR, 0x1EF)
    rig.message(0x31)
    rig.write(TPR, 0x30)
    assert rig.lapic.acknowledge() == 0xEF
    assert rig.read(ISR[7]) == 0


def test_software_disable_masks_lvts_and_refuses_messages(rig):
    rig.write(LVT_TIMER, 0x40)
    rig.write(SVR, 0xFF)
    assert rig.read(LVT_TIMER) == MASKED | 0x40
    rig.write(LVT_TIMER, 0x40)
    assert rig.read(LVT_TIMER) == MASKED | 0x40
    assert not rig.message(0x31)
    rig.write(SVR, 0x1FF)
    rig.write(LVT_TIMER, 0x40)
    assert rig.read(LVT_TIMER) == 0x40


def test_one_shot_timer(rig):
    rig.write(TDCR, DIV1)
    rig.write(LVT_TIMER, ONE_SHOT | 0x40)
    rig.write(TMICT, 5000)  # 1 GHz: 5 us
    rig.wait(2 * US)
    assert rig.read(TMCCT) == 3000
    rig.wait(3 * US - 1)
    assert rig.intr == []
    assert rig.read(TMCCT) == 1
    rig.wait(1)
    assert rig.lapic.acknowledge() == 0x40
    assert rig.read(TMCCT) == 0
    rig.write(EOI, 0)
    rig.wait(100 * US)
    assert not rig.lapic.pending()


def test_periodic_timer_does_not_drift(rig):
    rig.write(TDCR, 0x3)  # 16
    rig.write(LVT_TIMER, PERIODIC | 0x40)
    rig.write(TMICT, 1000)  # 16 us
    for n in range(1, 5):
        rig.wait(16 * US)
        assert rig.lapic.acknowledge() == 0x40
        rig.write(EOI, 0)
        assert rig.lapic.timer.deadline_ps == (n + 1) * 16 * US
    rig.wait(4 * US)
    assert rig.read(TMCCT) == 750


def test_periodic_timer_that_is_late_skips_what_is_past(rig):
    rig.write(TDCR, DIV1)
    rig.write(LVT_TIMER, PERIODIC | 0x40)
    rig.write(TMICT, 1)
    rig.clock.skip_to(10 * US)
    rig.clock.run_due()
    assert rig.lapic.timer.deadline_ps == 10 * US + 1000


@pytest.mark.parametrize(
    ("code", "divide"),
    [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)],
)
def test_divide_configuration(rig, code, divide):
    rig.write(TDCR, code)
    rig.write(TMICT, 10)
    assert rig.lapic.timer.deadline_ps == 10 * divide * 1000


def test_writing_the_divide_register_keeps_the_count(rig):
    rig.write(TDCR, DIV1)
    rig.write(TMICT, 1000)
    rig.write(TDCR, 0)
    assert rig.read(TMCCT) == 1000
    assert rig.lapic.timer.deadline_ps == 2 * US


def test_initial_count_zero_stops(rig):
    rig.write(TMICT, 10)
    rig.write(TMICT, 0)
    assert rig.lapic.timer.deadline_ps is None


def test_tsc_deadline(rig):
    lapic = rig.lapic
    lapic.write_tsc_deadline(5000)
    assert lapic.read_tsc_deadline() == 0, "ignored in the other modes"
    rig.write(LVT_TIMER, TSC_DEADLINE | 0xEC)
    lapic.write_tsc_deadline(5000)
    assert lapic.read_tsc_deadline() == 5000
    rig.write(TMICT, 7)
    assert rig.read(TMICT) == 0
    assert rig.read(TMCCT) == 0
    rig.wait(5 * US - 1)
    assert not lapic.pending()
    rig.wait(1)
    assert lapic.acknowledge() == 0xEC
    assert lapic.read_tsc_deadline() == 0


def test_tsc_deadline_in_the_past_fires_at_once_and_zero_disarms(rig):
    rig.write(LVT_TIMER, TSC_DEADLINE | 0xEC)
    rig.clock.skip_to(US)
    rig.lapic.write_tsc_deadline(10)
    rig.clock.run_due()
    assert rig.lapic.acknowledge() == 0xEC
    rig.lapic.write_tsc_deadline(9999)
    rig.lapic.write_tsc_deadline(0)
    assert rig.lapic.timer.deadline_ps is None


def test_change_of_timer_mode_disarms(rig):
    rig.write(LVT_TIMER, TSC_DEADLINE | 0xEC)
    rig.lapic.write_tsc_deadline(9999)
    rig.write(LVT_TIMER, ONE_SHOT | 0xEC)
    assert rig.lapic.timer.deadline_ps is None
    assert rig.lapic.read_tsc_deadline() == 0


def test_masked_timer_counts_without_interrupt(rig):
    rig.write(LVT_TIMER, MASKED | 0x40)
    rig.write(TMICT, 10)
    rig.wait(US)
    assert not rig.lapic.pending()
    assert rig.read(TMCCT) == 0


def test_level_message_sets_tmr_and_eoi_is_broadcast(rig):
    seen = []
    rig.lapic.eoi_broadcast = seen.append
    rig.message(0x31, level=True)
    assert rig.read(TMR[1]) == 1 << 0x11
    rig.lapic.acknowledge()
    rig.write(EOI, 0)
    assert seen == [0x31]
    rig.message(0x31)
    assert rig.read(TMR[1]) == 0
    rig.lapic.acknowledge()
    rig.write(EOI, 0)
    assert seen == [0x31]


def test_eoi_of_a_level_line_that_is_still_up_interrupts_again(rig):
    ioapic = Ioapic(rig.lapic.deliver)
    rig.lapic.eoi_broadcast = ioapic.eoi
    ioapic.write(0x00, 4, 0x10 + 2 * 11)
    ioapic.write(0x10, 4, 0x8000 | 0x55)
    ioapic.set_pin(11, True)
    assert rig.lapic.acknowledge() == 0x55
    assert not rig.lapic.pending()
    rig.write(EOI, 0)
    assert rig.lapic.acknowledge() == 0x55
    ioapic.set_pin(11, False)
    rig.write(EOI, 0)
    assert not rig.lapic.pending()


def test_virtual_wire(rig):
    lapic = rig.lapic
    lapic.pic_acknowledge = lambda: 0x08
    lapic.set_lint(0, True)
    assert not lapic.pending()
    rig.write(LVT_LINT0, 0x700)
    assert rig.intr == [True]
    assert lapic.acknowledge() == 0x08
    assert rig.read(ISR[0]) == 0, "ExtINT does not go through IRR and ISR"
    rig.write(LVT_LINT0, MASKED | 0x700)
    assert rig.intr == [True, False]


def test_globally_disabled_passes_the_8259_through(rig):
    lapic = rig.lapic
    lapic.pic_acknowledge = lambda: 0x20
    lapic.write_apic_base(lapic.read_apic_base() & ~(1 << 11))
    assert lapic.window_base is None
    assert not rig.message(0x31)
    lapic.set_lint(0, True)
    assert lapic.acknowledge() == 0x20


def test_lint1_nmi(rig):
    rig.write(LVT_LINT1, 0x400)
    rig.lapic.set_lint(1, True)
    rig.lapic.set_lint(1, True)
    assert rig.nmis == 1


def test_ipis(rig):
    rig.write(ICR_LOW, 1 << 18 | 0x61)  # self
    assert rig.lapic.acknowledge() == 0x61
    rig.write(EOI, 0)
    rig.write(ICR_LOW, 3 << 18 | 0x62)  # all but self
    assert not rig.lapic.pending()
    rig.write(ICR_HIGH, 1 << 24)  # an absent processor: INIT and start-up are dropped
    rig.write(ICR_LOW, 0x4500)
    rig.write(ICR_LOW, 0x4608)
    assert not rig.lapic.pending()
    assert not rig.read(ICR_LOW) & 1 << 12
    rig.write(ICR_HIGH, 0)
    rig.write(ICR_LOW, 0x400)
    assert rig.nmis == 1


def test_logical_destinations(rig):
    rig.write(LDR, 0x02 << 24)
    assert rig.message(0x31, destination=0x06, logical=True)
    assert not rig.message(0x32, destination=0x04, logical=True)
    assert rig.message(0x33, destination=0xFF)
    assert not rig.message(0x34, destination=1)
    rig.write(DFR, 0x0FFF_FFFF)
    rig.write(LDR, 0x31 << 24)
    assert rig.read(DFR) == 0x0FFF_FFFF
    assert rig.message(0x35, destination=0x33, logical=True)
    assert not rig.message(0x36, destination=0x23, logical=True)


def test_errors(rig):
    rig.write(LVT_ERROR, 0xFE)
    rig.message(0x05)
    assert rig.lapic.acknowledge() == 0xFE
    assert rig.read(ESR) == 0
    rig.write(ESR, 0)
    assert rig.read(ESR) == 1 << 6
    rig.write(ESR, 0)
    assert rig.read(ESR) == 0


def test_x2apic(rig):
    lapic = rig.lapic
    lapic.write_apic_base(0xFEE0_0000 | 0xC00)
    assert lapic.window_base is None
    msrs = lapic.x2apic_msrs()
    assert 0x80E not in msrs, "DFR is gone"
    assert msrs[0x802][0]() == 0
    assert msrs[0x80D][0]() == 1
    msrs[0x80D][1](0xFFFF)
    assert msrs[0x80D][0]() == 1, "LDR is read-only"
    msrs[0x83F][1](0x71)
    assert lapic.acknowledge() == 0x71
    msrs[0x80B][1](0)
    msrs[0x830][1](0x72)
    assert lapic.acknowledge() == 0x72
    msrs[0x80B][1](0)
    msrs[0x830][1](1 << 32 | 0x73)
    assert not lapic.pending()
    assert msrs[0x830][0]() == 1 << 32 | 0x73
    lapic.write_apic_base(0xFEE0_0000 | 0x800)
    assert lapic.x2apic, "x2APIC to xAPIC is not allowed"


def test_relocation(rig):
    moves = []
    rig.lapic.on_apic_base = lambda: moves.append(rig.lapic.window_base)
    rig.lapic.write_apic_base(0xFED4_0000 | 0x900)
    assert moves == [0xFED4_0000]
    assert rig.lapic.read_apic_base() == 0xFED4_0900


def test_msi(rig):
    rig.lapic.msi(0xFEE0_0000, 0x41)
    assert rig.lapic.acknowledge() == 0x41
    rig.lapic.msi(0xFEE0_1000, 0x42)
    assert not rig.lapic.pending()


def test_restore_makes_no_edge(rig):
    rig.message(0x31)
    saved = rig.lapic.save()
    other = Rig()
    other.intr.clear()
    other.lapic.restore(saved)
    assert other.lapic.save() == saved
    assert other.intr == []
    assert other.lapic.acknowledge() == 0x31
    assert other.intr == [False]


def test_explain():
    assert LVT_TIMER.explain(0x400EC) == "LVT_TIMER[VECTOR=0xec MODE=TSC-deadline]"

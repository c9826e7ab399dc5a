"""MC146818: time, formats, SET and divider reset, UIP, the three interrupts, CMOS contents."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from workbench.core.clock import PS_PER_SECOND, Clock
from workbench.core.irq import IrqLine
from workbench.core.regs import Explainer
from workbench.hw.mc146818 import MC146818, UIP_PS, memory_size_bytes

SECOND = PS_PER_SECOND
START = datetime(2023, 12, 31, 23, 59, 58, tzinfo=UTC)  # a Sunday


class Pc:
    """Plays the guest."""

    def __init__(self, start: datetime = START, **options: Any) -> None:
        self.clock = Clock()
        self.edges: list[tuple[int, bool]] = []
        line = IrqLine("IRQ8", lambda level: self.edges.append((self.clock.now_ps, level)))
        self.rtc = MC146818(self.clock, line, int(start.timestamp()), **options)

    def __getitem__(self, at: int) -> int:
        self.rtc.write(0, 1, at)
        return self.rtc.read(1, 1)

    def __setitem__(self, at: int, value: int) -> None:
        self.rtc.write(0, 1, at)
        self.rtc.write(1, 1, value)

    def wait(self, ps: int) -> None:
        target = self.clock.now_ps + ps
        while (due := self.clock.next_ps) is not None and due <= target:
            self.clock.skip_to(due)
            self.clock.run_due()
        self.clock.skip_to(target)

    def time(self) -> str:
        return " ".join(f"{self[at]:02x}" for at in (0x32, 9, 8, 7, 4, 2, 0, 6))


def test_time_comes_from_the_configuration_and_the_guest_clock() -> None:
    pc = Pc()
    assert pc.time() == "20 23 12 31 23 59 58 01"
    pc.wait(SECOND - 1)
    assert pc.time() == "20 23 12 31 23 59 58 01"
    pc.wait(1)
    assert pc.time() == "20 23 12 31 23 59 59 01"
    pc.wait(SECOND)
    assert pc.time() == "20 24 01 01 00 00 00 02"


def test_leap_day() -> None:
    pc = Pc(datetime(2024, 2, 28, 23, 59, 59, tzinfo=UTC))
    pc.wait(SECOND)
    assert pc.time() == "20 24 02 29 00 00 00 05"
    pc.wait(86400 * SECOND)
    assert pc.time() == "20 24 03 01 00 00 00 06"


@pytest.mark.parametrize(
    ("hour", "register"), [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)]
)
def test_twelve_hours_in_bcd(hour: int, register: int) -> None:
    pc = Pc(datetime(2024, 5, 5, hour, 59, 59, tzinfo=UTC))
    pc[0x0B] = 0x80  # SET, 12 hours
    pc[4] = register
    pc[0x0B] = 0x00
    pc.wait(SECOND)
    after = (hour + 1) % 24
    assert pc[4] == (int(f"{(after - 1) % 12 + 1:02}", 16) | (0x80 if after >= 12 else 0))


def test_binary_mode() -> None:
    pc = Pc()
    pc[0x0B] = 0x86
    for at, value in ((0, 59), (2, 59), (4, 23), (7, 31), (8, 12), (9, 99), (0x32, 0x19), (6, 6)):
        pc[at] = value
    pc[0x0B] = 0x06
    pc.wait(SECOND)
    assert [pc[at] for at in (0, 2, 4, 7, 8, 9, 0x32, 6)] == [0, 0, 0, 1, 1, 0, 0x20, 7]


@pytest.mark.parametrize("mode", [0x00, 0x02, 0x04, 0x06])
def test_a_running_clock_keeps_its_time_when_its_code_changes(mode: int) -> None:
    pc = Pc()
    pc[0x0B] = mode
    hour = {0: 0x91, 2: 0x23, 4: 0x80 | 11, 6: 23}[mode]
    fields = [pc[at] for at in (0x32, 9, 8, 7, 4, 2, 0, 6)]
    if mode & 4:
        assert fields == [0x20, 23, 12, 31, hour, 59, 58, 1]
    else:
        assert fields == [0x20, 0x23, 0x12, 0x31, hour, 0x59, 0x58, 1]
    pc[0x0B] = 0x02
    assert pc.time() == "20 23 12 31 23 59 58 01"


def test_while_set_the_bytes_are_the_drivers() -> None:
    pc = Pc()
    pc[0x0B] = 0x82
    pc[0] = 17
    pc[0x0B] = 0x86  # binary
    assert pc[0] == 17
    pc[0x0B] = 0x06
    assert pc[0] == 17


def test_set_stops_updates() -> None:
    pc = Pc()
    pc[0x0B] = 0x82
    pc.wait(10 * SECOND)
    assert pc[0] == 0x58
    assert not pc[0x0A] & 0x80
    pc[0x0B] = 0x02
    pc.wait(SECOND)
    assert pc[0] == 0x59


def test_first_update_half_a_second_after_divider_reset() -> None:
    pc = Pc()
    pc.wait(SECOND // 4)
    pc[0x0A] = 0x70
    pc.wait(5 * SECOND)
    assert pc[0] == 0x58
    pc[0x0A] = 0x26
    pc.wait(SECOND // 2 - 1)
    assert pc[0] == 0x58
    pc.wait(1)
    assert pc[0] == 0x59


def test_uip_precedes_the_update() -> None:
    pc = Pc()
    assert pc[0x0A] == 0x26
    pc.wait(SECOND - UIP_PS - 1)
    assert pc[0x0A] == 0x26
    pc.wait(1)
    assert pc[0x0A] == 0xA6
    pc.wait(UIP_PS)
    assert pc[0x0A] == 0x26


def test_update_ended_interrupt() -> None:
    pc = Pc()
    pc[5] = 0x12  # no alarm at midnight
    pc[0x0B] = 0x12
    pc.wait(3 * SECOND)
    assert pc.edges == [(SECOND, True)]
    assert pc[0x0C] == 0xD0  # PF too: the divider runs on without PIE
    assert pc.edges[-1] == (3 * SECOND, False)
    assert pc[0x0C] == 0
    pc.wait(SECOND)
    assert pc.edges[-1] == (4 * SECOND, True)


def test_periodic_interrupt_of_1024_hz() -> None:
    pc = Pc()
    pc[0x0C]
    pc[0x0B] = 0x42
    for _ in range(4):
        pc.wait(SECOND // 1024)
        assert pc[0x0C] == 0xC0
    assert [t for t, up in pc.edges if up] == [-(-i * SECOND // 1024) for i in range(1, 5)]


@pytest.mark.parametrize(("rs", "hz"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)])
def test_periodic_rates(rs: int, hz: int) -> None:
    pc = Pc()
    pc[0x0A] = 0x20 | rs
    pc[0x0B] = 0x42
    pc.wait(SECOND // hz + 1)
    assert pc.edges == [(-(-SECOND // hz), True)]


def test_alarm_at_a_time_and_every_minute() -> None:
    pc = Pc()
    pc[1], pc[3], pc[5] = 0x05, 0x00, 0x00
    pc[0x0B] = 0x22
    pc.wait(60 * SECOND)
    assert pc.edges == [(7 * SECOND, True)]
    assert pc[0x0C] & 0xA0 == 0xA0
    pc[1], pc[3], pc[5] = 0x30, 0xFF, 0xC0
    pc.wait(60 * SECOND)
    assert [t // SECOND for t, up in pc.edges if up] == [7, 92]


def test_alarm_flag_without_interrupt() -> None:
    pc = Pc()
    pc[1], pc[3], pc[5] = 0xFF, 0xFF, 0xFF
    pc.wait(SECOND)
    assert pc[0x0C] & 0xA0 == 0x20
    assert pc.edges == []
    pc[5] = 0x24  # no such hour
    pc.wait(86400 * SECOND)
    assert pc[0x0C] & 0x20 == 0


def test_set_clears_uie_and_reset_clears_enables() -> None:
    pc = Pc()
    pc[0x0B] = 0x92
    assert pc[0x0B] == 0x82
    pc[0x0B] = 0x72
    pc.wait(SECOND)
    pc.rtc.reset()
    assert pc[0x0B] == 0x02
    assert pc[0x0C] == 0
    assert pc.edges[-1][1] is False
    assert pc[0] == 0x59


def test_registers_c_and_d_are_read_only() -> None:
    pc = Pc()
    pc[0x0C], pc[0x0D] = 0xFF, 0x00
    assert (pc[0x0C], pc[0x0D]) == (0, 0x80)


def test_index_reads_as_ones_and_ignores_bit_7() -> None:
    pc = Pc()
    pc[0x80 | 0x50] = 0x77
    assert pc[0x50] == 0x77
    assert pc.rtc.read(0, 1) == 0xFF


def test_junk_in_time_registers_is_no_error() -> None:
    pc = Pc()
    pc[0x0B] = 0x82
    for at in (0, 2, 4, 6, 7, 8, 9, 0x32):
        pc[at] = 0xFF
    pc[0x0B] = 0x02
    pc.wait(3 * SECOND)
    assert pc.time()


def test_memory_size() -> None:
    sizes = memory_size_bytes(256 << 20)
    assert (sizes[0x15] | sizes[0x16] << 8) == 640
    assert (sizes[0x17] | sizes[0x18] << 8) == 0xFFFF
    assert (sizes[0x34] | sizes[0x35] << 8) << 16 == 240 << 20
    assert sizes[0x5B] == 0
    sizes = memory_size_bytes(5 << 30)
    assert (sizes[0x34] | sizes[0x35] << 8) << 16 == (3 << 30) - (16 << 20)
    assert (sizes[0x5B] | sizes[0x5C] << 8 | sizes[0x5D] << 16) << 16 == 2 << 30
    assert memory_size_bytes(8 << 20)[0x30] | memory_size_bytes(8 << 20)[0x31] << 8 == 7168


def test_nvram_and_its_checksum() -> None:
    pc = Pc(ram_bytes=64 << 20, nvram={0x3D: 0x02, 0x10: 0x40})
    assert (pc[0x3D], pc[0x10]) == (0x02, 0x40)
    assert pc[0x2E] << 8 | pc[0x2F] == sum(pc[at] for at in range(0x10, 0x2E))


def test_restored_clock_raises_no_interrupt() -> None:
    pc, other = Pc(), Pc(datetime(1999, 1, 1, tzinfo=UTC))
    pc[0x0B] = 0x12
    pc.wait(SECOND + 1)
    other.rtc.restore(pc.rtc.save())
    other.clock.restore(pc.clock.save())
    assert other.edges == []
    assert other.time() == pc.time()
    assert other[0x0C] == 0xD0


def test_words() -> None:
    explainer = Explainer(MC146818.MAP)
    assert explainer.explain(0, 1, 0x8B, write=True) == "CMOS_INDEX[INDEX=0xb NMI#=1]"
    assert (
        explainer.explain(1, 1, 0x92, write=True)
        == "CMOS_DATA=0x92 -> REGB[H24=24h DM=bcd UIE=1 SET=1]"
    )

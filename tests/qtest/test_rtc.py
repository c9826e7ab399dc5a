"""The clock of the testbed where QEMU's tests want it otherwise than the data sheet."""

from workbench.qtest.client import Client

SECOND = 1_000_000_000
HOLD = SECOND * 8 // 32768


def cmos(bench: Client, at: int, value: int | None = None) -> int:
    bench.outb(0x70, at)
    if value is not None:
        bench.outb(0x71, value)
    return bench.inb(0x71)


def test_uip_is_up_only_before_the_update() -> None:
    with Client("-rtc base=2024-01-01T00:00:00") as bench:
        bench.clock_set(SECOND - HOLD - 1)
        assert not cmos(bench, 0x0A) & 0x80
        bench.clock_step(1)
        assert cmos(bench, 0x0A) & 0x80
        bench.clock_set(SECOND)
        assert not cmos(bench, 0x0A) & 0x80
        assert cmos(bench, 0) == 1


def test_a_changed_period_begins_with_the_last_interrupt() -> None:
    with Client("-rtc base=2024-01-01T00:00:00") as bench:
        bench.clock_set(SECOND // 10)
        cmos(bench, 0x0A, 0x2D)  # 8 Hz
        cmos(bench, 0x0C)
        bench.clock_step(SECOND // 8)
        assert cmos(bench, 0x0C) & 0x40
        cmos(bench, 0x0A, 0x2F)  # 2 Hz
        bench.clock_step(SECOND // 2 - SECOND // 4096)
        assert not cmos(bench, 0x0C) & 0x40
        bench.clock_step(SECOND // 1024)
        assert cmos(bench, 0x0C) & 0x40

"""Buses: windows, overlap, default values, tracing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from workbench.core.bus import UNMAPPED_LIMIT, Bus, OverlapError, Window
from workbench.core.regs import Reg, RegBank, RegMap


class Ram:
    """A device of plain bytes that notes its accesses."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.log: list[tuple[str, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        self.log.append(("read", offset, size))
        return int.from_bytes(self.data[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self.log.append(("write", offset, size))
        self.data[offset : offset + size] = value.to_bytes(size, "little")


def make() -> tuple[Bus, Ram, Ram]:
    bus, low, high = Bus("pio", 0x10000), Ram(4), Ram(4)
    bus.map(Window("high", "b", 0x104, 4, high.read, high.write))
    bus.map(Window("low", "a", 0x100, 4, low.read, low.write))
    return bus, low, high


def test_offsets_count_from_the_base() -> None:
    bus, low, _ = make()
    bus.write(0x102, 2, 0xBEEF)
    assert low.log == [("write", 2, 2)]
    assert bus.read(0x102, 2) == 0xBEEF


def test_crossing_access_is_split() -> None:
    bus, low, high = make()
    bus.write(0x102, 4, 0x11223344)
    assert (low.log, high.log) == ([("write", 2, 2)], [("write", 0, 2)])
    assert bus.read(0x102, 4) == 0x11223344


def test_unmapped_reads_all_ones_and_is_counted() -> None:
    bus, _, _ = make()
    assert bus.read(0x80, 1) == 0xFF
    assert bus.read(0x80, 4) == 0xFFFF_FFFF
    bus.write(0x84, 1, 0)
    assert bus.unmapped == {0x80: 2, 0x84: 1}


def test_access_half_outside() -> None:
    bus, _, _ = make()
    assert bus.read(0xFE, 4) == 0x0000_FFFF
    assert bus.read(0x106, 4) == 0xFFFF_0000


def test_tracer_sees_each_access_once() -> None:
    bus, _, _ = make()
    seen: list[tuple[str | None, int, int, bool, int]] = []
    bus.tracer = lambda w, *rest: seen.append((w.name if w else None, *rest))
    bus.write(0x103, 2, 0xAABB)
    bus.read(0x200, 2)
    assert seen == [
        ("low", 0x103, 1, True, 0xBB),
        ("high", 0x104, 1, True, 0xAA),
        (None, 0x200, 2, False, 0xFFFF),
    ]


def test_windows_count() -> None:
    bus, _, _ = make()
    bus.read(0x100, 1)
    bus.read(0x100, 1)
    bus.write(0x104, 1, 1)
    assert [(w.name, w.reads, w.writes) for w in bus.windows] == [("low", 2, 0), ("high", 0, 1)]


def test_find_after_map_and_unmap() -> None:
    bus, _, _ = make()
    window = bus.find(0x107)
    assert window is not None
    assert window.name == "high"
    assert bus.is_mapped(window)
    bus.unmap(window)
    assert bus.find(0x107) is None
    with pytest.raises(ValueError, match=r"pio: expected a mapped window, not b\.high"):
        bus.unmap(window)


def test_overlap_names_both_owners() -> None:
    bus, low, _ = make()
    with pytest.raises(OverlapError) as error:
        bus.map(Window("bar0", "nic", 0xF0, 0x11, low.read, low.write))
    assert str(error.value) == "pio: nic.bar0 at 0xf0..0x100 overlaps a.low at 0x100..0x103"
    with pytest.raises(ValueError, match="expected a window inside 0x10000 bytes, not"):
        bus.map(Window("bar0", "nic", 0xFFFF, 2, low.read, low.write))


POST = Reg("POST", 4, 1)


@dataclass(slots=True)
class PostState:
    post: int = 0


class Post(RegBank[PostState]):
    MAP = RegMap("post", 8, (POST,))
    STATE = PostState


def test_window_of_a_bank_and_of_a_part_of_it() -> None:
    bus, bank = Bus("pio"), Post()
    bus.map(Window.of(bank, "post", 0x80))
    bus.map(Window.of(bank, "post", 0x64, name="part", start=4, size=1))
    bus.write(0x64, 1, 7)
    assert bus.read(0x84, 1) == 7
    part = bus.find(0x64)
    assert part is not None
    assert part.regmap is not None
    assert part.regmap.explain(0, 1, 7, write=True) == "POST=0x07"


def test_a_guest_that_goes_everywhere_costs_no_memory() -> None:
    bus = Bus("mmio", 1 << 52)
    for n in range(2 * UNMAPPED_LIMIT):
        bus.read(n << 12, 4)
    bus.write(0, 4, 1)
    assert len(bus.unmapped) == UNMAPPED_LIMIT
    assert bus.unmapped[0] == 2

"""The walk that leaves no trace finds what the processor finds, in each paging mode."""

from __future__ import annotations

import struct

import pytest

from workbench.core.layout import CR0_PG, CR4_PAE, CR4_PSE, EFER_LMA
from workbench.core.pagewalk import Paging

RAM = 1 << 20
LINEAR = 0x1234_5678


def memory(entries: dict[int, int], size: int) -> bytes:
    data = bytearray(RAM)
    for at, entry in entries.items():
        struct.pack_into("<Q" if size == 8 else "<I", data, at, entry)
    return bytes(data)


def translate(entries: dict[int, int], size: int, paging: Paging, linear: int) -> int | None:
    data = memory(entries, size)
    return paging.translate(lambda gpa, n: data[gpa : gpa + n].ljust(n, b"\xff"), linear)


def index(linear: int, shift: int, size: int) -> int:
    return (linear >> shift & (4096 // size - 1)) * size


def test_without_paging_the_address_is_physical() -> None:
    assert translate({}, 4, Paging(0, 0, 0, 0), LINEAR) == LINEAR


@pytest.mark.parametrize(("entry", "want"), [(0x5003, 0x5678), (0x5002, None)])
def test_two_levels(entry: int, want: int | None) -> None:
    entries = {0x1000 + index(LINEAR, 22, 4): 0x2003, 0x2000 + index(LINEAR, 12, 4): entry}
    assert translate(entries, 4, Paging(CR0_PG, 0x1000, 0, 0), LINEAR) == want


def test_four_megabyte_pages_reach_above_4_gib_and_need_pse() -> None:
    entries = {0x1000 + index(LINEAR, 22, 4): 0x0080_0000 | 3 << 13 | 0x83}
    found = translate(entries, 4, Paging(CR0_PG, 0x1000, CR4_PSE, 0), LINEAR)
    assert found == (3 << 32 | 0x0080_0000 | LINEAR & 0x3F_FFFF)
    assert translate(entries, 4, Paging(CR0_PG, 0x1000, 0, 0), LINEAR) != found


@pytest.mark.parametrize(
    ("last", "want"), [(0x5003, 0x5678), (0x4000_0083, 0x4000_0000 | LINEAR & 0x1F_FFFF)]
)
def test_pae(last: int, want: int) -> None:
    entries = {0x1020 + (LINEAR >> 30) * 8: 0x2001, 0x2000 + index(LINEAR, 21, 8): 0x3003}
    if last & 0x80:
        entries[0x2000 + index(LINEAR, 21, 8)] = last
    else:
        entries[0x3000 + index(LINEAR, 12, 8)] = last
    assert translate(entries, 8, Paging(CR0_PG, 0x1020, CR4_PAE, 0), LINEAR) == want


@pytest.mark.parametrize(
    ("linear", "level", "want"),
    [
        (0xFFFF_8000_1234_5678, 12, 0x7678),
        (0xFFFF_8000_1234_5678, 21, 0x4034_5678),
        (0xFFFF_8000_1234_5678, 30, 0x5234_5678),
        (0x0000_8000_0000_0000, 12, None),
    ],
)
def test_long_mode(linear: int, level: int, want: int | None) -> None:
    entries, table = {}, 0x1000
    for shift in (39, 30, 21, 12):
        final = shift == level
        target = {12: 0x7000, 21: 0x4020_0000, 30: 0x4000_0000}[level] if final else table + 0x1000
        low = (1 << shift) - 1
        entries[table + index(linear, shift, 8)] = (target & ~low if final else target) | (
            0x83 if final and shift > 12 else 3
        )
        if final:
            break
        table = target
    paging = Paging(CR0_PG, 0x1000, CR4_PAE, EFER_LMA)
    assert translate(entries, 8, paging, linear) == want


def test_tables_outside_of_memory_map_nothing() -> None:
    paging = Paging(CR0_PG, 0x7FFF_F000, CR4_PAE, EFER_LMA)
    assert translate({}, 8, paging, LINEAR) is None


def test_spans_skip_what_is_not_mapped_and_take_large_pages_whole() -> None:
    paging = Paging(CR0_PG, 0x1000, CR4_PSE, 0)
    data = memory({0x1000: 0x2003, 0x1004: 0x80_0083, 0x2000 + 4 * 1023: 0x5003}, 4)

    def read(gpa: int, n: int) -> bytes:
        return data[gpa : gpa + n].ljust(n, b"\xff")

    found = list(paging.spans(read, 0x3F_EFF0, 0xFFFF_FFFF))
    assert found == [(0x5000, 0x1000), (0x80_0000, 0x40_0000)]
    assert list(paging.spans(read, 0x40_0123, 0x40_0125)) == [(0x80_0123, 2)]

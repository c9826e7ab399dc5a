"""All that is mapped agrees with what single addresses are translated to, whatever tables say."""

from __future__ import annotations

import itertools
import random
import struct

import pytest

from workbench.core.layout import CR0_PG, CR4_PAE, CR4_PSE, EFER_LMA
from workbench.core.mappings import Piece, Range, pieces, ranges
from workbench.core.pagewalk import Paging

RAM = 1 << 20
LONG = Paging(CR0_PG, 0x1000, CR4_PAE, EFER_LMA)


class Ram:
    def __init__(self) -> None:
        self.data = bytearray(RAM)

    def read(self, gpa: int, count: int) -> bytes:
        found = bytes(self.data[gpa : gpa + count])
        return found + b"\xff" * (count - len(found))

    def entry(self, table: int, n: int, value: int, size: int = 8) -> None:
        struct.pack_into("<Q" if size == 8 else "<I", self.data, table + n * size, value)


def test_four_levels_and_rights_of_all_of_them() -> None:
    ram = Ram()
    ram.entry(0x1000, 0, 0x2007)
    ram.entry(0x1000, 511, 0x2003)  # the same again at the top, for the supervisor
    ram.entry(0x2000, 0, 0x3007)
    ram.entry(0x3000, 0, 0x4007)
    ram.entry(0x3000, 2, 0x0000_0083)  # 2 MiB
    for n in (1, 2, 3):
        ram.entry(0x4000, n, n << 12 | (7 if n < 3 else 5))
    top = 0xFFFF_FF80_0000_0000
    assert list(ranges(LONG, ram.read)) == [
        Range(0x1000, 0x3000, True, True), Range(0x3000, 0x4000, True, False),
        Range(0x400000, 0x600000, False, True),
        Range(top + 0x1000, top + 0x3000, False, True),
        Range(top + 0x3000, top + 0x4000, False, False),
        Range(top + 0x400000, top + 0x600000, False, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "paging",
    [
        LONG,
        Paging(CR0_PG, 0x1000, CR4_PAE, 0),
        Paging(CR0_PG, 0x1000, CR4_PSE, 0),
        Paging(CR0_PG, 0x1000, 0, 0),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_the_same_as_one_by_one(paging: Paging, seed: int) -> None:
    rng, ram = random.Random(seed), Ram()
    size = 8 if paging.cr4 & CR4_PAE else 4
    for table in range(0x1000, 0x9000, 0x1000):  # any of them may point to any
        for n in rng.sample(range(4096 // size), 3):
            flags = rng.choice((1, 3, 5, 7)) | (0x80 if rng.random() < 0.2 else 0)
            ram.entry(table, n, rng.randrange(1, 10) << 12 | flags, size)
    for n in range(4):
        ram.entry(0x1000, n, rng.randrange(2, 9) << 12 | 1, size)
    found = list(ranges(paging, ram.read))
    assert found
    for mapped in found:
        for at in (mapped.start, mapped.end - 1, rng.randrange(mapped.start, mapped.end)):
            assert paging.translate(ram.read, at) is not None
    for before, after in itertools.pairwise(found):
        assert before.end <= after.start
        if before.end < after.start:
            assert paging.translate(ram.read, before.end) is None
            assert paging.translate(ram.read, after.start - 1) is None


def test_tables_that_point_at_themselves_end() -> None:
    ram = Ram()
    for n in range(512):
        ram.entry(0x1000, n, 0x1007)
    assert sum(1 for _ in ranges(LONG, ram.read)) < 3


def test_nothing_without_paging_and_beside_ram() -> None:
    assert list(ranges(Paging(0, 0x1000, 0, 0), Ram().read)) == []
    assert list(ranges(Paging(CR0_PG, RAM * 2, CR4_PAE, EFER_LMA), Ram().read)) == []


@pytest.mark.parametrize("seed", range(5))
def test_pieces_are_where_single_addresses_are(seed: int) -> None:
    chance, ram = random.Random(seed), Ram()
    for table in range(0x1000, 0x9000, 0x1000):
        for _ in range(40):
            where = chance.randrange(1, 24) << 12
            ram.entry(table, chance.randrange(512), where | chance.choice((0, 3, 7, 0x83)))
    tables: set[int] = set()
    for piece in itertools.islice(pieces(LONG, ram.read), 2000):
        for at in (0, piece.length - 1):
            assert LONG.translate(ram.read, piece.start + at) == piece.gpa + at
        tables.add(piece.start)
    assert len(tables) > 20


def test_a_table_in_two_places_counts_once_and_neighbours_are_one() -> None:
    ram = Ram()
    ram.entry(0x1000, 0, 0x2007)
    ram.entry(0x1000, 511, 0x1003)  # the tables themselves
    for n in range(512):
        ram.entry(0x2000, n, 0x3007)  # one for all
    ram.entry(0x3000, 0, 0x4007)
    for n in range(4):
        ram.entry(0x4000, n, 0x10007 + (n << 12))
    ram.entry(0x4000, 4, 0x20007)
    assert list(pieces(LONG, ram.read)) == [
        Piece(0, 0x10000, 0x4000), Piece(0x4000, 0x20000, 0x1000),
    ]  # fmt: skip

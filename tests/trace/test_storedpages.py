"""Pages of checkpoints: whole ones, changes of others, and those of the beginning."""

from __future__ import annotations

import random
from typing import Any, cast

import numpy as np
import pytest

from workbench.core.engine import PAGE
from workbench.core.pages import GROUP, PageStore, Ram
from workbench.errors import FormatError
from workbench.trace.container import CODEC_RAW, PAGES, ChunkInfo
from workbench.trace.storedpages import PageReader, PageWriter

GROUPS = 3


class Chunks:
    """A trace that has nothing but these chunks of pages."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.infos: list[ChunkInfo] = []

    def put(self, kind: bytes, payload: bytes, rows: int) -> None:
        assert kind == PAGES
        size, number = len(payload), len(self.infos)
        self.infos.append(ChunkInfo(kind, number, CODEC_RAW, rows, size, size, 0, 0))
        self.payloads.append(payload)

    def chunks(self, kind: bytes) -> list[ChunkInfo]:
        return self.infos

    def payload(self, info: ChunkInfo) -> bytes:
        return self.payloads[info.number]


def ram_of(store: PageStore, data: np.ndarray[Any, Any]) -> Ram:
    slots = store.put(data.view(np.uint64).reshape(-1, PAGE // 8), np.arange(GROUPS * GROUP))
    return Ram(store, tuple(tuple(slots[n * GROUP : (n + 1) * GROUP]) for n in range(GROUPS)))


def states(seed: int, count: int) -> list[np.ndarray[Any, Any]]:
    """RAM at `count` moments: pages change a little, altogether, to another, and to zero."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    ram = np.zeros((GROUPS * GROUP, PAGE), np.uint8)
    ram[::2] = noise.integers(0, 256, ram[::2].shape, np.uint8)
    found = [ram.copy()]
    for _ in range(count):
        for page in rng.sample(range(len(ram)), 40):
            match rng.randrange(4):
                case 0:
                    ram[page, rng.randrange(PAGE)] ^= 1 + rng.randrange(255)
                case 1:
                    ram[page] = noise.integers(0, 256, PAGE, np.uint8)
                case 2:
                    ram[page] = ram[rng.randrange(len(ram))]
                case 3:
                    ram[page] = 0
        found.append(ram.copy())
    return found


def written(found: list[np.ndarray[Any, Any]]) -> tuple[Chunks, list[list[int]], PageWriter]:
    chunks, store = Chunks(), PageStore()
    writer = PageWriter(ram_of(store, found[0]), chunks.put)
    tables = []
    for state in found[1:]:
        writer.add(ram_of(store, state))
        tables.append(list(writer.table))
    return chunks, tables, writer


def read(chunks: Chunks, first: np.ndarray[Any, Any], table: list[int]) -> np.ndarray[Any, Any]:
    store = PageStore()
    reader = PageReader(cast(Any, chunks), ram_of(store, first))
    unique, place = np.unique(np.array(table), return_inverse=True)
    slots = reader.read(unique[unique > 0].astype(np.int64))
    if unique[0] == 0:
        slots.insert(0, -1)
    return store.get(slots[n] for n in place.tolist()).view(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_written_is_read(seed: int) -> None:
    found = states(seed, 8)
    chunks, tables, writer = written(found)
    for state, table in zip(found[1:], tables, strict=True):
        assert (read(chunks, found[0], table) == state).all()
    assert writer.first == GROUPS * GROUP // 2
    assert min(number for number in tables[0] if number) <= writer.first


def test_a_page_that_changes_a_little_is_mostly_zero() -> None:
    found = states(1, 1)
    found[1] = found[0].copy()
    found[1][2, 100] ^= 1
    chunks, (table,), writer = written(found)
    (payload,) = chunks.payloads
    assert int.from_bytes(payload[:4], "little") == 2  # the second page that is not zero
    assert payload[4:].count(0) == PAGE - 1
    assert table[2] == writer.first + 1


def test_a_chunk_of_another_length() -> None:
    found = states(2, 2)
    chunks, tables, _ = written(found)
    chunks.payloads[0] = chunks.payloads[0][:-1]
    with pytest.raises(FormatError, match="wrong length"):
        read(chunks, found[0], tables[-1])


@pytest.mark.parametrize("seed", range(4))
def test_bases_that_lie(seed: int) -> None:
    """A page may be made of an earlier one that is whole, and of nothing else."""
    found = states(seed, 6)
    chunks, tables, writer = written(found)
    rng, refused, total = random.Random(seed), 0, sum(info.rows for info in chunks.infos)
    before = writer.first
    for info in list(chunks.infos):
        good = chunks.payloads[info.number]
        row = rng.randrange(info.rows)
        for base in (before + row + 1, writer.first + total + 1, 0xFFFF_FFFF, rng.randrange(99)):
            bad = bytearray(good)
            bad[4 * row : 4 * row + 4] = base.to_bytes(4, "little")
            chunks.payloads[info.number] = bytes(bad)
            for table in tables:
                try:
                    read(chunks, found[0], table)
                except FormatError:
                    refused += 1
        chunks.payloads[info.number] = good
        before += info.rows
    assert refused >= 3 * len(chunks.infos)

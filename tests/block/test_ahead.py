"""Reading ahead: the same bytes and errors as without, whatever is read and written."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from workbench.block.ahead import ReadAhead
from workbench.block.opening import open_image

PIECE = 1 << 17
PIECES = 24


class Source:
    """A file that notes who reads it."""

    def __init__(self) -> None:
        self.data = random.Random(1).randbytes(PIECE * PIECES + 5000)
        self.threads: list[int] = []
        self.bad = -1

    def __call__(self, offset: int, length: int) -> bytes:
        self.threads.append(threading.get_ident())
        if offset == self.bad:
            raise OSError("a bad block")
        return self.data[offset : offset + length]


def test_a_sequential_reader_is_served_by_the_thread() -> None:
    source = Source()
    ahead = ReadAhead(source, len(source.data))
    for n in range(PIECES):
        assert ahead.read(n * PIECE, PIECE) == source.data[n * PIECE : (n + 1) * PIECE]
    assert ahead.read(PIECES * PIECE, 5000) == source.data[PIECES * PIECE :]
    ahead.close()
    assert source.threads.count(threading.get_ident()) == 4  # three at the start, the short end
    assert len(source.threads) == PIECES + 1


def test_an_error_comes_when_the_bad_place_is_asked_for() -> None:
    source = Source()
    source.bad = 7 * PIECE
    ahead = ReadAhead(source, len(source.data))
    for n in range(7):
        ahead.read(n * PIECE, PIECE)
    with pytest.raises(OSError, match="a bad block"):
        ahead.read(7 * PIECE, PIECE)
    source.bad = -1
    assert ahead.read(7 * PIECE, PIECE) == source.data[7 * PIECE : 8 * PIECE]
    ahead.close()


def test_a_raw_image_reads_what_was_written_last(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    content = bytearray(random.Random(2).randbytes(PIECE * PIECES))
    path.write_bytes(content)
    rng = random.Random(3)
    with open_image(str(path), format_name="raw", read_only=False) as image:
        at = 0
        for _ in range(200):
            if rng.random() < 0.1:
                at = rng.randrange(PIECES) * PIECE
            if rng.random() < 0.2:
                offset = min(at + rng.randrange(3 * PIECE), len(content) - 512)
                data = rng.randbytes(512)
                image.write(offset, data)
                content[offset : offset + 512] = data
            assert image.read(at, PIECE) == content[at : at + PIECE]
            at = (at + PIECE) % len(content)

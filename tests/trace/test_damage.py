"""Traces that were cut, damaged, or made to deceive: a clear error, or what is left of them."""

from __future__ import annotations

import contextlib
import random
import struct
import zlib
from pathlib import Path

import pytest

from tests.trace.conftest import Make
from workbench.errors import FormatError, WorkbenchError
from workbench.trace import container, tables
from workbench.trace.container import CHUNK, ContainerFile, encode_chunk, encode_prelude
from workbench.trace.header import Header, dump_json
from workbench.trace.reader import open_trace


def read_all(path: Path) -> int:
    """Read everything that there is; gives the number of events."""
    count = 0
    with open_trace(path) as trace:
        for image in trace.header.images:
            trace.image(image.role)
        for spec in tables.TABLES:
            trace.table(spec.name)
        for group in trace.event_groups():
            count += len(group)
        trace.sizes()
    return count


def test_a_file_cut_anywhere_opens_up_to_its_last_mark(make_trace: Make) -> None:
    path = make_trace(insns=60_000)
    data = path.read_bytes()
    full = read_all(path)
    file = ContainerFile(path)
    layout = file.layout()
    file.close()
    marks = [c.end for c in layout.chunks if c.kind == container.MARK]
    assert len(marks) > 2
    edges = [c.offset for c in layout.chunks] + [c.offset + CHUNK.size for c in layout.chunks]
    rng = random.Random(1)
    places = {e + d for e in edges for d in (-1, 0, 1)} | {
        rng.randrange(len(data)) for _ in range(60)
    }
    last = 0
    for place in sorted(p for p in places if 0 <= p < len(data)):
        path.write_bytes(data[:place])
        if place < marks[0]:
            with pytest.raises(FormatError, match=r"cut|empty"):
                read_all(path)
            continue
        count = read_all(path)
        assert last <= count <= full
        last = count
        with open_trace(path) as trace:
            assert trace.closed == (place >= layout.chunks[-1].end)
            if not trace.closed:
                assert trace.state == "cut"
                assert trace.end is None
                assert trace.last_mark.events == count
                assert place in (*marks, *(c.end for c in layout.chunks)) or trace.problem
    assert last == full


def test_flipped_bits_are_found(make_trace: Make) -> None:
    path = make_trace(insns=20_000)
    data = path.read_bytes()
    full = read_all(path)
    rng = random.Random(2)
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        place = rng.randrange(len(data))
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        message = ""
        try:
            # Only the index or the trailer may be hit without loss, they repeat what is there.
            assert read_all(path) == full
        except FormatError as error:
            refused += 1
            message = str(error)
        assert not message or (str(path) in message and "\n" not in message)
    assert refused > 250


def test_random_bytes_after_a_good_start(make_trace: Make) -> None:
    path = make_trace()
    data = path.read_bytes()
    rng = random.Random(3)
    for _ in range(50):
        keep = rng.randrange(len(data))
        path.write_bytes(data[:keep] + rng.randbytes(rng.randrange(2000)))
        with contextlib.suppress(FormatError):
            read_all(path)


def test_payloads_with_good_checksums_and_bad_contents(make_trace: Make) -> None:
    """What a hostile file can do: every checksum is right, the Parquet or JSON in it is not."""
    path = make_trace(insns=20_000)
    file = ContainerFile(path)
    chunks = [(c, file.payload(c)) for c in file.layout().chunks]
    file.close()
    rng = random.Random(4)
    for _ in range(400):
        victim = rng.randrange(len(chunks))
        out = [encode_prelude()]
        for number, (chunk, payload) in enumerate(chunks):
            rows = chunk.rows
            if number == victim and payload:
                changed = bytearray(payload)
                for _ in range(rng.randrange(1, 4)):
                    changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
                payload = bytes(changed[: rng.randrange(1, len(changed) + 1)])
            out.append(encode_chunk(chunk.kind, number, payload, rows=rows))
        path.write_bytes(b"".join(out))
        with contextlib.suppress(WorkbenchError):
            read_all(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"MZ" * 100, "this is not a Workbench trace"),
        (container.MAGIC[:5], "cut in its first 16 bytes"),
        (b"\x89WBT\n\x1a\n" + bytes(20), "transfer in text mode"),
        (encode_prelude(3) + bytes(50), "has format version 3, a newer one: .* versions 1 to 2"),
        (encode_prelude(0), "has format version 0, an unknown one"),
        (encode_prelude()[:-1] + b"\0" + bytes(50), "wrong checksum"),
        (encode_prelude(), "cut before its header"),
        (encode_prelude() + encode_chunk(b"MARK", 0, b"{}"), "does not begin with its header"),
        (encode_prelude() + encode_chunk(b"HEAD", 0, b"[]"), "not a JSON object"),
        (encode_prelude() + encode_chunk(b"HEAD", 0, b"[" * 100_000), "not valid JSON"),
        (encode_prelude() + encode_chunk(b"HEAD", 0, b"{}"), "states no valid images"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "t"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message):
        open_trace(path)


HEADER = encode_chunk(b"HEAD", 0, dump_json(Header(machine={}).to_json()))


def _chunk(kind: bytes, number: int, codec: int, rows: int, stored: int, raw: int) -> bytes:
    head = CHUNK.pack(kind, number, codec, rows, stored, raw, 0, 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head))


@pytest.mark.parametrize(
    "chunk",
    [
        _chunk(b"ACCS", 1, 0, 1, 1 << 60, 1 << 60),
        _chunk(b"ACCS", 1, 1, 1, 10, 1 << 60),
        _chunk(b"ACCS", 1, 0, 1 << 31, 0, 0),
        _chunk(b"ACCS", 1, 7, 0, 0, 0),
        _chunk(b"ACCS", 1, 0, 0, 0, 5),
        _chunk(b"ACCS", 9, 0, 0, 0, 0),
    ],
)
def test_sizes_that_lie_end_the_trace_there(tmp_path: Path, chunk: bytes) -> None:
    path = tmp_path / "t"
    mark = encode_chunk(b"MARK", 1, b'{"icount":5,"events":0}')
    good = encode_prelude() + HEADER
    path.write_bytes(good + chunk + bytes(100))
    with pytest.raises(FormatError, match="cut before the guest was started"):
        open_trace(path)
    path.write_bytes(good + mark + chunk + bytes(100))
    with open_trace(path) as trace:
        assert trace.state == "cut"
        assert "unreadable" in trace.problem


def test_a_frame_that_unpacks_to_more_than_it_says(tmp_path: Path) -> None:
    path = tmp_path / "t"
    bomb = container.compress(bytes(50 << 20))
    chunk = encode_chunk(b"ACCS", 1, bomb, rows=1, raw_bytes=100)
    mark = encode_chunk(b"MARK", 2, b'{"icount":5,"events":1}')
    path.write_bytes(encode_prelude() + HEADER + chunk + mark)
    with open_trace(path) as trace, pytest.raises(FormatError, match="states two lengths"):
        trace.table("accesses")


def test_data_repeated_without_end_are_refused(tmp_path: Path) -> None:
    rows = [(tables.CONSOLE, 1, "com1", bytes(100_000))] * 5000
    payload, _ = tables.encode(tables.BY_NAME["console"], list(range(len(rows))), rows)
    assert len(payload) < 1 << 20
    path = tmp_path / "t"
    chunk = encode_chunk(b"CONS", 1, payload, rows=len(rows))
    mark = encode_chunk(b"MARK", 2, b'{"icount":5,"events":1}')
    path.write_bytes(encode_prelude() + HEADER + chunk + mark)
    with open_trace(path) as trace, pytest.raises(FormatError, match="claims 500,000,000 bytes"):
        trace.table("console")


def test_kinds_of_chunks_that_are_not_known(tmp_path: Path) -> None:
    path = tmp_path / "t"
    mark = encode_chunk(b"MARK", 2, b'{"icount":5,"events":0}')
    for kind in (b"note", b"NOTE"):
        path.write_bytes(encode_prelude() + HEADER + encode_chunk(kind, 1, b"hello") + mark)
        if kind.islower():
            assert read_all(path) == 0
        else:
            with pytest.raises(FormatError, match="chunk 'NOTE' is of an unknown kind"):
                open_trace(path)

"""Writes a trace: header and images, then groups of table chunks that end in a mark, then the end.

A group goes to the file in one `writev`; a reader uses nothing after the last mark, so a recorder
that dies between two marks loses only what came after the first. When the disk fills up, the file
is cut back to its last mark and stays a valid (cut) trace.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from workbench.errors import TraceWriteError, os_error_text
from workbench.trace import encoder, held, tables
from workbench.trace.container import (
    BLOB,
    BLOB_PART_BYTES,
    END,
    HEAD,
    INDEX,
    MARK,
    MAX_ROWS,
    ChunkInfo,
    chunk_head,
    compress,
    encode_index,
    encode_prelude,
    encode_trailer,
)
from workbench.trace.header import End, Header, Mark, dump_json

_QUICK_BYTES = 1 << 20  # what is larger holds data of disks and networks: speed counts
_BLOB_LEVEL = 1
_GROUP_ROWS = 65_536
_GROUP_DATA_BYTES = 16 << 20
_SAMPLE_BYTES = 4096
_MOST_PIECES = 1024  # IOV_MAX of Linux
assert _GROUP_ROWS <= MAX_ROWS


class TraceWriter:
    """An open trace that is being recorded. Not thread safe: one thread at a time."""

    def __init__(self, path: str | os.PathLike[str], header: Header) -> None:
        self.path = os.fspath(path)
        self.events = 0
        self.icount = 0
        self.encode: Callable[[Sequence[tables.Event], int], encoder.Payloads] = encoder.encode
        """Makes the payloads of table chunks; the recorder has another process do it."""
        self.bytes_by_kind: dict[str, int] = {}
        self._chunks: list[ChunkInfo] = []
        self._pending: list[bytes] = []
        self._size = 0
        self._pending_size = 0
        self._kept = Mark(0, 0)
        self._broken: TraceWriteError | None = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        try:
            self._fd = os.open(self.path, flags, 0o644)
        except OSError as error:
            raise TraceWriteError(
                f"{self.path}: the trace cannot be written: {os_error_text(error)}"
            ) from None
        if not held.take(self._fd):
            os.close(self._fd)
            raise TraceWriteError(f"{self.path}: another process is recording this trace")
        try:
            if os.fstat(self._fd).st_size:
                os.ftruncate(self._fd, 0)
        except OSError as error:
            os.close(self._fd)
            raise TraceWriteError(
                f"{self.path}: the trace cannot be written: {os_error_text(error)}"
            ) from None
        self._put(encode_prelude())
        self._chunk(HEAD, dump_json(header.to_json()), zstd=True)
        self._flush()

    @property
    def size_bytes(self) -> int:
        """Size of the file so far."""
        return self._size

    def embed(self, images: Mapping[str, bytes], header: Header) -> None:
        """Append the embedded images in the order of the header, then the first mark."""
        for image in header.images:
            if not image.embedded:
                continue
            data = memoryview(images[image.role])
            for start in range(0, len(data), BLOB_PART_BYTES):
                part = bytes(data[start : start + BLOB_PART_BYTES])
                self._chunk(BLOB, part, zstd=True, level=_BLOB_LEVEL)
                self._flush()
        self._mark()

    def append(self, events: Sequence[tables.Event], icount: int) -> None:
        """Append events as groups, each ending in a mark; `icount` is reached after the last."""
        for group in _groups(events):
            payloads = self.encode(group, self.events)
            for number, rows, payload, worth in payloads:
                chunk = tables.TABLES[number].chunk
                if isinstance(payload, bytes):
                    level = 1 if len(payload) > _QUICK_BYTES else 3
                    self._chunk(chunk, payload, rows=rows, zstd=worth, level=level)
                else:
                    self._chunk(chunk, *payload, rows=rows, zstd=_shrinks(payload), level=1)
            self.events += sum(rows for _, rows, _, _ in payloads)
            self.icount = max(self.icount, group[-1][1])
            self._mark()
        if icount > self.icount:
            self.icount = icount
            if not events:
                self._mark()

    def close(self, end: End) -> None:
        """Append end, index and trailer, and close the file."""
        try:
            self._chunk(END, dump_json(end.to_json()))
            index_offset = self._size + self._pending_size
            self._chunk(INDEX, encode_index(self._chunks), zstd=True, indexed=False)
            self._put(encode_trailer(index_offset, len(self._chunks)))
            self._flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file as it is: a cut trace. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _mark(self) -> None:
        mark = Mark(self.icount, self.events)
        self._chunk(MARK, dump_json(mark.to_json()))
        self._flush()
        self._kept = mark

    def _chunk(
        self,
        kind: bytes,
        *payload: bytes,
        rows: int = 0,
        zstd: bool = False,
        level: int = 3,
        indexed: bool = True,
    ) -> None:
        raw = None
        if zstd:
            size = sum(map(len, payload))
            packed = compress(payload, level)
            if len(packed) < size:
                raw, payload = size, (packed,)
        offset = self._size + self._pending_size
        head = chunk_head(kind, len(self._chunks), payload, rows=rows, raw_bytes=raw)
        stored = sum(map(len, payload))
        if indexed:
            self._chunks.append(ChunkInfo(kind, len(self._chunks), 0, rows, stored, 0, 0, offset))
        name = kind.decode("ascii")
        self.bytes_by_kind[name] = self.bytes_by_kind.get(name, 0) + len(head) + stored
        self._put(head, *payload)

    def _put(self, *data: bytes) -> None:
        self._pending += data
        self._pending_size += sum(map(len, data))

    def _flush(self) -> None:
        """Write what is pending; on failure cut the file back to what it was before."""
        if self._broken is not None:
            raise self._broken
        pieces, size = self._pending, self._pending_size
        self._pending, self._pending_size = [], 0
        try:
            _write_all(self._fd, pieces)
        except OSError as error:
            with contextlib.suppress(OSError):  # no regular file: nothing to cut back
                os.ftruncate(self._fd, self._size)
            kept = (
                f"what was recorded up to instruction {self._kept.icount:,} is kept"
                if self._kept.events
                else "nothing was recorded"
            )
            self._broken = TraceWriteError(
                f"{self.path}: the trace cannot be written any further:"
                f" {os_error_text(error)}; {kept}"
            )
            raise self._broken from None
        self._size += size


def _write_all(fd: int, pieces: Sequence[bytes]) -> None:
    """Write pieces one after the other, without putting them together."""
    left: list[bytes | memoryview] = list(pieces)
    while left:
        written = os.writev(fd, left[:_MOST_PIECES])
        gone = 0
        while gone < len(left) and written >= len(left[gone]):
            written -= len(left[gone])
            gone += 1
        del left[:gone]
        if written:
            left[0] = memoryview(left[0])[written:]


def _shrinks(pieces: Sequence[bytes]) -> bool:
    """Whether data are worth compressing, by a sample of them: much of a disk is compressed."""
    sample = b"".join(p[len(p) // 3 :][:_SAMPLE_BYTES] for p in pieces if len(p) >= _SAMPLE_BYTES)
    return len(compress(sample, 1)) < 0.95 * len(sample)


def _groups(events: Sequence[tables.Event]) -> Iterator[Sequence[tables.Event]]:
    """Runs of events that make chunks of a bounded size: by rows, and by what inputs carry."""
    start = rows = data_bytes = 0
    for n, event in enumerate(events):
        more_rows, more_bytes = tables.weight(event)
        rows += more_rows
        data_bytes += more_bytes
        if n > start and (rows > _GROUP_ROWS or data_bytes > _GROUP_DATA_BYTES):
            yield events[start:n]
            start, rows, data_bytes = n, more_rows, more_bytes
    if start < len(events):
        yield events[start:]

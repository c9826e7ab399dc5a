"""The container of a trace: the one module that knows its bytes (`docs/trace-format.md`).

A file is a prelude, chunks that are only ever appended, and, once the recording was closed, an
index chunk and a trailer. Every part carries a CRC-32 and every length is checked against a limit
before anything is allocated, so a reader may be given any bytes at all and gives `FormatError`.
Integers are little-endian. What is in the chunks is the business of `tables` and `header`.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from workbench.errors import FormatError
from workbench.trace.storage import open_source

FORMAT_VERSION: Final = 2
"""What is written; every version from 1 on is read."""

MAGIC: Final = b"\x89WBT\r\n\x1a\n"
PRELUDE: Final = struct.Struct("<8sHHI")
CHUNK: Final = struct.Struct("<4sIIIQQII")
TRAILER: Final = struct.Struct("<8sQII")
TRAILER_MAGIC: Final = b"WBTEND\r\n"

CODEC_RAW: Final = 0
CODEC_ZSTD: Final = 1

HEAD: Final = b"HEAD"
BLOB: Final = b"BLOB"
MARK: Final = b"MARK"
END: Final = b"END_"
INDEX: Final = b"INDX"
CHECKPOINT: Final = b"ckpt"
PAGES: Final = b"ckpd"
OLD_PAGES: Final = b"ckpg"  # without changes, of engines before
CHECKPOINTS: Final = b"ckpi"

BLOB_PART_BYTES: Final = 8 << 20
MAX_CHUNK_BYTES: Final = 64 << 20
MAX_JSON_BYTES: Final = 4 << 20
MAX_CHUNKS: Final = 4_000_000
MAX_ROWS: Final = 1 << 20
_LIMITS: Final = {
    HEAD: MAX_JSON_BYTES,
    MARK: 64 << 10,
    END: MAX_JSON_BYTES,
    BLOB: BLOB_PART_BYTES,
    PAGES: BLOB_PART_BYTES,
    CHECKPOINTS: MAX_JSON_BYTES,
}
INDEX_ENTRY: Final = struct.Struct("<4sIQ")


@dataclass(frozen=True, slots=True)
class ChunkInfo:
    """Where a chunk is and what its header says; `offset` is that of the header in the file."""

    kind: bytes
    number: int
    codec: int
    rows: int
    stored_bytes: int
    raw_bytes: int
    crc: int
    offset: int

    @property
    def end(self) -> int:
        """File offset of the first byte after this chunk."""
        return self.offset + CHUNK.size + self.stored_bytes

    @property
    def name(self) -> str:
        """The four letters as text, safe to show."""
        return self.kind.decode("ascii", "replace")


@dataclass(frozen=True, slots=True)
class Layout:
    """The chunks of a file, whether it was closed, and what is wrong with its end if not."""

    chunks: tuple[ChunkInfo, ...]
    closed: bool
    problem: str
    file_bytes: int


def encode_prelude(version: int = FORMAT_VERSION) -> bytes:
    """Make the first 16 bytes of a trace."""
    start = PRELUDE.pack(MAGIC, version, 0, 0)[:-4]
    return start + struct.pack("<I", zlib.crc32(start))


def compress(payload: bytes | Sequence[bytes], level: int = 3) -> bytes:
    """Compress into one zstd frame that states its content size."""
    import zstandard

    if isinstance(payload, bytes):
        return zstandard.ZstdCompressor(level=level).compress(payload)
    stream = zstandard.ZstdCompressor(level=level).compressobj(size=sum(map(len, payload)))
    return b"".join([*map(stream.compress, payload), stream.flush()])


def chunk_head(
    kind: bytes,
    number: int,
    payload: Sequence[bytes],
    *,
    rows: int = 0,
    raw_bytes: int | None = None,
) -> bytes:
    """Make the header of one chunk, whose payload is in pieces; with `raw_bytes` it is a zstd frame
    of that many bytes.
    """
    stored = sum(map(len, payload))
    codec = CODEC_RAW if raw_bytes is None else CODEC_ZSTD
    raw = stored if raw_bytes is None else raw_bytes
    assert len(kind) == 4
    assert raw <= _limit(kind), f"chunk {kind!r} of {raw} bytes"
    crc = 0
    for piece in payload:
        crc = zlib.crc32(piece, crc)
    head = CHUNK.pack(kind, number, codec, rows, stored, raw, crc, 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head))


def encode_chunk(
    kind: bytes, number: int, payload: bytes, *, rows: int = 0, raw_bytes: int | None = None
) -> bytes:
    """Make one chunk; see `chunk_head`."""
    return chunk_head(kind, number, (payload,), rows=rows, raw_bytes=raw_bytes) + payload


def encode_index(chunks: list[ChunkInfo]) -> bytes:
    """Make the payload of the index chunk: kind, rows and offset of each chunk before it."""
    return b"".join(INDEX_ENTRY.pack(c.kind, c.rows, c.offset) for c in chunks)


def encode_trailer(index_offset: int, chunk_count: int) -> bytes:
    """Make the last 24 bytes of a closed trace."""
    start = TRAILER.pack(TRAILER_MAGIC, index_offset, chunk_count, 0)[:-4]
    return start + struct.pack("<I", zlib.crc32(start))


def _limit(kind: bytes) -> int:
    return _LIMITS.get(kind, MAX_CHUNK_BYTES)


class ContainerFile:
    """A trace opened for reading, as chunks; keeps no position."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._source = open_source(self.path)
        try:
            self.file_bytes = self._source.size()
            self.version = self._read_prelude()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; idempotent."""
        self._source.close()

    def held(self) -> bool:
        """Whether somebody records into it."""
        return self._source.held()

    def error(self, what: str, offset: int | None = None) -> FormatError:
        """Make the error that names this file."""
        return FormatError(what, path=self.path, offset=offset)

    def _read_prelude(self) -> int:
        data = self._source.read(PRELUDE.size, 0)
        if not data:
            raise self.error("the file is empty, it is no trace")
        if len(data) < PRELUDE.size:
            if MAGIC.startswith(data[:8]):
                raise self.error("the trace was cut in its first 16 bytes, nothing is left of it")
            raise self.error("this is not a Workbench trace (it begins with other bytes)")
        magic, version, _, crc = PRELUDE.unpack(data)
        if magic != MAGIC:
            if magic[1:4] == MAGIC[1:4]:
                raise self.error("the first bytes are damaged (as by a transfer in text mode)", 0)
            raise self.error("this is not a Workbench trace (it begins with other bytes)")
        if crc != zlib.crc32(data[:-4]):
            raise self.error("the first bytes are damaged: wrong checksum", 0)
        if not 1 <= version <= FORMAT_VERSION:
            hint = "a newer" if version > FORMAT_VERSION else "an unknown"
            raise self.error(
                f"this trace has format version {version}, {hint} one: this Workbench reads"
                f" versions 1 to {FORMAT_VERSION}"
            )
        return int(version)

    def layout(self) -> Layout:
        """Find all chunks: through the index of a closed trace, else by walking over them."""
        indexed = self._indexed()
        if indexed is not None:
            return Layout(indexed, True, "", self.file_bytes)
        return self._walked(None)

    def grown(self, after: ChunkInfo) -> Layout:
        """Find the chunks that were appended behind one."""
        self.file_bytes = self._source.size()
        if self.file_bytes < after.end:
            raise self.error("the file has become shorter: it is recorded anew")
        return self._walked(after)

    def _walked(self, after: ChunkInfo | None) -> Layout:
        chunks: list[ChunkInfo] = []
        problem = ""
        for item in self._walk(after):
            if isinstance(item, str):
                problem = item
            else:
                chunks.append(item)
        return Layout(tuple(chunks), False, problem, self.file_bytes)

    def _indexed(self) -> tuple[ChunkInfo, ...] | None:
        """Read trailer and index; None when there are none, or when they are damaged."""
        start = self.file_bytes - TRAILER.size
        if start < PRELUDE.size:
            return None
        data = self._source.read(TRAILER.size, start)
        if len(data) < TRAILER.size:
            return None
        magic, index_offset, count, crc = TRAILER.unpack(data)
        if magic != TRAILER_MAGIC or crc != zlib.crc32(data[:-4]) or count > MAX_CHUNKS:
            return None
        try:
            index = self.chunk_at(index_offset, count)
            if index.kind != INDEX or index.end != start:
                return None
            table = self.payload(index)
        except FormatError:
            return None
        if len(table) != count * INDEX_ENTRY.size:
            return None
        chunks: list[ChunkInfo] = []
        position = PRELUDE.size
        for number, (kind, rows, offset) in enumerate(INDEX_ENTRY.iter_unpack(table)):
            chunk = self.chunk_at(offset, number)
            if offset != position or chunk.kind != kind or chunk.rows != rows:
                raise self.error(f"the index does not fit chunk {number}", offset)
            position = chunk.end
            chunks.append(chunk)
        if position != index_offset:
            raise self.error("the index does not cover the file", position)
        return tuple(chunks)

    def _walk(self, after: ChunkInfo | None) -> Iterator[ChunkInfo | str]:
        """Yield each whole chunk from the start, or behind one; a last string says why the walk
        ended early.
        """
        position = PRELUDE.size if after is None else after.end
        number = 0 if after is None else after.number + 1
        while position < self.file_bytes and number < MAX_CHUNKS:
            left = self.file_bytes - position
            if left < CHUNK.size:
                yield f"the last {left:,} bytes are an incomplete chunk"
                return
            try:
                chunk = self.chunk_at(position, number)
            except FormatError as error:
                yield f"{left:,} bytes from byte {position:,} on are unreadable: {error.what}"
                return
            if chunk.end > self.file_bytes:
                yield f"the last {left:,} bytes are an incomplete chunk"
                return
            if chunk.kind != INDEX:
                yield chunk
            position = chunk.end
            number += 1

    def chunk_at(self, offset: int, number: int) -> ChunkInfo:
        """Read and check the chunk header at `offset`, which has to be that of chunk `number`."""
        if not PRELUDE.size <= offset <= self.file_bytes - CHUNK.size:
            raise self.error("a chunk lies outside of the file", offset)
        data = self._source.read(CHUNK.size, offset)
        if len(data) < CHUNK.size:
            raise self.error("a chunk header is incomplete", offset)
        kind, found, codec, rows, stored, raw, crc, head_crc = CHUNK.unpack(data)
        if head_crc != zlib.crc32(data[:-4]):
            raise self.error(f"the header of chunk {number} is damaged: wrong checksum", offset)
        chunk = ChunkInfo(kind, found, codec, rows, stored, raw, crc, offset)
        if found != number:
            raise self.error(f"expected chunk {number}, not {found}", offset)
        if codec not in (CODEC_RAW, CODEC_ZSTD):
            raise self.error(f"chunk {number} has an unknown coding {codec}", offset)
        if raw > _limit(kind) or stored > _limit(kind) + (_limit(kind) >> 3) + 4096:
            raise self.error(f"chunk {number} claims {max(raw, stored):,} bytes, too many", offset)
        if codec == CODEC_RAW and raw != stored:
            raise self.error(f"chunk {number} states two different lengths", offset)
        if rows > MAX_ROWS:
            raise self.error(f"chunk {number} claims {rows:,} rows, too many", offset)
        return chunk

    def stored(self, chunk: ChunkInfo) -> bytes:
        """Read and check a chunk's payload, as it is in the file."""
        data = self._source.read(chunk.stored_bytes, chunk.offset + CHUNK.size)
        if len(data) != chunk.stored_bytes:
            raise self.error(f"chunk {chunk.number} is incomplete", chunk.offset)
        if zlib.crc32(data) != chunk.crc:
            raise self.error(
                f"chunk {chunk.number} ({chunk.name}) is damaged: wrong checksum", chunk.offset
            )
        return data

    def payload(self, chunk: ChunkInfo) -> bytes:
        """Read, check and decompress what is in a chunk."""
        data = self.stored(chunk)
        if chunk.codec == CODEC_RAW:
            return data
        import zstandard

        try:
            if zstandard.frame_content_size(data) != chunk.raw_bytes:
                raise self.error(f"chunk {chunk.number} states two lengths", chunk.offset)
            raw = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(data)
        except zstandard.ZstdError:
            raise self.error(
                f"chunk {chunk.number} ({chunk.name}) cannot be decompressed", chunk.offset
            ) from None
        if len(raw) != chunk.raw_bytes:
            raise self.error(f"chunk {chunk.number} states two lengths", chunk.offset)
        return raw

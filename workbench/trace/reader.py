"""Reads a trace: header, images, tables, end; from a closed file, or from one that was cut.

    with open_trace("boot.wbt") as trace:
        print(trace.header.cmdline, trace.state, trace.accesses.num_rows)

Nothing is loaded before it is asked for, and every part is checked when it is read: a file may hold
any bytes at all and the answer is a `FormatError`.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from workbench.errors import FormatError, InputFileError, os_error_text
from workbench.trace import tables
from workbench.trace.container import (
    BLOB,
    CHECKPOINT,
    CHECKPOINTS,
    CHUNK,
    END,
    HEAD,
    MARK,
    OLD_PAGES,
    PAGES,
    ChunkInfo,
    ContainerFile,
    Layout,
)
from workbench.trace.header import End, Header, Image, Mark, load_json

if TYPE_CHECKING:
    import pyarrow as pa


class Trace:
    """An open trace. Its tables are Arrow tables with dictionary-encoded names."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = ContainerFile(path)
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        layout = self._file.layout()
        self.path = self._file.path
        self.version = self._file.version
        chunks = layout.chunks
        if not chunks:
            raise self._file.error(layout.problem or "the trace was cut before its header")
        if chunks[0].kind != HEAD:
            raise self._file.error("the trace does not begin with its header", chunks[0].offset)
        self.header: Header = self._parse(chunks[0], Header.from_json)
        self._chunks: list[ChunkInfo] = []
        """Those of whole groups; only ever appended to, so that who reads need not know."""
        self._mark: ChunkInfo | None = None
        self.watch: Callable[[float], None] | None = None
        """Told for each piece of a table that is decoded how far in the file it is, from 0 to 1."""
        self._take(layout)

    def _take(self, layout: Layout) -> None:
        """Take chunks that come behind those that are known."""
        chunks = layout.chunks
        for chunk in chunks:
            spec = tables.BY_CHUNK.get(chunk.kind)
            known = chunk.kind in _KNOWN if spec is None else spec.since <= self.version
            if not known and chunk.kind[:1].isupper():
                raise self._file.error(f"chunk {chunk.name!r} is of an unknown kind", chunk.offset)
        ended = bool(chunks) and chunks[-1].kind == END
        if layout.closed and not ended:
            raise self._file.error("the trace has an index and no end", chunks[-1].offset)
        before = self._mark
        mark = next((chunk for chunk in reversed(chunks) if chunk.kind == MARK), before)
        if mark is None:
            raise self._file.error("the trace was cut before the guest was started")
        self.file_bytes = layout.file_bytes
        self.problem = layout.problem
        """What is wrong with the end of a file that was not closed; empty when nothing is."""
        self.end: End | None = self._parse(chunks[-1], End.from_json) if ended else None
        self.closed = ended
        if mark is not before:
            self.last_mark: Mark = self._parse(mark, Mark.from_json)
        if mark is before and not ended:
            return
        if before is not None:
            self._chunks.append(before)
        end = len(chunks) if ended else chunks.index(mark)
        self._chunks.extend(chunks[:end])
        self._mark = mark

    def refresh(self) -> None:
        """See what a recording that goes on has appended; it costs no more than that.

        Tables and images that were taken stay as they are.
        """
        if not self.closed:
            assert self._mark is not None
            self._take(self._file.grown(self._mark))
            for name in (*tables.BY_NAME, "_by_kind"):
                self.__dict__.pop(name, None)

    def wait(self, seconds: float) -> bool:
        """Wait until a recording that goes on has appended something; False when nothing comes any
        more, because it has ended or was cut.
        """
        while not self.closed:
            events, goes_on = self.events, self._file.held()  # asked before what it has written
            self.refresh()
            if self.events != events:
                return True
            if not goes_on:
                return False
            time.sleep(seconds)
        return False

    def _parse(self, chunk: ChunkInfo, parse: Any) -> Any:
        try:
            return parse(load_json(self._file.payload(chunk)))
        except FormatError as error:
            if error.path:
                raise
            raise self._file.error(error.what, chunk.offset) from None

    def close(self) -> None:
        """Close the file; tables that were taken stay valid."""
        self._file.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def state(self) -> str:
        """`closed`, `recording` while it goes on, or `cut` for a trace whose recorder was killed or
        whose file lost its end.
        """
        if self.closed:
            return "closed"
        return "recording" if self._file.held() else "cut"

    @property
    def icount(self) -> int:
        """Instruction count up to which the trace is complete."""
        return self.end.icount if self.end is not None else self.last_mark.icount

    @property
    def events(self) -> int:
        """Number of events in all tables."""
        return self.end.events if self.end is not None else self.last_mark.events

    def table(self, name: str, columns: Iterable[str] | None = None) -> pa.Table:
        """Read a table, all of it or only some columns."""
        spec = tables.BY_NAME[name]
        parts = list(self.batches(name, columns))
        if not parts:
            return tables.empty(spec, columns)
        import pyarrow as pa

        return pa.concat_tables(parts).unify_dictionaries()

    def batches(
        self, name: str, columns: Iterable[str] | None = None, *, first: int = 0
    ) -> Iterator[pa.Table]:
        """Read a table piece by piece, in order, in bounded memory; from the piece `first` on."""
        spec = tables.BY_NAME[name]
        names = None if columns is None else list(columns)
        pieces = (chunk for chunk in self._chunks if chunk.kind == spec.chunk)
        for chunk in itertools.islice(pieces, first, None):
            yield self._decode(spec, chunk, names)

    def pieces(self, name: str) -> list[int]:
        """Rows of each piece of a table, from the chunk headers alone."""
        return [chunk.rows for chunk in self._by_kind.get(tables.BY_NAME[name].chunk, [])]

    def piece(self, name: str, number: int, columns: Iterable[str] | None = None) -> pa.Table:
        """Read one piece of a table, for who goes to a place in a long one."""
        spec = tables.BY_NAME[name]
        found = self._by_kind.get(spec.chunk, [])
        return self._decode(spec, found[number], None if columns is None else list(columns))

    @cached_property
    def _by_kind(self) -> dict[bytes, list[ChunkInfo]]:
        found: dict[bytes, list[ChunkInfo]] = {}
        for chunk in self._chunks:
            found.setdefault(chunk.kind, []).append(chunk)
        return found

    def _decode(
        self, spec: tables.TableSpec, chunk: ChunkInfo, columns: list[str] | None
    ) -> pa.Table:
        if self.watch is not None:
            self.watch(chunk.offset / max(1, self.file_bytes))
        try:
            return tables.decode(spec, self._file.payload(chunk), chunk.rows, columns)
        except FormatError as error:
            if error.path:
                raise
            raise self._file.error(error.what, chunk.offset) from None

    def rows(self, name: str) -> int:
        """Number of rows of a table, from the chunk headers alone."""
        kind = tables.BY_NAME[name].chunk
        return sum(chunk.rows for chunk in self._chunks if chunk.kind == kind)

    @cached_property
    def accesses(self) -> pa.Table:
        """Every port, MMIO and configuration access."""
        return self.table("accesses")

    @cached_property
    def exits(self) -> pa.Table:
        """Every other exit from guest code."""
        return self.table("exits")

    @cached_property
    def interrupts(self) -> pa.Table:
        """Interrupts and exceptions delivered to the guest."""
        return self.table("interrupts")

    @cached_property
    def dma(self) -> pa.Table:
        """Transfers between devices and guest memory."""
        return self.table("dma")

    @cached_property
    def requests(self) -> pa.Table:
        """Events of requests to devices; `workbench.trace.requests` makes whole ones of them."""
        return self.table("requests")

    @cached_property
    def irq_lines(self) -> pa.Table:
        """Level changes of interrupt lines."""
        return self.table("irq_lines")

    @cached_property
    def inputs(self) -> pa.Table:
        """What came from outside: the replay log."""
        return self.table("inputs")

    @cached_property
    def console(self) -> pa.Table:
        """Output of the serial ports and other consoles."""
        return self.table("console")

    @cached_property
    def digests(self) -> pa.Table:
        """Digests of the machine's state."""
        return self.table("digests")

    def console_bytes(self, device: str | None = None) -> bytes:
        """Console output as one byte string, of one device or of all in order."""
        parts = []
        for batch in self.batches("console", ("device", "data")):
            names = batch["device"].to_pylist()
            data = batch["data"].to_pylist()
            parts += [d for n, d in zip(names, data, strict=True) if device in (None, n)]
        return b"".join(parts)

    def event_groups(self, icount: int = 0) -> Iterator[list[tables.Event]]:
        """All events in order of `seq`, group by group; raises `FormatError` if one is missing.

        With an instruction count, groups that end before it are left out.
        """
        for _, events in self.numbered_groups(icount):
            yield events

    def numbered_groups(self, icount: int = 0) -> Iterator[tuple[int, list[tables.Event]]]:
        """Likewise, each with the `seq` of its first event."""
        for first, group in self._groups(icount):
            yield first, self._merge(group, first)

    def table_groups(self) -> Iterator[dict[str, list[pa.Table]]]:
        """The tables of each group, for who works on columns; every `seq` of a group is there once,
        as a rule in one piece of each table.
        """
        import numpy as np

        from workbench.trace.columns import integers

        for first, group in self._groups():
            found: dict[str, list[pa.Table]] = {}
            seqs = []
            for chunk in group:
                spec = tables.BY_CHUNK[chunk.kind]
                table = self._decode(spec, chunk, None)
                found.setdefault(spec.name, []).append(table)
                seqs.append(integers(table[tables.SEQ]))
            every = np.sort(np.concatenate(seqs))
            if (every != np.arange(first, first + len(every))).any():
                raise self._file.error("an event is out of place", group[0].offset)
            yield found

    def _groups(self, icount: int = 0) -> Iterator[tuple[int, list[ChunkInfo]]]:
        """The chunks of each group, and the `seq` of its first event."""
        first = 0
        group: list[ChunkInfo] = []
        for chunk in self._chunks:
            if chunk.kind in tables.BY_CHUNK:
                group.append(chunk)
            elif group:
                mark = self._parse(chunk, Mark.from_json) if chunk.kind == MARK and icount else None
                if mark is None or mark.icount >= icount:
                    yield first, group
                first += sum(each.rows for each in group)
                group = []
        if group:
            yield first, group

    def _merge(self, group: list[ChunkInfo], first: int) -> list[tables.Event]:
        events: list[tables.Event | None] = [None] * sum(chunk.rows for chunk in group)
        for chunk in group:
            spec = tables.BY_CHUNK[chunk.kind]
            table = self._decode(spec, chunk, None)
            seqs = table[tables.SEQ].to_numpy().tolist()
            for seq, event in zip(seqs, tables.event_rows(spec, table), strict=True):
                place = seq - first
                if not 0 <= place < len(events) or events[place] is not None:
                    raise self._file.error(f"event {seq} is out of place", chunk.offset)
                events[place] = event
        return events  # type: ignore[return-value]  # every place was filled exactly once

    def image(self, role: str) -> bytes | None:
        """Give an image that the guest was started with, checked against its SHA-256.

        None when the recording had none of that role. Raises `InputFileError` when it was kept out
        of the trace and its file is gone or has changed.
        """
        position = 0
        for image in self.header.images:
            if image.role == role:
                if image.embedded:
                    parts = self.chunks(BLOB)[position : position + image.parts]
                    return self._embedded(image, parts)
                return _outside(self.path, image)
            position += image.parts
        return None

    def _embedded(self, image: Image, parts: list[ChunkInfo]) -> bytes:
        if len(parts) != image.parts or sum(p.raw_bytes for p in parts) != image.size_bytes:
            raise self._file.error(f"the {image.role} in the trace is incomplete")
        data = b"".join(self._file.payload(part) for part in parts)
        if sha256(data).hexdigest() != image.sha256:
            raise self._file.error(f"the {image.role} in the trace does not fit its SHA-256")
        return data

    def chunks(self, *kinds: bytes) -> list[ChunkInfo]:
        """Chunks of some kinds (without one: of all), in order."""
        return [chunk for chunk in self._chunks if not kinds or chunk.kind in kinds]

    def payload(self, chunk: ChunkInfo) -> bytes:
        """What is in a chunk, checked and decompressed."""
        return self._file.payload(chunk)

    def stored(self, chunk: ChunkInfo) -> bytes:
        """A chunk's payload as it is in the file, checked."""
        return self._file.stored(chunk)

    def sizes(self) -> dict[str, int]:
        """Bytes of the file by use: by table, `images`, `checkpoints`, `structure` (the rest)."""
        found: dict[str, int] = {spec.name: 0 for spec in tables.TABLES}
        images = checkpoints = 0
        for chunk in self._chunks:
            bytes_used = chunk.stored_bytes + CHUNK.size
            if chunk.kind in tables.BY_CHUNK:
                found[tables.BY_CHUNK[chunk.kind].name] += bytes_used
            elif chunk.kind == BLOB:
                images += bytes_used
            elif chunk.kind in (CHECKPOINT, CHECKPOINTS, PAGES, OLD_PAGES):
                checkpoints += bytes_used
        structure = self.file_bytes - images - checkpoints - sum(found.values())
        return {
            **found,
            "images": images,
            "checkpoints": checkpoints,
            "structure": structure,
        }


_KNOWN = frozenset({HEAD, BLOB, MARK, END})


def _outside(trace: str, image: Image) -> bytes:
    try:
        data = Path(image.path).read_bytes()
    except (OSError, ValueError) as error:
        reason = os_error_text(error) if isinstance(error, OSError) else "no valid name"
        raise InputFileError(
            f"{trace}: the {image.role} was kept out of the trace and {image.path!r} cannot be"
            f" read: {reason}"
        ) from None
    if len(data) != image.size_bytes or sha256(data).hexdigest() != image.sha256:
        raise InputFileError(
            f"{trace}: the {image.role} was kept out of the trace and {image.path!r} has changed"
            " since the recording"
        )
    return data


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Open a trace file; raises `InputFileError` or `FormatError`."""
    return Trace(path)

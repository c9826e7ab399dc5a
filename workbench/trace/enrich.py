"""Adds checkpoints to a closed trace: a copy is written beside it and takes its name at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from workbench.core.machine import Machine
from workbench.errors import FormatError, TraceWriteError, UsageError, os_error_text
from workbench.trace import guest as guests
from workbench.trace import storage
from workbench.trace.container import (
    CHECKPOINT,
    CHECKPOINTS,
    CODEC_RAW,
    END,
    INDEX,
    OLD_PAGES,
    PAGES,
    ChunkInfo,
    compress,
    encode_chunk,
    encode_index,
    encode_prelude,
    encode_trailer,
)
from workbench.trace.guest import Guest
from workbench.trace.reader import Trace
from workbench.trace.replayer import inputs_of
from workbench.trace.stored import MAX_CHECKPOINTS, Saver


class _Copy:
    """The new file, chunk by chunk."""

    def __init__(self, file: BinaryIO, version: int) -> None:
        self._file = file
        self._chunks: list[ChunkInfo] = []
        self._size = 0
        self._write(encode_prelude(version))

    def put(self, kind: bytes, payload: bytes, rows: int = 0) -> None:
        """Append a chunk, compressed."""
        self.take(kind, compress(payload), rows, len(payload))

    def take(self, kind: bytes, stored: bytes, rows: int, raw_bytes: int | None) -> None:
        """Append a chunk as it was stored."""
        number = len(self._chunks)
        data = encode_chunk(kind, number, stored, rows=rows, raw_bytes=raw_bytes)
        self._chunks.append(ChunkInfo(kind, number, 0, rows, len(stored), 0, 0, self._size))
        self._write(data)

    def end(self) -> None:
        """Append index and trailer."""
        count, at = len(self._chunks), self._size
        self.take(INDEX, encode_index(self._chunks), 0, None)
        self._write(encode_trailer(at, count))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._size += len(data)


def add_checkpoints(
    trace: Trace, every: int | None = None, progress: Callable[[int], None] | None = None
) -> int:
    """Replay a closed trace once and keep a state every so many instructions; how many there are.

    Those that it had are replaced. The file changes only if the replay ends in the recorded state.
    """
    if not trace.closed or trace.end is None:
        raise UsageError(f"{trace.path} was cut: only a trace that was closed can hold checkpoints")
    spacing = every or max(1_000_000, trace.icount // 64)
    if spacing < 1 or trace.icount // spacing > MAX_CHECKPOINTS:
        least = trace.icount // MAX_CHECKPOINTS + 1
        raise UsageError(f"expected a checkpoint every {least:,} instructions or more")
    target = Path(os.path.realpath(storage.local(trace.path)))
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with beside.open("xb") as file:
            count = _write(trace, file, spacing, progress)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(target.stat().st_mode & 0o777)
        beside.replace(target)
    except OSError as error:
        raise TraceWriteError(
            f"{trace.path}: the checkpoints cannot be written: {os_error_text(error)}"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
    return count


def _write(
    trace: Trace, file: BinaryIO, spacing: int, progress: Callable[[int], None] | None
) -> int:
    copy = _Copy(file, trace.version)
    chunks = trace.chunks()
    for chunk in chunks[:-1]:
        if chunk.kind not in (CHECKPOINT, CHECKPOINTS, PAGES, OLD_PAGES):
            _take(copy, trace, chunk)
    machine = cast(Machine, guests.build_machine(trace.header.machine, Guest.from_trace(trace)))
    machine.inputs.replay([item for _, item in inputs_of(trace)])
    saver = Saver(machine, copy.put)
    for icount in range(spacing, trace.icount, spacing):
        stop = machine.run(icount)
        if stop.kind != "icount":
            break
        # The machine may be a few instructions farther: that is where this one stands.
        if machine.clock.icount == icount:
            saver.add()
        if progress is not None:
            progress(icount)
    assert trace.end is not None
    machine.run(trace.icount + (0 if trace.end.stop in ("limit", "interrupted") else 1))
    if machine.digest().hex() != trace.end.digest:
        raise FormatError(
            "the replay ended in another state than the recording, no checkpoints were added"
            " ('workbench replay' says where it differs)",
            path=trace.path,
        )
    assert chunks[-1].kind == END
    saver.finish()
    _take(copy, trace, chunks[-1])
    copy.end()
    return len(saver.icounts)


def _take(copy: _Copy, trace: Trace, chunk: ChunkInfo) -> None:
    raw = None if chunk.codec == CODEC_RAW else chunk.raw_bytes
    copy.take(chunk.kind, trace.stored(chunk), chunk.rows, raw)

"""Encodes events in a process of its own, so that the guest never waits for the interpreter lock.

Making Parquet takes pyarrow, whose import alone holds the lock for a tenth of a second, and about a
microsecond of Python for each event. The helper does that on another core: it gets batches of
events through a pipe and gives chunk payloads back. It knows no file; it ends when its input does,
so a recorder that is killed leaves none behind. `marshal` is only what runs between the two, it is
never stored. Inputs that carry much (what was read from disk images, frames of a network) do not go
there: they are encoded on the spot, without copying (`bulk`).
"""

from __future__ import annotations

import gc
import marshal
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Final

from workbench.trace import bulk, tables

Payloads = list[tuple[int, int, bytes | list[bytes], bool]]
"""For each table with rows: its number, rows, payload, and whether to compress the payload. A
payload in pieces holds large data.
"""

LARGE_BYTES: Final = 1 << 14
_LENGTH: Final = struct.Struct("<Q")
_START: Final = "from workbench.trace.encoder import serve; serve()"


def encode(events: Sequence[tables.Event], first_seq: int) -> Payloads:
    """Encode a run of events here and now."""
    inputs, rest = _take_out(events, first_seq)
    return inputs + _encode(rest, first_seq)


def _encode(events: Sequence[tables.Event | None], first_seq: int) -> Payloads:
    found: Payloads = []
    for spec, seqs, rows in tables.split(events, first_seq):
        payload, worth = tables.encode(spec, seqs, rows)
        found.append((spec.number, len(rows), payload, worth))
    return found


def _take_out(
    events: Sequence[tables.Event], first_seq: int
) -> tuple[Payloads, Sequence[tables.Event | None]]:
    """Encode the inputs if they carry much; what is left, None for each of those.

    All or none of a run: the rows of a table stand in the order of the events.
    """
    inputs = [event for event in events if event[0] == tables.INPUT]
    if sum(len(event[-1]) for event in inputs) < LARGE_BYTES:
        return [], events
    spec = tables.TABLES[tables.INPUT]
    rest: list[tables.Event | None] = list(events)
    seqs: list[int] = []
    seq = first_seq
    for n, event in enumerate(events):
        if event[0] == tables.INPUT:
            seqs.append(seq)
            rest[n] = None
        seq += tables.weight(event)[0]
    return [(spec.number, len(inputs), bulk.encode(spec, seqs, inputs), True)], rest


class Helper:
    """The other process. `encode` raises `OSError` or `EOFError` when it has died."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C on the terminal is for the recorder, which then ends the helper.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to = self._process.stdin
        self._from = self._process.stdout

    def encode(self, events: Sequence[tables.Event], first_seq: int) -> Payloads:
        """Have a run of events encoded."""
        inputs, rest = _take_out(events, first_seq)
        _send(self._to, marshal.dumps((first_seq, list(rest))))
        heads: list[tuple[int, int, bool]] = marshal.loads(_receive(self._from))
        done: Payloads = [
            (number, rows, _receive(self._from), worth) for number, rows, worth in heads
        ]
        return inputs + done

    def close(self) -> None:
        """End it."""
        for pipe in (self._to, self._from):
            try:
                pipe.close()
            except OSError:
                continue
        self._process.wait()


def serve() -> None:
    """Be the helper: answer batches on stdin until there are no more.

    It steps back for the guest where processors are few, and looks for no garbage: a batch is a
    hundred thousand tuples, in which there are no cycles.
    """
    gc.disable()
    os.nice(5)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            first_seq, events = marshal.loads(_receive(source))
            payloads = _encode(events, first_seq)
            _send(
                sink, marshal.dumps([(number, rows, worth) for number, rows, _, worth in payloads])
            )
            for _, _, payload, _ in payloads:
                assert isinstance(payload, bytes)  # no large data come here
                _send(sink, payload)
        except (EOFError, OSError):
            return


def _send(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data

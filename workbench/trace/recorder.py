"""The recorder: an observer that appends every event to a list, and a thread that writes the list.

An event costs the guest one tuple and one append. Four times a second the thread takes what is
there, encodes it and writes it as one group (`writer`): a killed recorder loses less than a second.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from workbench.core.inputs import Batch
from workbench.core.polls import Polls
from workbench.core.requests import Burst
from workbench.core.spans import Spans
from workbench.errors import TraceWriteError
from workbench.trace import tables
from workbench.trace.encoder import Helper, Payloads, encode
from workbench.trace.events import EventObserver, discard
from workbench.trace.header import End, Header
from workbench.trace.protocol import InputLike
from workbench.trace.tables import Event
from workbench.trace.writer import TraceWriter

FLUSH_SECONDS = 0.25
_BACKLOG = 1_000_000
_BACKLOG_DATA_BYTES = 256 << 20
_SWITCH_SECONDS = 0.0005
_ROW_BYTES = 160  # of one that the encoder has made a row of


class Recorder(EventObserver):
    """Records a machine: put it into `machine.observers`, call `finish` or `abandon` at the end."""

    def __init__(self, writer: TraceWriter, header: Header, images: Mapping[str, bytes]) -> None:
        super().__init__()
        self.writer = writer
        self.failure: TraceWriteError | None = None
        self._header = header
        self._images = images
        self._events: list[Event] = []
        self._append = self._events.append
        self._data_bytes = 0  # of inputs since the last drain began
        self._wake = threading.Condition()
        self._stopping = False
        self._requested = 0
        self._done = 0
        self._reached = 0
        self._helper: Helper | None = None
        self._switch_seconds = sys.getswitchinterval()
        # The writer must not keep the guest waiting for the interpreter lock.
        sys.setswitchinterval(min(_SWITCH_SECONDS, self._switch_seconds))
        self._thread = threading.Thread(target=self._work, name="trace-writer", daemon=True)
        self._thread.start()

    def on_input(self, inp: InputLike) -> None:
        """An input: what it carries may be much, and counts for the backlog."""
        self._data_bytes += len(inp.data)
        super().on_input(inp)

    def on_inputs(self, batch: Batch) -> None:
        """Inputs of one moment."""
        head = (tables.INPUT, batch.icount, batch.time_ps, batch.target, batch.kind)
        append = self._append
        for data in batch.data:
            self._data_bytes += len(data)
            append((*head, data))

    def on_burst(self, burst: Burst, icount: int) -> None:
        """Requests that were served at once: one event, of which the writer makes rows."""
        *columns, rows = burst
        self._data_bytes += len(rows) * rows.itemsize
        self._append((tables.REQUEST, icount, *columns, rows.tobytes()))

    def on_polls(self, polls: Polls) -> None:
        """Many reads of one register: one event, of which the writer makes rows."""
        self._data_bytes += _ROW_BYTES * len(polls)
        self._append((tables.ACCESS, polls.last_icount, *polls.place, polls.rows))

    def on_dma_spans(self, device: str, spans: Spans, is_write: bool, icount: int) -> None:
        """The transfers of a request: one event, of which the writer makes rows."""
        data = spans.tobytes()
        self._data_bytes += len(data)
        self._append((tables.DMA, icount, device, data, is_write))

    # What the session calls.

    @property
    def events(self) -> int:
        """About as many events as were seen so far, written or not."""
        return self.writer.events + len(self._events)

    def check(self) -> None:
        """Raise what the writer met with; wait while it is far behind."""
        while self.failure is None and (
            len(self._events) > _BACKLOG or self._data_bytes > _BACKLOG_DATA_BYTES
        ):
            self.flush()
        if self.failure is not None:
            raise self.failure

    def flush(self, icount: int = 0) -> None:
        """Have everything up to now written before this returns, with a mark at `icount`."""
        with self._wake:
            self._requested += 1
            self._reached = max(self._reached, icount)
            mine = self._requested
            self._wake.notify_all()
            self._wake.wait_for(lambda: self._done >= mine or not self._thread.is_alive())

    def finish(self, end: End) -> None:
        """Write the rest and close the trace; raises `TraceWriteError` when that fails.

        The count of events in `end` is filled in here.
        """
        self._stop()
        if self.failure is not None:
            raise self.failure
        self.writer.close(replace(end, events=self.writer.events))

    def abandon(self) -> None:
        """Write what is there and leave the trace without an end, as if it had been cut."""
        self._stop()
        self.writer.abandon()

    def _stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join()
        sys.setswitchinterval(self._switch_seconds)

    # The thread.

    def _work(self) -> None:
        try:
            self.writer.embed(self._images, self._header)
            self._images = {}
            while True:
                with self._wake:
                    self._wake.wait_for(
                        lambda: self._stopping or self._requested > self._done, FLUSH_SECONDS
                    )
                    stopping, request = self._stopping, self._requested
                    reached = self._reached
                if self._helper is None and self._events and not stopping and request == self._done:
                    self._start_helper()
                self._drain()
                self.writer.append((), reached)
                with self._wake:
                    self._done = request
                    self._wake.notify_all()
                if stopping:
                    return
        except TraceWriteError as error:
            self.failure = error
        except BaseException as error:
            # A fault of ours must not look like a good recording.
            self.failure = TraceWriteError(f"{self.writer.path}: internal error: {error!r}")
            self.failure.__cause__ = error
        finally:
            if self._helper is not None:
                self._helper.close()
            if self.failure is not None:
                self._append = discard
                self._events.clear()
                self.writer.abandon()
            with self._wake:
                self._wake.notify_all()

    def _start_helper(self) -> None:
        """Have another process encode, for a recording that goes on for longer than a moment."""
        try:
            self._helper = Helper()
        except OSError:
            return  # no process to be had: it works without, only slower
        self.writer.encode = self._encode

    def _encode(self, events: Sequence[Event], first_seq: int) -> Payloads:
        assert self._helper is not None
        try:
            return self._helper.encode(events, first_seq)
        except (OSError, EOFError, ValueError):
            # It was killed, or an event has a value that does not go through the pipe (an enum).
            self.writer.encode = encode
            return encode(events, first_seq)

    def _drain(self) -> None:
        events = self._events
        count = len(events)
        if not count:
            return
        # The machine keeps appending meanwhile; both steps are atomic under the interpreter lock.
        batch = events[:count]
        del events[:count]
        self._data_bytes = 0
        self.writer.append(batch, batch[-1][1])

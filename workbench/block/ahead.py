"""Reading ahead: what a sequential reader will ask for next is read meanwhile, in a thread.

A guest that reads on takes pieces of one length, one behind the other. After a few of them the next
ones are read before it asks, while it runs. What it gets, and when in its own time, stays the same:
only whole pieces that fit exactly are used, and a write to the file drops what was read ahead.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

__all__ = ["ReadAhead"]

_AFTER: Final = 2  # pieces in a row before anything is read ahead
_MOST_PIECES: Final = 8
_LEAST_BYTES: Final = 1 << 16
"""Shorter pieces are read quicker than they are asked for."""

Source = Callable[[int, int], bytes]


class _Piece:
    """One piece on its way; `done` is locked until it is there."""

    __slots__ = ("data", "done", "length", "offset")

    def __init__(self, offset: int, length: int) -> None:
        self.offset = offset
        self.length = length
        self.data: bytes | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def take(self) -> bytes | None:
        """The data, None if they could not be read."""
        with self.done:
            return self.data


class ReadAhead:
    """`read(offset, length)` of a file of `size_bytes`, with those that follow read in a thread."""

    def __init__(self, source: Source, size_bytes: int) -> None:
        """`source` is called in both threads, also at the same time."""
        self._source = source
        self._size_bytes = size_bytes
        self._next = -1
        self._length = 0
        self._row = 0
        self._pieces: deque[_Piece] = deque()
        self._work: SimpleQueue[_Piece | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; raises what `source` raises."""
        follows = offset == self._next and length == self._length
        if not follows:
            self.forget()
        data = self._pieces.popleft().take() if self._pieces else None
        if data is None:
            self._pieces.clear()  # after an error what follows is read again, too
            data = self._source(offset, length)
        self._row = self._row + 1 if follows else 0
        self._next, self._length = offset + length, length
        if self._row >= _AFTER and length >= _LEAST_BYTES:
            self._go_on()
        return data

    def _go_on(self) -> None:
        if len(self._pieces) > _MOST_PIECES // 2:
            return  # several at once: each time that the thread wakes costs the guest
        while len(self._pieces) < _MOST_PIECES:
            at = self._next + len(self._pieces) * self._length
            if at + self._length > self._size_bytes:
                return
            piece = _Piece(at, self._length)
            self._pieces.append(piece)
            self._work.put(piece)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
                self._thread.start()

    def forget(self) -> None:
        """Use nothing of what was read so far: the file is written, or reading goes elsewhere."""
        self._pieces.clear()
        self._row = 0

    def close(self) -> None:
        """End the thread; nothing reads from `source` any more."""
        self.forget()
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (piece := self._work.get()) is not None:
            try:
                piece.data = self._source(piece.offset, piece.length)
            except Exception:  # who asks for it reads again, and gets the error
                pass
            finally:
                piece.done.release()

"""The screen goes first: who may use the interpreter, and when garbage is looked for.

All threads share one interpreter. One that wants it asks for it after the switch interval, so that
the interval is short while the screen's thread waits for something, which then gets on at once, and
long while it has something to do, which is then not interrupted. Work beside the screen waits, too,
when it asks whether it should go on (`Turn.wait`).

A collection of all garbage takes a tenth of a second with the processor's tables in memory, in
whatever thread happens to be at work, and stops all of them. It is done in pauses.
"""

from __future__ import annotations

import contextlib
import gc
import selectors
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

_LONG_S: Final = 0.05
_SHORT_S: Final = 0.0005
_HALF_S: Final = 5e-7
"""The interval is cut to whole microseconds."""
_MOST_WAIT_S: Final = 0.05


class Turn:
    """Lets the screen go first, from a key until what it changes has been drawn."""

    def __init__(self) -> None:
        self._free = threading.Event()
        self._free.set()

    def take(self) -> None:
        """There is a key, or the screen is about to be drawn."""
        self._free.clear()

    def give(self) -> None:
        """It has been drawn."""
        self._free.set()

    def wait(self) -> None:
        """Wait for the screen, a little while at most; called by work beside it."""
        self._free.wait(_MOST_WAIT_S)


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Around what the screen's thread waits for: afterwards it goes on at once."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SHORT_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before + _HALF_S)


class Selector(selectors.DefaultSelector):
    """Where the screen's thread waits for keys; what it does between is not interrupted."""

    def select(self, timeout: float | None = None) -> Any:
        """Wait for files that are ready."""
        sys.setswitchinterval(_SHORT_S)
        try:
            return super().select(timeout)
        finally:
            sys.setswitchinterval(_LONG_S)


class Garbage:
    """From its creation until `close` old objects are only looked through in pauses; none are
    before that, while all is loaded, once `wait` was called.
    """

    QUIET_S: Final = 3.0
    """So long after a key there is time for it."""
    ROUNDS: Final = 20
    """Collections of young objects after which it is worth it."""
    MOST_ROUNDS: Final = 500
    """It is done after so many at any time."""
    SLOW_S: Final = 0.02
    """What takes longer to be looked through is not looked through again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._key = clock()
        self._settled = False
        self._threshold = gc.get_threshold()
        gc.set_threshold(*self._threshold[:2], 1 << 30)
        gc.freeze()
        gc.enable()

    @staticmethod
    def wait() -> None:
        """Look through none until there is a screen: what is loaded now stays."""
        gc.disable()

    def key(self) -> None:
        """A key was pressed."""
        self._key = self._clock()

    def tick(self, busy: bool) -> None:
        """Collect if there is time for it; `busy`: is there work beside the screen?"""
        if not busy and not self._settled:
            # The machine has been built: that stays.
            self._settled = True
            gc.freeze()
        rounds = gc.get_count()[2]
        begun = self._clock()
        if rounds < (self.ROUNDS if begun - self._key >= self.QUIET_S else self.MOST_ROUNDS):
            return
        gc.collect()
        if self._clock() - begun > self.SLOW_S:
            gc.freeze()

    def close(self) -> None:
        """Let the interpreter do as before."""
        gc.unfreeze()
        gc.set_threshold(*self._threshold)

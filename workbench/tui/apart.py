"""A process that goes through a long log, for the index, the time line and filters.

Threads share one interpreter with the screen; this process only takes a processor, and steps back
from it (`nice`). It is asked about a few blocks at a time, by threads that wait for the answer, and
keeps none: what it has found is put together by who asks. It is started when it is first asked. A
short log is not worth that, and without the process all is done in this one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import WorkbenchError
from workbench.trace import processes
from workbench.trace.reader import open_trace
from workbench.tui import language
from workbench.tui.density import Density, counted
from workbench.tui.events import Events
from workbench.tui.log import DECODED, AccessLog, State
from workbench.tui.matches import Context, Found, Matches, columns
from workbench.tui.names import Names

if TYPE_CHECKING:
    from workbench.trace.reader import Trace
    from workbench.tui.language import Node

LEAST_BLOCKS: Final = 128
"""A log of fewer is gone through in about the time that a process takes to start."""
_AT_A_TIME: Final = 16
_KEPT_ROWS: Final = 1 << 17
"""Read ones, of which neighbours need some."""
_END_S: Final = 1.0


class Apart:
    """Has a log gone through, by a process of its own where that is worth it; from any thread."""

    def __init__(self, log: AccessLog, names: Names, events: Events) -> None:
        self._log = log
        self._names = names
        self._events = events
        self._lock = threading.Lock()
        self._process: Any = None
        self._connection: Connection | None = None
        self._over = False
        self._asked: tuple[Any, ...] = ()
        """The filter that the process knows, and the names that it was told."""

    @property
    def at_a_time(self) -> int:
        """How many blocks, or pieces, it should be asked about together."""
        return _AT_A_TIME if self._is_wanted else 1

    @property
    def _is_wanted(self) -> bool:
        return not self._over and self._log.blocks >= LEAST_BLOCKS

    def count(self, first: int, last: int, span: int) -> Density:
        """Count pieces of the accesses (`density.counted`)."""
        with self._lock:
            found: Density | None = self._answer("count", first, last, span)
        return counted(self._log.trace, first, last, span) if found is None else found

    def follow(self, first: int, last: int, state: State) -> list[State]:
        """Follow what is selected through some blocks (`AccessLog.follow`)."""
        found: list[State] | None = None
        with self._lock:
            if not self._may_grow(last - 1):
                found = self._answer("follow", first, last, state)
        return self._log.follow(first, last, state) if found is None else found

    def look(self, matches: Matches, numbers: list[int]) -> None:
        """Look through some blocks for a filter."""
        if not numbers:
            return
        found: list[Found] | None = None
        with self._lock:
            if not self._may_grow(max(numbers)) and self._ask(matches):
                states = {number: self._log.state(number) for number in numbers}
                found = self._answer("look", states)
        if found is None:
            matches.look(numbers)
        else:
            matches.take(found)

    def _may_grow(self, number: int) -> bool:
        """Is a block the last one of a recording that goes on?  The process may see more of it."""
        return number == self._log.blocks - 1 and not self._log.trace.closed

    def _ask(self, matches: Matches) -> bool:
        """Say which filter it is about; False if it is one for this process."""
        node, names, events = matches.node, None, None
        if node is None or not self._is_wanted:
            return False
        if language.asks(node, "function"):
            names = Names(self._names.table)
        if language.asks(node, "request"):
            if not self._log.trace.closed:  # those in work may end while this is read
                return False
            events = self._events.only_requests()
        asked = matches, names and names.table, events and len(events.requests)
        if asked == self._asked:
            return True
        self._asked = asked
        return self._answer("ask", node, names, events) is not None

    # The process.

    def _answer(self, name: str, *arguments: Any) -> Any:
        """What it says; None if there is none, or if something was wrong, which comes here, too."""
        if not self._is_wanted:
            return None
        try:
            connection = self._connection or self._start()
            connection.send((name, self._log.rows, arguments))
            return connection.recv()
        except (EOFError, OSError):
            self._over = True
            return None

    def _start(self) -> Connection:
        context = get_context("spawn")  # not a fork: Arrow has threads
        connection, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(self._log.trace.path, theirs), name="apart", daemon=True
        )
        with processes.starting():
            process.start()
        theirs.close()
        self._process, self._connection = process, connection
        return connection

    def close(self) -> None:
        """Do all in this process from now on, and end the other one."""
        self._over = True
        if self._process is not None:
            self._process.terminate()
            self._process.join(_END_S)


class _Log(AccessLog):
    """A log that is told what is selected at the start of a block."""

    told: dict[int, State]

    def state(self, number: int) -> State:
        """What was told."""
        return self.told[number]


class _Reader:
    """What the process does."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._log = AccessLog(trace, DECODED, _KEPT_ROWS)
        self._matches = Matches(self._log, None)

    def grow(self, rows: int) -> None:
        """There are so many accesses now."""
        if rows > self._log.rows:
            self._trace.refresh()
            self._log.grow()
            if self._matches.node is not None:
                self._matches.log.grow()
            self._matches.grow()

    def count(self, first: int, last: int, span: int) -> Density:
        """Count pieces."""
        return counted(self._trace, first, last, span)

    def follow(self, first: int, last: int, state: State) -> list[State]:
        """Follow what is selected."""
        return self._log.follow(first, last, state)

    def ask(self, node: Node, names: Names | None, events: Events | None) -> bool:
        """Look for another filter from now on."""
        context = Context()
        if names is not None:
            context.function = names.text
        if events is not None:
            context.request = events.request_of
        log = _Log(self._trace, columns(node) or {"write"}, _KEPT_ROWS)
        self._matches = Matches(log, node, context)
        return True

    def look(self, states: dict[int, State]) -> list[Found]:
        """Look through blocks, with what is selected at their start."""
        log = self._matches.log
        assert isinstance(log, _Log)
        log.told = states
        return self._matches.look(states)


def _serve(path: str, connection: Connection) -> None:
    """Answer until nobody asks any more."""
    processes.end_at_interrupt()
    processes.step_back()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):  # the terminal is the screen's
        os.dup2(nowhere, output)
    with contextlib.suppress(EOFError, OSError, WorkbenchError), open_trace(path) as trace:
        reader = _Reader(trace)
        while True:
            name, rows, arguments = connection.recv()
            try:
                reader.grow(rows)
                answer = getattr(reader, name)(*arguments)
            except Exception:  # it happens once more where it is told
                answer = None
            connection.send(answer)

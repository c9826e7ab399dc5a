"""Work on one long trace in several processes, of which each needs a little from the one before.

The trace is cut into turns, which the processes take in rotation. Most of a turn is done without
the others (`prepare`, `finish`); a part between (`follow`) is done in the order of the turns, with
what the turn before has handed on: a relay race whose runners run most of the time at once. Threads
would not do: what is done with each batch holds the interpreter's lock half of the time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

from workbench.trace import processes

MOST_JOBS: Final = 4
_END_S: Final = 5


class Runner(Protocol):
    """What one process does of the work."""

    turns: int
    """How many there are in all."""
    follows: bool
    """Whether `follow` needs what was handed on; else no turn waits for another."""

    def prepare(self, turn: int) -> None:
        """Do what needs nothing from the turns before."""

    def follow(self, handed: Any) -> Any:
        """Take what the turn before handed on (None before the first); give what to hand on."""

    def finish(self) -> None:
        """Do the rest of the turn."""

    def result(self) -> Any:
        """Give what came out of all turns that were done here."""


Make = Callable[..., contextlib.AbstractContextManager[Runner]]


class _GoneError(Exception):
    """A process has ended early."""


def run(make: Make, arguments: tuple[Any, ...], jobs: int | None = None) -> list[Any]:
    """Do all turns and give the results, one for each process.

    `make` is a function at the top of a module, its arguments are plain values. What goes wrong in
    another process happens once more in this one, which then does all of the work alone.
    """
    jobs = min(MOST_JOBS, os.cpu_count() or 1) if jobs is None else jobs
    if jobs > 1:
        with contextlib.suppress(_GoneError):
            return _together(make, arguments, jobs)
    with make(*arguments) as runner:
        _run(runner, 0, 1, None, None)
        return [runner.result()]


def _together(make: Make, arguments: tuple[Any, ...], jobs: int) -> list[Any]:
    context = get_context("spawn")  # not a fork: Arrow has threads
    ring = [context.Pipe(duplex=False) for _ in range(jobs)]
    results: list[Connection] = []
    children = []
    try:
        for place in range(1, jobs):
            mine, theirs = context.Pipe(duplex=False)
            ends = ring[place][0], ring[(place + 1) % jobs][1], theirs
            child = context.Process(
                target=_child, args=(make, arguments, place, jobs, *ends), daemon=True
            )
            with processes.starting():
                child.start()
            children.append(child)
            results.append(mine)
            theirs.close()
        for place in range(1, jobs):  # so that the end of a process is the end of its pipe
            ring[place][0].close()
            ring[(place + 1) % jobs][1].close()
        with make(*arguments) as runner:
            _run(runner, 0, jobs, ring[0][0], ring[1][1])
            return [runner.result(), *map(_received, results)]
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.join(_END_S)
        for end in (*results, *(end for pipe in ring for end in pipe)):
            end.close()


def _child(
    make: Make,
    arguments: tuple[Any, ...],
    place: int,
    jobs: int,
    before: Connection,
    after: Connection,
    result: Connection,
) -> None:
    """Do the turns of one process. Nothing is told of an error: the first process meets it, too."""
    processes.end_at_interrupt()
    with contextlib.suppress(Exception), make(*arguments) as runner:
        _run(runner, place, jobs, before, after)
        result.send(runner.result())


def _run(
    runner: Runner, place: int, jobs: int, before: Connection | None, after: Connection | None
) -> None:
    handed = None
    for turn in range(place, runner.turns, jobs):
        runner.prepare(turn)
        if before is not None and runner.follows and turn:
            handed = _received(before)
        handed = runner.follow(handed)
        if after is not None and runner.follows and turn + 1 < runner.turns:
            with _others():
                after.send(handed)
        runner.finish()


def _received(source: Connection) -> Any:
    with _others():
        return source.recv()


@contextlib.contextmanager
def _others() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        raise _GoneError from None

"""Many traces at once: which files are meant, and the same work on each, on all cores or a cluster.

The work is a function at the top of a module, called with the path of a trace first; it runs in
other processes, so its arguments and its result are plain values. On a Dask cluster the workers
open the traces by the same names: a shared file system, or a bucket.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Final, Generic, TypeVar

from workbench.errors import InputFileError, UsageError, WorkbenchError, os_error_text
from workbench.trace import processes, storage

T = TypeVar("T")
CONNECT_SECONDS: Final = 10
_AHEAD: Final = 4
_SIGNAL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What came out for one trace: a value, or the sentence that says why there is none."""

    path: str
    value: T | None
    problem: str = ""


def find(given: Sequence[str]) -> list[str]:
    """Give all traces that are meant: a folder or bucket stands for every trace in and below it.

    Raises `InputFileError` for a folder without any.
    """
    found: list[str] = []
    for name in given:
        if not storage.is_folder(name):
            found.append(name)
            continue
        inside = storage.find(name)
        if not inside:
            raise InputFileError(f"{name}: there is no trace ({storage.SUFFIX}) in this folder")
        found += inside
    return list(dict.fromkeys(found))


def each(
    work: Callable[..., T],
    paths: Sequence[str],
    *arguments: Any,
    jobs: int | None = None,
    scheduler: str | None = None,
) -> Iterator[Result[T]]:
    """Call `work(path, *arguments)` for each path and give the results in order.

    `jobs` processes at once, by default one for each core, and this process alone for a single
    trace; with `scheduler`, on that Dask cluster. What is wrong with one trace is a `problem` and
    does not stop the others.
    """
    calls = [(work, path, arguments) for path in paths]
    yield from spread(_guarded, calls, jobs=jobs, scheduler=scheduler)


def spread(
    work: Callable[..., T],
    calls: Sequence[tuple[Any, ...]],
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
) -> Iterator[T]:
    """Call `work` with each of these arguments, likewise spread out; results in order."""
    jobs = min(len(calls), jobs or os.cpu_count() or 1)
    if scheduler is None and jobs <= 1:
        for arguments in calls:
            yield work(*arguments)
        return
    with _deaths_told(), _executor(scheduler, jobs) as executor:
        waiting: deque[Future[T]] = deque()
        ahead = max(_AHEAD * jobs, 64 if scheduler else 0)
        for arguments in calls:
            waiting.append(executor.submit(work, *arguments))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextlib.contextmanager
def _deaths_told() -> Iterator[None]:
    try:
        yield
    except BrokenExecutor:
        time.sleep(_SIGNAL_SECONDS)  # if Ctrl-C has ended it, that is on its way to us, too
        raise WorkbenchError(
            "a process that did a part of the work has died, perhaps for want of memory"
            " ('--jobs 1' needs less)"
        ) from None


def _guarded(work: Callable[..., T], path: str, arguments: tuple[Any, ...]) -> Result[T]:
    """Do the work; a trace that cannot be read is no reason to end."""
    try:
        return Result(path, work(path, *arguments))
    except WorkbenchError as error:
        return Result(path, None, str(error))
    except OSError as error:
        return Result(path, None, f"{path}: {os_error_text(error)}")
    except MemoryError:
        return Result(path, None, f"{path}: there is not enough memory for this")


@contextlib.contextmanager
def _executor(scheduler: str | None, jobs: int) -> Iterator[Executor]:
    if scheduler is None:
        # Not a fork: other threads may hold locks.
        spawn = get_context("spawn")
        with ProcessPoolExecutor(jobs, spawn, processes.end_at_interrupt) as pool:
            with processes.starting():
                for _ in range(jobs):
                    pool.submit(int)  # a call starts another one as long as none is idle
            yield pool
        return
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise InputFileError(
            "a cluster needs Dask (pip install 'guest-driver-workbench[cluster]')"
        ) from None
    if "://" not in scheduler:
        raise UsageError(f"expected a scheduler such as tcp://host:8786, not {scheduler!r}")
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputFileError(f"no Dask scheduler answers at {scheduler}: {reason}") from None
    with client, client.get_executor(pure=False) as executor:
        yield executor

"""Work in threads, ahead of who takes the results: for what Arrow and NumPy do without the lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")
MOST_THREADS: Final = 4


def threads() -> int:
    """How many are worth having."""
    return min(MOST_THREADS, os.cpu_count() or 1)


def in_turn(tasks: Iterable[Callable[[], T]], jobs: int | None) -> Iterator[T]:
    """Give the results of tasks in order, done in so many threads; with 1 here, one by one."""
    if jobs == 1:
        return (task() for task in tasks)
    return ahead(tasks, threads() if jobs is None else jobs)


def ahead(tasks: Iterable[Callable[[], T]], jobs: int) -> Iterator[T]:
    """Give the results of tasks in order; three for each thread are under way or waiting."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) >= 3 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

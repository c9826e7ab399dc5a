"""Work beside the screen: one thread that does jobs in order, with progress and cancelling.

A job runs in the worker's thread and is given itself, to say how far it is and to ask whether it
should stop. What it returns goes to `done` in the screen's thread (`post` brings it there), so that
the model is only ever changed there.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from workbench.errors import WorkbenchError
from workbench.tui.pace import Turn

Post = Callable[[Callable[[], None]], None]
Work = Callable[["Job"], Any]


class Job:
    """One piece of work."""

    def __init__(
        self, name: str, work: Work, done: Callable[[Any], None], turn: Turn | None = None
    ) -> None:
        self.name = name
        self.work = work
        self.done = done
        self.progress: float | None = None
        """From 0 to 1, None while it is unknown; written by the worker, read by the screen."""
        self._stop = threading.Event()
        self._turn = turn

    def cancel(self) -> None:
        """Ask it to stop; whether and where it does is its own affair."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        """Has somebody asked it to stop?"""
        return self._stop.is_set()

    def stopping(self) -> bool:
        """Has somebody asked it to stop?  The `poll` of a timeline. Waits for the screen."""
        if self._turn is not None:
            self._turn.wait()
        return self._stop.is_set()


class Worker:
    """A thread that does jobs one after the other."""

    def __init__(
        self, name: str, post: Post, failed: Callable[[str], None], turn: Turn | None = None
    ) -> None:
        self._turn = turn
        self.job: Job | None = None
        """What is running or waits first; changed in the screen's thread only."""
        self.waiting: list[Job] = []
        self._post = post
        self._failed = failed
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Is there a job?"""
        return self.job is not None

    def submit(self, name: str, work: Work, done: Callable[[Any], None]) -> Job:
        """Do a job after those that are there."""
        job = Job(name, work, done, self._turn)
        if self.job is None:
            self.job = job
            self._queue.put(job)
        else:
            self.waiting.append(job)
        return job

    def cancel(self) -> bool:
        """Stop what runs and forget what waits; False when there is nothing."""
        if self.job is None:
            return False
        self.waiting.clear()
        self.job.cancel()
        return True

    def close(self, seconds: float = 2.0) -> bool:
        """Stop the thread, and wait for it a little; has it ended?"""
        self.cancel()
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            result, error = None, ""
            try:
                result = job.work(job)
            except WorkbenchError as failure:
                error = str(failure)
            except MemoryError:
                error = "there is not enough memory for this"
            except Exception as failure:  # a fault of ours must not end the session
                error = f"internal error ({type(failure).__name__}: {failure})"
            self._post(partial(self._end, job, result, error))

    def _end(self, job: Job, result: Any, error: str) -> None:
        self.job = self.waiting.pop(0) if self.waiting else None
        if self.job is not None:
            self._queue.put(self.job)
        if error:
            self._failed(f"{job.name}: {error}")
        else:
            job.done(result)


class Inline(Worker):
    """Does a job at once, in the caller's thread: for tests and screenshots."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self.job = None
        self.waiting = []
        self._failed = failed

    def submit(self, name: str, work: Work, done: Callable[[Any], None]) -> Job:
        """Do it now."""
        job = Job(name, work, done)
        try:
            result = work(job)
        except WorkbenchError as failure:
            self._failed(f"{name}: {failure}")
        else:
            done(result)
        return job

    def close(self, seconds: float = 0) -> bool:
        """There is nothing to stop."""
        return True

"""Short work beside the screen whose answer is mostly there before one would notice.

The screen's thread reads and decodes nothing itself: it asks, waits for a moment, and goes on
without the answer when that takes longer; the answer changes the screen when it comes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from workbench.tui.pace import waiting
from workbench.tui.worker import Post

T = TypeVar("T")
PATIENCE_S: Final = 0.012


class _Question:
    """What was asked, and the answer."""

    def __init__(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self._work = work
        self._then = then
        self._answer: Any = None
        self._error: Exception | None = None
        self._told = False
        self.done = threading.Event()

    def find(self) -> None:
        """Do the work."""
        try:
            self._answer = self._work()
        except Exception as error:  # belongs to who asked
            self._error = error
        self.done.set()

    def tell(self) -> None:
        """Hand the answer on, once; raises what the work has raised."""
        if self._told:
            return
        self._told = True
        if self._error is not None:
            raise self._error
        self._then(self._answer)


class Aside:
    """Answers at once, in the caller's thread: for tests and screenshots."""

    def key(self) -> None:
        """There is a key, for all of whose questions together the screen waits a moment."""

    def ask(self, work: Callable[[], T], then: Callable[[T], None]) -> bool:
        """Have something found out, and `then` told; True if that has happened by now."""
        then(work())
        return True

    def later(self, work: Callable[[], None]) -> None:
        """Do something that nobody waits for."""
        work()

    def close(self) -> None:
        """No more questions."""


class Helper(Aside):
    """A thread that answers one question after the other."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._patient_until = 0.0
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="aside", daemon=True).start()

    def key(self) -> None:
        """There is a key, for all of whose questions together the screen waits a moment."""
        self._patient_until = time.monotonic() + PATIENCE_S

    def ask(self, work: Callable[[], T], then: Callable[[T], None]) -> bool:
        """Have something found out; `then` is told in the screen's thread, now or when it comes."""
        question = self._put(work, then)
        left_s = self._patient_until - time.monotonic()
        if left_s > 0:
            with waiting():
                question.done.wait(left_s)
        if not question.done.is_set():
            return False
        question.tell()
        return True

    def later(self, work: Callable[[], None]) -> None:
        """Do something when nothing else is to be done."""
        self._put(work, lambda _: None)

    def _put(self, work: Callable[[], T], then: Callable[[T], None]) -> _Question:
        question = _Question(work, then)
        self._questions.put(question)
        return question

    def close(self) -> None:
        """End when what is being done is done."""
        self._questions.put(None)

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            question.find()
            self._post(question.tell)

"""A relay: turns in several processes, what is handed on, processes that die."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from workbench.errors import FormatError
from workbench.trace import relay

TURNS = 7


class Sum:
    """Each turn adds its number to what was handed on, and notes both."""

    turns = TURNS
    follows = True

    def __init__(self, trouble: str, first: int) -> None:
        self._trouble, self._first = trouble, first
        self.found: list[tuple[int, int, int]] = []
        self._turn = self._before = 0

    def prepare(self, turn: int) -> None:
        """Die or fail where the test wants it."""
        self._turn = turn
        if turn == 3 and self._trouble == "dies" and os.getpid() != self._first:
            os._exit(1)
        if turn == 3 and self._trouble == "fails":
            raise FormatError("turn 3 is damaged")

    def follow(self, handed: int | None) -> int:
        """Add up."""
        self._before = handed or 0
        return self._before + self._turn

    def finish(self) -> None:
        """Note."""
        self.found.append((self._turn, self._before, os.getpid()))

    def result(self) -> list[tuple[int, int, int]]:
        """All notes."""
        return self.found


@contextlib.contextmanager
def make(trouble: str, first: int) -> Iterator[Sum]:
    """What each process begins with."""
    yield Sum(trouble, first)


def _run(trouble: str, jobs: int) -> list[Any]:
    return relay.run(make, (trouble, os.getpid()), jobs)


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_what_is_handed_on_goes_from_turn_to_turn_whoever_has_it(jobs: int) -> None:
    results = _run("", jobs)
    assert len(results) == jobs
    notes = sorted(note for result in results for note in result)
    assert [note[:2] for note in notes] == [(n, sum(range(n))) for n in range(TURNS)]
    processes = [note[2] for note in notes]
    assert len(set(processes)) == jobs
    assert all(a == b for a, b in zip(processes, processes[jobs:], strict=False))


def test_the_work_of_a_process_that_dies_is_done_by_the_first() -> None:
    (result,) = _run("dies", 2)
    assert [note[:2] for note in result] == [(n, sum(range(n))) for n in range(TURNS)]


def test_an_error_in_another_process_is_raised_here() -> None:
    with pytest.raises(FormatError, match="turn 3 is damaged"):
        _run("fails", 2)

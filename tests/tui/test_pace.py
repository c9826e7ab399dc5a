"""Who goes first, and when garbage is looked for."""

from __future__ import annotations

import gc
import os
import selectors
import sys
from collections.abc import Iterator

import pytest

from workbench.tui.pace import Garbage, Selector, Turn, waiting


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def full() -> Iterator[list[int]]:
    """Notes each look at all objects."""
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            seen.append(1)

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


def _much() -> None:
    """Many rounds of young objects that stay."""
    kept = [[n] for n in range(300_000)]
    assert gc.get_count()[2] >= Garbage.ROUNDS, len(kept)


def test_old_objects_are_only_looked_through_in_pauses(full: list[int]) -> None:
    before = gc.get_threshold()
    clock = Clock()
    garbage = Garbage(clock)
    try:
        assert gc.get_freeze_count() > 0
        garbage.tick(False)  # what there is by now stays
        garbage.key()
        _much()
        clock.now += Garbage.QUIET_S / 2
        garbage.tick(False)
        assert not full
        clock.now += Garbage.QUIET_S
        garbage.tick(False)
        assert len(full) == 1
        garbage.tick(False)
        assert len(full) == 1, "there is nothing new to look for"
    finally:
        garbage.close()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_who_never_pauses_gets_it_in_the_end(
    full: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Garbage, "MOST_ROUNDS", Garbage.ROUNDS)
    garbage = Garbage(Clock())
    try:
        garbage.tick(True)
        _much()
        garbage.key()
        garbage.tick(True)
        assert len(full) == 1
    finally:
        garbage.close()


def test_the_screen_gets_on_at_once_after_waiting() -> None:
    before = sys.getswitchinterval()
    ours, other = os.pipe()
    try:
        with Selector() as selector:
            selector.register(ours, selectors.EVENT_READ)
            os.write(other, b"x")
            assert [key.fd for key, _ in selector.select(1)] == [ours]
            busy = sys.getswitchinterval()
            with waiting():
                assert sys.getswitchinterval() < busy / 10
            assert sys.getswitchinterval() == busy
    finally:
        sys.setswitchinterval(before)
        os.close(ours)
        os.close(other)


def test_work_waits_for_the_screen_but_not_for_ever() -> None:
    turn = Turn()
    turn.wait()
    turn.take()
    turn.wait()  # ends by itself
    turn.give()
    turn.wait()
